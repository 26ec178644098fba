use mimeo_core::StoreName;

/// One store's section, checked.
#[derive(Debug, Clone)]
pub struct FileStoreConfig {
    pub name: StoreName,
}
