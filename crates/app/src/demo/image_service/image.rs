//! One image: its fields, its life, and what clients and listeners see of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::fault::Fault;

/// The project that everything in the demo belongs to.
pub(super) const PROJECT: &str = "demo";

/// The algorithm of `os_hash_value`, Glance's default.
pub(super) const HASH_ALGORITHM: &str = "sha512";

#[derive(Debug, Clone)]
pub(super) struct Image {
    pub id: String,
    pub name: Option<String>,
    pub status: Status,
    pub visibility: String,
    pub protected: bool,
    pub os_hidden: bool,
    pub owner: Option<String>,
    pub min_disk: u64,
    pub min_ram: u64,
    pub container_format: Option<String>,
    pub disk_format: Option<String>,
    pub tags: BTreeSet<String>,
    /// What clients added: any name that is not a field, with a string as its value.
    pub properties: BTreeMap<String, String>,
    pub locations: Vec<Location>,
    pub size: Option<u64>,
    /// MD5, in hexadecimal.
    pub checksum: Option<String>,
    pub hash: Option<Hash>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Queued,
    Saving,
    Active,
    Deactivated,
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Location {
    pub url: String,
    pub metadata: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hash {
    pub algorithm: String,
    pub value: String,
}

impl Image {
    /// A queued image without bits, as Glance makes it when a client says nothing about it.
    pub(super) fn new(id: String) -> Self {
        let created_at = now();
        Self {
            id,
            name: None,
            status: Status::Queued,
            visibility: "shared".to_owned(),
            protected: false,
            os_hidden: false,
            owner: Some(PROJECT.to_owned()),
            min_disk: 0,
            min_ram: 0,
            container_format: None,
            disk_format: None,
            tags: BTreeSet::new(),
            properties: BTreeMap::new(),
            locations: Vec::new(),
            size: None,
            checksum: None,
            hash: None,
            created_at,
            updated_at: created_at,
        }
    }

    /// An upload begins.
    pub(super) fn begin_saving(&mut self) -> Result<(), Fault> {
        if self.status == Status::Queued {
            self.status = Status::Saving;
            return Ok(());
        }
        Err(Fault::conflict(format!("Image status transition from {} to saving is not allowed", self.status.as_str())))
    }

    pub(super) fn deactivate(&mut self) -> Result<(), Fault> {
        self.switch(Status::Deactivated, "deactivate")
    }

    pub(super) fn reactivate(&mut self) -> Result<(), Fault> {
        self.switch(Status::Active, "reactivate")
    }

    /// What `GET /v2/images/{id}` answers.
    pub(super) fn view(&self) -> Value {
        let mut view = json!({
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "visibility": self.visibility,
            "protected": self.protected,
            "os_hidden": self.os_hidden,
            "owner": self.owner,
            "min_disk": self.min_disk,
            "min_ram": self.min_ram,
            "container_format": self.container_format,
            "disk_format": self.disk_format,
            "tags": self.tags,
            "locations": self.locations,
            "size": self.size,
            "virtual_size": null,
            "checksum": self.checksum,
            "os_hash_algo": self.hash.as_ref().map(|hash| &hash.algorithm),
            "os_hash_value": self.hash.as_ref().map(|hash| &hash.value),
            "created_at": self.created_at.to_string(),
            "updated_at": self.updated_at.to_string(),
            "self": self.href(),
            "file": format!("{}/file", self.href()),
            "schema": "/v2/schemas/image",
        });
        for (name, value) in &self.properties {
            view[name] = json!(value);
        }
        if let Some(stores) = self.stores() {
            view["stores"] = json!(stores);
        }
        view
    }

    /// What Glance puts into a notification about the image (`format_image_notification`).
    pub(super) fn payload(&self) -> Value {
        let deleted = self.status == Status::Deleted;
        json!({
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "created_at": self.created_at.to_string(),
            "updated_at": self.updated_at.to_string(),
            "min_disk": self.min_disk,
            "min_ram": self.min_ram,
            "protected": self.protected,
            "checksum": self.checksum,
            "owner": self.owner,
            "disk_format": self.disk_format,
            "container_format": self.container_format,
            "size": self.size,
            "virtual_size": null,
            "is_public": self.visibility == "public",
            "visibility": self.visibility,
            "properties": self.properties,
            "tags": self.tags,
            "deleted": deleted,
            "deleted_at": deleted.then(|| self.updated_at.to_string()),
        })
    }

    pub(super) fn href(&self) -> String {
        format!("/v2/images/{}", self.id)
    }

    fn switch(&mut self, to: Status, verb: &str) -> Result<(), Fault> {
        if matches!(self.status, Status::Active | Status::Deactivated) {
            self.status = to;
            return Ok(());
        }
        Err(Fault::forbidden(format!("Not allowed to {verb} image in status '{}'", self.status.as_str())))
    }

    /// The names of Glance's stores that hold the image, one per location.
    fn stores(&self) -> Option<String> {
        let names: Vec<_> =
            self.locations.iter().filter_map(|location| location.metadata.get("store")?.as_str()).collect();
        (!names.is_empty()).then(|| names.join(","))
    }
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Saving => "saving",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Deleted => "deleted",
        }
    }
}

/// The time in whole seconds, which is all that Glance keeps.
#[expect(clippy::disallowed_methods, reason = "this is the clock of another service, not of Mimeo's decisions")]
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
