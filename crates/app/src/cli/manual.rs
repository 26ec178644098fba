//! The man pages and shell completions, from the command line's own description: they cannot say anything else.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

const COMPLETIONS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", "mimeo"),
    (Shell::Zsh, "zsh/vendor-completions", "_mimeo"),
    (Shell::Fish, "fish/vendor_completions.d", "mimeo.fish"),
];

pub(super) fn write(mut command: Command, directory: &Path) -> anyhow::Result<()> {
    let pages = directory.join("man/man1");
    make(&pages)?;
    let mut described = command.clone().disable_help_subcommand(true);
    described.build();
    describe(&described, &pages)?;
    for (shell, directories, name) in COMPLETIONS {
        let directory = directory.join(directories);
        make(&directory)?;
        let path = directory.join(name);
        let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        clap_complete::generate(shell, &mut command, "mimeo", &mut file);
    }
    Ok(())
}

/// A page for the command, and one for each below it.
fn describe(command: &Command, directory: &Path) -> anyhow::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        describe(below, directory)?;
    }
    let (man, mut page) = (Man::new(command.clone()), Vec::new());
    man.render(&mut page)?;
    let mut page = String::from_utf8(page)?.replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n");
    for option in command.get_opts().filter(|option| option.get_action().takes_values()) {
        let (Some(name), Some([value])) = (option.get_long(), option.get_value_names()) else { continue };
        let name = name.replace('-', r"\-");
        // In the synopsis, which has it without its value.
        page = page.replace(&format!(r"\-\-{name}\fR]"), &format!(r"\-\-{name}\fR \fI{value}\fR]"));
    }
    let path = directory.join(man.get_filename());
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn make(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn a_page_has_examples_and_options_with_their_values() {
        let directory = tempfile::tempdir().unwrap();
        write(Arguments::command(), directory.path()).unwrap();
        let page = |name: &str| fs::read_to_string(directory.path().join("man/man1").join(name)).unwrap();
        let status = page("mimeo-status.1");
        assert!(status.contains(".SH EXAMPLES\n  mimeo status\n") && !status.contains("EXTRA"), "{status}");
        for option in [r"[\fB\-\-state\fR \fISTATE\fR]", r"[\fB\-f\fR|\fB\-\-format\fR \fIFORMAT\fR]"] {
            assert!(status.contains(option), "{option}: {status}");
        }
        assert!(status.contains(r"[\fB\-\-history\fR]"), "{status}");
        assert!(page("mimeo-stores-rename.1").contains(".SH EXAMPLES\n"));
    }
}
