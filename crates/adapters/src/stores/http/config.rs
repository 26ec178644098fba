use mimeo_core::StoreName;
use url::Url;

/// One store's section, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpStoreConfig {
    pub name: StoreName,
    /// Where Mimeo writes and deletes. Ends with `/`; an object's name is appended.
    pub url: Url,
    /// Where Glance reads, when it is not `url`: the location, and what Mimeo probes and reads back.
    pub read_url: Option<Url>,
}

/// A URL that cannot be a store's. The text names key, value and rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value:?}: {rule}")]
pub struct InvalidStoreUrl {
    pub key: &'static str,
    /// As written, without any password.
    pub value: String,
    pub rule: &'static str,
}

impl HttpStoreConfig {
    pub fn new(name: StoreName, url: &str, read_url: Option<&str>) -> Result<Self, InvalidStoreUrl> {
        let url = parse("url", url)?;
        let read_url = read_url.map(|url| parse("read_url", url)).transpose()?;
        Ok(Self { name, url, read_url })
    }

    /// What an object's name is appended to for a location.
    pub fn readable(&self) -> &Url {
        self.read_url.as_ref().unwrap_or(&self.url)
    }
}

fn parse(key: &'static str, text: &str) -> Result<Url, InvalidStoreUrl> {
    let refuse = |rule| Err(InvalidStoreUrl { key, value: without_userinfo(text), rule });
    let Ok(mut url) = Url::parse(text) else {
        return refuse("is not a URL; write it as http://host/path/");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("must start with http:// or https://");
    }
    // The URL standard takes `http:///images/` for the host `images`: nobody means that.
    let authority = text.split_once("//").map_or("", |(_, rest)| rest);
    if authority.is_empty() || authority.starts_with('/') {
        return refuse("has no host; write it as http://host/path/");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not carry a user or password: a location is shown to whoever sees the image");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must end with its path, without '?' or '#': Mimeo appends the object's name");
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

fn without_userinfo(text: &str) -> String {
    match (text.split_once("//"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}//***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<HttpStoreConfig, InvalidStoreUrl> {
        HttpStoreConfig::new("http1".parse().unwrap(), url, None)
    }

    #[test]
    fn a_url_ends_with_a_slash_whether_written_or_not() {
        for url in ["http://10.0.0.11/images", "http://10.0.0.11/images/"] {
            assert_eq!(config(url).unwrap().url.as_str(), "http://10.0.0.11/images/");
        }
        assert_eq!(config("https://host:8443").unwrap().url.as_str(), "https://host:8443/");
    }

    #[test]
    fn urls_that_no_store_can_have_are_refused_by_name_and_rule() {
        for bad in ["", "images", "ftp://host/", "http://", "http:///images/", "http://h/?a=b", "http://h/#a"] {
            let error = config(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("url = {bad:?}: ")), "{error}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let error = config("http://user:s3cret@host/").unwrap_err().to_string();
        assert!(error.contains("***@host") && !error.contains("s3cret"), "{error}");
        assert!(!config("user:s3cret@host").unwrap_err().to_string().contains("s3cret"));
    }
}
