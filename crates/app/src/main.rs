//! The `mimeo` binary; all of it is in the library beside it.

use std::process::ExitCode;

/// Larger than any chunk of an image.
const KEPT_BLOCK: usize = 16 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    // glibc learns from the largest block that was ever freed how much free memory to keep at hand. Without this it gives
    // memory back to the kernel and fetches it again for every few chunks.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BLOCK)));
    mimeo::run().await
}
