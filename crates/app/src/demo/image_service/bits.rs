//! The files in which uploaded bits are kept: Glance's own store, one file per image.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use axum::body::{Body, Bytes};
use futures::StreamExt;
use md5::Md5;
use serde_json::Map;
use sha2::{Digest, Sha512};
use tokio::{
    fs::{self, File},
    sync::mpsc,
};

use super::{
    fault::Fault,
    image::{HASH_ALGORITHM, Hash, Location},
};

/// The name of the store in which uploads end.
pub(super) const OWN_STORE: &str = "demo";

const SCHEME: &str = "file://";

/// How many pieces of an upload may wait to be hashed and written.
const WINDOW: usize = 8;

pub(super) struct Bits {
    directory: PathBuf,
}

/// What was learnt of the bits while they passed.
pub(super) struct Receipt {
    pub size: u64,
    /// MD5, in hexadecimal.
    pub checksum: String,
    pub hash: Hash,
    pub location: Location,
}

/// The bits of an upload whose image is not active yet. Dropped without [`Pending::keep`], they are removed.
pub(super) struct Pending {
    path: PathBuf,
    kept: bool,
}

impl Bits {
    pub(super) async fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory).await?;
        Ok(Self { directory: fs::canonicalize(directory).await? })
    }

    /// Writes an upload to the image's file, hashing it as it comes. Only one upload per image may be under way.
    ///
    /// A body that breaks off is an error.
    pub(super) async fn receive(&self, id: &str, body: Body) -> Result<(Pending, Receipt), Fault> {
        let path = self.path(id);
        let file = File::create(&path).await?.into_std().await;
        let pending = Pending { path, kept: false };
        let (pieces, waiting) = mpsc::channel(WINDOW);
        // The disk and two hashes would hold up every other request here.
        let writer = tokio::task::spawn_blocking(move || write(file, waiting));
        let mut body = body.into_data_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| Fault::bad_request(format!("The upload broke off: {error}")))?;
            if pieces.send(piece).await.is_err() {
                break; // The writer has failed and says why below.
            }
        }
        drop(pieces);
        let written = writer.await.map_err(io::Error::other)??;
        let receipt = written.receipt(&pending.path);
        Ok((pending, receipt))
    }

    /// The image's file and its size; `None` when it is not there (any more).
    pub(super) async fn read(&self, id: &str) -> io::Result<Option<(File, u64)>> {
        match File::open(self.path(id)).await {
            Ok(file) => {
                let size = file.metadata().await?.len();
                Ok(Some((file, size)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the image's file, if there is one.
    pub(super) async fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }
}

/// Whether the location is in this service's own store.
pub(super) fn is_own(location: &Location) -> bool {
    location.url.starts_with(SCHEME)
}

impl Pending {
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the rest of an upload stays behind");
        }
    }
}

struct Written {
    size: u64,
    md5: Md5,
    sha512: Sha512,
}

impl Written {
    fn receipt(self, path: &Path) -> Receipt {
        let url = format!("{SCHEME}{}", path.display());
        let metadata = Map::from_iter([("store".to_owned(), OWN_STORE.into())]);
        Receipt {
            size: self.size,
            checksum: format!("{:x}", self.md5.finalize()),
            hash: Hash { algorithm: HASH_ALGORITHM.to_owned(), value: format!("{:x}", self.sha512.finalize()) },
            location: Location { url, metadata },
        }
    }
}

fn write(mut file: std::fs::File, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Written> {
    let mut written = Written { size: 0, md5: Md5::new(), sha512: Sha512::new() };
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all(&piece)?;
        written.md5.update(&piece);
        written.sha512.update(&piece);
        written.size += piece.len() as u64;
    }
    Ok(written)
}
