use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{ContentHash, HashAlgorithm, Image, ImageId, Visibility};
use sha2::{Digest, Sha512};

use super::FakeRegistry;
use crate::{conformance::Backstage, sample};

#[async_trait]
impl Backstage for FakeRegistry {
    async fn create(&self, bits: Bytes) -> ImageId {
        let tick = self.lock().tick();
        let now = sample::time(tick);
        let hash = ContentHash { algorithm: HashAlgorithm::Sha512, value: format!("{:x}", Sha512::digest(&bits)) };
        let number = u32::try_from(tick).expect("few ticks");
        let image = Image {
            visibility: Visibility::Private,
            created_at: now,
            updated_at: now,
            hash: Some(hash),
            ..sample::image(number, bits.len() as u64)
        };
        let id = image.id.clone();
        self.insert(image, bits);
        id
    }

    async fn hide(&self, id: &ImageId) {
        self.change(id, |image| image.hidden = true);
    }

    async fn delete(&self, id: &ImageId) {
        self.remove(id);
    }

    async fn fresh_url(&self, _size: usize) -> String {
        format!("http://store.example/{}", self.lock().tick())
    }

    fn backend(&self) -> String {
        "own".into()
    }

    async fn copied(&self, id: &ImageId) {
        self.end_copying(id, &[]);
    }

    async fn dead_url(&self) -> String {
        let url = self.fresh_url(0).await;
        self.kill_url(&url);
        url
    }
}
