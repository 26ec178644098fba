"""The parts of the benchmark. Each is a module with `TITLE` and `run(lab, options) -> Report`."""

from . import clients, concurrent, gateway, idle, ledger, peers, sizes, slow, small, stores

ALL = {
    "peers": peers, "stores": stores, "sizes": sizes, "concurrent": concurrent, "small": small, "slow": slow,
    "idle": idle, "clients": clients, "gateway": gateway, "ledger": ledger,
}
