//! One object into a store, and back: for `bench/run clients`, which measures its process as it measures those of other
//! clients.
//!
//! - `rate write FILE TYPE …` writes the file and closes the object. What each type is given is said in
//!   `conformance/stores.rs`.
//! - `rate take FILE TYPE …` has the store take the file, which lies in a directory as a `file` store would keep it.
//! - `rate prove DIGEST TYPE …` reads the object back, and ends with a panic if it has another BLAKE3 digest.
#![allow(clippy::unwrap_used, reason = "a panic is how it fails")]

#[path = "conformance/stores.rs"]
mod stores;

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    io::Read,
    path::Path,
    sync::atomic::AtomicU64,
};

use bytes::Bytes;
use futures::StreamExt;
use mimeo_core::{
    ObjectName,
    ports::{Offer, Store},
};
use tokio::{sync::mpsc, task::spawn_blocking};
use url::Url;

/// As large as what the engine hands to a store; and so many are read ahead.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 16;
/// As in `mimeo`'s own `main`: what glibc keeps at hand.
const KEPT_BLOCK: usize = 16 << 20;

#[tokio::main]
async fn main() {
    drop(black_box(Vec::<u8>::with_capacity(KEPT_BLOCK)));
    let arguments: Vec<String> = env::args().skip(1).collect();
    let object: ObjectName = "00000000-0000-4000-8000-00000000be4c.1".parse().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", file, kind, ref options @ ..] => write(file, store(kind, options).as_ref(), &object).await,
        ["take", file, kind, ref options @ ..] => take(Path::new(file), store(kind, options).as_ref(), &object).await,
        ["prove", digest, kind, ref options @ ..] => prove(digest, store(kind, options).as_ref(), &object).await,
        _ => panic!("usage: rate write FILE TYPE … | rate take FILE TYPE … | rate prove DIGEST TYPE …"),
    }
}

/// As it comes: the others of the suite have small parts.
fn store(kind: &str, options: &[&str]) -> Box<dyn Store> {
    stores::of(kind, options).remove(0)
}

async fn write(path: &str, store: &dyn Store, object: &ObjectName) {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let reading = spawn_blocking(move || read(file, &sender));
    let mut sink = store.open(object, Some(size)).await.unwrap();
    while let Some(piece) = pieces.recv().await {
        sink.write(piece).await.unwrap();
    }
    reading.await.unwrap();
    sink.close().await.unwrap();
}

fn read(mut file: File, pieces: &mpsc::Sender<Bytes>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        if file.by_ref().take(PIECE as u64).read_to_end(&mut piece).unwrap() == 0 {
            return;
        }
        pieces.blocking_send(piece.into()).unwrap();
    }
}

async fn take(file: &Path, store: &dyn Store, object: &ObjectName) {
    let directory = Url::from_directory_path(file.parent().unwrap()).unwrap();
    let given = file.file_name().unwrap().to_str().unwrap().to_owned();
    let size = fs::metadata(file).unwrap().len();
    let offer = Offer { area: directory.into(), object: given.try_into().unwrap(), size, like: None };
    store.take(object, &offer, &AtomicU64::new(0)).await.unwrap();
}

async fn prove(digest: &str, store: &dyn Store, object: &ObjectName) {
    let mut hasher = blake3::Hasher::new();
    let mut bits = store.read(object, 0).await.unwrap();
    while let Some(chunk) = bits.next().await {
        hasher.update(&chunk.unwrap());
    }
    assert_eq!(hasher.finalize().to_hex().as_str(), digest, "the object reads back with other bytes");
}
