//! The man pages and shell completions, from the command line's own description: they cannot say anything else.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

const COMPLETIONS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", "mimeo"),
    (Shell::Zsh, "zsh/vendor-completions", "_mimeo"),
    (Shell::Fish, "fish/vendor_completions.d", "mimeo.fish"),
];

pub(super) fn write(mut command: Command, directory: &Path) -> anyhow::Result<()> {
    let pages = directory.join("man/man1");
    make(&pages)?;
    clap_mangen::generate_to(command.clone(), &pages)
        .with_context(|| format!("cannot write to {}", pages.display()))?;
    for (shell, directories, name) in COMPLETIONS {
        let directory = directory.join(directories);
        make(&directory)?;
        let path = directory.join(name);
        let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        clap_complete::generate(shell, &mut command, "mimeo", &mut file);
    }
    Ok(())
}

fn make(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}
