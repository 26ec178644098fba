//! From a message's body to what it says. Pure: whatever bytes come, it answers.

use std::collections::BTreeMap;

use mimeo_core::{
    ImageId, Snapshot, Timestamp,
    ports::{EventKind, ImageEvent},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Larger bodies are not parsed. Glance's own are a few kilobytes.
const LARGEST: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    Image(ImageEvent),
    /// A notification of something else that shares the exchange.
    Foreign,
}

/// A message that is no notification. Nothing of its content is repeated but its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadMessage {
    pub(super) why: &'static str,
    pub(super) id: Option<String>,
}

pub(super) fn parse(body: &[u8]) -> Result<Message, BadMessage> {
    let bad = |why| BadMessage { why, id: None };
    if body.len() > LARGEST {
        return Err(bad("it is larger than 1 MiB"));
    }
    let outer: Map<String, Value> = serde_json::from_slice(body).map_err(|_| bad("it is no JSON object"))?;
    let inner = match outer.get("oslo.message") {
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|_| bad("its oslo.message is no JSON object"))?
        }
        Some(_) => return Err(bad("its oslo.message is no text")),
        None => outer,
    };
    notification(&inner).map_err(|why| BadMessage { why, id: message_id(&inner) })
}

fn notification(message: &Map<String, Value>) -> Result<Message, &'static str> {
    let Some(Value::String(event_type)) = message.get("event_type") else {
        return Err("it has no event_type");
    };
    let payload = match (event_type.as_str(), message.get("payload")) {
        // Sent for every download, Mimeo's own included; and membership changes no bits.
        ("image.send", _) => return Ok(Message::Foreign),
        (other, _) if !other.starts_with("image.") || other.starts_with("image.member.") => {
            return Ok(Message::Foreign);
        }
        // How Glance reports an upload that failed: a sentence, and no image.
        (_, Some(Value::String(_))) => return Ok(Message::Foreign),
        (_, Some(Value::Object(payload))) => payload,
        _ => return Err("its payload is no object"),
    };
    let image = payload.get("id").and_then(Value::as_str).and_then(|id| id.parse::<ImageId>().ok());
    let kind = match event_type == "image.delete" {
        true => EventKind::Deleted,
        false => EventKind::Changed,
    };
    let image = image.ok_or("its payload has no image id")?;
    Ok(Message::Image(ImageEvent { image, kind, snapshot: snapshot(payload) }))
}

#[derive(Deserialize)]
struct Saved {
    name: Value,
    status: mimeo_core::ImageStatus,
    visibility: mimeo_core::Visibility,
    protected: bool,
    updated_at: Timestamp,
    tags: Vec<String>,
    properties: BTreeMap<String, Value>,
}

/// The record as it was saved, if the payload has all of it.
fn snapshot(payload: &Map<String, Value>) -> Option<Snapshot> {
    let saved = Saved::deserialize(payload).ok()?;
    let text = |(key, value): (String, Value)| match value {
        Value::String(value) if !key.starts_with("os_glance_") => Some((key, value)),
        _ => None,
    };
    Some(Snapshot {
        name: saved.name.as_str().map(str::to_owned),
        status: saved.status,
        visibility: saved.visibility,
        protected: saved.protected,
        updated_at: saved.updated_at,
        tags: saved.tags,
        properties: saved.properties.into_iter().filter_map(text).collect(),
    })
}

fn message_id(message: &Map<String, Value>) -> Option<String> {
    const LONGEST: usize = 64;
    message.get("message_id").and_then(Value::as_str).map(|id| id.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use mimeo_core::{ImageStatus, Visibility};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const UPDATED_AT: &str = "2026-11-22T17:32:11Z";
    const ID: &str = "0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a";

    fn notice(event_type: &str, payload: &Value) -> Value {
        json!({"message_id": "m1", "publisher_id": "image.host", "event_type": event_type, "priority": "INFO",
               "payload": payload, "timestamp": "2026-11-22 17:32:11.615743", "_unique_id": "u1"})
    }

    fn enveloped(message: &Value) -> Vec<u8> {
        json!({"oslo.version": "2.0", "oslo.message": message.to_string()}).to_string().into_bytes()
    }

    fn payload() -> Value {
        json!({"id": ID, "name": null, "status": "active", "visibility": "private", "protected": true,
               "tags": ["a"], "properties": {"os_distro": "debian", "os_glance_x": "y", "n": null}, "size": 3,
               "is_public": false, "deleted": false, "owner": "p1", "updated_at": UPDATED_AT})
    }

    fn event(event_type: &str, payload: &Value) -> ImageEvent {
        match parse(&enveloped(&notice(event_type, payload))) {
            Ok(Message::Image(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_update_carries_the_record_as_it_was_saved() {
        let event = event("image.update", &payload());
        assert_eq!((event.image.as_str(), event.kind), (ID, EventKind::Changed));
        let expected = Snapshot {
            name: None,
            status: ImageStatus::Active,
            visibility: Visibility::Private,
            protected: true,
            updated_at: UPDATED_AT.parse().unwrap(),
            tags: vec!["a".into()],
            properties: BTreeMap::from([("os_distro".into(), "debian".into())]),
        };
        assert_eq!(event.snapshot, Some(expected));
    }

    #[test]
    fn a_delete_is_told_from_a_change_and_a_partial_record_is_none() {
        let event = event("image.delete", &json!({"id": ID, "status": "deleted"}));
        assert_eq!((event.kind, event.snapshot), (EventKind::Deleted, None));
    }

    #[test]
    fn a_message_without_envelope_is_read_too() {
        let body = notice("image.update", &payload()).to_string();
        assert!(matches!(parse(body.as_bytes()), Ok(Message::Image(_))));
    }

    #[test]
    fn what_concerns_no_image_is_foreign() {
        let member = json!({"image_id": ID, "member_id": "p2"});
        let cases = [
            notice("compute.instance.create.end", &json!({"id": ID})),
            notice("task.create", &json!({"id": ID})),
            notice("image.send", &json!({"image_id": ID, "bytes_sent": 1})),
            notice("image.member.create", &member),
            notice("image.upload", &json!("Image storage media is full")),
        ];
        for message in cases {
            assert_eq!(parse(&enveloped(&message)), Ok(Message::Foreign), "{message}");
        }
    }

    #[test]
    fn bad_messages_are_named_by_their_id_and_not_repeated() {
        let huge = vec![b' '; LARGEST + 1];
        for body in [&b""[..], b"{", b"[]", b"null", b"\xff\xfe", br#"{"oslo.message": 3}"#, &huge] {
            assert_eq!(parse(body).unwrap_err().id, None);
        }
        for payload in [json!({"id": "../../etc"}), json!({}), json!([]), json!(null)] {
            let error = parse(&enveloped(&notice("image.update", &payload))).unwrap_err();
            assert_eq!(error.id.as_deref(), Some("m1"), "{payload}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn no_text_in_any_place_makes_it_panic(event in ".{0,30}", id in ".{0,50}", other in ".{0,30}") {
            let payload = json!({"id": id, "name": other, "status": other, "tags": [other]});
            let _ = parse(&enveloped(&notice(&event, &payload)));
            let _ = parse(&enveloped(&notice("image.update", &payload)));
            let _ = parse(json!({"oslo.message": other}).to_string().as_bytes());
        }
    }
}
