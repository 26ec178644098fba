//! Rules: which images go to which stores.

mod bounds;

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use cel::{Context, ExecutionError, Program, Value};

use crate::{Image, ImageId, ImageStatus, Replica, ReplicaState, StoreName, Timestamp, Visibility, plan::Conditions};

/// What the configuration says of a store that planning needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFacts {
    pub name: StoreName,
    /// The visibilities it takes; `None` takes all.
    pub visibility: Option<Vec<Visibility>>,
    /// Glance's own id of a store that only Glance can write.
    pub backend: Option<String>,
}

impl StoreFacts {
    /// A store that takes every image, from Mimeo.
    pub fn new(name: StoreName) -> Self {
        Self { name, visibility: None, backend: None }
    }
}

/// One `[[rules]]` entry as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSpec {
    pub name: String,
    /// A CEL expression over `image`; none matches every image.
    pub when: Option<String>,
    pub stores: Vec<StoreName>,
    /// Any so many of `stores`; none means all of them.
    pub copies: Option<usize>,
}

/// What a rule says of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Matches,
    Passes,
    /// The expression cannot be answered for this image, which is as if it did not match. The text is CEL's own.
    Fails(String),
}

/// A `when` that is no CEL. The text is the parser's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidWhen(String);

/// Compiled rules. Without any, every image goes to every enabled store.
#[derive(Default)]
pub struct Rules(Vec<Rule>);

struct Rule {
    spec: RuleSpec,
    program: Option<Program>,
}

/// What the rules want of one image.
#[derive(Debug, Default)]
pub struct Wanted {
    /// In the order of those that are enabled.
    pub stores: Vec<StoreName>,
    /// The names of those that match, in the order in which they were written.
    pub rules: Vec<String>,
}

impl Rules {
    /// On error: which rule (by index), and why.
    pub fn compile(specs: Vec<RuleSpec>) -> Result<Self, (usize, InvalidWhen)> {
        let compile = |(at, spec): (usize, RuleSpec)| {
            let program = spec.when.as_deref().map(check).transpose().map_err(|error| (at, error))?;
            Ok(Rule { spec, program })
        };
        specs.into_iter().enumerate().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// In the order in which they were written.
    pub fn specs(&self) -> impl Iterator<Item = &RuleSpec> {
        self.0.iter().map(|rule| &rule.spec)
    }

    /// What each rule says of the image, in the same order.
    pub fn verdicts(&self, image: &Image) -> Vec<Verdict> {
        let context = LazyCell::new(|| context(image));
        self.0.iter().map(|rule| rule.verdict(&context)).collect()
    }

    /// Where the image should be, at none that is drained. All rules that match add up.
    pub fn wanted(
        &self,
        image: &Image,
        enabled: &[StoreFacts],
        conditions: &Conditions,
        held: &BTreeMap<StoreName, Replica>,
    ) -> Wanted {
        let takes = |store: &&StoreFacts| {
            let visibility = store.visibility.as_ref();
            !conditions.draining.contains(&store.name)
                && visibility.is_none_or(|listed| listed.contains(&image.visibility))
        };
        let open: Vec<&StoreName> = enabled.iter().filter(takes).map(|store| &store.name).collect();
        if self.0.is_empty() {
            return Wanted { stores: open.into_iter().cloned().collect(), rules: Vec::new() };
        }
        let has = |store: &&StoreFacts| store.backend.as_ref().is_some_and(|backend| image.backends.contains(backend));
        let at_glance: Vec<&StoreName> = enabled.iter().filter(has).map(|store| &store.name).collect();
        // Not cheap, and without a `when` nobody asks for it.
        let context = LazyCell::new(|| context(image));
        let matching: Vec<&Rule> = self.0.iter().filter(|rule| rule.matches(&context)).collect();
        let rank = |store: &StoreName| {
            let held = held.get(store);
            let is_begun = |replica: &Replica| replica.is_proven() || replica.state == ReplicaState::Copying;
            match at_glance.contains(&store) {
                true => (0, None),
                // Nobody waits for it while another store is there.
                false if conditions.down.contains_key(store) && !held.is_some_and(is_begun) => (UNTRIED + 2, None),
                false => held.map_or((UNTRIED, None), rank),
            }
        };
        let chosen: Vec<&StoreName> = matching.iter().flat_map(|rule| rule.choose(&open, rank)).collect();
        Wanted {
            stores: open.into_iter().filter(|store| chosen.contains(store)).cloned().collect(),
            rules: matching.iter().map(|rule| rule.spec.name.clone()).collect(),
        }
    }
}

impl Rule {
    /// An expression that fails on this image, because a property is missing say, does not match it.
    fn matches<F: FnOnce() -> Context<'static, 'static>>(
        &self,
        context: &LazyCell<Context<'static, 'static>, F>,
    ) -> bool {
        self.verdict(context) == Verdict::Matches
    }

    fn verdict<F: FnOnce() -> Context<'static, 'static>>(
        &self,
        context: &LazyCell<Context<'static, 'static>, F>,
    ) -> Verdict {
        match self.program.as_ref().map(|program| program.execute(context)) {
            None | Some(Ok(Value::Bool(true))) => Verdict::Matches,
            Some(Ok(Value::Bool(false))) => Verdict::Passes,
            Some(Ok(_)) => Verdict::Fails("the expression gives no true or false".into()),
            Some(Err(error)) => Verdict::Fails(error.to_string()),
        }
    }

    /// Of this rule's stores, those that it asks for: where copies are first, where they failed last.
    fn choose<'a>(
        &self,
        open: &[&'a StoreName],
        rank: impl Fn(&StoreName) -> (u8, Option<Timestamp>),
    ) -> Vec<&'a StoreName> {
        let mut stores: Vec<&StoreName> =
            self.spec.stores.iter().filter_map(|name| open.iter().find(|store| **store == name).copied()).collect();
        stores.sort_by_key(|store| rank(store));
        stores.truncate(self.spec.copies.unwrap_or(usize::MAX));
        stores
    }
}

/// The less the better, so that copies do not wander: one that is there before one that is on its way out, and that
/// before one that is on its way in. Among failures the one that is tried next comes first, so that each has its turn.
fn rank(replica: &Replica) -> (u8, Option<Timestamp>) {
    match replica.state {
        ReplicaState::Proven | ReplicaState::Registered => (0, None),
        ReplicaState::Suspect if replica.proof.is_some() => (0, None),
        ReplicaState::Retiring if replica.proof.is_some() => (1, None),
        ReplicaState::Copying | ReplicaState::Stored => (2, None),
        ReplicaState::Wanted | ReplicaState::Suspect | ReplicaState::Gone => (UNTRIED, None),
        ReplicaState::Failed | ReplicaState::Retiring => {
            (UNTRIED + 1, replica.failure.as_ref().and_then(|failure| failure.next_try))
        }
    }
}

const UNTRIED: u8 = 3;

/// Parses, and tries the expression on a sample: a name or a field that is not there is a mistake for every image, while
/// a missing property may be there on the next.
fn check(when: &str) -> Result<Program, InvalidWhen> {
    bounds::keep(when)?;
    let program = Program::compile(when).map_err(|error| match assigns(when) {
        true => InvalidWhen("a single `=` compares nothing; write `==`".into()),
        false => InvalidWhen(error.to_string()),
    })?;
    if let Some(field) = fields_of(when).into_iter().find(|field| !FIELDS.contains(field)) {
        return Err(InvalidWhen(format!("an image has no field \"{field}\"; it has {}", FIELDS.join(", "))));
    }
    match program.execute(&context(&sample())) {
        Err(ExecutionError::UndeclaredReference(name)) => {
            let is_called = when.contains(&format!("{name}("));
            Err(InvalidWhen(match is_called {
                true => format!("unknown function \"{name}\"; texts have startsWith, endsWith, contains and size"),
                false => format!("unknown name \"{name}\": an expression sees only `image`"),
            }))
        }
        Ok(Value::Bool(_)) | Err(_) => Ok(program),
        Ok(_) => Err(InvalidWhen("the expression gives no true or false".into())),
    }
}

/// Whether a `=` stands alone, outside of texts.
fn assigns(when: &str) -> bool {
    let comparisons = ["==", "!=", "<=", ">="];
    comparisons.iter().fold(bounds::code(when), |code, comparison| code.replace(comparison, " ")).contains('=')
}

/// The fields of `image` that an expression names, as in `image.size`.
fn fields_of(when: &str) -> Vec<&str> {
    let in_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut fields = Vec::new();
    // Every second part is within quotes.
    for code in when.split(['"', '\'']).step_by(2) {
        for (at, found) in code.match_indices("image.") {
            let is_whole = !code[..at].ends_with(|letter| in_name(letter) || letter == '.');
            let rest = &code[at + found.len()..];
            let end = rest.find(|letter| !in_name(letter)).unwrap_or(rest.len());
            fields.extend(is_whole.then_some(&rest[..end]));
        }
    }
    fields
}

/// An ordinary image, to try expressions on.
pub(crate) fn sample() -> Image {
    Image {
        id: ImageId::nil(),
        name: Some("sample".into()),
        status: ImageStatus::Active,
        visibility: Visibility::Public,
        owner: Some("owner".into()),
        size: Some(1),
        hidden: false,
        protected: false,
        disk_format: Some("raw".into()),
        container_format: Some("bare".into()),
        tags: vec!["tag".into()],
        properties: BTreeMap::new(),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        hash: None,
        locations: Vec::new(),
        locations_shown: true,
        importing: false,
        backends: BTreeSet::new(),
        failed_backends: BTreeSet::new(),
    }
}

/// What an expression may ask of `image`.
const FIELDS: [&str; 11] = [
    "id",
    "name",
    "status",
    "visibility",
    "owner",
    "size",
    "disk_format",
    "container_format",
    "tags",
    "properties",
    "created_at",
];

/// What an expression sees as `image`: the [`FIELDS`].
fn context(image: &Image) -> Context<'static, 'static> {
    let text = |value: &Option<String>| value.clone().map_or(Value::Null, Value::from);
    let fields: Vec<(&str, Value)> = vec![
        ("id", image.id.as_str().into()),
        ("name", text(&image.name)),
        ("status", image.status.to_string().into()),
        ("visibility", image.visibility.to_string().into()),
        ("owner", text(&image.owner)),
        ("size", image.size.map_or(Value::Null, |size| Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))),
        ("disk_format", text(&image.disk_format)),
        ("container_format", text(&image.container_format)),
        ("tags", image.tags.clone().into()),
        ("properties", image.properties.clone().into_iter().collect::<HashMap<_, _>>().into()),
        ("created_at", image.created_at.to_string().into()),
    ];
    let map: HashMap<String, Value> = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut context = Context::default();
    context.add_variable_from_value("image", map);
    context
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|rule| &rule.spec)).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plan::Outage;

    fn stores(names: &[&str]) -> Vec<StoreFacts> {
        names.iter().map(|name| StoreFacts::new(name.parse().unwrap())).collect()
    }

    fn rule(when: Option<&str>, stores: &[&str], copies: Option<usize>) -> RuleSpec {
        let stores = stores.iter().map(|name| name.parse().unwrap()).collect();
        RuleSpec { name: "rule".into(), when: when.map(str::to_owned), stores, copies }
    }

    fn wanted(specs: Vec<RuleSpec>, image: &Image) -> Vec<String> {
        let rules = Rules::compile(specs).unwrap();
        let names = rules.wanted(image, &stores(&["a", "b", "c"]), &Conditions::default(), &BTreeMap::new());
        names.stores.into_iter().map(String::from).collect()
    }

    #[test]
    fn no_rules_mean_every_image_to_every_store_and_rules_without_a_match_leave_it_alone() {
        assert_eq!(wanted(vec![], &sample()), ["a", "b", "c"]);
        assert!(wanted(vec![rule(Some("image.visibility == 'private'"), &["a"], None)], &sample()).is_empty());
    }

    #[test]
    fn matching_rules_add_up_in_the_order_of_the_stores() {
        let rules = vec![rule(Some("image.size < 10"), &["c"], None), rule(Some("'tag' in image.tags"), &["a"], None)];
        assert_eq!(wanted(rules, &sample()), ["a", "c"]);
        let named = |name: &str, when: &str| RuleSpec { name: name.into(), ..rule(Some(when), &["a"], None) };
        let specs = vec![named("all", "true"), named("none", "false"), named("small", "image.size < 10")];
        let rules = Rules::compile(specs).unwrap();
        let wanted = rules.wanted(&sample(), &stores(&["a"]), &Conditions::default(), &BTreeMap::new());
        assert_eq!(wanted.rules, ["all", "small"], "and those that match are named");
    }

    #[test]
    fn what_people_bring_from_other_languages_is_told_in_plain_words() {
        let why = |when: &str| check(when).err().unwrap().to_string();
        assert!(why("image.visibility = 'public'").contains("write `==`"));
        assert!(!why("image.name == '=' &&").contains("write `==`"), "what is within a text compares nothing");
        assert!(why("image.name.beginsWith('a')").contains("unknown function \"beginsWith\""));
        assert!(why("name == 'a'").contains("unknown name \"name\""));
    }

    #[test]
    fn an_expression_that_fails_on_an_image_does_not_match_it() {
        let by_property = || vec![rule(Some("image.properties.tier == 'gold'"), &["a"], None)];
        assert!(wanted(by_property(), &sample()).is_empty());
        let mut image = sample();
        image.properties.insert("tier".into(), "gold".into());
        assert_eq!(wanted(by_property(), &image), ["a"]);
        image.name = None;
        assert!(wanted(vec![rule(Some("image.name.startsWith('x')"), &["a"], None)], &image).is_empty());
    }

    /// Each expression in the guide tells these two images from each other: none of them is dead or always true.
    #[test]
    fn the_guides_examples_say_something() {
        let guide = include_str!("../../../docs/rules.md");
        let mut other = sample();
        other.name = Some("golden-1".into());
        other.owner = Some("5ed2d5f0a2c94c3b9a7b5d1f0c1b7a11".into());
        other.visibility = Visibility::Private;
        other.size = Some(100 << 30);
        other.tags = vec!["replicate".into()];
        other.created_at = "2026-02-01T00:00:00Z".parse().unwrap();
        other
            .properties
            .extend([("os_distro", "ourlinux"), ("image_type", "snapshot")].map(|(k, v)| (k.into(), v.into())));
        let examples: Vec<&str> =
            guide.lines().filter_map(|line| line.strip_prefix("when = '")?.strip_suffix('\'')).collect();
        assert!(examples.len() > 5, "{examples:?}");
        for when in examples {
            let matches = |image| !wanted(vec![rule(Some(when), &["a"], None)], image).is_empty();
            assert_ne!(matches(&sample()), matches(&other), "{when}");
        }
    }

    #[test]
    fn each_rule_says_whether_it_matches_and_why_it_cannot_tell() {
        let specs = ["image.size < 10", "image.size > 10", "image.properties.tier == 'gold'"];
        let rules = Rules::compile(specs.map(|when| rule(Some(when), &["a"], None)).into()).unwrap();
        assert_eq!(rules.specs().map(|spec| spec.when.as_deref().unwrap()).collect::<Vec<_>>(), specs);
        let verdicts = rules.verdicts(&sample());
        assert_eq!(verdicts[..2], [Verdict::Matches, Verdict::Passes]);
        assert!(matches!(&verdicts[2], Verdict::Fails(why) if why.contains("tier")), "{verdicts:?}");
    }

    #[test]
    fn copies_stay_where_they_are_and_move_away_from_failures() {
        let rules = Rules::compile(vec![rule(None, &["a", "b", "c"], Some(2))]).unwrap();
        let replica = |name: &str, state| {
            let store: StoreName = name.parse().unwrap();
            (store.clone(), Replica { state, ..Replica::wanted(store) })
        };
        let held = BTreeMap::from([replica("a", ReplicaState::Failed), replica("c", ReplicaState::Registered)]);
        let chosen = rules.wanted(&sample(), &stores(&["a", "b", "c"]), &Conditions::default(), &held);
        assert_eq!(chosen.stores.iter().map(StoreName::as_str).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn copies_do_not_wander_for_no_reason() {
        use ReplicaState as R;
        let replica = |(name, state): (&str, ReplicaState)| {
            let store: StoreName = name.parse().unwrap();
            let proof = Some(crate::Proof { kind: crate::ProofKind::Readback, at: Timestamp::UNIX_EPOCH });
            (store.clone(), Replica { state, proof, ..Replica::wanted(store) })
        };
        let chosen_with = |copies, draining: &[&str], down: &[&str], held: &[(&str, ReplicaState)]| {
            let rules = Rules::compile(vec![rule(None, &["a", "b", "c"], Some(copies))]).unwrap();
            let draining = draining.iter().map(|name| name.parse().unwrap()).collect();
            let outage = || Outage { since: Timestamp::UNIX_EPOCH, error: "no answer".into() };
            let down = down.iter().map(|name| (name.parse().unwrap(), outage())).collect();
            let conditions = Conditions { draining, down, ..Conditions::default() };
            let held = held.iter().copied().map(replica).collect();
            let names = rules.wanted(&sample(), &stores(&["a", "b", "c"]), &conditions, &held);
            names.stores.into_iter().map(String::from).collect::<Vec<_>>()
        };
        let chosen =
            |copies, draining: &[&str], held: &[(&str, ReplicaState)]| chosen_with(copies, draining, &[], held);
        let there = [("b", R::Registered), ("c", R::Registered)];
        assert_eq!(chosen(2, &[], &there), ["b", "c"], "where they are, though a stands first");
        assert_eq!(chosen(2, &["b"], &there), ["a", "c"], "one in the place of the drained one");
        let suspect = [("b", R::Suspect), ("c", R::Registered)];
        assert_eq!(chosen(2, &[], &suspect), ["b", "c"], "not for a store that cannot be reached for a while");
        let back = [("a", R::Retiring), ("b", R::Registered), ("c", R::Registered)];
        assert_eq!(chosen(2, &[], &back), ["b", "c"], "what has moved has moved");
        let half = [("a", R::Retiring), ("b", R::Copying), ("c", R::Registered)];
        assert_eq!(chosen(2, &[], &half), ["a", "c"], "a copy that is there saves one that is not");
        assert_eq!(chosen(1, &[], &there), ["b"]);
        assert_eq!(chosen_with(1, &[], &["a"], &[]), ["b"], "a new image does not wait for a store that is away");
        assert_eq!(chosen_with(3, &[], &["a"], &[]), ["a", "b", "c"], "unless there are no others");
        assert_eq!(chosen_with(2, &[], &["b"], &there), ["b", "c"], "what was proven there may come back");
    }

    #[test]
    fn a_store_takes_only_the_visibilities_that_it_lists() {
        let mut facts = stores(&["a", "b"]);
        facts[0].visibility = Some(vec![Visibility::Private]);
        let chosen = Rules::default().wanted(&sample(), &facts, &Conditions::default(), &BTreeMap::new());
        assert_eq!(chosen.stores.iter().map(StoreName::as_str).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn only_fields_that_are_written_as_code_are_looked_at() {
        assert_eq!(
            fields_of("image.size > 1 && image.properties.image.x == 'image.y' && my_image.z"),
            ["size", "properties"]
        );
        for field in FIELDS {
            let program = Program::compile(&format!("has(image.{field})")).unwrap();
            assert_eq!(program.execute(&context(&sample())), Ok(Value::Bool(true)), "{field}");
        }
    }

    #[test]
    fn mistakes_in_an_expression_are_found_when_it_is_compiled() {
        for bad in
            ["image.size >", "visibility == 'public'", "image.name", "1 + 1", "image.siez < 3", "true || image.x"]
        {
            assert!(Rules::compile(vec![rule(Some(bad), &["a"], None)]).is_err(), "{bad} was taken");
        }
    }
}
