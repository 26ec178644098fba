//! The command line's only writer. A reader that has gone away (`mimeo status | head`) is no failure.

use std::io::Write;

use super::{Failure, Outcome};

/// A result, to standard output, as it is.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A line for the one who watches, to standard error.
pub(crate) fn note(line: &str) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
