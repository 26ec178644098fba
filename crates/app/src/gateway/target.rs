//! What a request is for, as far as the gateway needs to know it.

use hyper::{Method, Uri};
use mimeo_core::ImageId;
use mimeo_engine::Becomes;

/// The image whose bits this request uploads, and what they become. Only a path that is spelled as Glance spells it
/// counts: any other goes through, and the image is copied out of band.
pub(super) fn upload(method: &Method, uri: &Uri) -> Option<(ImageId, Becomes)> {
    if method != Method::PUT || uri.query().is_some() {
        return None;
    }
    let (id, becomes) = match bits(uri, "/file") {
        Some(id) => (id, Becomes::Image),
        None => (bits(uri, "/stage")?, Becomes::Staged),
    };
    Some((id, becomes))
}

/// The image whose bits this request asks for. With a query it may ask for those of a certain store.
pub(super) fn download(method: &Method, uri: &Uri) -> Option<ImageId> {
    (method == Method::GET && uri.query().is_none()).then(|| bits(uri, "/file")).flatten()
}

/// To Glance an id in capital letters may be another image's than in small ones.
fn bits(uri: &Uri, call: &str) -> Option<ImageId> {
    let text = uri.path().strip_prefix("/v2/images/")?.strip_suffix(call)?;
    text.parse().ok().filter(|id: &ImageId| id.as_str() == text)
}

/// The image that this request is about, so that all that is asked about it goes to one glance-api: what was staged
/// there is on no other.
pub(super) fn image(uri: &Uri) -> Option<&str> {
    let id = uri.path().strip_prefix("/v2/images/")?.split('/').next()?;
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0e6ca3f8-1a2b-4c3d-8e4f-5a6b7c8d9e0f";

    #[test]
    fn only_a_plain_upload_is_one() {
        let becomes = |path: &str| upload(&Method::PUT, &path.parse().unwrap()).map(|(_, becomes)| becomes);
        assert_eq!(becomes(&format!("/v2/images/{ID}/file")), Some(Becomes::Image));
        assert_eq!(becomes(&format!("/v2/images/{ID}/stage")), Some(Becomes::Staged));
        let is_upload = |method: Method, path: &str| upload(&method, &path.parse().unwrap()).is_some();
        for path in [
            format!("/v2/images/{ID}/file/"),
            format!("/v2/images/{ID}/file?x=1"),
            format!("//v2/images/{ID}/file"),
            format!("/v2/images/{ID}/%66ile"),
            format!("/v2/images/%2e%2e/{ID}/file"),
            "/v2/images/a%2fb/file".to_owned(),
            "/v2/images//file".to_owned(),
            format!("/v2/images/{ID}/import"),
            format!("/v2/images/{}/file", ID.to_uppercase()),
        ] {
            assert!(!is_upload(Method::PUT, &path), "{path}");
        }
        assert!(!is_upload(Method::GET, &format!("/v2/images/{ID}/file")));
    }

    #[test]
    fn only_a_plain_download_is_one() {
        let is_download = |path: String| download(&Method::GET, &path.parse().unwrap()).is_some();
        assert!(is_download(format!("/v2/images/{ID}/file")));
        assert!(!is_download(format!("/v2/images/{}/file", ID.to_uppercase())), "it may be another image");
        assert!(!is_download(format!("/v2/images/{ID}/file?prefer=rbd1")));
    }

    #[test]
    fn requests_about_an_image_are_known_by_its_id() {
        let of = |path: &str| image(&path.parse().unwrap()).map(str::to_owned);
        assert_eq!(of(&format!("/v2/images/{ID}/import")).as_deref(), Some(ID));
        assert_eq!((of("/v2/images"), of("/v2/images?limit=2"), of("/v2/tasks/1")), (None, None, None));
    }
}
