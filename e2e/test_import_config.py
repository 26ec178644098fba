"""`mimeo import-config`: Glance's options are what oslo.config makes of them, and what is written is kept safe."""

import configparser
import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from oslo_config import cfg

from mimeo import BINARY, ROOT

APP = ROOT / "crates/app"
SAMPLES = sorted(path.stem for path in (APP / "tests/import").glob("*.conf") if path.stem != "swift-store")

# An option in all the ways in which it can be written; each section is an rbd store, the option its pool.
TRICKY = r"""
[DEFAULT]
site = north
root = ${site}-images
port : 80
[plain]
rbd_store_pool=images
[spaced]
rbd_store_pool   =   my images   ; no comment # this neither
[colon]
rbd_store_pool: a = b
[quoted]
rbd_store_pool = "two words"
[half]
rbd_store_pool = "two
[twice]
rbd_store_pool = first
rbd_store_pool = second
[indented]
rbd_store_pool =
    images
[Mixed]
rbd_store_pool = case
[named]
rbd_store_pool = $root/$port
[own]
site = south
rbd_store_pool = $site
[other]
rbd_store_pool = ${plain.rbd_store_pool}
[money]
rbd_store_pool = 5$$ \$site 100% $
[empty]
rbd_store_pool =
[twice]
rbd_store_pool = third
"""
LATER = "[plain]\nrbd_store_pool = later\n"


def run(*arguments, cwd=APP) -> tuple[int, str, str]:
    done = subprocess.run([str(BINARY), "import-config", *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          timeout=30, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def sections(text: str) -> list[str]:
    return list(dict.fromkeys(line[1:-1] for line in text.splitlines() if line.startswith("[")))[1:]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_of_glances_configuration(sample):
    code, out, err = run(f"tests/import/{sample}.conf")
    assert code == 0, err
    assert out == (APP / f"tests/import/{sample}.toml").read_text()
    tomllib.loads(out)


# Of the sample of many stores most kinds are not to be had. A Glance with as many of its own stands for it below.
SHAPES = [sample for sample in SAMPLES if sample != "many"]
OTHER_POOLS = {"dcn0": "dcn0 images", "dcn1": "dcn1 images"}


def at_home(sample: str, cloud, storage) -> str:
    """A sample with the addresses, users and pools of this cloud."""
    ceph, text = storage.ceph, (APP / f"tests/import/{sample}.conf").read_text()
    for there, here in {
        r"rabbit://\S+": cloud.rabbitmq.url, "ssl = true": "ssl = false", "regionOne": "RegionOne",
        "rabbit_host = .*": "", r"/etc/ceph/\w+\.conf": str(ceph.conf), "rbd_store_user *= *.*": "rbd_store_user=admin",
        "swift-store.conf": str(storage.swift_references),
    }.items():
        text = re.sub(there, here, text)
    if "rbd_store_ceph_conf" not in text:
        text += f"rbd_store_ceph_conf = {ceph.conf}\n"  # in the one section of all stores, which is the last
    for site, pool in OTHER_POOLS.items():  # all are in one cluster here
        text = re.sub(rf"(\[{site}\][^\[]*rbd_store_pool=)images", rf"\g<1>{pool}", text)
    return text


def options_of(text: str, directory: Path) -> dict[str, dict]:
    """What of a sample's stores and notifications this cloud's Glance is to have too."""
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.read_string(text)
    sections = {name: dict(read[name]) for name in read.sections()}
    default, shared = dict(read.defaults()), sections.pop("backend_defaults", {})
    backends = [each.strip() for each in default.get("enabled_backends", "").split(",") if each.strip()]
    backends = [each for each in backends if not each.startswith("os_glance_")]  # which Glance refuses
    options = {"DEFAULT": {"enabled_backends": ",".join(backends)}, "glance_store": sections["glance_store"]}
    for name in (each.split(":")[0] for each in backends):
        options[name] = {**shared, **{key: value for key, value in sections[name].items() if key not in default}}
    if "control_exchange" in default:
        options["DEFAULT"]["control_exchange"] = default["control_exchange"]
        options["oslo_messaging_notifications"] = {"topics": default["notification_topics"]}

    def plain(value: str) -> str:
        """Glance knows no options of an operator's own invention, and ours writes an option into one line."""
        return value.replace("$my_data", str(directory)).replace("\n", " ")

    return {section: {key: plain(value) for key, value in of.items()} for section, of in options.items()}


def passes_the_check(mimeo, file: Path) -> str:
    code, out, err = run(file, "--secrets")
    assert code == 0, err
    # What the file cannot tell: where this Mimeo keeps its ledger, and what it listens at.
    own = f'\n[ledger]\nurl = "sqlite:{mimeo.ledger}"\n\n[api]\nlisten = "127.0.0.1:{mimeo.port}"\n'
    mimeo.config_file.write_text(out + own)
    mimeo.queue = "mimeo"
    code, said, err = mimeo.run("check", timeout=180)
    assert code == 0 and "FAIL" not in said, f"{said}{err}\n{out}"
    return said


@pytest.mark.parametrize("sample", SHAPES)
def test_what_is_written_of_a_sample_passes_the_check(cloud, storage, pools, mimeo, tmp_path, sample):
    """With the addresses of this cloud, whose Glance has the sample's stores."""
    text = at_home(sample, cloud, storage)
    for pool in re.findall(r"rbd_store_pool *= *\"?([^\"\n]+)", text):
        if pool not in storage.ceph.pools():
            storage.ceph.add_pool(pool)
    cloud.glance.reconfigured(options_of(text, tmp_path))
    file = tmp_path / "glance-api.conf"
    file.write_text(text)
    said = passes_the_check(mimeo, file)
    for store in tomllib.loads(mimeo.config_file.read_text())["enabled_stores"]:
        assert f"{store}: write and read" in said or f"{store}: Glance's own" in said, f"{store} was not tried:\n{said}"


def test_what_is_written_of_a_real_glances_file_passes_the_check(cloud, storage, mimeo):
    """Ceph, S3 and Swift are written to with what Glance's file tells of them; the others are Glance's own."""
    cloud.glance.reconfigured(storage.glance)
    said = passes_the_check(mimeo, cloud.glance.dir / "glance-api.conf")
    for name in ("rbd1", "rbd2", "s3_1", "swift1", "swift2"):
        assert f"{name}: write and read" in said or f"{name}: Glance's own" in said, f"{name} was not tried:\n{said}"
    assert "rbd1: write and read" in said and "s3_1: write and read" in said, said


def test_options_are_read_as_oslo_config_reads_them(tmp_path):
    stores = sections(TRICKY)
    files = tmp_path / "glance-api.conf", tmp_path / "later.conf"
    backends = f"[DEFAULT]\nenabled_backends = {','.join(f'{store}:rbd' for store in stores)}\n"
    files[0].write_text(backends + TRICKY)
    files[1].write_text(LATER)
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("site"), cfg.StrOpt("root"), cfg.StrOpt("port")])
    for store in stores:
        conf.register_opts([cfg.StrOpt("rbd_store_pool", default="images"), cfg.StrOpt("site")], group=store)
    conf([argument for file in files for argument in ("--config-file", str(file))], project="glance")
    code, out, err = run(*files)
    assert code == 0 and err == "", err
    written = tomllib.loads(out)
    assert written["enabled_stores"] == stores
    found = {store: written["stores"][store]["pool"] for store in stores}
    # oslo.config keeps the line break before an indented first line.
    assert found == {store: conf[store].rbd_store_pool.strip() or "images" for store in stores}


def test_an_output_file_is_private_with_secrets_and_never_replaced_unasked(tmp_path):
    output = tmp_path / "mimeo.toml"
    code, out, err = run("tests/import/kolla.conf", "--output", output)
    assert (code, out, err) == (0, "", "")
    assert output.read_text() == (APP / "tests/import/kolla.toml").read_text()
    code, _, err = run("tests/import/many.conf", "--secrets", "-o", output)
    assert code == 2 and "--force" in err and str(output) in err, err
    assert output.read_text() == (APP / "tests/import/kolla.toml").read_text()
    code, _, err = run("tests/import/many.conf", "--secrets", "-o", output, "--force")
    assert code == 0, err
    assert "c0ld/secret" in output.read_text() and "c0ld/secret" not in err
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["mimeo.toml"]


def test_what_cannot_be_read_ends_with_2(tmp_path):
    broken = tmp_path / "glance-api.conf"
    broken.write_text("[DEFAULT]\ntransport_url rabbit //user s3cret\n")
    code, out, err = run(broken)
    assert code == 2 and f"{broken}:2: " in err and "s3cret" not in err and not out, err
    code, out, err = run(tmp_path / "none.conf")
    assert code == 2 and f"{tmp_path / 'none.conf'}: cannot be read" in err and not out, err
    assert run("--force", broken)[0] == 2
