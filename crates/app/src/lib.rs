//! What the `mimeo` binary is: configuration, command line, API, and the one place that puts engine and adapters
//! together. A library only so that what parses here can be fuzzed.

mod api;
mod check;
mod cli;
mod config;
mod demo;
mod follow;
mod gateway;
mod import;
mod lifetime;
mod limits;
mod listener;
mod logging;
mod reload;
mod sample;
mod service_manager;
mod tls;
mod traces;
mod ui;
mod webhooks;
mod wire;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use self::{config::fuzzing::config, import::fuzzing::import, limits::fuzzing::limits};

use std::process::ExitCode;

use clap::Parser;

/// The command that the process was started with.
pub async fn run() -> ExitCode {
    cli::run(cli::Arguments::parse()).await
}
