use async_trait::async_trait;
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Sink, Store},
};

use super::FileStoreConfig;

#[derive(Debug, Clone)]
pub struct FileStore {
    config: FileStoreConfig,
}

impl FileStore {
    pub fn new(config: FileStoreConfig) -> Result<Self> {
        Ok(Self { config })
    }
}

#[async_trait]
impl Store for FileStore {
    fn name(&self) -> &StoreName {
        &self.config.name
    }

    fn location(&self, object: &ObjectName) -> String {
        object.to_string()
    }

    async fn open(&self, _object: &ObjectName, _size: Option<u64>) -> Result<Box<dyn Sink>> {
        Err(Error::new(Reason::StoreError, "not built yet"))
    }

    async fn read(&self, _object: &ObjectName, _offset: u64) -> Result<ByteStream> {
        Err(Error::new(Reason::StoreError, "not built yet"))
    }

    async fn probe(&self, _object: &ObjectName) -> Result<Option<u64>> {
        Err(Error::new(Reason::StoreError, "not built yet"))
    }

    async fn delete(&self, _object: &ObjectName) -> Result<()> {
        Err(Error::new(Reason::StoreError, "not built yet"))
    }
}
