"""The .deb as an administrator meets it: installed, configured, started by systemd within its hardening, reloaded,
stopped, upgraded, removed and purged; and what `serve` tells a service manager."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from book import all_blocks
from cloud.base import eventually, run
from cloud.machine import Machine, can_be_made
from mimeo import BINARY, ROOT, toml

CONFIG = "/etc/mimeo/mimeo.toml"
UNIT = "mimeo.service"
LOG = "/var/log/mimeo.log"


@pytest.fixture(scope="module")
def package() -> Path:
    """Of the program under test. Its version is not the one that is installed here, if one is."""
    return ROOT / run([ROOT / "deploy/deb/build", BINARY.parent], timeout=200).stdout.strip()


@pytest.fixture(scope="module")
def unpacked(package, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("package")
    run(["dpkg-deb", "--extract", package, root])
    return root


@pytest.fixture
def machine(cloud):
    if not can_be_made():
        pytest.skip("no machine with a systemd of its own can be made here: not root, or no overlay file system")
    machine = Machine(cloud.dir / "runs" / f"machine-{os.urandom(4).hex()}")
    try:
        machine.start()
        # There is no journal.
        drop_in(machine, "log", f"[Service]\nStandardError=append:{LOG}\n")
        yield machine
        (machine.dir / "mimeo.log").write_text(machine.run("cat", LOG, check=False).stdout)
    finally:
        machine.stop()


def test_what_is_in_the_package(unpacked):
    """Nothing is missing, and nothing lies where a package must not put it."""
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert {
        "usr/bin/mimeo", "usr/lib/systemd/system/mimeo.service", "usr/lib/sysusers.d/mimeo.conf", "etc/mimeo/mimeo.toml",
        "usr/share/man/man1/mimeo.1.gz", "usr/share/man/man1/mimeo-replicate.1.gz",
        "usr/share/bash-completion/completions/mimeo", "usr/share/zsh/vendor-completions/_mimeo",
        "usr/share/fish/vendor_completions.d/mimeo.fish", "usr/share/doc/mimeo/copyright",
        "usr/share/doc/mimeo/guide/runbook.md", "usr/share/doc/mimeo/examples/alerts.yml",
    } <= files
    assert {name.split("/")[0] for name in files} == {"usr", "etc"}
    linked = run(["ldd", unpacked / "usr/bin/mimeo"]).stdout
    assert "not found" not in linked
    for library in ("librados", "librbd", "libssl", "libsqlite3"):
        assert library not in linked, "loaded when a store wants it, or not at all"


def test_the_guide_in_the_package_leads_nowhere_that_is_not_there(unpacked):
    guide = unpacked / "usr/share/doc/mimeo/guide"
    for page in guide.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_man_pages_and_completions_know_every_command(unpacked):
    commands = [line.split()[0] for line in run([BINARY, "--help"]).stdout.split("Commands:")[1].split("Options:")[0]
                .strip().splitlines() if line.strip()]
    assert "replicate" in commands
    pages = unpacked / "usr/share/man/man1"
    missing = [name for name in commands if name != "help" and not (pages / f"mimeo-{name}.1.gz").exists()]
    assert missing == []
    script = f"""
        source {unpacked}/usr/share/bash-completion/completions/mimeo
        COMP_WORDS=(mimeo ''); COMP_CWORD=1; _mimeo mimeo '' mimeo
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    offered = set(run(["bash", "-c", script]).stdout.split())
    assert set(commands) <= offered


def test_the_shipped_configuration(unpacked, tmp_path):
    """As it lies there it names what is missing. With the settings in use that it has as comments, it is right."""
    shipped = (unpacked / "etc/mimeo/mimeo.toml").read_text()

    def stores(text: str):
        file = tmp_path / "mimeo.toml"
        file.write_text(text)
        return run([BINARY, "--config", file, "stores"], check=False)

    as_shipped = stores(shipped)
    assert as_shipped.returncode == 2 and "enabled_stores" in as_shipped.stderr, as_shipped
    lines = [line for line in shipped.splitlines() if line != "enabled_stores = []"]
    in_use = stores("\n".join(line[1:] if line[:1] == "#" and line[1:2] not in ("", " ") else line for line in lines))
    assert in_use.returncode == 1 and "serve" in in_use.stderr, in_use


def test_a_service_manager_is_told(cloud, mimeo):
    """Ready when the API answers; each reload, its beginning and its end; the stop; and all the while that it lives."""
    path = mimeo.dir / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.settimeout(30)

        def states() -> list[str]:
            """The next message that is not a sign of life."""
            while True:
                lines = told.recv(4096).decode().split()
                if lines != ["WATCHDOG=1"]:
                    return [line.split("=")[0] for line in lines]

        mimeo.extra_env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"}
        mimeo.serve()
        assert states() == ["READY"]
        assert mimeo.api("/v1/overview").ok
        mimeo.reload()
        assert states() == ["RELOADING", "MONOTONIC_USEC"]
        assert states() == ["READY"]
        assert told.recv(4096) == b"WATCHDOG=1\n"
        mimeo.process.send_signal(signal.SIGTERM)
        assert states() == ["STOPPING"]


def test_installed_and_used(cloud, mimeo, images, machine, package):
    install(machine, package)
    assert machine.run("systemctl", "is-active", UNIT, check=False).stdout.strip() == "inactive", "nothing to do yet"
    assert machine.run("stat", "-c", "%U %G %a", "/etc/mimeo", CONFIG).stdout.split("\n")[:2] == [
        "root mimeo 750", "root mimeo 640"]
    verified = machine.run("systemd-analyze", "verify", UNIT)
    assert verified.stdout + verified.stderr == ""

    configure(machine, mimeo)
    checked = as_mimeo(machine, "check")
    assert checked.returncode == 0, checked.stdout
    for block in all_blocks("ini"):
        if "[Service]" in block.text:
            drop_in(machine, "guide", block.text)
    machine.run("mkdir", "-p", *show(machine, "ReadWritePaths").split())
    machine.run("systemctl", "enable", "--now", UNIT)
    assert show(machine, "ActiveState") == "active" and user_of(machine) == "mimeo"
    assert machine.run("stat", "-c", "%U %a", "/var/lib/mimeo", "/var/lib/mimeo/mimeo.db").stdout.split() == [
        "mimeo", "700", "mimeo", "600"]
    image = images.create(b"from a package")
    eventually(lambda: as_mimeo(machine, "replicate", image, "--wait", "--timeout", "60s").returncode == 0, 60,
               "the image is registered")
    assert set(images.mimeo_locations(image)) == set(mimeo.stores)

    pid = show(machine, "MainPID")
    configure(machine, mimeo, transfer={"concurrency": 3})
    machine.run("systemctl", "reload", UNIT)
    eventually(lambda: '"concurrency":3' in limits(machine, mimeo), 30, "the new limits are in force")
    eventually(lambda: show(machine, "ActiveState") == "active", 30, "systemd knows that the reload is over")
    assert show(machine, "MainPID") == pid

    machine.run("sh", "-ec", f"echo 'what an administrator wrote' | sed 's/^/# /' >> {CONFIG}")
    install(machine, package)
    assert show(machine, "ActiveState") == "active" and show(machine, "MainPID") != pid, "an upgrade starts it anew"
    assert "# what an administrator wrote" in machine.run("cat", CONFIG).stdout

    machine.run("systemctl", "stop", UNIT)
    assert show(machine, "Result") == "success"
    machine.run("systemctl", "start", UNIT)
    machine.run("dpkg", "--remove", "mimeo")
    assert machine.run("pgrep", "-u", "mimeo", check=False).returncode == 1, "nothing runs any more"
    assert machine.run("test", "-e", CONFIG, "-a", "-e", "/var/lib/mimeo/mimeo.db").returncode == 0
    machine.run("dpkg", "--purge", "mimeo")
    left = machine.run("find", "/etc/mimeo", "/var/lib/mimeo", "/usr/bin/mimeo", "/etc/systemd/system", "-name", "*mimeo*",
                       check=False).stdout
    assert left == ""


def test_one_that_is_stuck_is_started_anew(cloud, mimeo, machine, package):
    """By the watchdog; and one whose configuration is wrong is not tried again and again."""
    install(machine, package)
    configure(machine, mimeo)
    drop_in(machine, "quick", "[Service]\nWatchdogSec=2\nRestartSec=0\n")
    machine.run("systemctl", "start", UNIT)
    pid = show(machine, "MainPID")
    machine.run("kill", "-STOP", pid)
    eventually(lambda: show(machine, "NRestarts") == "1" and show(machine, "ActiveState") == "active", 60,
               "it is started anew")
    machine.run("systemctl", "stop", UNIT)
    machine.write(CONFIG, "enabled_stores = []\n")
    assert machine.run("systemctl", "start", UNIT, check=False).returncode == 1
    eventually(lambda: show(machine, "ActiveState") == "failed", 30, "it has failed")
    assert show(machine, "ExecMainStatus") == "2" and show(machine, "NRestarts") == "0"


def install(machine: Machine, package: Path) -> None:
    """As `apt install ./mimeo.deb` does once it has what the package depends on."""
    inside = f"/var/tmp/{package.name}"
    machine.run("sh", "-ec", f"cat < {package} > {inside}" if package.is_relative_to(ROOT) else f"test -e {inside}")
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-confold", "--install", inside)


def configure(machine: Machine, mimeo, **changes) -> None:
    """The test's usual configuration, with the ledger where the package has it, and variables for the service alone."""
    mimeo.configure(ledger={"url": "sqlite:/var/lib/mimeo/mimeo.db"}, openstack={"cloud": "e2e"}, **changes)
    machine.run("sh", "-ec", f"cat > {CONFIG}", input=toml(mimeo.config))
    credentials = mimeo.credentials
    auth = {name.removeprefix("OS_").lower(): value for name, value in credentials.items()}
    region, version = auth.pop("region_name"), auth.pop("identity_api_version")
    cloud = {"auth": auth, "region_name": region, "identity_api_version": version}
    machine.write("/etc/openstack/clouds.yaml", json.dumps({"clouds": {"e2e": cloud}}))
    machine.write("/etc/mimeo/environment", "MIMEO_LOG=debug\n")


def drop_in(machine: Machine, name: str, text: str) -> None:
    machine.write(f"/run/systemd/system/{UNIT}.d/{name}.conf", text)
    machine.run("systemctl", "daemon-reload")


def as_mimeo(machine: Machine, *arguments: str):
    return machine.run("runuser", "-u", "mimeo", "--", "mimeo", *arguments, check=False)


def show(machine: Machine, what: str) -> str:
    return machine.run("systemctl", "show", UNIT, "--property", what, "--value").stdout.strip()


def user_of(machine: Machine) -> str:
    return machine.run("ps", "-o", "user=", "-p", show(machine, "MainPID")).stdout.strip()


def limits(machine: Machine, mimeo) -> str:
    token = machine.run("cat", "/var/lib/mimeo/mimeo.token").stdout.strip()
    return mimeo.api("/v1/limits", token=token).text
