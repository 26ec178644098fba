//! PATCH: fields, properties, locations, and that it happens whole or not at all.

use futures::future;
use serde_json::{Value, json};

use super::{OLD_PATCH, Running};

fn add(url: &str) -> Value {
    json!({"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {"mimeo": "http1"}}})
}

async fn urls(service: &Running, image: &str) -> Vec<String> {
    let shown = service.get(image).await;
    let locations = shown["locations"].as_array().unwrap();
    locations.iter().map(|location| location["url"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn fields_and_properties_are_added_replaced_and_removed() {
    let mut service = Running::start().await;
    let image = service.create(json!({"old": "x", "gone": "y"})).await;
    let operations = json!([
        {"op": "replace", "path": "/name", "value": "n"},
        {"op": "replace", "path": "/visibility", "value": "public"},
        {"op": "replace", "path": "/tags", "value": ["t"]},
        {"op": "add", "path": "/min_ram", "value": 3},
        {"op": "add", "path": "/a~1b", "value": "c"},
        {"op": "replace", "path": "/old", "value": "z"},
        {"op": "remove", "path": "/gone"},
    ]);
    let answer = service.patch(&image, operations).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = service.get(&image).await;
    assert_eq!(answer.json(), shown);
    assert_eq!((&shown["name"], &shown["visibility"], &shown["min_ram"]), (&json!("n"), &json!("public"), &json!(3)));
    assert_eq!((&shown["a/b"], &shown["old"], &shown["tags"]), (&json!("c"), &json!("z"), &json!(["t"])));
    assert!(shown.get("gone").is_none());
    assert_eq!(service.heard(), ["image.create", "image.update"]);
}

#[tokio::test]
async fn the_older_media_type_adds_only_what_is_new() {
    let service = Running::start().await;
    let image = service.create(json!({})).await;
    let body = br#"[{"add": "/k", "value": "v"}, {"replace": "/name", "value": "n"}]"#;
    assert_eq!(service.ask("PATCH", &image, OLD_PATCH, body).await.status, 200);
    assert_eq!(service.ask("PATCH", &image, OLD_PATCH, body).await.status, 409);
    let two = br#"[{"add": "/k", "remove": "/k"}]"#;
    assert_eq!(service.ask("PATCH", &image, OLD_PATCH, two).await.status, 400);
}

#[tokio::test]
async fn refusals_have_glances_statuses() {
    let service = Running::start().await;
    let image = service.upload(json!({})).await;
    for (operation, status) in [
        (json!({"op": "replace", "path": "/size", "value": 1}), 403),
        (json!({"op": "replace", "path": "/id", "value": "x"}), 403),
        (json!({"op": "add", "path": "/os_glance_x", "value": "x"}), 403),
        (json!({"op": "remove", "path": "/name"}), 403),
        (json!({"op": "replace", "path": "/disk_format", "value": "raw"}), 403),
        (json!({"op": "replace", "path": "/none", "value": "x"}), 409),
        (json!({"op": "remove", "path": "/none"}), 409),
        (json!({"op": "replace", "path": "/protected", "value": "yes"}), 400),
        (json!({"op": "move", "path": "/name", "value": "x"}), 400),
        (json!({"op": "add", "path": "/name"}), 400),
        (json!({"op": "add", "path": "name", "value": "x"}), 400),
        (json!({"op": "add", "path": "/tags/-", "value": "x"}), 400),
        (json!({"op": "add", "path": "/a~2b", "value": "x"}), 400),
        (json!({"op": "replace", "path": "/locations/0", "value": {}}), 400),
        (json!("name"), 400),
    ] {
        let answer = service.patch(&image, json!([operation])).await;
        assert_eq!(answer.status, status, "{operation}: {}", answer.text());
    }
    assert_eq!(service.patch(&image, json!({})).await.status, 400);
    assert_eq!(service.ask("PATCH", &image, "Content-Type: application/json\r\n", b"[]").await.status, 415);
}

#[tokio::test]
async fn a_location_needs_a_url_that_answers_with_bytes() {
    let service = Running::start().await;
    let image = service.upload(json!({})).await;
    assert_eq!(service.patch(&image, json!([add("http://good/1"), add("http://good/2")])).await.status, 200);
    let shown = service.get(&image).await;
    assert_eq!(shown["stores"], "demo,http,http");
    assert_eq!(shown["locations"][1], json!({"url": "http://good/1", "metadata": {"mimeo": "http1", "store": "http"}}));

    for url in ["http://bad/", "http://empty/", "file:///good", "swift+config://good/x", "http://good/1"] {
        let answer = service.patch(&image, json!([add(url)])).await;
        assert_eq!(answer.status, 400, "{url}");
    }
    let number = json!({"op": "add", "path": "/locations/-", "value": {"url": "http://good/3", "metadata": {"n": 1}}});
    assert_eq!(service.patch(&image, json!([number])).await.status, 400);
    assert_eq!(urls(&service, &image).await.len(), 3);
}

#[tokio::test]
async fn a_patch_happens_whole_or_not_at_all() {
    let mut service = Running::start().await;
    let image = service.upload(json!({})).await;
    service.heard();
    let operations = json!([
        {"op": "replace", "path": "/name", "value": "n"},
        add("http://good/1"),
        {"op": "remove", "path": "/locations/0"},
        add("http://bad/"),
    ]);
    assert_eq!(service.patch(&image, operations).await.status, 400);
    let shown = service.get(&image).await;
    assert_eq!((&shown["name"], urls(&service, &image).await.len()), (&Value::Null, 1));
    assert_eq!(service.directory.names().len(), 1);
    assert!(service.heard().is_empty());
}

#[tokio::test]
async fn of_concurrent_patches_none_is_lost() {
    let service = Running::start().await;
    let image = service.upload(json!({})).await;
    let patches = (0..20).map(|n| {
        let operations = json!([add(&format!("http://good/{n}"))]);
        let (service, image) = (&service, &image);
        async move { service.patch(image, operations).await.status }
    });
    assert!(future::join_all(patches).await.iter().all(|status| *status == 200));
    assert_eq!(urls(&service, &image).await.len(), 21);
}

#[tokio::test]
async fn locations_are_reordered_by_replacing_them_with_themselves() {
    let service = Running::start().await;
    let image = service.upload(json!({})).await;
    service.patch(&image, json!([add("http://good/1")])).await;
    let mut locations = service.get(&image).await["locations"].as_array().unwrap().clone();
    locations.reverse();
    let replace = |value: Value| json!([{"op": "replace", "path": "/locations", "value": value}]);
    assert_eq!(service.patch(&image, replace(json!(locations))).await.status, 200);
    assert_eq!(urls(&service, &image).await[0], "http://good/1");

    locations.pop();
    assert_eq!(service.patch(&image, replace(json!(locations))).await.status, 400);
    assert_eq!(service.patch(&image, replace(json!([]))).await.status, 403);
}

#[tokio::test]
async fn removing_a_location_of_the_own_store_removes_its_bits_and_the_last_one_stays() {
    let service = Running::start().await;
    let image = service.upload(json!({})).await;
    let remove = |place: &str| json!([{"op": "remove", "path": format!("/locations/{place}")}]);
    assert_eq!(service.patch(&image, remove("0")).await.status, 403);
    service.patch(&image, json!([add("http://good/1")])).await;
    assert_eq!(service.patch(&image, remove("7")).await.status, 400);
    assert_eq!(service.patch(&image, remove("0")).await.status, 200);
    assert_eq!(urls(&service, &image).await, ["http://good/1"]);
    assert!(service.directory.names().is_empty());
    assert_eq!(service.ask("GET", &format!("{image}/file"), "", b"").await.status, 204);
}

#[tokio::test]
async fn the_first_location_of_a_queued_image_makes_it_active() {
    let service = Running::start().await;
    let image = service.create(json!({})).await;
    let body = json!({"url": "http://good/1", "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "a".repeat(128)}});
    let path = format!("{image}/locations");
    assert_eq!(service.ask("POST", &path, "", body.to_string().as_bytes()).await.status, 202);
    assert_eq!(service.ask("POST", &path, "", body.to_string().as_bytes()).await.status, 409);
    let shown = service.get(&image).await;
    assert_eq!((&shown["status"], &shown["size"]), (&json!("active"), &json!(5)));
    assert_eq!(shown["os_hash_value"], "a".repeat(128));
    assert_eq!(service.get(&path).await, shown["locations"]);
}

#[tokio::test]
async fn a_deactivated_image_takes_no_location() {
    let service = Running::start().await;
    let image = service.upload(json!({})).await;
    service.ask("POST", &format!("{image}/actions/deactivate"), "", b"").await;
    assert_eq!(service.patch(&image, json!([add("http://good/1")])).await.status, 409);
}
