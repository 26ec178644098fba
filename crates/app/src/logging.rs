//! Diagnostics: to standard error, as text for people or as JSON, by `MIMEO_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::config::LogFormat;

const VARIABLE: &str = "MIMEO_LOG";

/// Always: what the SDK and the broker's client meet is told by who uses them, once; and at their most talkative both show
/// what is sent at a login.
const QUIETER: &str = "openstack_sdk=off,openstack_sdk_core=off,openstack_sdk_auth_core=off,lapin=off";

/// Sets the process's logger. Calling it again changes nothing.
pub(crate) fn start(format: LogFormat, default: LevelFilter) {
    let wanted = std::env::var(VARIABLE).ok().filter(|wanted| !wanted.is_empty());
    let filter = format!("{},{QUIETER}", wanted.unwrap_or_else(|| default.to_string()));
    let filter = EnvFilter::builder().parse_lossy(filter);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colored = std::io::stderr().is_terminal() && !no_color;
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colored);
    // The error says only that there is a logger already.
    let _ = match format {
        LogFormat::Human => logger.try_init(),
        LogFormat::Json => logger.json().flatten_event(true).try_init(),
    };
}
