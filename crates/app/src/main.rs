//! The `mimeo` binary: configuration, command line, API, and the one place that puts engine and adapters together.

mod api;
mod check;
mod cli;
mod config;
mod demo;
mod gateway;
mod import;
mod lifetime;
mod limits;
mod logging;
mod reload;
mod sample;
mod wire;

use std::process::ExitCode;

use clap::Parser;

/// Larger than any chunk of an image.
const KEPT_BLOCK: usize = 16 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    // glibc learns from the largest block that was ever freed how much free memory to keep at hand. Without this it gives
    // memory back to the kernel and fetches it again for every few chunks.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BLOCK)));
    cli::run(cli::Arguments::parse()).await
}
