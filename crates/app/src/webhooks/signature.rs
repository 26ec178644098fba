//! Who sent an event, and when, as <https://www.standardwebhooks.com> has it, so that receivers find a library for it.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};

/// For the header `webhook-signature`.
pub(super) fn sign(secret: &str, id: &str, seconds: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value is openssl's: `printf %s '1-2.3.{}' | openssl dgst -sha256 -hmac 0123456789abcdef -binary | base64`.
    #[test]
    fn it_is_what_others_compute() {
        assert_eq!(sign("0123456789abcdef", "1-2", "3", "{}"), format!("v1,{OPENSSL}"));
    }

    const OPENSSL: &str = "EKq6JIFDW7YAnhtWAHpBuStayxgMPMwXsgBwBUMV1EU=";
}
