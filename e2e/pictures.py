"""Pictures of the dashboard, from a real run: real Glance, real web servers, a store that is full and one that is slow.
Written to docs/pictures/, each page at three widths, in the light and in the dark. `e2e/pictures --help`."""

import argparse
import atexit
import os
import time
from pathlib import Path

from browser import Visit, chromium
from cloud import Cloud
from cloud.base import eventually, kill_all
from cloud.fault import FaultyStore
from mimeo import ROOT, Mimeo

MiB = 1 << 20
WIDTHS = {390: 844, 834: 1112, 1440: 900}
NAMES = [
    "almalinux-9.6", "almalinux-10.0", "centos-stream-10", "debian-12", "debian-13", "fedora-43", "flatcar-stable",
    "freebsd-15.0", "opensuse-leap-16.0", "oracle-linux-9.6", "rhel-9.6", "rocky-9.6", "rocky-10.0", "talos-1.12",
    "ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04", "windows-server-2025", "amphora-x64-haproxy", "octavia-test-web",
]
RULES = [
    {"name": "public images everywhere", "when": "image.visibility == 'public'"},
    {"name": "private images at home", "when": "image.visibility != 'public'", "stores": ["berlin", "paris"]},
]


def world(cloud: Cloud) -> tuple[Mimeo, str]:
    """A cloud on an ordinary bad day. Gives the image that cannot be where it should."""
    lisbon = FaultyStore(cloud.dir / "runs/lisbon", cloud.fault_ports[0])
    mimeo = Mimeo(cloud.dir / "runs/pictures", cloud)
    mimeo.stores = dict(zip(("berlin", "paris", "oslo"), cloud.nginx)) | {"lisbon": lisbon}
    slow = {"bandwidth": "3MiB/s"}
    mimeo.serve(
        retry={"first": "5m", "max": "10m"}, gc={"interval": "1s", "grace": "10s", "max_images": 2}, rules=RULES,
        **{"stores.oslo": slow},
    )
    images = cloud.images
    for number, name in enumerate(NAMES):
        private = {} if number % 5 else {"visibility": "private"}
        images.create(os.urandom(MiB * (2 + number % 4)), name=name, **({"visibility": "public"} | private))
    eventually(lambda: mimeo.overview()["states"].get("registered") == len(NAMES), 120, "all are registered")
    doomed = [images.create(os.urandom(1000), name=f"build-{n}", visibility="public") for n in (711, 712, 713)]
    for image in doomed:
        mimeo.wait_registered(image)
    for image in doomed:
        images.delete(image)
    lisbon.fault("PUT", "status", 507)
    failed = [images.create(os.urandom(3 * MiB), name=name, visibility="public") for name in ("gpu-cuda-13", "sap-hana-sles")]
    for image in failed:
        mimeo.wait_reason(image, "lisbon", {"store-full"})
    eventually(lambda: mimeo.overview()["held_deletes"] == 3, 30, "the guard holds the deletions")
    for name in ("windows-11-ltsc", "ml-workbench-2026.11"):
        images.create(os.urandom(150 * MiB), name=name, visibility="public")
    return mimeo, failed[0]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--to", type=Path, default=ROOT / "docs/pictures")
    target = options.parse_args().to
    target.mkdir(parents=True, exist_ok=True)
    atexit.register(kill_all)
    cloud = Cloud()
    try:
        cloud.start()
        cloud.reset()
        mimeo, failed = world(cloud)
        time.sleep(25)  # for two points of the stores' charts
        token = (mimeo.dir / "mimeo.token").read_text().strip()
        pages = {"sign-in": "/sign-in", "images": "/", "transfers": "/transfers", "stores": "/stores",
                 "image": f"/images/{failed}", "rules": "/rules?when=image.size+>+100000000&store=lisbon", "deletes": "/deletes"}
        with chromium() as browser:
            for scheme in ("light", "dark"):
                for width, height in WIDTHS.items():
                    one = Visit(browser, f"http://127.0.0.1:{mimeo.port}", width, height, color_scheme=scheme)
                    one.sign_in(token)
                    for name, path in pages.items():
                        one.page.goto(path)
                        if one.page.locator("#live").count():
                            one.page.get_by_text("Live", exact=True).wait_for()
                        one.page.wait_for_timeout(1500 if name == "transfers" else 100)
                        one.page.screenshot(path=target / f"{name}-{width}-{scheme}.png")
                    one.close()
        mimeo.discard()
    finally:
        cloud.stop()


if __name__ == "__main__":
    main()
