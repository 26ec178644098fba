//! Runs a conformance suite against a real server, for `e2e/test_conformance.py`: no unit test has one.
//!
//! - `conformance store TYPE …`: a store; what each type is given is said in `stores.rs`. It is checked with small parts
//!   too, so that small objects are large ones. It prints `resumes` where a copy that was broken off can be gone on with.
//! - `conformance place TYPE …`: the same store, as far as the name of the place counts that its objects lie in.
//! - `conformance large TYPE …`: the same store, with one object of 5 GiB and a byte.
//! - `conformance registry URL`: the Glance that the `OS_*` variables (user and password) lead to. It must read
//!   locations below the URL, which is a web server's that takes PUT, and give no more than three images per page
//!   (`api_limit_max`).
//!
//! Ends with a panic, and so with an exit code other than 0, where the server does not conform.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a check fails")]
#![allow(clippy::print_stdout, reason = "it is a program")]

mod cloud;
mod stores;

use std::env;

use mimeo_adapters::openstack::{Glance, OpenstackConfig};
use mimeo_testkit::conformance;

use self::cloud::Cloud;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["store", kind, ref options @ ..] => {
            let stores = stores::of(kind, options);
            for store in &stores {
                conformance::store(store.as_ref()).await;
            }
            if stores.iter().any(|store| store.resumes() == Some(true)) {
                println!("resumes");
            }
        }
        ["place", kind, ref options @ ..] => conformance::store_at(stores::of(kind, options)[0].as_ref()).await,
        ["large", kind, ref options @ ..] => conformance::large_object(stores::of(kind, options)[0].as_ref()).await,
        ["registry", url] => {
            let glance = Glance::connect(&OpenstackConfig::default()).unwrap();
            conformance::registry(&glance, &Cloud::log_in(url).await).await;
        }
        _ => panic!("usage: conformance store|place|large TYPE … | conformance registry URL"),
    }
}
