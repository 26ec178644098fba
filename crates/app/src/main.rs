//! The `mimeo` binary: configuration, command line, API, and the one place that puts engine and adapters together.

mod api;
mod check;
mod cli;
mod config;
mod demo;
mod lifetime;
mod limits;
mod logging;
mod reload;
mod sample;
mod wire;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::Arguments::parse()).await
}
