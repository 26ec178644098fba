use std::path::PathBuf;

use mimeo_core::StoreName;
use url::Url;

/// One store's section, checked.
#[derive(Debug, Clone)]
pub struct FileStoreConfig {
    pub name: StoreName,
    /// Where Mimeo writes and deletes.
    pub path: PathBuf,
    /// The web server that gives the same directory to Glance. Ends with `/`; an object's name is appended.
    pub read_url: Url,
}
