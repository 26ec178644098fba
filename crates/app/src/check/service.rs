//! The image service: the login, what it lets Mimeo see and do, its clock, and its own stores.

use std::collections::BTreeMap;

use mimeo_core::{
    Error, Reason, Timestamp,
    plan::CHECK_PROPERTY,
    ports::{Registry, Undone},
};

use super::{
    report::Report,
    trial::{Trial, now},
};

pub(super) const CREDENTIALS: &str = "set [openstack] cloud to a cloud in clouds.yaml, or OS_CLOUD, or the OS_* variables, for a user with the role admin";

pub(super) const ADMIN: &str =
    "give Mimeo's user the role admin, so that it may list, read and change every project's images";

/// Seconds of difference that matter little, and that matter.
const CLOCK_WARNS: i64 = 5;
const CLOCK_FAILS: i64 = 60;

/// True: Glance answers, and knows who asks.
pub(super) async fn login(trial: &Trial<'_>, report: &mut Report<'_>) -> bool {
    match trial.glance.server_date().await {
        Ok(_) => {
            report.ok("login", "Glance answers");
            true
        }
        Err(error) => {
            let cure = match error.reason {
                Reason::NotAllowed => CREDENTIALS,
                _ => "start it, or correct [openstack] interface, region or endpoint, or OS_AUTH_URL",
            };
            report.fail("login", error.chain(), cure);
            false
        }
    }
}

pub(super) async fn sees_all(trial: &Trial<'_>, report: &mut Report<'_>) {
    let step = "sees every project";
    match trial.glance.sees_all().await {
        Ok(true) => report.ok(step, "other projects' private images are shown"),
        Ok(false) => report.warn(
            step,
            "no private image of another project is shown; there may be none. Until one is, a 404 may as well be a lost \
             role, and copies of deleted images are removed only after an image.delete event",
            format!("where there are some: {ADMIN}"),
        ),
        Err(error) => report.fail(step, error.chain(), ADMIN),
    }
}

/// Compares by Glance's `Date`, or, behind a server that sends none (uwsgi), by the image's `created_at`.
pub(super) async fn clock(trial: &Trial<'_>, report: &mut Report<'_>) {
    let dated = trial.glance.server_date().await.ok().flatten().map(|theirs| (theirs, now()));
    let (theirs, ours) = match dated {
        Some(both) => both,
        None => match created(trial).await {
            Some(both) => both,
            None => return report.warn("clock", "Glance tells no time: the clocks cannot be compared", ""),
        },
    };
    // Both of Glance's times have whole seconds, so one of difference says nothing.
    let off = ours.as_second() - theirs.as_second();
    let side = if off < 0 { "behind" } else { "ahead of" };
    let seen = format!("this machine's clock is {} s {side} Glance's", off.abs());
    let cure = "synchronise both (chrony, ntp): tokens and the scan for changed images depend on it";
    match off.abs() {
        0..=CLOCK_WARNS => report.ok("clock", seen),
        ..=CLOCK_FAILS => report.warn("clock", seen, cure),
        _ => report.fail("clock", seen, cure),
    }
}

/// When the image was created, by Glance's clock and by ours.
async fn created(trial: &Trial<'_>) -> Option<(Timestamp, Timestamp)> {
    let (id, ours) = trial.image.as_ref().zip(trial.created)?;
    Some((trial.glance.look(id).await.ok()??.created_at, ours))
}

pub(super) async fn backends(trial: &Trial<'_>, report: &mut Report<'_>) {
    let step = "Glance's stores";
    let stores = match trial.glance.list_stores().await {
        Ok(stores) => stores,
        Err(error) => return report.warn(step, error.chain(), ""),
    };
    let text = |store: &serde_json::Value, key: &str| store[key].as_str().unwrap_or_default().to_owned();
    let listed = stores["stores"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<String> = listed.iter().map(|store| text(store, "id")).collect();
    report.ok(step, names.join(", "));
    for (store, backend) in trial.config.stores.iter().filter_map(|store| Some((store, store.facts.backend.as_ref()?)))
    {
        let step = format!("{}: Glance's own", store.facts.name);
        match names.contains(backend) {
            true => report.ok(step, format!("Glance copies images to its store {backend} when it is asked")),
            false => report.fail(
                step,
                format!("Glance has no store {backend}; it has {}", names.join(", ")),
                "set backend in this store's section to one of them, or add it to enabled_backends in glance-api.conf",
            ),
        }
    }
    // Only an administrator is told the type; what Glance cannot write is of type http.
    let is_http = |store: &&serde_json::Value| text(store, "type") == "http" || text(store, "read-only") == "true";
    let http: Vec<String> = listed.iter().filter(is_http).map(|store| text(store, "id")).collect();
    if http.len() > 1 {
        report.info(
            step,
            format!(
                "{} are http backends: Glance writes the name of the first into metadata.store of every http location. \
                 Mimeo goes by metadata.mimeo_store instead",
                http.join(", ")
            ),
        );
    }
}

/// Creates the image and uploads its bits, as a client would. True: it is there.
pub(super) async fn image(trial: &mut Trial<'_>, report: &mut Report<'_>) -> bool {
    let name = trial.name();
    let properties = BTreeMap::from([(CHECK_PROPERTY.to_owned(), "true".to_owned())]);
    let id = match trial.glance.create_image(&name, &properties).await {
        Ok(id) => id,
        Err(error) => {
            report.fail("create image", error.chain(), image_cure(&error));
            return false;
        }
    };
    (trial.image, trial.created) = (Some(id.clone()), Some(now()));
    if let Err(error) = trial.glance.upload(&id, trial.bits.clone()).await {
        report.fail("upload image", error.chain(), image_cure(&error));
        return false;
    }
    match trial.glance.download(&id).await {
        Ok(bits) if bits == trial.bits => report.ok("create image", format!("{name}, {} bytes", bits.len())),
        Ok(bits) => {
            let seen = format!("{} bytes were uploaded; {} others came back", trial.bits.len(), bits.len());
            report.fail("create image", seen, "look at Glance's default store and its conversion plugins");
        }
        Err(error) => report.fail("download image", error.chain(), image_cure(&error)),
    }
    true
}

fn image_cure(error: &Error) -> &'static str {
    match error.reason {
        Reason::NotAllowed => ADMIN,
        _ => "Glance itself cannot take an image: look into its log",
    }
}

/// Deactivates the image and back: the right that is needed to put back what a change of locations undid, and one that
/// by default only an administrator has.
pub(super) async fn rights(trial: &Trial<'_>, report: &mut Report<'_>) {
    let Some(id) = &trial.image else { return };
    for deactivated in [true, false] {
        let undone = Undone { deactivated: Some(deactivated), ..Undone::default() };
        if let Err(error) = trial.glance.put_back(id, &undone).await {
            return report.fail("rights", error.chain(), ADMIN);
        }
    }
    report.ok("rights", "Mimeo's user may deactivate and reactivate images");
}
