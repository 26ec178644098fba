//! The command line: what can be asked for, and with which exit code it ends (docs/commands.md).
//!
//! 0 done, 1 failed, 2 usage or configuration, 3 not (yet) in the wanted state. Results go to standard output, all
//! else to standard error.

mod client;
mod drain;
mod events;
mod examples;
mod failure;
mod gc;
mod images;
mod ledger;
mod manual;
mod output;
mod pinned;
mod plan;
mod replicate;
mod rules;
mod serve;
mod stores;
mod table;
mod verify;
mod watch;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand};
use mimeo_core::{StoreName, Timestamp};

pub(crate) use self::{
    client::{Client, the_one},
    failure::{Failure, Outcome},
    output::{note, print, visible},
    table::{Field, Format, Listing, Record, Style},
    watch::until_registered,
};
use crate::{
    check,
    config::{Config, units},
    demo, import,
};

use self::examples::{
    CHECK_EXAMPLES, DEMO_EXAMPLES, DRAIN_EXAMPLES, EVENTS_EXAMPLES, GC_EXAMPLES, IMPORT_EXAMPLES, LEDGER_EXAMPLES,
    MANUAL_EXAMPLES, PLAN_EXAMPLES, REPLICATE_EXAMPLES, RULES_EXAMPLES, SERVE_EXAMPLES, STATUS_EXAMPLES,
    STORES_EXAMPLES, VERIFY_EXAMPLES,
};

const CONFIG_HELP: &str = "The configuration file [default: $MIMEO_CONFIG, ./mimeo.toml, /etc/mimeo/mimeo.toml]";

#[derive(Debug, Parser)]
#[command(version, about = "Keeps every OpenStack image in every place that its rules ask for", max_term_width = 100)]
pub(crate) struct Arguments {
    #[arg(long, global = true, value_name = "FILE", help = CONFIG_HELP)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replicate: listen, scan, copy, prove, register, until stopped
    #[command(after_help = SERVE_EXAMPLES)]
    Serve {
        /// Only plan and report: write to no store and no image
        #[arg(long)]
        observe: bool,
    },
    /// Show one image's replicas; or how everything stands, and the images
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// A name or an id
        image: Option<String>,
        /// What became of the image and its copies, line by line; by its id also of one that is gone
        #[arg(long, requires = "image")]
        history: bool,
        #[command(flatten)]
        which: images::Which,
        #[command(flatten)]
        style: StyleArguments,
    },
    /// Show what became of images and copies lately, and follow what happens
    #[command(after_help = EVENTS_EXAMPLES)]
    Events {
        /// Go on as it happens
        #[arg(short, long)]
        follow: bool,
        /// A JSON object in each line
        #[arg(long)]
        json: bool,
        /// Begin with so many of the latest
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Show the rules and how many images match each, or what another rule would do
    #[command(after_help = RULES_EXAMPLES)]
    Rules {
        /// A CEL expression over `image`: which images would it match, and where would they go? Writes nothing
        #[arg(long = "try", value_name = "WHEN")]
        when: Option<String>,
        /// With --try: one of its stores, may be given several times [default: every enabled store]
        #[arg(long = "store", value_name = "STORE", requires = "when")]
        stores: Vec<StoreName>,
        /// With --try: any so many of its stores [default: all of them]
        #[arg(long, value_name = "K", requires = "when")]
        copies: Option<usize>,
        #[command(flatten)]
        style: StyleArguments,
    },
    /// Look at an image now, and try again what failed
    #[command(after_help = REPLICATE_EXAMPLES)]
    Replicate {
        /// A name or an id
        image: String,
        /// Wait until every wanted replica is registered
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this, as in 90s or 10m (plain numbers are seconds); then exit with 3
        #[arg(long, requires = "wait", value_parser = timeout)]
        timeout: Option<Duration>,
    },
    /// Read all copies of an image again, now: what is bad is withdrawn and made anew
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// A name or an id
        image: String,
        /// Wait until every wanted replica is registered with a new proof
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this, as in 90s or 10m (plain numbers are seconds); then exit with 3
        #[arg(long, requires = "wait", value_parser = timeout)]
        timeout: Option<Duration>,
    },
    /// Show what would be done; works without a running `serve`
    #[command(after_help = PLAN_EXAMPLES)]
    Plan {
        /// A name or an id [default: every image]
        image: Option<String>,
        #[command(flatten)]
        style: StyleArguments,
    },
    /// Try everything end to end with a tiny image, and name the cure of each fault; works without `serve`
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        #[command(flatten)]
        style: StyleArguments,
    },
    /// Show the stores, or tell Mimeo that one was renamed or moved
    #[command(args_conflicts_with_subcommands = true, after_help = STORES_EXAMPLES)]
    Stores {
        #[command(subcommand)]
        change: Option<StoreChange>,
        #[command(flatten)]
        style: StyleArguments,
    },
    /// Empty a store: its copies go once others are registered, and it takes no new ones
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain {
        /// The store, as the configuration names it
        store: StoreName,
        /// Wait until the store is empty
        #[arg(long, conflicts_with = "cancel")]
        wait: bool,
        /// Wait no longer than this, as in 90s or 10m (plain numbers are seconds); then exit with 3
        #[arg(long, requires = "wait", value_parser = timeout)]
        timeout: Option<Duration>,
        /// Stop: copies whose removal has not begun stay, and the store takes copies again
        #[arg(long)]
        cancel: bool,
        #[command(flatten)]
        style: StyleArguments,
    },
    /// Show which copies wait for their removal: of deleted images, or unwanted
    #[command(after_help = GC_EXAMPLES)]
    Gc {
        /// Let the removals go through that the guard holds, each when its time has come
        #[arg(long)]
        confirm: bool,
        /// Only those of the list that was made at this time, as `mimeo gc` told
        #[arg(long, requires = "confirm", value_name = "TIME")]
        seen: Option<Timestamp>,
        #[command(flatten)]
        style: StyleArguments,
    },
    /// Back the ledger up, or put a backup back
    #[command(after_help = LEDGER_EXAMPLES)]
    Ledger {
        #[command(subcommand)]
        action: ledger::Action,
    },
    /// Write a configuration from Glance's own
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportConfig(import::Options),
    /// Show Mimeo at work, with an image service and three stores of its own; needs no file and no cloud
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(demo::Options),
    /// Write the man pages and shell completions into a directory, laid out as below /usr/share
    #[command(after_help = MANUAL_EXAMPLES)]
    Manual {
        /// Where to write them, `/usr/share` for one; what is missing below it is made
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum StoreChange {
    /// What the ledger has under a name that is no longer enabled belongs to an enabled store
    #[command(after_help = STORES_EXAMPLES)]
    Rename {
        /// The name that it had
        from: StoreName,
        /// The name that it has in the configuration now
        to: StoreName,
    },
    /// A store's files were brought to the URL that it has now: prove and register its copies there
    #[command(after_help = STORES_EXAMPLES)]
    Move {
        /// The store, as the configuration names it
        store: StoreName,
    },
}

/// As openstackclient takes them.
#[derive(Debug, Args)]
struct StyleArguments {
    /// How to show the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Show only this column; may be given several times
    #[arg(short, long = "column", value_name = "COLUMN")]
    columns: Vec<String>,
}

impl From<StyleArguments> for Style {
    fn from(StyleArguments { format, columns }: StyleArguments) -> Self {
        Self { format, columns }
    }
}

/// Does what was asked for, and tells why not.
pub(crate) async fn run(arguments: Arguments) -> ExitCode {
    match dispatch(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                note(&failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

async fn dispatch(Arguments { config, command }: Arguments) -> Outcome {
    let locate = || Config::locate(config.as_deref());
    let load = || Ok::<_, Failure>(Config::load(&locate()?)?);
    let connect = || load().and_then(|config| Client::new(&config.api));
    match command {
        Command::Serve { observe } => serve::serve(&locate()?, observe).await,
        Command::Status { image: Some(image), history: true, style, .. } => {
            images::history(&connect()?, &image, &style.into()).await
        }
        Command::Status { image: Some(image), style, .. } => images::show(&connect()?, &image, &style.into()).await,
        Command::Status { image: None, which, style, .. } => images::list(&connect()?, &which, &style.into()).await,
        Command::Events { follow, json, limit } => {
            events::events(&connect()?, events::How { follow, json, limit: limit.into() }).await
        }
        Command::Rules { when: None, style, .. } => rules::list(&connect()?, &style.into()).await,
        Command::Rules { when: Some(when), stores, copies, style } => {
            rules::try_rule(&connect()?, &when, &stores, copies, &style.into()).await
        }
        Command::Replicate { image, wait, timeout } => {
            let wait = wait.then_some(watch::Wait { timeout });
            replicate::replicate(&connect()?, &image, wait).await
        }
        Command::Verify { image, wait, timeout } => {
            let wait = wait.then_some(watch::Wait { timeout });
            verify::verify(&connect()?, &image, wait).await
        }
        Command::Plan { image, style } => plan::plan(load()?, image.as_deref(), &style.into()).await,
        Command::Check { style } => check::check(load()?, &style.into()).await,
        Command::Stores { change: None, style } => stores::list(&connect()?, &style.into()).await,
        Command::Stores { change: Some(StoreChange::Rename { from, to }), .. } => {
            stores::rename(&connect()?, &from, &to).await
        }
        Command::Stores { change: Some(StoreChange::Move { store }), .. } => stores::move_to(&connect()?, &store).await,
        Command::Drain { store, cancel: true, .. } => drain::cancel(&connect()?, &store).await,
        Command::Drain { store, wait, timeout, style, .. } => {
            let wait = wait.then_some(drain::Wait { timeout });
            drain::drain(&connect()?, &store, wait, &style.into()).await
        }
        Command::Gc { confirm: true, seen, .. } => gc::confirm(&connect()?, seen).await,
        Command::Gc { confirm: false, style, .. } => gc::list(&connect()?, &style.into()).await,
        Command::Ledger { action } => ledger::run(&load()?, action).await,
        Command::ImportConfig(options) => import::import(&options),
        Command::Demo(options) => demo::demo(options).await,
        Command::Manual { directory } => Ok(manual::write(Arguments::command(), &directory)?),
    }
}

/// A duration with units, or a plain number of seconds.
fn timeout(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).or_else(|_| units::duration(text))
}

#[cfg(test)]
mod tests {
    use mimeo_core::{ImageState, ReplicaState};

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn each_command_has_examples_and_each_is_one_that_it_takes() {
        for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(help.starts_with("Examples:\n") && !examples.is_empty(), "{name}");
            for example in examples {
                let line = example.split("  #").next().unwrap_or_default().trim();
                let words: Vec<String> = words(line);
                assert_eq!(words.get(1).map(String::as_str), Some(name), "{line}");
                Arguments::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn each_argument_is_described() {
        fn undescribed(command: &clap::Command) -> Vec<String> {
            let own = command.get_arguments().filter(|it| it.get_help().is_none());
            let own = own.map(|it| format!("{} {}", command.get_name(), it.get_id()));
            own.chain(command.get_subcommands().flat_map(undescribed)).collect()
        }
        assert_eq!(undescribed(&Arguments::command()), Vec::<String>::new());
    }

    /// As a shell would, but for what these examples do not have.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('\'').enumerate();
        parts
            .flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn a_timeout_is_a_duration_or_plain_seconds() {
        assert_eq!(timeout("90"), Ok(Duration::from_secs(90)));
        assert_eq!(timeout("2m"), Ok(Duration::from_mins(2)));
        assert!(timeout("soon").is_err());
    }

    #[test]
    fn the_shell_offers_states_and_each_is_one() {
        let command = Arguments::command();
        let status = command.find_subcommand("status").unwrap();
        let of_images = ImageState::ALL.map(|state| state.to_string()).to_vec();
        // Of what is gone nothing is kept.
        let of_replicas = ReplicaState::ALL.into_iter().filter(|state| *state != ReplicaState::Gone);
        let of_replicas = of_replicas.map(|state| state.to_string()).collect();
        for (option, states) in [("state", of_images), ("replica", of_replicas)] {
            let [argument] = status.get_arguments().filter(|it| it.get_id() == option).collect::<Vec<_>>()[..] else {
                panic!("{option}")
            };
            let values = argument.get_possible_values();
            assert_eq!(values.iter().map(clap::builder::PossibleValue::get_name).collect::<Vec<_>>(), states);
            let parsed = |value: &str| Arguments::try_parse_from(["mimeo", "status", &format!("--{option}"), value]);
            for value in values {
                assert!(parsed(value.get_name()).is_ok(), "{value:?}");
            }
            let refused = parsed("faild").unwrap_err().to_string();
            assert!(refused.contains("possible values: ") && refused.contains("'failed'"), "{refused}");
        }
        for wrong in ["0", "-1", "many"] {
            let refused = Arguments::try_parse_from(["mimeo", "status", &format!("--limit={wrong}")]).unwrap_err();
            assert!(refused.to_string().contains("1 or more"), "{refused}");
        }
    }

    #[test]
    fn wrong_usage_ends_with_two() {
        for wrong in [
            &["mimeo", "drain"][..],
            &["mimeo", "drain", "http1", "--wait", "--cancel"],
            &["mimeo", "stores", "rename", "http1"],
            &["mimeo", "stores", "move", "no name"],
            &["mimeo", "demo", "--size", "0"],
        ] {
            assert_eq!(Arguments::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        for wrong in [&["mimeo"][..], &["mimeo", "replicate"], &["mimeo", "replicate", "x", "--timeout", "5"]] {
            assert_eq!(Arguments::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
