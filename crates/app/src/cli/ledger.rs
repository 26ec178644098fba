//! `mimeo ledger`: its backup, also beside a running `serve`, and the way back.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Outcome, examples::LEDGER_EXAMPLES, note, output};
use crate::{config::Config, wire};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Write the ledger as it is now to FILE, which is replaced; `serve` may run
    #[command(after_help = LEDGER_EXAMPLES)]
    Backup {
        /// Where to write it
        file: PathBuf,
    },
    /// Make the backup FILE the ledger; `serve` must be stopped
    #[command(after_help = LEDGER_EXAMPLES)]
    Restore {
        /// The backup; it is copied
        file: PathBuf,
    },
}

pub(super) async fn run(config: &Config, action: Action) -> Outcome {
    match action {
        Action::Backup { file } => backup(config, &file).await,
        Action::Restore { file } => restore(config, &file).await,
    }
}

async fn backup(config: &Config, file: &Path) -> Outcome {
    let images = wire::back_up(&config.ledger, file).await?;
    note(&format!("The ledger, with {}, is in {}.", output::images(images), file.display()));
    Ok(())
}

async fn restore(config: &Config, file: &Path) -> Outcome {
    let before = wire::restore(&config.ledger, file).await?;
    note(&format!("{} is the ledger now, {}.", file.display(), config.ledger.display()));
    if let Some(before) = before {
        note(&format!("The one before is {}.", before.display()));
    }
    note("Start `mimeo serve`: it finds what was made since, and what is gone.");
    Ok(())
}
