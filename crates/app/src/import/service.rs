//! What concerns Glance as a whole: its events, how to log in, and what it must be set to.

use mimeo_adapters::events::rabbitmq::TransportUrl;

use super::{
    oslo::{Files, list},
    page::{Page, Values, quoted},
    stores::Store,
};

/// What Glance must be set to and is not. Empty: nothing.
pub(super) fn needs(files: &Files, stores: &[Store]) -> Vec<String> {
    let mut needs = Vec::new();
    if stores.iter().any(|store| store.located) && files.flag("DEFAULT", "show_multiple_locations") != Some(true) {
        needs.push(
            "Glance does not show locations: set [DEFAULT] show_multiple_locations = true at an internal glance-api, and let \
             Mimeo talk to that one."
                .to_owned(),
        );
    }
    let quota = files.number("DEFAULT", "image_location_quota").unwrap_or(10);
    let wanted = i64::try_from(stores.len()).unwrap_or(i64::MAX).saturating_add(1);
    if (0..wanted).contains(&quota) {
        needs.push(format!(
            "An image may have {quota} locations: set [DEFAULT] image_location_quota to {wanted} or more, one for each store \
             and one for Glance's own copy."
        ));
    }
    if stores.iter().any(|store| store.http) {
        needs.extend(filter(files));
    }
    needs
}

/// Glance looks at each URL as it does for an import.
fn filter(files: &Files) -> Vec<String> {
    let section = "import_filtering_opts";
    let (hosts, ports) = (files.option(section, "allowed_hosts"), files.option(section, "allowed_ports"));
    let mut needs = vec![
        "Glance takes locations only at hosts and ports that [import_filtering_opts] allows: put the http stores' hosts \
         into allowed_hosts, once there is such a list, and their ports into allowed_ports."
            .to_owned(),
    ];
    for (key, list) in [("allowed_hosts", hosts), ("allowed_ports", ports)] {
        if list.is_some_and(|list| !(list.starts_with('[') && list.ends_with(']'))) {
            needs.push(format!("[{section}] {key} is a list without its brackets: Glance then refuses every URL."));
        }
    }
    needs
}

/// The `[events]` section.
pub(super) fn events(files: &Files, values: &mut Values) -> Page {
    const OWN: &str = "oslo_messaging_notifications";
    let mut page = Page::default();
    page.line("[events]");
    let mut drivers = files.every(OWN, "driver");
    drivers.extend(files.every("DEFAULT", "notification_driver"));
    let sends = drivers.iter().any(|driver| ["messaging", "messagingv2"].contains(&driver.as_str()));
    if !sends {
        page.comment(
            "Glance sends no notifications: set [oslo_messaging_notifications] driver = messagingv2. Until then Mimeo finds \
             images by its scan alone.",
        );
    } else if files.number(OWN, "retry").is_none_or(|retry| retry < 0) {
        page.comment("Glance hangs while the broker is down: set [oslo_messaging_notifications] retry = 3, say.");
    }
    let disabled = files.option("DEFAULT", "disabled_notifications").map(|text| list(&text)).unwrap_or_default();
    if disabled.iter().any(|name| name == "image" || name.starts_with("image.")) {
        page.comment("Glance leaves some notifications out: see [DEFAULT] disabled_notifications.");
    }
    let place = [OWN, "DEFAULT"].into_iter().find(|section| files.option(section, "transport_url").is_some());
    let url = place.and_then(|section| files.option(section, "transport_url"));
    let (Some(place), Some(url)) = (place, url) else {
        page.comment("These files name no broker. With one, as in Glance's transport_url:");
        page.line("transport_url = \"rabbit://…\"");
        return page.out_of_force();
    };
    if let Err(error) = url.parse::<TransportUrl>() {
        files.note(format!("[{place}] {error}; [events] is left out"));
        page.comment("Mimeo hears notifications through RabbitMQ. With such a broker:");
        page.line("transport_url = \"rabbit://…\"");
        return page.out_of_force();
    }
    let (url, ssl) = with_ssl(files, url);
    if let Some(path) = files.option("oslo_messaging_rabbit", "ssl_ca_file").filter(|_| ssl) {
        page.comment(&format!("Mimeo trusts the system's certificates; let {path} be one of them."));
    }
    let added = if ssl { ", with ssl=1 as its query" } else { "" };
    let holds = format!("transport_url of [{place}]{added}");
    // Without a user there is no password in it.
    let value = match url.contains('@') {
        true => values.secret("MIMEO_TRANSPORT_URL", &holds, Some(&url)),
        false => values.plain("MIMEO_TRANSPORT_URL", &holds, &url),
    };
    page.line(format!("transport_url = {value}"));
    if let Some(exchange) = files.option("DEFAULT", "control_exchange").filter(|exchange| exchange != "glance") {
        page.line(format!("exchange = {}", quoted(&exchange)));
    }
    let topics = files.option(OWN, "topics").or_else(|| files.option("DEFAULT", "notification_topics"));
    let topics = topics.map(|topics| list(&topics)).unwrap_or_default();
    if !topics.is_empty() && topics != ["notifications"] {
        let topics: Vec<String> = topics.iter().map(|topic| quoted(topic)).collect();
        page.line(format!("topics = [{}]", topics.join(", ")));
    }
    page
}

/// The URL that asks for TLS itself where an option of Glance's does. True: it was added.
fn with_ssl(files: &Files, url: String) -> (String, bool) {
    let on = |key| files.flag("oslo_messaging_rabbit", key) == Some(true);
    let own = url.contains("ssl=") || url.starts_with("amqps") || url.starts_with("rabbits");
    match (on("ssl") || on("rabbit_use_ssl")) && !own {
        true => (format!("{url}{}ssl=1", if url.contains('?') { '&' } else { '?' }), true),
        false => (url, false),
    }
}

/// The `[openstack]` section.
pub(super) fn openstack(files: &Files) -> Page {
    const OWN: &str = "keystone_authtoken";
    let mut page = Page::default();
    page.line("[openstack]");
    page.comment(
        "Mimeo needs a user with the admin role in its project. Name a cloud of clouds.yaml here, or set OS_CLOUD or the \
         other OS_* variables. Glance's own user is not taken over.",
    );
    let mut keystone = ["auth_url", "www_authenticate_uri"].into_iter();
    let keystone = keystone.find_map(|key| Some(files.bare(OWN, key, &files.option(OWN, key)?)));
    if let Some(url) = keystone {
        let bundle = files.option(OWN, "cafile");
        let bundle = bundle.map(|path| format!(", trusted by {path} (cacert in clouds.yaml, OS_CACERT)"));
        page.comment(&format!("Glance's Keystone: {url}{}", bundle.unwrap_or_default()));
    }
    page.proposal("cloud = \"admin\"");
    if let Some(interface) = files.option(OWN, "interface") {
        let known = ["public", "internal", "admin"];
        match known.into_iter().find(|known| *known == interface.trim_end_matches("URL")) {
            Some(interface) => page.line(format!("interface = {}", quoted(interface))),
            None => files.unread(OWN, "interface", "is none of public, internal and admin"),
        }
    }
    if let Some(region) = files.option(OWN, "region_name") {
        page.line(format!("region = {}", quoted(&region)));
    }
    page
}
