//! Diagnostics: to standard error, as text for people or as JSON, by `MIMEO_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::config::LogFormat;

const VARIABLE: &str = "MIMEO_LOG";

/// Always: the SDK tells of each request as if it were news, and at their most talkative both show what is sent at a
/// login. What the broker's client meets is told by who uses it.
const QUIETER: &str = "openstack_sdk=warn,openstack_sdk_core=warn,openstack_sdk_auth_core=warn,lapin=off";

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
