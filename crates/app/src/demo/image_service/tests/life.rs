//! From the creation of an image to its end: bits, states, events.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{
    super::super::web::test_client::{self, until},
    OCTETS, Running,
};

#[tokio::test]
async fn an_upload_is_hashed_kept_and_shown() {
    let service = Running::start().await;
    let image = service.upload(json!({"name": "a", "disk_format": "raw", "os": "linux"})).await;

    let shown = service.get(&image).await;
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["size"], 5);
    assert_eq!(shown["os"], "linux");
    assert_eq!(shown["checksum"], "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(shown["os_hash_algo"], "sha512");
    assert!(shown["os_hash_value"].as_str().unwrap().starts_with("9b71d224bd62f378"));
    assert_eq!(shown["stores"], "demo");
    assert!(shown["locations"][0]["url"].as_str().unwrap().starts_with("file:///"));
    assert_eq!(shown["created_at"].as_str().unwrap().len(), "2015-01-01T00:00:00Z".len());

    let file = format!("{image}/file");
    let whole = service.ask("GET", &file, "", b"").await;
    assert_eq!((whole.status, whole.text()), (200, "hello"));
    assert_eq!(whole.header("content-md5"), shown["checksum"].as_str());
    let part = service.ask("GET", &file, "Range: bytes=1-2\r\n", b"").await;
    assert_eq!((part.status, part.text()), (206, "el"));
    assert_eq!(part.header("content-range"), Some("bytes 1-2/5"));
    assert_eq!(service.ask("GET", &file, "Range: bytes=5-\r\n", b"").await.status, 416);
    assert_eq!(service.ask("PUT", &file, OCTETS, b"again").await.status, 409);
}

#[tokio::test]
async fn events_come_as_from_glance_and_never_with_locations() {
    let mut service = Running::start().await;
    let image = service.upload(json!({"visibility": "public", "k": "v"})).await;
    service.ask("DELETE", &image, "", b"").await;

    let mut last = None;
    let mut types = Vec::new();
    while let Ok(event) = service.events.try_recv() {
        assert!(event.payload.get("locations").is_none());
        assert_eq!(event.payload["is_public"], true);
        assert_eq!(event.payload["properties"], json!({"k": "v"}));
        types.push(format!("{} {}", event.event_type, event.payload["status"].as_str().unwrap()));
        last = Some(event.payload);
    }
    let expected = [
        "image.create queued",
        "image.update saving",
        "image.prepare saving",
        "image.upload active",
        "image.activate active",
        "image.update active",
        "image.delete deleted",
    ];
    assert_eq!(types, expected);
    let last = last.unwrap();
    assert_eq!(last["deleted"], true);
    assert!(last["deleted_at"].is_string());
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_the_image_queued() {
    let service = Running::start().await;
    let image = service.create(json!({})).await;
    let mut socket = test_client::begin(service.address, "PUT", &format!("{image}/file"), OCTETS, 1000).await;
    socket.write_all(b"a little").await.unwrap();
    until("the image is saving", async || service.get(&image).await["status"] == "saving").await;
    assert_eq!(service.ask("PUT", &format!("{image}/file"), OCTETS, b"x").await.status, 409);
    drop(socket);

    until("the image is queued again", async || service.get(&image).await["status"] == "queued").await;
    assert!(service.directory.names().is_empty());
    assert_eq!(service.ask("GET", &format!("{image}/file"), "", b"").await.status, 204);
    assert_eq!(service.ask("PUT", &format!("{image}/file"), OCTETS, b"hello").await.status, 204);
}

#[tokio::test]
async fn an_upload_whose_image_is_deleted_meanwhile_is_gone() {
    let service = Running::start().await;
    let image = service.create(json!({})).await;
    let mut socket = test_client::begin(service.address, "PUT", &format!("{image}/file"), OCTETS, 5).await;
    until("the image is saving", async || service.get(&image).await["status"] == "saving").await;
    assert_eq!(service.ask("DELETE", &image, "", b"").await.status, 204);
    socket.write_all(b"hello").await.unwrap();
    let answer = test_client::answer(socket, false).await;
    assert_eq!(answer.status, 410);
    assert!(service.directory.names().is_empty());
}

#[tokio::test]
async fn an_upload_of_another_size_or_type_is_refused() {
    let service = Running::start().await;
    let image = service.create(json!({})).await;
    let file = format!("{image}/file");
    assert_eq!(service.ask("PUT", &file, "", b"hello").await.status, 415);
    let sized = format!("{OCTETS}x-openstack-image-size: 6\r\n");
    assert_eq!(service.ask("PUT", &file, &sized, b"hello").await.status, 400);
    assert_eq!(service.get(&image).await["status"], "queued");
    assert!(service.directory.names().is_empty());
}

#[tokio::test]
async fn a_protected_image_stays_and_a_deleted_one_takes_its_bits_and_id_along() {
    let service = Running::start().await;
    let image = service.upload(json!({"protected": true})).await;
    assert_eq!(service.ask("DELETE", &image, "", b"").await.status, 403);
    service.patch(&image, json!([{"op": "replace", "path": "/protected", "value": false}])).await;
    assert_eq!(service.ask("DELETE", &image, "", b"").await.status, 204);

    assert_eq!(service.ask("GET", &image, "", b"").await.status, 404);
    assert_eq!(service.ask("DELETE", &image, "", b"").await.status, 404);
    assert!(service.directory.names().is_empty());
    let id = image.rsplit('/').next().unwrap();
    let again = json!({ "id": id }).to_string();
    assert_eq!(service.ask("POST", "/v2/images", "", again.as_bytes()).await.status, 409);
}

#[tokio::test]
async fn an_active_image_can_be_deactivated_and_back() {
    let service = Running::start().await;
    let queued = service.create(json!({})).await;
    assert_eq!(service.ask("POST", &format!("{queued}/actions/deactivate"), "", b"").await.status, 403);
    let image = service.upload(json!({})).await;
    for (action, status) in [("deactivate", "deactivated"), ("reactivate", "active")] {
        assert_eq!(service.ask("POST", &format!("{image}/actions/{action}"), "", b"").await.status, 204);
        assert_eq!(service.get(&image).await["status"], status);
    }
}

#[tokio::test]
async fn tags_come_and_go_one_by_one() {
    let service = Running::start().await;
    let image = service.create(json!({"tags": ["a", "a"]})).await;
    assert_eq!(service.ask("PUT", &format!("{image}/tags/b%20c"), "", b"").await.status, 204);
    assert_eq!(service.get(&image).await["tags"], json!(["a", "b c"]));
    assert_eq!(service.ask("DELETE", &format!("{image}/tags/a"), "", b"").await.status, 204);
    assert_eq!(service.ask("DELETE", &format!("{image}/tags/a"), "", b"").await.status, 404);
}

#[tokio::test]
async fn a_creation_that_makes_no_sense_is_refused() {
    let mut service = Running::start().await;
    for (wish, status) in [
        (r#"{"id": "x"}"#, 400),
        (r#"{"visibility": "secret"}"#, 400),
        (r#"{"disk_format": "floppy"}"#, 400),
        (r#"{"min_disk": -1}"#, 400),
        (r#"{"k": 1}"#, 400),
        (r#"["name"]"#, 400),
        ("{", 400),
        (r#"{"status": "active"}"#, 403),
        (r#"{"os_glance_import_task": "x"}"#, 403),
        (r#"{"deleted": "x"}"#, 403),
    ] {
        assert_eq!(service.ask("POST", "/v2/images", "", wish.as_bytes()).await.status, status, "{wish}");
    }
    assert!(service.heard().is_empty());
}
