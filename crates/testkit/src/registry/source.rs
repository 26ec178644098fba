use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, ImageId, Reason, Result,
    ports::{ByteStream, Source},
};

use super::{FakeRegistry, RegistryFault};
use crate::store::chunks;

pub(super) struct FakeSource {
    pub(super) registry: FakeRegistry,
    pub(super) id: ImageId,
}

impl FakeSource {
    /// The bits from `offset` on, up to where a fault ends them.
    fn rest(&self, offset: u64) -> Result<Bytes> {
        let end = self.registry.fault(|fault| match fault {
            RegistryFault::SourceEndsAt(at) | RegistryFault::SourceBreaksAt(at) | RegistryFault::SourceStallsAt(at) => {
                Some(at)
            }
            _ => None,
        });
        let other = self.registry.fault(|fault| (fault == RegistryFault::SourceReadsOther).then_some(())).is_some();
        let missing = || Error::new(Reason::SourceUnreadable, format!("image {} has no bits", self.id));
        if self.registry.is_blind() {
            return Err(missing());
        }
        let mut state = self.registry.lock();
        let held = state.images.get_mut(&self.id).ok_or_else(missing)?;
        held.opens += 1;
        let length = held.bits.len();
        let at = |offset: u64| usize::try_from(offset).map_or(length, |offset| offset.min(length));
        let end = end.map_or(length, at);
        let bits = held.bits.slice(at(offset).min(end)..end);
        Ok(if other { bits.iter().map(|byte| !byte).collect() } else { bits })
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn open(&self, offset: u64) -> Result<ByteStream> {
        self.registry.fails(|fault| match fault {
            RegistryFault::SourceFails(reason) => Some(reason),
            _ => None,
        })?;
        let breaks = self.registry.fault(|fault| matches!(fault, RegistryFault::SourceBreaksAt(_)).then_some(()));
        let stalls = self.registry.fault(|fault| matches!(fault, RegistryFault::SourceStallsAt(_)).then_some(()));
        let (registry, id) = (self.registry.clone(), self.id.clone());
        let bits = stream::iter(chunks(&self.rest(offset)?)).map(move |chunk| {
            if let Some(held) = registry.lock().images.get_mut(&id) {
                held.read += chunk.len() as u64;
            }
            Ok(chunk)
        });
        let broken = breaks.map(|()| Err(Error::new(Reason::SourceUnreadable, "the source broke, as told to")));
        let ending = stream::iter(broken);
        Ok(match stalls {
            Some(()) => bits.chain(stream::pending()).boxed(),
            None => bits.chain(ending).boxed(),
        })
    }
}
