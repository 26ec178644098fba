//! The token that the commands show to `serve`: a file that only Mimeo's own user can read.

use std::{
    fmt, fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use uuid::Uuid;

const NO_TOKEN: &str = "it holds no token, which is one line of visible ASCII characters; remove it, and `mimeo serve` makes a new \
                        one at its next start";

/// 32 random bytes in hexadecimal, or whatever the operator put into the file.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// The token in this file: what a header can carry.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let token = str::from_utf8(&bytes).unwrap_or_default().trim();
        match !token.is_empty() && token.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic()) {
            true => Ok(Self(token.to_owned())),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, NO_TOKEN)),
        }
    }

    /// The token in this file, which is made (mode 0600, whole or not at all) if it is not there.
    pub(crate) fn load_or_create(path: &Path) -> anyhow::Result<Self> {
        match Self::load(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(path).with_context(|| format!("cannot make the token file {}", path.display()))
            }
            loaded => loaded.with_context(|| format!("cannot read the token file {}", path.display())),
        }
    }

    fn create(path: &Path) -> anyhow::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Made with mode 0600 by tempfile; 244 of these bits are random.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        writeln!(file, "{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())?;
        file.as_file().sync_all()?;
        mimeo_crash::point("token-written");
        match file.persist_noclobber(path) {
            Ok(_) => {}
            // Another `serve` was faster: its token is as good.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.error.into()),
        }
        Ok(Self::load(path)?)
    }

    /// Takes the same time wherever the two begin to differ.
    pub(crate) fn matches(&self, given: &str) -> bool {
        let difference = self.0.bytes().zip(given.bytes()).fold(0, |sum, (ours, theirs)| sum | (ours ^ theirs));
        self.0.len() == given.len() && std::hint::black_box(difference) == 0
    }

    /// The token itself, for the one who shows it to `serve`.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_for_its_own_user_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mimeo.token");
        let made = Token::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.reveal().len(), 64);
        assert!(made.reveal().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(Token::load_or_create(&path).unwrap().matches(made.reveal()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_the_same_text_matches() {
        let token = Token("abc".into());
        assert!(token.matches("abc"));
        for other in ["", "ab", "abd", "abcd"] {
            assert!(!token.matches(other), "{other:?}");
        }
    }

    #[test]
    fn what_no_header_can_carry_is_no_token_and_the_file_is_named_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mimeo.token");
        for content in
            [&b""[..], b"\n", b"one\ntwo", b"one\r\n\r\ntwo\n", b"bell\x07", "schlüssel".as_bytes(), b"\xff\xfe"]
        {
            fs::write(&path, content).unwrap();
            let error = format!("{:#}", Token::load_or_create(&path).unwrap_err());
            let told = format!("cannot read the token file {}: it holds no token, which is one line", path.display());
            assert!(error.starts_with(&told) && error.contains("remove it"), "{content:?}: {error}");
        }
        fs::write(&path, "of several words\n").unwrap();
        assert!(Token::load(&path).unwrap().matches("of several words"));
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Token("abc".into())), "(secret)");
    }
}
