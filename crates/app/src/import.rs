//! `mimeo import-config`: Mimeo's configuration, as far as Glance's own tells it.
//!
//! It reads files and writes one; it connects to nothing. What only a human can know is left out of force, with a comment;
//! what was not understood is told on standard error.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod oslo;
mod page;
mod service;
mod stores;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Args;

use self::{
    oslo::Files,
    page::{Page, Values, quoted},
    stores::Store,
};
use crate::{
    cli::{Failure, Outcome, note, print},
    config::ConfigError,
};

const USUAL: &str = "/etc/glance/glance-api.conf";
/// Glance reads it first, if it is there.
const USUAL_BEFORE: &str = "/etc/glance/glance-image-import.conf";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Glance's configuration, in the order in which Glance reads it; of a directory, each *.conf [default:
    /// /etc/glance/glance-api.conf]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output file if it is there
    #[arg(long, requires = "output")]
    force: bool,
    /// Copy passwords and keys too, instead of naming variables that hold them
    #[arg(long)]
    secrets: bool,
}

/// The file to write.
struct Written {
    text: String,
    /// It holds a secret.
    secret: bool,
    /// What was not understood.
    notes: Vec<String>,
}

pub(crate) fn import(options: &Options) -> Outcome {
    let paths = match options.files.is_empty() {
        true => [USUAL_BEFORE, USUAL]
            .map(PathBuf::from)
            .into_iter()
            .filter(|path| path.exists() || path == Path::new(USUAL))
            .collect(),
        false => paths(&options.files)?,
    };
    let mut sources = Vec::new();
    for path in paths {
        match fs::read_to_string(&path) {
            Ok(text) => sources.push((path, text)),
            Err(source) => return Err(ConfigError::Unreadable { path, source }.into()),
        }
    }
    let written = convert(&sources, options.secrets)?;
    for line in &written.notes {
        note(line);
    }
    match &options.output {
        Some(path) => save(path, &written, options.force),
        None => print(&written.text),
    }
}

/// A directory stands for its *.conf, as with Glance's --config-dir.
fn paths(given: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for path in given {
        if !path.is_dir() {
            paths.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        let mut within: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        within.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        within.sort();
        if within.is_empty() {
            return Err(Failure::usage(format!("{}: has no *.conf in it", path.display())));
        }
        paths.extend(within);
    }
    Ok(paths)
}

/// Written beside it and moved into place, so that no half of it is ever there.
fn save(path: &Path, written: &Written, force: bool) -> Outcome {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: cannot be written: {error}", path.display()));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = if written.secret { 0o600 } else { 0o644 };
    let mut file = tempfile::Builder::new()
        .prefix(".mimeo-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(written.text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let moved = if force { file.persist(path) } else { file.persist_noclobber(path) };
    match moved {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::usage(format!("{}: is there already; replace it with --force", path.display())))
        }
        Err(error) => Err(failed(error.error)),
    }
}

/// `sources` in the order in which Glance reads them, each with its text.
fn convert(sources: &[(PathBuf, String)], secrets: bool) -> Outcome<Written> {
    let mut files = Files::default();
    for (path, text) in sources {
        let refused = |oslo::Malformed { line, rule }| Failure::usage(format!("{}:{line}: {rule}", path.display()));
        files.add(text).map_err(refused)?;
    }
    let directory = sources.last().and_then(|(path, _)| path.parent()).unwrap_or(Path::new(""));
    let mut values = Values::new(secrets);
    let stores = stores::sections(&files, directory, &mut values);
    let needs = service::needs(&files, &stores);
    let (events, openstack) = (service::events(&files, &mut values), service::openstack(&files));

    let names: Vec<String> = sources.iter().map(|(path, _)| path.display().to_string()).collect();
    let mut page = head(&names.join(", "), &values, &needs);
    page.line("");
    enabled(&mut page, &stores);
    for section in stores.into_iter().map(|store| store.page).chain([openstack, events]) {
        page.line("");
        page.append(section);
    }
    Ok(Written { text: page.text(), secret: values.secret, notes: files.into_notes() })
}

fn head(names: &str, values: &Values, needs: &[String]) -> Page {
    let mut page = Page::default();
    page.comment(&format!("From {names}, by `mimeo import-config`. Try it with `mimeo check`."));
    if !values.variables.is_empty() {
        page.line("#");
        page.comment("Set these variables for serve and for all commands, or write file:PATH instead:");
        for (name, holds) in &values.variables {
            page.item(&format!("{name}: {holds}"));
        }
    }
    if !needs.is_empty() {
        page.line("#");
        page.comment("What is to be done at Glance:");
        for need in needs {
            page.item(need);
        }
    }
    page
}

fn enabled(page: &mut Page, stores: &[Store]) {
    page.comment("Every image goes to each of these stores, unless [[rules]] say otherwise.");
    if stores.iter().all(|store| store.lacks.is_none()) {
        let names: Vec<String> = stores.iter().map(|store| quoted(&store.name)).collect();
        page.line(format!("enabled_stores = [{}]", names.join(", ")));
    } else {
        page.line("enabled_stores = [");
        for store in stores {
            page.line(match store.lacks {
                None => format!("    {},", quoted(&store.name)),
                Some(lacks) => format!("    # {},  {lacks}", quoted(&store.name)),
            });
        }
        page.line("]");
    }
    page.comment("For a first look, only plan and report:");
    page.proposal("observe = true");
}
