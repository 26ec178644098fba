//! Filters, sorting and pages.

use serde_json::json;

use super::Running;

/// Three images, and one that is hidden.
async fn three() -> Running {
    let service = Running::start().await;
    service.create(json!({"name": "a", "tags": ["x", "y"], "os": "linux", "visibility": "public"})).await;
    service.upload(json!({"name": "b", "tags": ["x"]})).await;
    service.create(json!({"name": "c d,e", "protected": true})).await;
    service.create(json!({"name": "hidden", "os_hidden": true})).await;
    service
}

async fn names(service: &Running, query: &str) -> String {
    let list = service.get(&format!("/v2/images?sort=name:asc&{query}")).await;
    let images = list["images"].as_array().unwrap();
    images.iter().map(|image| image["name"].as_str().unwrap()).collect::<Vec<_>>().join(" | ")
}

#[tokio::test]
async fn filters_must_all_hold() {
    let service = three().await;
    for (query, expected) in [
        ("", "a | b | c d,e"),
        ("visibility=all", "a | b | c d,e"),
        ("os_hidden=True", "hidden"),
        ("name=b", "b"),
        ("name=in:a,%22c%20d,e%22", "a | c d,e"),
        ("name=eq:c%20d,e", "c d,e"),
        ("status=active", "b"),
        ("status=in:active,queued", "a | b | c d,e"),
        ("visibility=public", "a"),
        ("owner=demo&protected=true", "c d,e"),
        ("owner=other", ""),
        ("tag=x", "a | b"),
        ("tag=x&tag=y", "a"),
        ("os=linux", "a"),
        ("size_min=5&size_max=5", "b"),
        ("size_min=6", ""),
        ("updated_at=gt:2001-01-01T00:00:00Z&created_at=lte:2999-01-01T00:00:00Z", "a | b | c d,e"),
        ("updated_at=lt:2001-01-01T00:00:00Z", ""),
    ] {
        assert_eq!(names(&service, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_follow_their_links_without_a_gap_or_a_repeat() {
    let service = Running::start().await;
    let mut expected = Vec::new();
    for n in 0..7 {
        expected.push(service.create(json!({"name": "same & same", "n": n.to_string()})).await);
    }
    let mut seen = Vec::new();
    let mut next = Some("/v2/images?limit=3&sort_key=name&sort_dir=asc&name=same%20%26%20same".to_owned());
    while let Some(link) = next {
        let page = service.get(&link).await;
        assert!(page["images"].as_array().unwrap().len() <= 3);
        seen.extend(page["images"].as_array().unwrap().iter().map(|i| i["self"].as_str().unwrap().to_owned()));
        next = page["next"].as_str().map(str::to_owned);
    }
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_newest_comes_first_unless_asked_otherwise() {
    let service = three().await;
    let by_size = service.get("/v2/images?sort=size:desc,name:asc").await;
    assert_eq!(by_size["images"][0]["name"], "b");
    assert_eq!(by_size["images"][1]["name"], "a");
    assert_eq!(service.get("/v2/images?limit=0").await["images"], json!([]));
}

#[tokio::test]
async fn queries_that_make_no_sense_are_refused() {
    let service = three().await;
    for query in [
        "limit=-1",
        "limit=x",
        "marker=none",
        "sort=colour",
        "sort=name:up",
        "sort=name&sort_key=name",
        "sort_key=name&sort_dir=asc&sort_dir=asc",
        "visibility=secret",
        "os_hidden=maybe",
        "size_min=big",
        "updated_at=gt:yesterday",
    ] {
        assert_eq!(service.ask("GET", &format!("/v2/images?{query}"), "", b"").await.status, 400, "{query}");
    }
}
