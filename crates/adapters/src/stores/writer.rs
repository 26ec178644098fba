//! A file that is written at other threads: while one part is written the next is gathered, without copying a byte.

use std::{
    fs::File,
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, spawn_blocking},
};

/// What is written at once: each write is handed to another thread, which costs more than a system call.
pub(super) const GATHERED: usize = 512 << 10;

/// So many pieces make a part, however small they are: what one system call takes.
const PIECES: usize = 1024;

/// Writes behind `position`, which is behind what was given, skipped or gathered.
pub(super) struct Writer {
    pub(super) file: Arc<File>,
    pub(super) position: u64,
    most: usize,
    gathered: Vec<Bytes>,
    length: usize,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// One for each call that may be under way at the same time.
    calls: Arc<Semaphore>,
}

impl Writer {
    pub(super) fn new(file: File, position: u64, most: usize, calls: Arc<Semaphore>) -> Self {
        Self { file: Arc::new(file), position, most, gathered: Vec::new(), length: 0, writing: None, calls }
    }

    pub(super) async fn write(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(self.most - self.length));
            self.length += part.len();
            self.position += part.len() as u64;
            self.gathered.push(part);
            if self.length == self.most || self.gathered.len() == PIECES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Has what was gathered written, behind what is being written.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.written().await?;
        if self.length == 0 {
            return Ok(());
        }
        // It is never refused: the semaphore is not closed.
        let leave = Arc::clone(&self.calls).acquire_owned().await;
        let offset = self.position - self.length as u64;
        let (file, pieces) = (Arc::clone(&self.file), std::mem::take(&mut self.gathered));
        self.length = 0;
        self.writing = Some(spawn_blocking(move || {
            let done = write_all(&file, &pieces, offset);
            drop(leave);
            done
        }));
        Ok(())
    }

    /// Waits for what is being written.
    pub(super) async fn written(&mut self) -> io::Result<()> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let written = writing.await;
        self.writing = None;
        written.map_err(io::Error::from)?
    }
}

fn write_all(file: &File, pieces: &[Bytes], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_what_was_given_where_it_belongs_however_it_came() {
        let mut file = tempfile::tempfile().unwrap();
        let bits: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        for (most, step) in [(1, 3), (1000, 7), (4096, 5000), (1 << 20, 10)] {
            let mut writer = Writer::new(file.try_clone().unwrap(), 0, most, Arc::new(Semaphore::new(1)));
            for piece in bits[..20_000].chunks(step) {
                writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            writer.flush().await.unwrap();
            writer.position += 10_000;
            writer.write(Bytes::copy_from_slice(&bits[30_000..])).await.unwrap();
            writer.flush().await.unwrap();
            writer.written().await.unwrap();
            let mut found = Vec::new();
            std::io::Seek::rewind(&mut file).unwrap();
            std::io::Read::read_to_end(&mut file, &mut found).unwrap();
            assert!(found == [&bits[..20_000], &[0; 10_000], &bits[30_000..]].concat(), "{most} {step}");
            file.set_len(0).unwrap();
        }
    }
}
