//! Between rows and core's values. A value that core would not have written is an error, never a guess.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use mimeo_core::{
    Digest, Due, Error, Failure, ImageId, ImageRow, Object, ObjectState, Proof, ProofKind, Reason, Record, Replica,
    Result, Timestamp,
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IntoDeserializer, value},
};
use sqlx::{FromRow, QueryBuilder, Sqlite, SqliteConnection};

use super::unavailable;

/// The records of these images, in this order; those that have none are left out. One statement, and so one snapshot; and one
/// way to the connection's thread and back, which costs more than what is done there.
pub(super) async fn records(connection: &mut SqliteConnection, wanted: &[ImageId]) -> Result<Vec<Record>> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT *,
             (SELECT json_group_array(json_object('store', store, 'state', state, 'object', object, 'url', url,
                  'size', size, 'digest', digest, 'proof_kind', proof_kind, 'proof_at', proof_at, 'seen_at', seen_at,
                  'unwanted_since', unwanted_since, 'failure_reason', failure_reason,
                  'failure_message', failure_message, 'failure_tries', failure_tries,
                  'failure_next_try', failure_next_try))
              FROM replicas WHERE image = images.id) AS replicas,
             (SELECT json_group_array(json_object('store', store, 'name', name, 'url', url, 'state', state,
                  'since', since, 'regretted', regretted))
              FROM objects WHERE image = images.id) AS objects
         FROM images WHERE id IN (",
    );
    // A list of values: a single one, as it is most often, is looked up without the table that SQLite would make of a list in
    // JSON and throw away.
    let mut values = query.separated(", ");
    for id in wanted {
        values.push_bind(id.as_str());
    }
    values.push_unseparated(")");
    let found: Vec<RecordColumns> = query.build_query_as().fetch_all(connection).await.map_err(unavailable)?;
    let found = found.into_iter().map(|columns| Ok((columns.image.id.clone(), columns.parse()?)));
    let mut records = found.collect::<Result<BTreeMap<String, Record>>>()?;
    Ok(wanted.iter().filter_map(|id| records.remove(id.as_str())).collect())
}

#[derive(FromRow)]
struct RecordColumns {
    #[sqlx(flatten)]
    image: ImageColumns,
    replicas: String,
    objects: String,
}

impl RecordColumns {
    fn parse(self) -> Result<Record> {
        let replicas = json::<Vec<ReplicaColumns>>(&self.replicas)?.into_iter().map(|columns| {
            let replica = columns.parse()?;
            Ok((replica.store.clone(), replica))
        });
        let objects = json::<Vec<ObjectColumns>>(&self.objects)?.into_iter().map(ObjectColumns::parse);
        let mut objects = objects.collect::<Result<Vec<Object>>>()?;
        objects.sort_by(|a, b| (a.store.as_str(), a.name.as_str()).cmp(&(b.store.as_str(), b.name.as_str())));
        Ok(Record { image: self.image.parse()?, replicas: replicas.collect::<Result<_>>()?, objects })
    }
}

#[derive(FromRow)]
struct ImageColumns {
    id: String,
    name: Option<String>,
    status: Option<String>,
    size: Option<i64>,
    owner: Option<String>,
    wanted: String,
    rules: String,
    observed_at: Option<i64>,
    delete_seen: Option<i64>,
    verify_asked: Option<i64>,
    gone_at: Option<i64>,
    #[sqlx(flatten)]
    failure: FailureColumns,
}

impl ImageColumns {
    fn parse(self) -> Result<ImageRow> {
        Ok(ImageRow {
            id: text(&self.id)?,
            name: self.name,
            status: self.status,
            size: self.size.map(size).transpose()?,
            owner: self.owner,
            wanted: json(&self.wanted)?,
            rules: json(&self.rules)?,
            trouble: self.failure.parse()?,
            observed_at: self.observed_at.map(timestamp).transpose()?,
            delete_seen: self.delete_seen.map(timestamp).transpose()?,
            verify_asked: self.verify_asked.map(timestamp).transpose()?,
            gone_at: self.gone_at.map(timestamp).transpose()?,
        })
    }
}

#[derive(Deserialize)]
struct ReplicaColumns {
    store: String,
    state: String,
    object: Option<String>,
    url: Option<String>,
    size: Option<i64>,
    digest: Option<String>,
    proof_kind: Option<String>,
    proof_at: Option<i64>,
    seen_at: Option<i64>,
    unwanted_since: Option<i64>,
    #[serde(flatten)]
    failure: FailureColumns,
}

impl ReplicaColumns {
    fn parse(self) -> Result<Replica> {
        let proof = match (self.proof_kind, self.proof_at) {
            (Some(kind), Some(at)) => Some(Proof { kind: word::<ProofKind>(&kind)?, at: timestamp(at)? }),
            _ => None,
        };
        Ok(Replica {
            store: text(&self.store)?,
            state: word(&self.state)?,
            object: self.object.as_deref().map(text).transpose()?,
            url: self.url,
            size: self.size.map(size).transpose()?,
            digest: self.digest.map(Digest::from_hex),
            proof,
            seen_at: self.seen_at.map(timestamp).transpose()?,
            unwanted_since: self.unwanted_since.map(timestamp).transpose()?,
            failure: self.failure.parse()?,
        })
    }
}

#[derive(FromRow, Deserialize)]
struct FailureColumns {
    #[sqlx(rename = "failure_reason")]
    #[serde(rename = "failure_reason")]
    reason: Option<String>,
    #[sqlx(rename = "failure_message")]
    #[serde(rename = "failure_message")]
    message: Option<String>,
    #[sqlx(rename = "failure_tries")]
    #[serde(rename = "failure_tries")]
    tries: Option<i64>,
    #[sqlx(rename = "failure_next_try")]
    #[serde(rename = "failure_next_try")]
    next_try: Option<i64>,
}

impl FailureColumns {
    fn parse(self) -> Result<Option<Failure>> {
        let Some(code) = self.reason else {
            return Ok(None);
        };
        let tries = self.tries.unwrap_or_default();
        Ok(Some(Failure {
            reason: Reason::from_code(&code).ok_or_else(|| unreadable(&code))?,
            message: self.message.unwrap_or_default(),
            tries: u32::try_from(tries).map_err(|cause| unreadable(tries).caused_by(cause))?,
            next_try: self.next_try.map(timestamp).transpose()?,
        }))
    }
}

#[derive(Deserialize)]
struct ObjectColumns {
    store: String,
    name: String,
    url: String,
    state: String,
    since: i64,
    regretted: i64,
}

impl ObjectColumns {
    fn parse(self) -> Result<Object> {
        let state = match self.state.as_str() {
            "open" => ObjectState::Open,
            "kept" => ObjectState::Kept,
            "doomed" if self.regretted != 0 => ObjectState::Regretted,
            "doomed" => ObjectState::Doomed,
            "found" => ObjectState::Found,
            other => return Err(unreadable(other)),
        };
        let (store, name) = (text(&self.store)?, text(&self.name)?);
        Ok(Object { store, name, url: self.url, state, since: timestamp(self.since)? })
    }
}

pub(super) fn object_state(state: ObjectState) -> &'static str {
    match state {
        ObjectState::Open => "open",
        ObjectState::Kept => "kept",
        ObjectState::Doomed | ObjectState::Regretted => "doomed",
        ObjectState::Found => "found",
    }
}

pub(super) fn due((image, seq, due): (String, i64, i64)) -> Result<Due> {
    let seq = u64::try_from(seq).map_err(|cause| unreadable(seq).caused_by(cause))?;
    Ok(Due { image: text(&image)?, seq, due: timestamp(due)? })
}

pub(super) fn ids(found: &[String]) -> Result<Vec<ImageId>> {
    found.iter().map(|id| text(id)).collect()
}

/// SQLite has no arrays: a list goes in as JSON and is taken apart there.
pub(super) fn json_ids(ids: &[ImageId]) -> String {
    serde_json::Value::from(ids.iter().map(ImageId::as_str).collect::<Vec<_>>()).to_string()
}

pub(super) fn milliseconds(time: Timestamp) -> i64 {
    time.as_millisecond()
}

pub(super) fn timestamp(milliseconds: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(milliseconds).map_err(|cause| unreadable(milliseconds).caused_by(cause))
}

pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn seq(seq: u64) -> Result<i64> {
    i64::try_from(seq).map_err(|cause| unwritable(seq).caused_by(cause))
}

pub(super) fn bytes(size: Option<u64>) -> Result<Option<i64>> {
    size.map(|size| i64::try_from(size).map_err(|cause| unwritable(size).caused_by(cause))).transpose()
}

pub(super) fn index(index: u64) -> Result<i64> {
    i64::try_from(index).map_err(|cause| unwritable(index).caused_by(cause))
}

fn size(size: i64) -> Result<u64> {
    u64::try_from(size).map_err(|cause| unreadable(size).caused_by(cause))
}

pub(super) fn text<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(value: &str) -> Result<T> {
    value.parse().map_err(|cause| unreadable(value).caused_by(cause))
}

/// One of core's enums, as it spells itself.
pub(super) fn word<T: DeserializeOwned>(value: &str) -> Result<T> {
    T::deserialize(value.into_deserializer()).map_err(|cause: value::Error| unreadable(value).caused_by(cause))
}

pub(super) fn json<T: DeserializeOwned>(value: &str) -> Result<T> {
    serde_json::from_str(value).map_err(|cause| unreadable(value).caused_by(cause))
}

pub(super) fn unreadable(value: impl Display) -> Error {
    Error::new(Reason::Ledger, format!("the ledger holds {value:.200}, which this release of Mimeo cannot read"))
}

fn unwritable(value: u64) -> Error {
    Error::new(Reason::Ledger, format!("{value} is too large for the ledger"))
}
