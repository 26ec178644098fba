//! From an answer that was not hoped for to an error with Glance's own words.

use mimeo_core::{Error, Reason};
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
    Error::new(reason, format!("{method} {url} {what}")).caused_by(cause.without_url())
}

/// The words of an HTML page, without those of its title and heading, which only repeat the status.
fn plain(html: &str) -> String {
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
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
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
}
