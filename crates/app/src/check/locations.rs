//! The image's locations: each store's is registered, seen, read through Glance, and withdrawn again.

use mimeo_core::{Error, Image, ImageId, Location, Reason, Result, ports::Registry, without_credentials};
use url::Url;

use super::{
    report::Report,
    service::ADMIN,
    trial::{Part, Trial},
};

/// `written` are the places of the stores that hold the object.
pub(super) async fn register_all(trial: &Trial<'_>, report: &mut Report<'_>, written: &[usize]) {
    let Some(id) = &trial.image else { return };
    let mut registered = Vec::new();
    for at in written {
        let part = &trial.stores[*at];
        let url = part.store.location(&trial.object());
        match register(trial, id, part, &url).await {
            Ok(()) => {
                report.ok(format!("{}: register", part.name()), "Glance shows the location");
                registered.push((part, url));
            }
            Err(error) => {
                report.fail(
                    format!("{}: register", part.name()),
                    error.chain(),
                    cure(&error, &without_credentials(&url), trial.stores.len()),
                );
                // The same answer for every store: once is enough.
                if matches!(error.reason, Reason::LocationsForbidden | Reason::NotAllowed) {
                    break;
                }
            }
        }
    }
    for (part, url) in &registered {
        read_through(trial, id, part, url, report).await;
    }
    let urls: Vec<&str> = registered.iter().map(|(_, url)| url.as_str()).collect();
    match withdraw(trial, id, &urls).await {
        Ok(()) if urls.is_empty() => {}
        Ok(()) => report.ok("withdraw", "the locations are removed again"),
        // By default only an administrator may: the one right that a plain member is shown here to lack.
        Err(error) if matches!(error.reason, Reason::LocationsForbidden | Reason::NotAllowed) => {
            report.fail(
                "withdraw",
                error.chain(),
                format!("{ADMIN}, or allow delete_image_location in Glance's policy"),
            );
        }
        Err(error) => report.warn("withdraw", error.chain(), "they go with the image; look into Glance's log"),
    }
}

async fn register(trial: &Trial<'_>, id: &ImageId, part: &Part<'_>, url: &str) -> Result<()> {
    let location = Location::ours(url, part.name()).of_backend(part.config.backend.as_deref());
    trial.glance.add_locations(id, &[location]).await?;
    let lost = || {
        let message = "Glance took the location, and does not show it: another writer removed it";
        Error::new(Reason::LocationLost, message)
    };
    look(trial, id).await?.has_location(url).then_some(()).ok_or_else(lost)
}

/// Puts this location first, where Glance reads, and reads. Glance goes on to the next one if it cannot open the first,
/// so this shows that no harm is done, not that this one was read: that is what reading back at the store is for.
async fn read_through(trial: &Trial<'_>, id: &ImageId, part: &Part<'_>, url: &str, report: &mut Report<'_>) {
    let step = format!("{}: read through Glance", part.name());
    let first = async {
        let mut locations = look(trial, id).await?.locations;
        // Stable: the others keep their order.
        locations.sort_by_key(|location| location.url != url);
        trial.glance.arrange_locations(id, &locations, &[]).await?;
        Ok::<_, Error>(look(trial, id).await?.locations.first().is_some_and(|location| location.url == url))
    };
    match first.await {
        Ok(true) => {}
        Ok(false) => {
            return report
                .info(step, "skipped: Glance keeps another location first (a store of its own has more weight)");
        }
        Err(error) => return report.warn(step, format!("skipped: {}", error.chain()), ""),
    }
    match trial.glance.download(id).await {
        Ok(bits) if bits == trial.bits => report.ok(step, "the same bytes"),
        Ok(_) => {
            let cure = format!("look at {} from the host of glance-api", without_credentials(url));
            report.fail(step, "other bytes than were uploaded", cure);
        }
        Err(error) => {
            let cure = format!("let the host of glance-api read {}", without_credentials(url));
            report.fail(step, error.chain(), cure);
        }
    }
}

async fn withdraw(trial: &Trial<'_>, id: &ImageId, urls: &[&str]) -> Result<()> {
    let locations = look(trial, id).await?.locations;
    let is_ours = |location: &Location| urls.contains(&location.url.as_str());
    let (remove, keep): (Vec<_>, Vec<_>) = locations.into_iter().partition(is_ours);
    match remove.is_empty() || keep.is_empty() {
        true => Ok(()),
        false => trial.glance.arrange_locations(id, &keep, &remove).await,
    }
}

async fn look(trial: &Trial<'_>, id: &ImageId) -> Result<Image> {
    let gone = || Error::new(Reason::ImageNotVisible, "the image is gone: somebody else deleted it");
    trial.glance.look(id).await?.ok_or_else(gone)
}

fn cure(error: &Error, url: &str, stores: usize) -> String {
    match error.reason {
        Reason::LocationsForbidden => {
            "set show_multiple_locations = true in [DEFAULT] of this (internal) glance-api, and \
                                       allow set_image_location for Mimeo's user in its policy"
                .into()
        }
        Reason::LocationQuota => {
            format!(
                "set image_location_quota in [DEFAULT] of glance-api to {} or more: one per store, and Glance's own",
                stores + 1
            )
        }
        Reason::LocationRefused => refused_cure(url),
        Reason::Conflict => "somebody else changes the image; run the check again".into(),
        _ => "look into Glance's log".into(),
    }
}

/// Glance gives one answer for a filtered host, a filtered port and a URL that it cannot reach.
fn refused_cure(url: &str) -> String {
    let Ok(parsed) = Url::parse(url) else { return String::new() };
    let host = parsed.host_str().unwrap_or_default();
    let port = match parsed.port() {
        Some(port) => format!(", and {port} to allowed_ports (without it only 80 and 443 are)"),
        None => String::new(),
    };
    format!(
        "in glance-api.conf, [import_filtering_opts]: add {host} to allowed_hosts (loopback is refused without it){port}. If \
         both are there: let the host of glance-api reach {url}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cure_names_what_to_write_where() {
        let cure = |reason| cure(&Error::new(reason, ""), "http://127.0.0.1:8081/x", 3);
        assert!(cure(Reason::LocationsForbidden).contains("show_multiple_locations = true"));
        assert!(cure(Reason::LocationQuota).contains("image_location_quota in [DEFAULT] of glance-api to 4"));
        let refused = cure(Reason::LocationRefused);
        for word in ["[import_filtering_opts]", "127.0.0.1 to allowed_hosts", "8081 to allowed_ports"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(!refused_cure("http://host/x").contains("allowed_ports"));
    }
}
