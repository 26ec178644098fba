//! What a server's answers say: the code of an error, and lists.

use mimeo_core::{Error, Reason, Result};
use reqwest::{RequestBuilder, Response, StatusCode};

use crate::upload::unanswered;

/// More than any list of a thousand has.
const LONGEST: usize = 4 << 20;

/// A whole answer; not for an object's bytes.
pub(super) struct Answer {
    /// For messages, as in `s3: PUT http://host/bucket/key`.
    pub(super) what: String,
    status: StatusCode,
    pub(super) body: String,
}

impl Answer {
    pub(super) async fn to(what: String, request: RequestBuilder) -> Result<Self> {
        match request.send().await {
            Ok(response) => Self::of(what, response).await,
            Err(cause) => Err(unanswered(&what, cause)),
        }
    }

    pub(super) async fn of(what: String, mut response: Response) -> Result<Self> {
        let (status, mut body) = (response.status(), Vec::new());
        loop {
            let bytes = match response.chunk().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                // Who refuses need not wait for the rest of a body, and its status says enough.
                Err(_) if !status.is_success() => break,
                Err(cause) => return Err(unanswered(&what, cause)),
            };
            if body.len() + bytes.len() > LONGEST {
                return Err(Error::new(Reason::StoreError, format!("{what} answered more than {LONGEST} bytes")));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(Self { what, status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    pub(super) fn success(self) -> Result<Self> {
        if self.status.is_success() { Ok(self) } else { Err(self.refused()) }
    }

    /// Of an error.
    pub(super) fn code(&self) -> Option<&str> {
        first(&self.body, "Code")
    }

    pub(super) fn refused(&self) -> Error {
        refused(&self.what, self.status, &self.body)
    }

    pub(super) fn unreadable(&self) -> Error {
        let message = format!("{} was answered with what is none of S3's answers; correct endpoint", self.what);
        Error::new(Reason::StoreError, message)
    }
}

/// An answer that is none of those hoped for; `what` as in `s3: PUT http://host/bucket/key`. The body is empty for HEAD.
pub(super) fn refused(what: &str, status: StatusCode, body: &str) -> Error {
    let code = first(body, "Code").unwrap_or_default();
    let (reason, cure) = match code {
        "" => by_status(status),
        code => by_code(code).unwrap_or_else(|| by_status(status)),
    };
    let said = match (code, first(body, "Message")) {
        ("", _) => String::new(),
        (code, Some(message)) if cure.is_empty() && !message.is_empty() => format!(" {code} ({message})"),
        (code, _) => format!(" {code}"),
    };
    Error::new(reason, format!("{what} answered {status}{said}{cure}"))
}

fn by_code(code: &str) -> Option<(Reason, &'static str)> {
    Some(match code {
        "AccessDenied" => {
            // Ceph's, with STS, says so of a wrong secret too.
            let cure =
                ": let the access key's owner list the bucket, and read, write and delete in it, or correct secret_key";
            (Reason::StoreRefused, cure)
        }
        "InvalidAccessKeyId" => (Reason::StoreRefused, ": the server knows no such access key; correct access_key"),
        "SignatureDoesNotMatch" => {
            (Reason::StoreRefused, ": correct secret_key; or a proxy changes the Host or the path of requests")
        }
        "InvalidToken" | "ExpiredToken" => {
            (Reason::StoreRefused, ": the temporary credentials have ended; give others, and send SIGHUP")
        }
        "RequestTimeTooSkewed" | "RequestExpired" => {
            (Reason::StoreRefused, ": the clocks of this machine and of the server differ; set them right")
        }
        "AllAccessDisabled" | "AccountProblem" | "MethodNotAllowed" => (Reason::StoreRefused, ""),
        "NoSuchBucket" => (Reason::StoreError, ": make the bucket, or correct bucket"),
        "NoSuchUpload" => {
            (Reason::StoreError, ": the upload was ended meanwhile, as a life-cycle rule does; it begins anew")
        }
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            (Reason::StoreError, ": the bucket is elsewhere; correct region, and endpoint to that of the region")
        }
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => {
            (Reason::StoreFull, ": it has no room left, or a quota is reached")
        }
        "EntityTooLarge" => (Reason::StoreFull, ": the server takes no objects, or parts, of this size"),
        "BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch" => {
            (Reason::StoreError, ": what arrived there is not what was sent; it is sent again")
        }
        "SlowDown" | "ServiceUnavailable" | "Throttling" | "TooManyRequests" => {
            (Reason::StoreError, ": too many requests for it at present")
        }
        _ => return None,
    })
}

fn by_status(status: StatusCode) -> (Reason, &'static str) {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            (Reason::StoreRefused, ": check the keys, the clock, and that their owner may list the bucket")
        }
        StatusCode::NOT_FOUND => (Reason::StoreError, ": correct endpoint; or a proxy before it answers in its place"),
        StatusCode::METHOD_NOT_ALLOWED => (Reason::StoreRefused, ": it is no S3 server; correct endpoint"),
        StatusCode::PAYLOAD_TOO_LARGE => {
            (Reason::StoreFull, ": raise the limit of the server, or of a proxy before it")
        }
        StatusCode::INSUFFICIENT_STORAGE => (Reason::StoreFull, ": it has no room left"),
        status if status.is_redirection() => (Reason::StoreError, ": redirected; correct endpoint and region"),
        _ => (Reason::StoreError, ""),
    }
}

/// The text of the first element of this name, which holds no others.
pub(super) fn first<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    elements(xml, name).next()
}

/// What stands in each element of this name, which does not hold itself and bears no attributes. Ids and keys, for which
/// it is used, have no characters that XML would escape.
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&start)?;
        let (inside, after) = after.split_once(&end)?;
        rest = after;
        Some(inside)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, body: &str) -> Error {
        refused("s3: PUT http://h/b/k", status, body)
    }

    #[test]
    fn an_error_has_the_reason_of_its_code_and_a_cure() {
        let cases = [
            (403, "AccessDenied", Reason::StoreRefused, "let the access key's owner"),
            (403, "InvalidAccessKeyId", Reason::StoreRefused, "access_key"),
            (403, "SignatureDoesNotMatch", Reason::StoreRefused, "secret_key"),
            (400, "ExpiredToken", Reason::StoreRefused, "SIGHUP"),
            (403, "RequestTimeTooSkewed", Reason::StoreRefused, "clocks"),
            (404, "NoSuchBucket", Reason::StoreError, "make the bucket"),
            (404, "NoSuchUpload", Reason::StoreError, "begins anew"),
            (301, "PermanentRedirect", Reason::StoreError, "region"),
            (403, "QuotaExceeded", Reason::StoreFull, "quota"),
            (400, "EntityTooLarge", Reason::StoreFull, "size"),
            (400, "BadDigest", Reason::StoreError, "not what was sent"),
            (503, "SlowDown", Reason::StoreError, "too many"),
            (500, "InternalError", Reason::StoreError, "InternalError (We <b>tried</b>)"),
        ];
        for (status, code, reason, hint) in cases {
            let body = format!(
                "<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>We <b>tried</b></Message></Error>"
            );
            let error = answer(StatusCode::from_u16(status).unwrap_or_default(), &body);
            assert_eq!(error.reason, reason, "{error}");
            let start = format!("s3: PUT http://h/b/k answered {status}");
            assert!(error.message.starts_with(&start) && error.message.contains(hint), "{error}");
            assert!(error.message.contains(code), "{error}");
        }
    }

    #[test]
    fn an_error_without_a_code_has_the_reason_of_its_status() {
        for (status, reason) in [
            (StatusCode::FORBIDDEN, Reason::StoreRefused),
            (StatusCode::NOT_FOUND, Reason::StoreError),
            (StatusCode::METHOD_NOT_ALLOWED, Reason::StoreRefused),
            (StatusCode::PAYLOAD_TOO_LARGE, Reason::StoreFull),
            (StatusCode::INSUFFICIENT_STORAGE, Reason::StoreFull),
            (StatusCode::BAD_GATEWAY, Reason::StoreError),
            (StatusCode::FOUND, Reason::StoreError),
        ] {
            for body in ["", "<html><body>no", "<Error><Code>"] {
                assert_eq!(answer(status, body).reason, reason, "{status}");
            }
        }
    }

    #[test]
    fn elements_are_those_of_the_name_alone() {
        let xml = "<L><KeyMarker>x</KeyMarker><U><Key>a</Key></U><U><Key>b</Key></U><Key>c";
        assert_eq!(elements(xml, "Key").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(first(xml, "KeyMarker"), Some("x"));
        assert_eq!(first(xml, "Marker"), None);
    }
}
