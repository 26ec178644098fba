#![allow(clippy::all, clippy::pedantic)]
use std::{collections::BTreeMap, env, time::Duration};
use mimeo_adapters::{events::rabbitmq::*, openstack::*, stores::http::*};
use mimeo_core::{ports::*, *};
use mimeo_testkit::{conformance, sample};
use tokio::time::timeout;

fn store(name: &str, url: &str) -> HttpStore {
    HttpStore::new(HttpStoreConfig::new(name.parse().unwrap(), url, None).unwrap()).unwrap()
}

async fn event(events: &mut RabbitEvents) -> ImageEvent {
    let delivery = timeout(Duration::from_secs(60), events.next()).await.expect("an event").unwrap();
    delivery.ack.acknowledge().await;
    delivery.event
}

#[tokio::test]
async fn live() {
    for url in env::var("WEB").unwrap().split(' ') {
        conformance::store(&store("web", url)).await;
        println!("store {url} ok");
    }
    let mut events = RabbitEvents::new(RabbitConfig::new(env::var("RABBIT").unwrap().parse().unwrap()));
    while !events.health().state().connected { tokio::time::sleep(Duration::from_millis(50)).await; }
    let glance = Glance::connect(&OpenstackConfig { interface: Some("internal".into()), ..Default::default() }).unwrap();
    assert_eq!(glance.look(&ImageId::nil()).await.unwrap(), None);
    let id = glance.create_image("live", &BTreeMap::from([("mimeo_check".into(), "1".into())])).await.unwrap();
    let bits = sample::bits(100_000);
    glance.upload(&id, bits.clone()).await.unwrap();
    assert_eq!(glance.download(&id).await.unwrap(), bits);
    let mut stream = glance.source(&id).open(99_990).await.unwrap();
    use futures::StreamExt;
    assert_eq!(stream.next().await.unwrap().unwrap(), bits.slice(99_990..));
    assert!(glance.source(&id).open(100_000).await.unwrap().next().await.is_none());
    let first = event(&mut events).await;
    println!("{first:?}");
    assert_eq!(first.image, id);
    assert!(first.snapshot.is_some());
    println!("date {:?} stores {}", glance.server_date().await.unwrap(), glance.list_stores().await.unwrap());
    println!("sees all: {}", glance.sees_all().await.unwrap());

    let web: Vec<String> = env::var("WEB").unwrap().split(' ').map(str::to_owned).collect();
    let object = ObjectName::new(&id, 1);
    let mut locations = Vec::new();
    for (n, url) in web.iter().enumerate() {
        let store = store(&format!("http{n}"), url);
        let mut sink = store.open(&object, Some(100_000)).await.unwrap();
        sink.write(bits.clone()).await.unwrap();
        sink.close().await.unwrap();
        locations.push(Location::ours(store.location(&object), store.name()));
    }
    glance.add_locations(&id, &locations).await.unwrap();
    let image = glance.look(&id).await.unwrap().unwrap();
    println!("{image:?}");
    assert!(locations.iter().all(|l| image.has_location(&l.url)));
    assert!(image.hash.is_some() && !image.importing);
    let mut order = image.locations.clone();
    order.reverse();
    glance.replace_locations(&id, &order).await.unwrap();
    assert_eq!(glance.look(&id).await.unwrap().unwrap().locations[0].url, order[0].url);
    glance.remove_location(&id, 0).await.unwrap();
    assert_eq!(glance.look(&id).await.unwrap().unwrap().locations.len(), order.len() - 1);
    for bad in [Location::ours("http://127.0.0.1:1/x", &"a".parse().unwrap())] {
        let error = glance.add_locations(&id, &[bad]).await.unwrap_err();
        println!("{error}");
        assert_eq!(error.reason, Reason::LocationRefused);
    }
    let undone = Undone { visibility: Some(Visibility::Shared), protected: Some(true), deactivated: Some(true) };
    glance.put_back(&id, &undone).await.unwrap();
    let image = glance.look(&id).await.unwrap().unwrap();
    assert_eq!((image.visibility, image.protected, image.status), (Visibility::Shared, true, ImageStatus::Deactivated));
    println!("{}", glance.add_locations(&id, &order[..1]).await.unwrap_err());
    println!("admin may read deactivated: {:?}", glance.source(&id).open(0).await.err().map(|e| e.chain()));
    glance.put_back(&id, &Undone { protected: Some(false), deactivated: Some(false), ..Default::default() }).await.unwrap();
    let mut all = Vec::new();
    let mut marker = None;
    loop {
        let page = glance.changed_since(Some("2026-01-01T00:00:00Z".parse().unwrap()), marker.as_ref()).await.unwrap();
        let Some(last) = page.last() else { break };
        marker = Some(last.id.clone());
        all.extend(page.into_iter().map(|i| (i.name, i.hidden)));
    }
    println!("list {all:?}");
    glance.delete_image(&id).await.unwrap();
    loop {
        if event(&mut events).await.kind == EventKind::Deleted { break }
    }
    assert!(glance.changed_since(None, Some(&id)).await.unwrap_err().reason == Reason::Conflict);
    println!("PHASE1 {:?}", events.health().state());
    std::fs::write(env::var("MARK").unwrap(), "1").unwrap();
    let mut n = 0;
    loop {
        let e = event(&mut events).await;
        n += 1;
        println!("after restart {n}: {e:?}");
        if e.snapshot.is_some_and(|s| s.name.as_deref() == Some("last")) { break }
    }
    println!("END {:?}", events.health().state());
    assert!(events.health().state().bad >= 3);
    // a token that is no longer valid
    std::fs::write(format!("{}2", env::var("MARK").unwrap()), "1").unwrap();
    while std::path::Path::new(&format!("{}2", env::var("MARK").unwrap())).exists() { tokio::time::sleep(Duration::from_millis(50)).await; }
    println!("after expiry: {:?}", glance.look(&ImageId::nil()).await.map(|_| ()));
}
