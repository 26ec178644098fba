//! What stands at the end of each command's `--help`. A test parses them all.

pub(super) const SERVE_EXAMPLES: &str = "Examples:
  mimeo serve
  mimeo serve --observe  # the first run over an existing cloud: plans and reports, and writes nowhere";

pub(super) const STATUS_EXAMPLES: &str = "Examples:
  mimeo status
  mimeo status --state failed
  mimeo status --store http2 --replica failed
  mimeo status --rule 'rule 1'
  mimeo status -f csv -c ID -c State
  mimeo status debian-12
  mimeo status 0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a --history";

pub(super) const EVENTS_EXAMPLES: &str = "Examples:
  mimeo events
  mimeo events -f
  mimeo events -f --json --limit 1";

pub(super) const RULES_EXAMPLES: &str = "Examples:
  mimeo rules
  mimeo rules --try 'image.visibility == \"public\"' --store http1 --store http2
  mimeo rules --try 'image.size > 1000000000' --copies 2";

pub(super) const REPLICATE_EXAMPLES: &str = "Examples:
  mimeo replicate debian-12
  mimeo replicate debian-12 --wait --timeout 10m";

pub(super) const VERIFY_EXAMPLES: &str = "Examples:
  mimeo verify debian-12
  mimeo verify debian-12 --wait";

pub(super) const PLAN_EXAMPLES: &str = "Examples:
  mimeo plan
  mimeo plan debian-12
  mimeo plan -f csv -c Image -c Action";

pub(super) const CHECK_EXAMPLES: &str = "Examples:
  mimeo check
  mimeo check -f json";

pub(super) const STORES_EXAMPLES: &str = "Examples:
  mimeo stores
  mimeo stores -c Name -c State
  mimeo stores rename http1 rack1
  mimeo stores move http1";

pub(super) const DRAIN_EXAMPLES: &str = "Examples:
  mimeo drain http3 --wait
  mimeo drain http3 --cancel";

pub(super) const MANUAL_EXAMPLES: &str = "Examples:
  mimeo manual ~/.local/share";

pub(super) const GC_EXAMPLES: &str = "Examples:
  mimeo gc
  mimeo gc --confirm
  mimeo gc --confirm --seen 2026-01-31T12:00:00Z";

pub(super) const LEDGER_EXAMPLES: &str = "Examples:
  mimeo ledger backup /var/backups/mimeo.db
  mimeo ledger restore /var/backups/mimeo.db";

pub(super) const IMPORT_EXAMPLES: &str = "Examples:
  mimeo import-config /etc/glance/glance-api.conf
  mimeo import-config /etc/glance/glance-api.conf --output mimeo.toml";

pub(super) const DEMO_EXAMPLES: &str = "Examples:
  mimeo demo
  mimeo demo --size 1GiB";
