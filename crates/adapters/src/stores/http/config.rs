use mimeo_core::StoreName;
use url::Url;

use super::Access;
use crate::stores::web::{InvalidStoreUrl, base_url};

/// One store's section, checked.
#[derive(Debug, Clone)]
pub struct HttpStoreConfig {
    pub name: StoreName,
    /// Where Mimeo writes and deletes. Ends with `/`; an object's name is appended.
    pub url: Url,
    /// Where Glance reads, when it is not `url`: the location, and what Mimeo probes and reads back.
    pub read_url: Option<Url>,
    pub access: Access,
}

impl HttpStoreConfig {
    pub fn new(name: StoreName, url: &str, read_url: Option<&str>) -> Result<Self, InvalidStoreUrl> {
        let url = base_url("url", url)?;
        let read_url = read_url.map(|url| base_url("read_url", url)).transpose()?;
        Ok(Self { name, url, read_url, access: Access::default() })
    }

    /// What an object's name is appended to for a location.
    pub fn readable(&self) -> &Url {
        self.read_url.as_ref().unwrap_or(&self.url)
    }
}
