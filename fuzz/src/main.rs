//! Everything that reads bytes from outside, each under a name: `MIMEO_FUZZ=images` chooses one. What must hold stands
//! beside what reads, in the `fuzzing.rs` of its folder.
#![no_main]

mod locations;

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use mimeo_adapters::{
    events::rabbitmq::fuzzing as rabbitmq,
    openstack::fuzzing as openstack,
    stores::{http::fuzzing as http, rsync::fuzzing as rsync, s3::fuzzing as s3, swift::fuzzing as swift},
};

type Target = fn(&[u8]);

/// Each has a folder in `corpus/`.
const TARGETS: &[(&str, Target)] = &[
    ("config", mimeo::config),
    ("http", http::url),
    ("images", openstack::images),
    ("import", mimeo::import),
    ("limits", mimeo::limits),
    ("locations", locations::locations),
    ("names", |bytes| mimeo_engine::fuzzing::names(bytes, &mimeo_testkit::sample::image(1, 1))),
    ("notifications", rabbitmq::notification),
    ("rsync", rsync::output),
    ("rsync-target", rsync::target),
    ("s3", s3::answer),
    ("swift", swift::listing),
    ("transport-url", rabbitmq::transport_url),
    ("words", openstack::words),
];

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("MIMEO_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("MIMEO_FUZZ names no target: {name:?}")).1
});

fuzz_target!(init: { LazyLock::force(&CHOSEN); }, |data: &[u8]| CHOSEN(data));
