//! The images and the events about them, under one lock.
//!
//! A change is made on a copy and takes effect whole or not at all; its events leave in the order of the changes. The
//! lock is never held while waiting for anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    Notification,
    fault::Fault,
    image::{self, Image, Status},
};

pub(super) struct Catalogue {
    records: Mutex<Records>,
    events: UnboundedSender<Notification>,
}

#[derive(Default)]
struct Records {
    images: BTreeMap<String, Image>,
    /// Glance never gives an id out twice.
    deleted: BTreeSet<String>,
}

impl Catalogue {
    pub(super) fn new(events: UnboundedSender<Notification>) -> Self {
        Self { records: Mutex::default(), events }
    }

    pub(super) fn add(&self, image: &Image) -> Result<(), Fault> {
        let mut records = self.lock();
        if records.images.contains_key(&image.id) || records.deleted.contains(&image.id) {
            return Err(Fault::conflict(format!("Image ID {} already exists!", image.id)));
        }
        records.images.insert(image.id.clone(), image.clone());
        self.tell("image.create", image);
        Ok(())
    }

    pub(super) fn get(&self, id: &str) -> Result<Image, Fault> {
        let records = self.lock();
        records.images.get(id).cloned().ok_or_else(|| unknown(id))
    }

    pub(super) fn all(&self) -> Vec<Image> {
        self.lock().images.values().cloned().collect()
    }

    /// Changes an image and sends the `events`, unless `change` refuses: then nothing has happened.
    ///
    /// Answers the image as it is now, with what `change` answered.
    pub(super) fn change<T>(
        &self,
        id: &str,
        events: &[&str],
        change: impl FnOnce(&mut Image) -> Result<T, Fault>,
    ) -> Result<(Image, T), Fault> {
        let mut records = self.lock();
        let kept = records.images.get_mut(id).ok_or_else(|| unknown(id))?;
        let mut image = kept.clone();
        let outcome = change(&mut image)?;
        image.updated_at = image::now();
        kept.clone_from(&image);
        for event in events {
            self.tell(event, &image);
        }
        Ok((image, outcome))
    }

    pub(super) fn remove(&self, id: &str) -> Result<(), Fault> {
        let mut records = self.lock();
        let mut image = records
            .images
            .get(id)
            .cloned()
            .ok_or_else(|| Fault::not_found(format!("Failed to find image {id} to delete")))?;
        if image.protected {
            return Err(Fault::forbidden(format!("Image {id} is protected and cannot be deleted.")));
        }
        records.images.remove(id);
        records.deleted.insert(id.to_owned());
        image.status = Status::Deleted;
        image.updated_at = image::now();
        self.tell("image.delete", &image);
        Ok(())
    }

    fn tell(&self, event_type: &str, image: &Image) {
        // An error says only that the listener has ended before the service.
        let _ = self.events.send(Notification { event_type: event_type.to_owned(), payload: image.payload() });
    }

    /// A panic while the lock was held has left no half-made change behind: changes are made on a copy.
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(id: &str) -> Fault {
    Fault::not_found(format!("No image found with ID {id}"))
}
