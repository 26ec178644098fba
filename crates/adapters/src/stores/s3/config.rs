use mimeo_core::StoreName;

/// One store's section, checked.
#[derive(Debug, Clone)]
pub struct S3StoreConfig {
    pub name: StoreName,
}
