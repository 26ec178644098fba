//! Glance's stores, each as the section of Mimeo's store that comes nearest to it.

use std::{fs, path::Path};

use super::{
    oslo::{Files, list},
    page::{Page, Values, header, quoted, reference, unique, variable},
};

/// One of Glance's stores.
pub(super) struct Backend {
    /// Glance's name for it. Without `enabled_backends` stores have none but their type's.
    id: String,
    kind: String,
    /// Where its options stand; the first section that has one wins.
    sections: Vec<String>,
    /// Glance puts uploads there.
    default: bool,
}

/// A section to write.
pub(super) struct Store {
    pub name: String,
    pub page: Page,
    /// Why it cannot be enabled as it is.
    pub lacks: Option<&'static str>,
    /// Mimeo writes it, and has Glance know by location.
    pub located: bool,
    pub http: bool,
}

/// Glance's own, for its work.
const RESERVED: &str = "os_glance_";

/// What librbd makes images of at most, in MiB.
const LARGEST_CHUNK: u64 = 32;

/// In Glance's order. Also whether they have ids, without which Glance cannot be asked to copy to one of them.
pub(super) fn backends(files: &Files) -> (Vec<Backend>, bool) {
    if let Some(enabled) = files.option("DEFAULT", "enabled_backends") {
        let default = files.option("glance_store", "default_backend");
        let mut backends: Vec<Backend> = Vec::new();
        for pair in list(&enabled) {
            let split = pair.split_once(':').map(|(id, kind)| (id.trim(), kind.trim()));
            let Some((id, kind)) = split.filter(|(id, _)| !id.is_empty()) else {
                files.note(format!("[DEFAULT] enabled_backends: \"{pair}\" is no NAME:TYPE; it is left out"));
                continue;
            };
            let default = default.as_deref() == Some(id);
            backends.retain(|backend| backend.id != id);
            if !id.starts_with(RESERVED) {
                let sections = vec![id.to_owned(), "backend_defaults".to_owned()];
                backends.push(Backend { id: id.to_owned(), kind: kind_of(kind), sections, default });
            }
        }
        if files.has("backend_defaults") {
            let used =
                "[backend_defaults] is used for what a store's own section lacks; Glance itself does not read it";
            files.note(used.into());
        }
        return (backends, true);
    }
    let default = kind_of(&files.option("glance_store", "default_store").unwrap_or("file".into()));
    let enabled = files.option("glance_store", "stores").unwrap_or_else(|| {
        files.note("no enabled_backends and no [glance_store] stores: taken for file and http, as Glance does".into());
        "file,http".into()
    });
    let mut kinds: Vec<String> = Vec::new();
    for kind in list(&enabled) {
        kinds.extend(Some(kind_of(&kind)).filter(|kind| !kinds.contains(kind)));
    }
    let backend = |kind: String| Backend {
        id: kind.clone(),
        default: kind == default,
        kind,
        sections: vec!["glance_store".to_owned()],
    };
    (kinds.into_iter().map(backend).collect(), false)
}

/// Types have several names: as a store, as a scheme of locations, as a class.
fn kind_of(name: &str) -> String {
    let name = name.strip_prefix("glance.store.").and_then(|name| name.strip_suffix(".Store")).unwrap_or(name);
    match name {
        "filesystem" => "file",
        "https" => "http",
        "vsphere" | "vmware_datastore" => "vmware",
        "swift+http" | "swift+https" | "swift+config" => "swift",
        name => name,
    }
    .to_owned()
}

/// The sections, in Glance's order. Relative paths count from `directory`.
pub(super) fn sections(files: &Files, directory: &Path, values: &mut Values) -> Vec<Store> {
    let (backends, with_ids) = backends(files);
    let mut stores: Vec<Store> = Vec::new();
    for backend in &backends {
        let name = unique(&allowed(&backend.id), '-', |name| stores.iter().any(|store| store.name == *name));
        let needed = values.variables.len();
        let draft = Draft { files, backend, with_ids, values, name, page: Page::default(), lacks: None };
        let store = draft.write(directory);
        if store.lacks.is_some() {
            values.variables.truncate(needed);
        }
        stores.push(store);
    }
    stores
}

/// The nearest name that Mimeo takes.
fn allowed(id: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    id.chars().map(|letter| if fits(letter) { letter } else { '-' }).take(64).collect()
}

/// One section, as it is being written.
struct Draft<'a> {
    files: &'a Files,
    backend: &'a Backend,
    with_ids: bool,
    values: &'a mut Values,
    name: String,
    page: Page,
    lacks: Option<&'static str>,
}

impl Draft<'_> {
    fn write(mut self, directory: &Path) -> Store {
        self.page.line(header(&self.name));
        let id = &self.backend.id;
        let renamed = *id != self.name;
        if renamed {
            self.page.comment(&format!("{} in Glance, which is no name that Mimeo takes.", quoted(id)));
        }
        let kind = self.backend.kind.as_str();
        match kind {
            "rbd" => self.rbd(),
            "s3" => self.s3(),
            "http" => self.http(),
            _ => {
                match kind {
                    "file" => self.file(),
                    "swift" => self.swift(directory),
                    "cinder" | "vmware" => {
                        self.page.comment("Only Glance can write here: Mimeo asks it to (copy-image).");
                    }
                    _ => self.unknown(),
                }
                self.left_to_glance(renamed);
            }
        }
        let Self { name, page, lacks, .. } = self;
        let page = if lacks.is_some() { page.out_of_force() } else { page };
        Store { name, page, lacks, located: ["rbd", "s3", "http"].contains(&kind), http: kind == "http" }
    }

    fn option(&self, key: &str) -> Option<String> {
        self.files.option(self.place(key), key)
    }

    /// The section that has the option; the store's own, where none has it.
    fn place(&self, key: &str) -> &str {
        let sections = &self.backend.sections;
        sections.iter().find(|section| self.files.option(section, key).is_some()).unwrap_or(&sections[0])
    }

    fn kind(&mut self, kind: &str) {
        self.page.line(format!("type = {}", quoted(kind)));
    }

    fn key(&mut self, key: &str, option: &str) {
        if let Some(text) = self.option(option) {
            self.text(key, option, &text);
        }
    }

    fn text(&mut self, key: &str, option: &str, text: &str) {
        let text = match text.contains("://") {
            true => &self.files.bare(self.place(option), option, text),
            false => text,
        };
        let holds = format!("{option} of [{}]", self.place(option));
        let value = self.values.plain(&variable(&self.name, key), &holds, text);
        self.page.line(format!("{key} = {value}"));
    }

    fn uploads_go_here(&mut self) {
        if self.backend.default {
            let instead = match self.with_ids {
                true => "With type = \"glance\" and no other key instead, Glance's own copy counts.",
                false => "Leave it out of enabled_stores if one is enough.",
            };
            let text = format!("Glance puts uploads here: a copy that Mimeo writes is a second one. {instead}");
            self.page.comment(&text);
        }
    }

    fn left_to_glance(&mut self, renamed: bool) {
        if !self.with_ids {
            self.page.comment(
                "Glance copies to a store by its id, which it has only with enabled_backends; put the store there first.",
            );
            self.lacks = Some("Glance needs enabled_backends first");
        }
        self.kind("glance");
        if renamed {
            self.page.line(format!("backend = {}", quoted(&self.backend.id)));
        }
    }

    fn rbd(&mut self) {
        self.uploads_go_here();
        let user = self.option("rbd_store_user").map_or("its user".to_owned(), |user| format!("client.{user}"));
        self.page.comment(&format!("Mimeo reads Ceph's configuration too, and the keyring of {user}."));
        self.kind("rbd");
        let pool = self.option("rbd_store_pool").unwrap_or("images".into());
        self.text("pool", "rbd_store_pool", &pool);
        self.key("user", "rbd_store_user");
        self.key("conf_file", "rbd_store_ceph_conf");
        match self.files.number(self.place("rbd_store_chunk_size"), "rbd_store_chunk_size") {
            // A power of two, as Glance makes it one.
            Some(size) if size > 0 => match 1_u64 << size.ilog2() {
                size if size > LARGEST_CHUNK => {
                    self.unread("rbd_store_chunk_size", "is above 32, the most that Ceph takes");
                }
                size => self.page.line(format!("chunk_size = \"{size}MiB\"")),
            },
            Some(_) => self.unread("rbd_store_chunk_size", "is not above 0"),
            None => {}
        }
    }

    fn s3(&mut self) {
        self.uploads_go_here();
        self.kind("s3");
        let host = self.option("s3_store_host");
        match host.as_deref() {
            // So Glance takes it.
            Some(host) if !host.contains("://") => self.text("endpoint", "s3_store_host", &format!("http://{host}")),
            Some(host) => self.text("endpoint", "s3_store_host", host),
            None => self.missing("endpoint = \"https://…\"", "s3_store_host"),
        }
        match self.option("s3_store_bucket") {
            Some(bucket) => self.text("bucket", "s3_store_bucket", &bucket),
            None => self.missing("bucket = \"…\"", "s3_store_bucket"),
        }
        if let Some(region) = self.option("s3_store_region_name").or_else(|| amazon_region(host.as_deref()?)) {
            self.text("region", "s3_store_region_name", &region);
        }
        if let Some(format) = self.option("s3_store_bucket_url_format") {
            match format.as_str() {
                "path" | "virtual" => self.text("bucket_url_format", "s3_store_bucket_url_format", &format),
                // To name the bucket in the path, as Mimeo does by itself, is right everywhere.
                "auto" => {}
                _ => self.unread("s3_store_bucket_url_format", "is none of auto, path and virtual"),
            }
        }
        match self.option("s3_store_access_key") {
            Some(key) => self.text("access_key", "s3_store_access_key", &key),
            None => self.secret("access_key", "s3_store_access_key"),
        }
        self.secret("secret_key", "s3_store_secret_key");
        self.key("ca_file", "s3_store_cacert");
    }

    fn secret(&mut self, key: &str, option: &str) {
        let secret = self.option(option);
        let lacking = if secret.is_none() { ", which these files do not hold" } else { "" };
        let holds = format!("{option} of [{}]{lacking}", self.place(option));
        let value = self.values.secret(&variable(&self.name, key), &holds, secret.as_deref());
        self.page.line(format!("{key} = {value}"));
    }

    fn http(&mut self) {
        self.page.comment(&format!(
            "Glance's http store has no URL of its own: it reads any. Fill in where Mimeo writes and Glance reads, and \
             name {} in enabled_stores.",
            quoted(&self.name)
        ));
        self.kind("http");
        self.page.line("url = \"http://…\"");
        self.lacks = Some("needs its url");
    }

    fn file(&mut self) {
        self.page.comment(
            "Only Glance can write here: Mimeo asks it to (copy-image). Where Mimeo has a directory of its own that a web \
             server shows to Glance, this works too:",
        );
        self.page.proposal("type = \"file\"");
        self.page.proposal("path = \"/…\"");
        self.page.proposal("read_url = \"http://…\"");
    }

    fn swift(&mut self, directory: &Path) {
        if self.files.flag(self.place("swift_store_multi_tenant"), "swift_store_multi_tenant") == Some(true) {
            self.page.comment(
                "Only Glance can write here: Mimeo asks it to (copy-image). Each image is in its owner's own account \
                 (swift_store_multi_tenant).",
            );
            return;
        }
        self.page.comment(
            "Glance writes here: Mimeo asks it to (copy-image). Mimeo can write to Swift too, but Glance then reads the \
             copy only with the user and the password in the location's URL, and whoever sees locations sees them. If that \
             is wanted:",
        );
        let account = self.account(directory);
        self.page.proposal("type = \"swift\"");
        self.page.proposal("location_credentials = true");
        for (key, value) in account.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            self.page.proposal(&format!("{key} = {}", quoted(&value)));
        }
        self.page.proposal(&format!("password = {}", reference(&variable(&self.name, "password"))));
        let interface = self.option("swift_store_endpoint_type").map(|name| name.trim_end_matches("URL").to_owned());
        let more = [
            ("region", self.option("swift_store_region")),
            ("interface", interface.filter(|name| name != "public")),
            ("ca_file", self.option("swift_store_cacert")),
        ];
        for (key, value) in more.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            self.page.proposal(&format!("{key} = {}", quoted(&value)));
        }
        let container = self.option("swift_store_container").unwrap_or("glance".into());
        self.page.proposal(&format!("container = {}", quoted(&container)));
    }

    /// Who Glance is to Swift: from the file that `swift_store_config_file` names, else from the store's own options.
    /// Domains that are known by their ids alone are left out.
    fn account(&mut self, directory: &Path) -> Vec<(&'static str, Option<String>)> {
        let own = |option: &str| self.option(option);
        let file = own("swift_store_config_file").and_then(|path| match accounts(&directory.join(&path)) {
            Ok(file) => Some(file),
            Err(why) => {
                self.files.note(format!("{path}, swift_store_config_file of [{}], {why}", self.backend.id));
                None
            }
        });
        let account = own("default_swift_reference").unwrap_or("ref1".into());
        let get = |key: &str, option: &str| match &file {
            Some(file) => file.option(&account, key).map(|value| value.replace("%%", "%")),
            None => own(option),
        };
        if file.as_ref().is_some_and(|file| !file.has(&account)) {
            self.files.note(format!("swift_store_config_file of [{}] has no section [{account}]", self.backend.id));
        }
        let user = get("user", "swift_store_user");
        let version = get("auth_version", "").or_else(|| own("swift_store_auth_version")).unwrap_or_default();
        let address = get("auth_address", "swift_store_auth_address").map(|url| match &file {
            Some(_) => self.files.bare(&account, "auth_address", &url),
            None => self.files.bare(self.place("swift_store_auth_address"), "swift_store_auth_address", &url),
        });
        let mut account = vec![("auth_url", address)];
        if version.starts_with('1') {
            account.extend([("auth_version", Some("1".to_owned())), ("user", user)]);
            return account;
        }
        let (project, user) = match user.as_deref().and_then(|user| user.split_once(':')) {
            Some((project, user)) => (Some(project.to_owned()), Some(user.to_owned())),
            None => (None, user),
        };
        account.extend([
            ("project", project),
            ("project_domain", get("project_domain_name", "")),
            ("user", user),
            ("user_domain", get("user_domain_name", "")),
        ]);
        account
    }

    fn unknown(&mut self) {
        let Backend { id, kind, .. } = self.backend;
        self.files.note(format!("store \"{id}\" has the type \"{kind}\", which is unknown here; it is not enabled"));
        let text = format!("{} is no type that is known here. If Glance can write to it, this works:", quoted(kind));
        self.page.comment(&text);
        self.lacks = Some("is of an unknown type");
    }

    fn missing(&mut self, line: &str, option: &str) {
        self.page.line(line);
        self.files.note(format!("[{}] has no {option}; its store is not enabled", self.place(option)));
        self.lacks = Some("is not complete");
    }

    fn unread(&self, option: &str, why: &str) {
        self.files.unread(self.place(option), option, why);
    }
}

/// The region that is in the name of an Amazon host, as Glance finds it.
fn amazon_region(host: &str) -> Option<String> {
    let host = mimeo_core::bare(host);
    let host = host.trim_start_matches("http://").trim_start_matches("https://").split([':', '/']).next()?;
    let name = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
    let region = name.strip_prefix("s3-").or_else(|| name.strip_prefix("s3."))?;
    Some(region.to_owned())
}

fn accounts(path: &Path) -> Result<Files, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut files = Files::default();
    match files.add(&text) {
        Ok(()) => Ok(files),
        Err(malformed) => Err(format!("cannot be read: line {} has {}", malformed.line, malformed.rule)),
    }
}
