//! The rsync program, run for one request.

use std::{
    env,
    ffi::OsString,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
};

use mimeo_core::{Error, Reason, Result};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::{RsyncStoreConfig, RsyncTarget};
use crate::{http::CONNECT_TIMEOUT, stores::ssh::keyscan_cure};

/// What is kept of the program's last words.
const WORDS: usize = 1000;

/// Runs rsync with these arguments, and the target, or what is called so there, behind them. It counts in `sent` as it
/// tells of its progress. What it says is returned. Dropping it ends the program.
pub(super) async fn run(
    config: &RsyncStoreConfig,
    arguments: &[OsString],
    name: &str,
    sent: &AtomicU64,
) -> Result<String> {
    let mut command = Command::new("rsync");
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for kept in ["PATH", "HOME", "SSH_AUTH_SOCK"] {
        command.envs(env::var_os(kept).map(|value| (kept, value)));
    }
    match &config.target {
        RsyncTarget::Ssh { .. } => {
            command.arg("-e").arg(shell(config));
        }
        RsyncTarget::Daemon { .. } => {
            command.arg(format!("--contimeout={}", CONNECT_TIMEOUT.as_secs()));
            // Never as an argument, which every user of the machine can read.
            command.envs(config.password.as_ref().map(|password| ("RSYNC_PASSWORD", password.expose_secret())));
        }
    }
    command.args(arguments).arg(format!("{}{name}", config.target)).kill_on_drop(true);
    let store = &config.name;
    let mut child = command.spawn().map_err(|cause| {
        Error::new(Reason::StoreError, format!("{store}: rsync cannot be started; install it")).caused_by(cause)
    })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (said, complaint, status) = tokio::join!(words(out, Some(sent)), words(err, None), child.wait());
    let status =
        status.map_err(|cause| Error::new(Reason::StoreError, format!("{store}: rsync was lost")).caused_by(cause))?;
    match status.success() {
        true => Ok(said),
        false => Err(failed(config, status.code(), &complaint)),
    }
}

/// All that comes, of which the end is kept.
async fn words(stream: Option<impl AsyncRead + Unpin>, sent: Option<&AtomicU64>) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    let Some(mut stream) = stream else { return String::new() };
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..length]);
        said.drain(..said.len().saturating_sub(WORDS));
        if let Some((sent, bytes)) = sent.zip(progress(&said)) {
            sent.fetch_max(bytes, Ordering::Relaxed);
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The bytes in the last complete line of `--info=progress2`, as in `\r  32768  10%  1.00MB/s  0:00:00`.
pub(super) fn progress(said: &[u8]) -> Option<u64> {
    let said = String::from_utf8_lossy(said);
    let line = said.rsplit(['\r', '\n']).find(|line| line.contains('%'))?;
    let mut words = line.split_ascii_whitespace();
    let bytes = words.next()?.parse().ok();
    bytes.filter(|_| words.next().is_some_and(|part| part.ends_with('%')))
}

/// The command that rsync is to reach the server with. rsync takes it apart at spaces outside quotes.
fn shell(config: &RsyncStoreConfig) -> String {
    let mut words = vec!["ssh".to_owned()];
    let mut option = |text: String| words.extend(["-o".to_owned(), text]);
    for fixed in ["BatchMode=yes", "StrictHostKeyChecking=yes", "ServerAliveInterval=10", "ServerAliveCountMax=3"] {
        option(fixed.to_owned());
    }
    option(format!("ConnectTimeout={}", CONNECT_TIMEOUT.as_secs()));
    if let Some(file) = &config.known_hosts {
        option(format!("UserKnownHostsFile={}", for_ssh(file)));
    }
    if let Some(file) = &config.key_file {
        option(format!("IdentityFile={}", for_ssh(file)));
        option("IdentitiesOnly=yes".to_owned());
    }
    if let Some(port) = config.port {
        option(format!("Port={port}"));
    }
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', "''")));
    quoted.collect::<Vec<_>>().join(" ")
}

/// A path as ssh's options take it: they are split at spaces, and `%` begins a variable.
fn for_ssh(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

/// As ssh says it. In parentheses are the ways to log in that the server has.
const LOGIN_REFUSED: [&str; 6] = [
    "Permission denied (publickey",
    "Permission denied (password",
    "Permission denied (keyboard-interactive",
    "Permission denied (gssapi",
    "Permission denied (hostbased",
    "Too many authentication failures",
];

/// How a line of ssh's begins that says that the server was not reached, or lost.
const CUT_OFF: [&str; 11] = [
    "ssh: ",
    "ssh_exchange_identification: ",
    "ssh_dispatch_run_fatal: ",
    "kex_exchange_identification: ",
    "Read from remote host ",
    "client_loop: ",
    "Connection closed by ",
    "Connection reset by ",
    "Connection timed out ",
    "Connection to ",
    "Timeout, server ",
];

/// The program ended with another code than 0.
pub(super) fn failed(config: &RsyncStoreConfig, code: Option<i32>, complaint: &str) -> Error {
    let has = |parts: &[&str]| parts.iter().any(|part| complaint.contains(part));
    let (reason, cure) = match code {
        _ if has(&["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"]) => {
            let default = Path::new("~/.ssh/known_hosts");
            let file = config.known_hosts.as_deref().unwrap_or(default);
            let host = config.target.host();
            let cure = keyscan_cure(host.trim_matches(['[', ']']), config.port, file);
            (Reason::StoreRefused, format!("; the server's key is not known, or another: {cure}"))
        }
        _ if has(&["No space left on device", "Disk quota exceeded", "File too large"]) => {
            (Reason::StoreFull, "; make room there".to_owned())
        }
        _ if has(&["auth failed"]) => (Reason::StoreRefused, "; correct the user in target, and password".to_owned()),
        _ if has(&["Failed to exec"]) => (Reason::StoreError, "; install ssh beside mimeo".to_owned()),
        // What ssh says counts, and not the code: rsync ends with its own where it notices first that the pipe is closed.
        _ if has(&LOGIN_REFUSED) => {
            (Reason::StoreRefused, "; add the key of key_file to the user's authorized_keys there".to_owned())
        }
        _ if complaint.lines().any(|line| CUT_OFF.iter().any(|start| line.starts_with(start))) => {
            (Reason::StoreUnreachable, String::new())
        }
        _ if has(&["Permission denied", "Operation not permitted", "read only", "Read-only file system"]) => {
            (Reason::StoreRefused, "; let the user write in the directory, and delete".to_owned())
        }
        _ if has(&["Unknown module", "access denied", "configured to refuse"]) => {
            (Reason::StoreRefused, "; correct the module in target, or allow this in rsyncd.conf".to_owned())
        }
        Some(10 | 30 | 35 | 255) => (Reason::StoreUnreachable, String::new()),
        _ if has(&["command not found", "rsync: not found"]) => {
            (Reason::StoreError, "; install rsync at the server".to_owned())
        }
        _ if has(&["No such file or directory"]) => {
            (Reason::StoreError, "; make the directory of target at the server, or mount it".to_owned())
        }
        _ => (Reason::StoreError, String::new()),
    };
    let end = code.map_or("was killed".to_owned(), |code| format!("ended with {code}"));
    let lines: Vec<&str> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines[lines.len().saturating_sub(4)..].join(" / ");
    let said = match &config.password {
        Some(password) if !password.expose_secret().is_empty() => said.replace(password.expose_secret(), "***"),
        _ => said,
    };
    Error::new(reason, format!("{}: rsync to {} {end}: \"{said}\"{cure}", config.name, config.target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(target: &str) -> RsyncStoreConfig {
        RsyncStoreConfig {
            name: "far".parse().unwrap(),
            target: RsyncTarget::parse(target).unwrap(),
            read_url: "http://h/".parse().unwrap(),
            spool: "/nowhere".into(),
            spool_size: 1,
            password: Some("s3cret".into()),
            key_file: Some("/etc/it's a key%".into()),
            known_hosts: Some("/etc/known hosts".into()),
            bandwidth: None,
            port: Some(2222),
        }
    }

    #[test]
    fn progress_is_read_from_lines_that_are_whole() {
        assert_eq!(progress(b"\r      32768   1%    0.00kB/s    0:00:00  \r   3000000  99%"), Some(3_000_000));
        assert_eq!(progress(b"\r      32768   1%    0.00kB/s    0:00:00  \r   30000"), Some(32_768));
        for bad in [&b""[..], b"sending incremental file list\n", b"\r 12 bytes", b"\r 50% done"] {
            assert_eq!(progress(bad), None);
        }
    }

    #[test]
    fn paths_stay_one_word_on_their_way_through_rsync_to_ssh() {
        let shell = shell(&config("u@h:/d/"));
        assert!(shell.starts_with("'ssh' '-o' 'BatchMode=yes' '-o' 'StrictHostKeyChecking=yes'"), "{shell}");
        assert!(shell.contains(r#"'-o' 'UserKnownHostsFile="/etc/known hosts"'"#), "{shell}");
        assert!(shell.contains(r#"'-o' 'IdentityFile="/etc/it''s a key%%"'"#), "{shell}");
        assert!(shell.ends_with("'-o' 'Port=2222'"), "{shell}");
    }

    #[test]
    fn each_failure_has_its_reason_and_cure_and_no_secret() {
        let cases = [
            (255, "Host key verification failed.", Reason::StoreRefused, "ssh-keyscan -p 2222 h >> /etc/known hosts"),
            (255, "u@h: Permission denied (publickey).", Reason::StoreRefused, "authorized_keys"),
            (255, "ssh: connect to host h port 22: Connection refused", Reason::StoreUnreachable, "refused"),
            (12, "ssh: connect to host h port 22: Connection refused", Reason::StoreUnreachable, "refused"),
            (12, "ssh: connect to host h port 22: No route to host", Reason::StoreUnreachable, "route"),
            (12, "ssh: Could not resolve hostname h: Name or service not known", Reason::StoreUnreachable, "resolve"),
            (12, "u@h: Permission denied (publickey,password).", Reason::StoreRefused, "authorized_keys"),
            (12, "kex_exchange_identification: read: Connection reset by peer", Reason::StoreUnreachable, "reset"),
            (12, "Connection reset by 10.0.0.1 port 22", Reason::StoreUnreachable, "reset"),
            (12, "Read from remote host h: Connection reset by peer", Reason::StoreUnreachable, "Read from"),
            (12, "Timeout, server h not responding.", Reason::StoreUnreachable, "Timeout"),
            (12, "Connection to h closed by remote host.", Reason::StoreUnreachable, "closed"),
            (12, "Connection timed out during banner exchange", Reason::StoreUnreachable, "banner"),
            (
                12,
                "rsync: [sender] Failed to exec ssh: No such file or directory (2)",
                Reason::StoreError,
                "install ssh beside mimeo",
            ),
            (10, "rsync: failed to connect to h: Connection refused (111)", Reason::StoreUnreachable, "refused"),
            (35, "rsync error: timeout waiting for daemon connection", Reason::StoreUnreachable, "timeout"),
            (5, "@ERROR: auth failed on module images", Reason::StoreRefused, "password"),
            (5, "@ERROR: Unknown module 'x'", Reason::StoreRefused, "module"),
            (11, "rsync: write failed on \"x\": No space left on device (28)", Reason::StoreFull, "room"),
            (23, "rsync: mkstemp \"/x\" failed: Permission denied (13)", Reason::StoreRefused, "let the user write"),
            (4, "The server is configured to refuse --delete", Reason::StoreRefused, "rsyncd.conf"),
            (
                3,
                "rsync: mkdir \"/a/b\" failed: No such file or directory (2)",
                Reason::StoreError,
                "make the directory",
            ),
            (12, "bash: rsync: command not found", Reason::StoreError, "install rsync"),
            (12, "protocol s3cret", Reason::StoreError, "ended with 12: \"protocol ***\""),
        ];
        for (code, complaint, reason, hint) in cases {
            let error = failed(&config("u@h:/d/"), Some(code), complaint);
            assert_eq!(error.reason, reason, "{error}");
            assert!(error.to_string().starts_with("far: rsync to u@h:/d/ ended with "), "{error}");
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}
