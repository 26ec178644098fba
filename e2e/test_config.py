"""A wrong configuration: one clear error each, with file, line, key and cure; exit code 2; nothing started."""

import re

import pytest

from cloud.base import listens

GOOD = """enabled_stores = ["http1", "http2"]
[stores.http1]
url = "http://127.0.0.1:1/images/"
[stores.http2]
url = "http://127.0.0.1:2/images/"
[openstack]
interface = "internal"
[api]
listen = "127.0.0.1:{port}"
[scan]
interval = "5m"
"""
RULE = '[[rules]]\nname = "r"\nwhen = {when}\nstores = [{store}]\n'

# name → (the file, the line of the mistake, the key, words of the cure)
MISTAKES = {
    "unknown-section": (GOOD + "[scna]\n", 12, "scna", ["scan"]),
    "unknown-key": (GOOD.replace("interval", "intervall"), 11, "scan.intervall", ["interval"]),
    "unknown-key-of-a-store": (
        GOOD.replace('2/images/"', '2/images/"\nread_ulr = "http://x/"'), 6, "stores.http2.read_ulr", ["read_url"]),
    "store-without-a-section": (
        GOOD.replace('"http2"]', '"http2", "http3"]'), 1, "enabled_stores", ["http3", "[stores.http3]"]),
    "rule-naming-an-unknown-store": (
        GOOD + RULE.format(when='"true"', store='"htpt1"'), 15, "rules", ["htpt1", "http1"]),
    "cel-error": (
        GOOD + RULE.format(when="'image.visibility == '", store='"http1"'), 14, "when", ["CEL", '"r"']),
    "two-stores-with-one-url": (GOOD.replace(":2/", ":1/"), 5, "stores.http2.url", ["http1"]),
    "url-without-a-host": (GOOD.replace("http://127.0.0.1:2/", "http:///"), 5, "stores.http2.url", ["host"]),
    "url-that-is-none": (GOOD.replace("http://127.0.0.1:2/", "ftp://x/"), 5, "stores.http2.url", ["http"]),
    "missing-secret-file": (
        GOOD + '[events]\ntransport_url = "file:no/such/secret"\n', 13, "events.transport_url", ["no/such/secret"]),
    "missing-variable": (
        GOOD.replace("127.0.0.1:2", "${MIMEO_E2E_NOT_SET}"), 5, "stores.http2.url", ["MIMEO_E2E_NOT_SET"]),
    "no-duration": (GOOD.replace('"5m"', '"soon"'), 11, "scan.interval", ["soon"]),
    "wrong-type": (GOOD.replace('"5m"', "true"), 11, "scan.interval", []),
    "no-toml": (GOOD + "[log\n", 12, "", []),
    "no-stores": (GOOD.replace('["http1", "http2"]', "[]"), 1, "enabled_stores", []),
}


@pytest.fixture
def write(mimeo):
    def write(text: str) -> None:
        mimeo.config_file.write_text(text.replace("{port}", str(mimeo.port)))

    return write


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mimeo, write, mistake):
    text, line, key, cure = MISTAKES[mistake]
    write(text)
    code, out, err = mimeo.run("serve", timeout=20)
    assert code == 2, err
    assert out == ""
    told = [one for one in err.splitlines() if f"mimeo.toml:{line}:" in one]
    assert len(told) == 1, f"one error for line {line}: {err}"
    assert key in told[0], told
    for word in cure:
        assert word in told[0], (word, told)
    others = [one for one in err.splitlines() if re.search(r"mimeo\.toml:\d+", one) and one not in told]
    assert not others, f"only the one mistake is told: {others}"
    assert not mimeo.ledger.exists() and not listens(mimeo.port), "something was started"


def test_all_mistakes_at_once(mimeo, write):
    """One run is enough to see them all."""
    write(GOOD.replace("interval", "intervall").replace(":2/", ":1/").replace("[api]", "[api]\nlisten2 = 1"))
    code, _, err = mimeo.run("serve", timeout=20)
    assert code == 2
    assert len([one for one in err.splitlines() if "mimeo.toml:" in one]) == 3, err


@pytest.mark.parametrize("command", [["serve"], ["status"], ["plan"], ["check"], ["stores"], ["replicate", "x"]])
def test_every_command_tells_the_mistake(mimeo, write, command):
    write(MISTAKES["unknown-key"][0])
    code, _, err = mimeo.run(*command, timeout=20)
    assert code == 2 and "scan.intervall" in err, err


@pytest.mark.parametrize("command", ["serve", "plan"])
def test_a_login_that_is_nowhere_is_a_mistake_of_the_configuration(mimeo, write, command):
    write(GOOD)
    mimeo.credentials = {}
    code, _, err = mimeo.run(command, timeout=20)
    assert code == 2 and "OS_CLOUD" in err, err
    assert not mimeo.ledger.exists()


def test_a_missing_file_and_wrong_usage(mimeo):
    code, _, err = mimeo.run("serve", timeout=20)
    assert code == 2 and "mimeo.toml" in err, err
    unknown_format, bad_timeout = ["status", "x", "-f", "xml"], ["replicate", "x", "--timeout", "soon"]
    for wrong in (["no-such-command"], ["replicate"], unknown_format, bad_timeout):
        code, out, err = mimeo.run(*wrong, timeout=20)
        assert code == 2 and err and not out, wrong
