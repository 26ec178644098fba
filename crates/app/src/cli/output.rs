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

/// A line, or several, for the one who watches, to standard error.
pub(crate) fn note(text: &str) {
    let lines: Vec<String> = text.split('\n').map(visible).collect();
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr().lock(), "{}", lines.join("\n"));
}

/// A line as a terminal may have it: an image's name is its tenant's, and must neither command the operator's terminal nor
/// change the order in which its letters are read. What would is shown as an escape, `\u{1b}`.
pub(crate) fn visible(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for letter in line.chars() {
        match is_harmless(letter) {
            true => shown.push(letter),
            false => shown.extend(letter.escape_default()),
        }
    }
    shown
}

/// Neither a control character (C0, DEL, C1) nor one that ends lines or turns their direction.
fn is_harmless(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `1 image`, `2 images`.
pub(crate) fn images(count: u64) -> String {
    match count {
        1 => "1 image".to_owned(),
        _ => format!("{count} images"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_shown_as_an_escape() {
        for (line, shown) in [
            ("\u{1b}[2Jgone", r"\u{1b}[2Jgone"),
            ("\u{9b}2J\u{7f}\0", r"\u{9b}2J\u{7f}\u{0}"),
            ("a\rb\nc\td", r"a\rb\nc\td"),
            ("\u{202a}\u{202e}\u{2066}\u{2069}", r"\u{202a}\u{202e}\u{2066}\u{2069}"),
            ("\u{200e}\u{200f}\u{61c}\u{2028}", r"\u{200e}\u{200f}\u{61c}\u{2028}"),
        ] {
            assert_eq!(visible(line), shown);
        }
    }

    #[test]
    fn letters_of_any_script_stay_as_they_are() {
        for line in ["debian-12", "Größe 東京 🐧", "\u{5e9}\u{5dc}\u{5d5}\u{5dd}", r"C:\images"] {
            assert_eq!(visible(line), line);
        }
    }

    #[test]
    fn one_image_is_not_called_images() {
        assert_eq!([0, 1, 2].map(images), ["0 images", "1 image", "2 images"]);
    }
}
