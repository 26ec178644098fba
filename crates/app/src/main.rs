//! The `mimeo` binary; all of it is in the library beside it.

use std::{io, process::ExitCode};

use tokio::runtime::Builder;

/// Larger than any chunk of an image.
const KEPT_BLOCK: usize = 2 << 20;

/// An expression of a rule is answered on the stack: without optimisation, as in `cargo run`, each level takes much.
const STACK: usize = 16 << 20;

fn main() -> io::Result<ExitCode> {
    // glibc learns from the largest block that was ever freed how much free memory to keep at hand: twice as much, for each
    // of some threads. Without this it gives memory back to the kernel and fetches it again for every few chunks.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BLOCK)));
    let runtime = Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build()?;
    Ok(runtime.block_on(mimeo::run()))
}
