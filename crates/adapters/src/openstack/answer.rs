//! From an answer that was not hoped for to an error with Glance's own words.

use mimeo_core::{Error, Reason, root_cause, without_credentials};
use reqwest::{Method, Response, StatusCode};

/// Of Glance's text, as much as a status line bears.
const LONGEST: usize = 300;

/// What a status means where the caller knows nothing better.
pub(super) fn reason(status: StatusCode) -> Reason {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Reason::NotAllowed,
        StatusCode::NOT_FOUND => Reason::ImageNotVisible,
        StatusCode::CONFLICT => Reason::Conflict,
        _ => Reason::ImageServiceError,
    }
}

pub(super) async fn refused(method: &Method, reason: Reason, response: Response) -> Error {
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await.map(|text| plain(&text)).unwrap_or_default();
    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
    Error::new(reason, format!("Glance answered {status} to {method} {url}{said}"))
}

pub(super) fn unanswered(method: &Method, url: &str, cause: reqwest::Error) -> Error {
    let (reason, what) = match () {
        () if cause.is_connect() => (Reason::ImageServiceUnreachable, "found no connection"),
        () if cause.is_timeout() => (Reason::ImageServiceUnreachable, "had no answer in time"),
        () => (Reason::ImageServiceError, "broke off"),
    };
    let is_unsent = cause.is_connect();
    let error = Error::new(reason, format!("{method} {url} {what}: {}", root_cause(&cause.without_url())));
    if is_unsent { error.unsent() } else { error }
}

/// The words of an HTML page, without those of its title and heading, which only repeat the status, and without the
/// credentials of the locations that it names.
pub(super) fn plain(html: &str) -> String {
    let body = html.rsplit_once("</h1>").map_or(html, |(_, body)| body);
    let mut text = String::new();
    let mut in_tag = false;
    for letter in body.chars() {
        match letter {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if in_tag => {}
            letter => text.push(letter),
        }
    }
    let text = ["&#x27;", "&#39;", "&quot;", "&lt;", "&gt;", "&amp;"]
        .iter()
        .zip(["'", "'", "\"", "<", ">", "&"])
        .fold(text, |text, (entity, letter)| text.replace(entity, letter));
    let words: Vec<String> = text.split_whitespace().map(masked).collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// A word, with each URL in it as people are shown it.
fn masked(word: &str) -> String {
    let in_scheme = |letter: char| letter.is_ascii_alphanumeric() || "+.-".contains(letter);
    let before_scheme = |(at, _)| word[..at].trim_end_matches(in_scheme).len();
    let starts: Vec<usize> = word.match_indices("://").map(before_scheme).collect();
    let ends = starts.iter().skip(1).copied().chain([word.len()]);
    let urls = starts.iter().zip(ends).map(|(&start, end)| without_credentials(&word[start..end]));
    let before = starts.first().map_or(word, |start| &word[..*start]);
    std::iter::once(before.to_owned()).chain(urls).collect()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn only_glances_own_words_are_left() {
        let html = "<html>\n <head>\n  <title>409 Conflict</title>\n </head>\n <body>\n  <h1>409 Conflict</h1>\n  \
                    It&#x27;s not allowed to add locations if image status is saving.<br /><br />\n\n\n </body>\n</html>";
        assert_eq!(plain(html), "It's not allowed to add locations if image status is saving.");
        assert_eq!(plain("no markup"), "no markup");
        assert_eq!(plain(&"x".repeat(9999)).len(), 300);
    }

    #[test]
    fn urls_are_shown_without_their_credentials() {
        let cases = [
            (
                "The location swift+http://a%3Ab:s3cret@h:5000/v3/c/o already exists",
                "The location swift+http://***@h:5000/v3/c/o already exists",
            ),
            ("s3://AK:s3/cr&amp;et@h/b/k, in use", "s3://***@h/b/k, in use"),
            ("[u'swift+https://u:s3'cret@h/c',", "[u'swift+https://***@h/c',"),
            ("\"http://host/x\",\"http://u:s3cret@h/y\"", "\"http://host/x\",\"http://***@h/y\""),
            (
                "url=rbd://fsid/pool/image/snap and http://h:80/a@b",
                "url=rbd://fsid/pool/image/snap and http://h:80/a@b",
            ),
        ];
        for (said, shown) in cases {
            assert_eq!(plain(said), shown);
        }
        // Nor the half of one that is cut off.
        let cut = plain(&format!("{} swift+http://u:s3cret@h/c", "x".repeat(285)));
        assert!(cut.len() == 300 && !cut.contains("s3cr"), "{cut}");
    }
}
