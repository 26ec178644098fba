//! What must hold of every message and URL, whatever bytes they are.

use mimeo_core::ports::EventKind;
use serde_json::{Map, Value, json};

use super::{
    TransportUrl,
    message::{Message, parse},
};

/// With its envelope and without it a message says the same, and so does an event that is written as Glance writes it.
pub fn notification(body: &[u8]) {
    let read = parse(body);
    if let Ok(message) = serde_json::from_slice::<Map<String, Value>>(body)
        && !message.contains_key("oslo.message")
    {
        let envelope = json!({"oslo.version": "2.0", "oslo.message": Value::from(message).to_string()});
        assert_eq!(parse(envelope.to_string().as_bytes()), read);
    }
    let Ok(Message::Image(event)) = read else { return };
    let mut payload = json!({"id": event.image});
    if let Some(saved) = &event.snapshot {
        assert!(saved.properties.keys().all(|key| !key.starts_with("os_glance_")));
        payload = json!({"id": event.image, "name": saved.name, "status": saved.status.to_string(),
            "visibility": saved.visibility, "protected": saved.protected, "updated_at": saved.updated_at,
            "tags": saved.tags, "properties": saved.properties});
    }
    let event_type = if event.kind == EventKind::Deleted { "image.delete" } else { "image.update" };
    let written = json!({"event_type": event_type, "payload": payload});
    assert_eq!(parse(written.to_string().as_bytes()), Ok(Message::Image(event)));
}

/// Neither the message of a mistake nor `Debug` shows a password, whatever stands around it.
pub fn transport_url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((before, after)) = text.split_once('\n').filter(|(before, _)| !before.contains("://")) else {
        let _ = text.parse::<TransportUrl>();
        return;
    };
    let url = format!("{before}://user:s3cretpw@{after}");
    let shown = match url.parse::<TransportUrl>() {
        Ok(url) => format!("{url:?}"),
        Err(error) => error.to_string(),
    };
    assert!(before.contains("s3cretpw") || after.contains("s3cretpw") || !shown.contains("s3cretpw"), "{shown}");
}
