"""The operator's guide is true: its links lead somewhere, its configurations are accepted, its commands do what it
says. See book.py for what is done with which block of code."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import requests
import yaml
from glance import opts as glance_opts
from glance_store import multi_backend
from oslo_config import cfg
from oslo_messaging import opts as messaging_opts

from book import DOCS, LANGUAGES, all_blocks, anchors, blocks, chapters, file_block, inline_commands, links
from cloud.base import eventually, program, run
from cloud.uwsgi import VENV
from mimeo import BINARY, QUICK, ROOT, toml

DEPLOY = ROOT / "deploy"
KOLLA = DEPLOY / "kolla"
# In devstack's local.conf: what comes to Glance's file once devstack has written it, and before Glance is started.
DEVSTACK = "[[post-config|$GLANCE_API_CONF]]\n"
# Stores that Glance has beside those that it is told of.
RESERVED = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}
PAGES = [*(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
         *sorted(DOCS.rglob("*.md")), KOLLA / "README.md"]


def test_every_link_leads_somewhere():
    broken = []
    for page in PAGES:
        for link in links(page):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_page_is_a_chapter():
    pages = {page.name for page in DOCS.glob("*.md")} - {"SUMMARY.md"}
    assert sorted(page.name for page in chapters()) == sorted(pages)


def test_no_block_is_left_out():
    """Each says what it is, and what runs nowhere has no command of Mimeo's."""
    for block in all_blocks():
        assert block.language in LANGUAGES, f"{block}: nothing is done with a block of {block.language!r}"
        if block.language == "text":
            assert not re.search(r"^(\$ )?(sudo )?mimeo ", block.text, re.MULTILINE), f"{block}: make it a `console` block"


# What stands in a command where a value of its own kind belongs; other capitals are names as good as any.
VALUES = {"COMMAND": "status", "N": "1", "K": "1", "T": "90s", "SIZE": "1MiB", "PORT": "1", "TIME": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_are_mimeos(page):
    """Its subcommands, options and arguments. With `--help` behind it a command is read, and not run."""
    wrong = []
    for command in inline_commands(page):
        words = [VALUES.get(word, word) for word in shlex.split(re.sub(r"[\[\]…]", " ", command))]
        done = run([BINARY, *words, "--help"], check=False)
        if done.returncode != 0:
            wrong.append(f"mimeo {command}: {done.stderr}")
    assert wrong == []


def of_readme(language: str):
    return [block for block in blocks(ROOT / "README.md") if block.language == language]


@pytest.mark.parametrize(
    "block", [*all_blocks("toml"), *of_readme("toml"), file_block(KOLLA / "mimeo/mimeo.toml", "toml")], ids=str)
def test_a_configuration_is_accepted(block, tmp_path, certificate):
    """With what it leaves out filled in: the stores that it names, or three."""
    # Secrets, certificates and directories lie in the guide where an operator has them.
    text = re.sub(r'"(file:)?(/?)([\w./-]+)"', lambda m: _here(tmp_path, certificate, *m.groups()), block.text)
    given = tomllib.loads(text)
    named = {name: None for rule in given.get("rules", []) for name in rule.get("stores", [])}
    enabled = given.get("enabled_stores") or list(given.get("stores", {})) or ["http1", "http2", "http3"]
    enabled = list(dict.fromkeys([*enabled, *named]))
    whole = text if "enabled_stores" in given else f"enabled_stores = {json.dumps(enabled)}\n{text}"
    for number, name in enumerate(name for name in enabled if name not in given.get("stores", {})):
        whole += f'\n[stores.{name}]\nurl = "http://10.0.1.{number}/{name}/"\n'
    if "api" not in given:
        whole += '\n[api]\nlisten = "127.0.0.1:1"\n'
    file = tmp_path / "mimeo.toml"
    file.write_text(whole)
    variables = {name: "value" for name in re.findall(r"\$\{(\w+)\}", text)}
    variables |= {"TRANSPORT_URL": "rabbit://openstack:secret@10.0.0.5:5672//"}
    done = run([BINARY, "--config", file, "stores"], env={**os.environ, **variables}, check=False)
    # 2 is a mistake in the file; there is no `serve` to ask, which is 1.
    assert done.returncode == 1, f"{block}:\n{done.stderr}\n{whole}"


def _here(directory: Path, content: str, file: str | None, root: str, path: str) -> str:
    """A path of the guide as one below `directory`, where there is such a file or directory."""
    target = directory / path
    if not root and not file:
        return f'"{path}"'
    if file or "." in target.name or target.name.startswith("id_"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("s3cret\n" if target.name == "swift.secret" else content)
    else:
        target.mkdir(parents=True, exist_ok=True)
    return f'"{file or ""}{target}"'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """A certificate and its key in one: whatever a file of the guide holds, this will do for it."""
    directory = tmp_path_factory.mktemp("certificate")
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=guide",
         "-keyout", directory / "key", "-out", directory / "certificate"])
    return (directory / "key").read_text() + (directory / "certificate").read_text()


def glance_blocks():
    of_the_guide = [block for block in all_blocks("ini") if "[Service]" not in block.text]
    return [*of_the_guide, file_block(KOLLA / "config/glance/glance-api.conf", "ini")]


def test_kollas_policies_are_the_guides():
    assert (KOLLA / "config/glance/policy.yaml").read_text() == block_of("security.md", "yaml").text


def of_glance(block) -> str:
    """The lines of glance-api.conf."""
    return block.text.removeprefix(DEVSTACK)


def options_of_glance(text: str, directory: Path) -> cfg.ConfigOpts:
    """As Glance reads its file: what may be said of a store it knows only when it has read which stores there are."""
    file = directory / "glance-api.conf"
    file.write_text(text)
    conf = cfg.ConfigOpts()
    for group, options in [*glance_opts.list_api_opts(), *glance_opts.list_image_import_opts(), *messaging_opts.list_opts()]:
        conf.register_opts(options, group=group if isinstance(group, str) else None)
    conf([], default_config_files=[str(file)])
    if conf.enabled_backends:
        multi_backend.register_store_opts(conf, reserved_stores=RESERVED)
    return conf


@pytest.mark.parametrize("block", glance_blocks(), ids=str)
def test_glances_options_are_glances(block, tmp_path):
    """Each option is one, in its section, and its value is of its type: comments behind values are not."""
    conf = options_of_glance(of_glance(block), tmp_path)
    section = "DEFAULT"
    for line in of_glance(block).splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            name = line.split("=")[0].strip()
            holder = conf if section == "DEFAULT" else conf[section]
            assert getattr(holder, name) is not None, f"[{section}] {name}"


def test_a_devstack_gets_a_whole_configuration_of_stores(tmp_path):
    """By itself it names no store, and no default one, without which Glance does not start. Each that writes files has
    a directory where devstack keeps its own."""
    [block] = [block for block in blocks(DOCS / "quick-start.md") if block.text.startswith(DEVSTACK)]
    conf = options_of_glance(of_glance(block), tmp_path)
    assert "http" in conf.enabled_backends.values(), "whose driver reads the copies"
    assert conf.enabled_backends.get(conf.glance_store.default_backend) == "file"
    for store in [name for name, kind in conf.enabled_backends.items() if kind == "file"]:
        assert conf[store].filesystem_store_datadir.startswith("/opt/stack/data/glance/"), store


def test_prometheus_takes_it(tmp_path):
    """With the alerts beside it, which look for the name that the job has there."""
    alerts = shutil.copy(DEPLOY / "prometheus/alerts.yml", tmp_path)
    file = tmp_path / "prometheus.yml"
    file.write_text(block_of("monitoring.md", "yaml").text)
    (tmp_path / "mimeo.token").write_text("of a reader\n")
    done = run([program("promtool", "prometheus"), "check", "config", file])
    assert re.search(rf"Checking {alerts}\n +SUCCESS: [1-9]", done.stdout), done.stdout
    [job] = [each["job_name"] for each in yaml.safe_load(file.read_text())["scrape_configs"]]
    assert set(re.findall(r'job="([^"]+)"', Path(alerts).read_text())) == {job}


CONTAINER = DEPLOY / "container/Containerfile"


def instructions(name: str) -> list[str]:
    """What stands behind each of the Containerfile's instructions of a kind."""
    text = re.sub(r"^#.*\n", "", CONTAINER.read_text().replace("\\\n", " "), flags=re.MULTILINE)
    return re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)


def test_the_containers_build_has_what_it_copies():
    [context, built] = instructions("COPY")
    assert context == ". ."
    ignored = (ROOT / ".dockerignore").read_text().split()
    for needed in ("Cargo.toml", "Cargo.lock", "crates/app/Cargo.toml", "docs/openapi.json"):
        assert (ROOT / needed).exists() and needed.split("/")[0] not in ignored, f"{needed} is not copied"
    package = tomllib.loads((ROOT / "crates/app/Cargo.toml").read_text())["package"]["name"]
    assert f"cargo build --release --locked --package {package}" in instructions("RUN")
    assert built.split()[:2] == ["--from=build", f"{instructions('WORKDIR')[0]}/target/release/{package}"]


def test_the_container_is_as_the_guide_and_the_other_packages_have_it():
    """The program, its configuration, its user, and where that may write."""
    [installed] = [copied.split()[-1] for copied in instructions("COPY") if copied.startswith("--from")]
    [entry, command] = [json.loads(instructions(name)[0]) for name in ("ENTRYPOINT", "CMD")]
    unit = (DEPLOY / "systemd/mimeo.service").read_text()
    [started] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert shlex.split(started) == [*entry[entry.index(installed):], *command]
    [user], [volume] = instructions("USER"), instructions("VOLUME")
    ran = " ".join(instructions("RUN"))
    [(number, *made)] = re.findall(r"useradd --uid (\d+) .*--home-dir (\S+) .*--shell \S+ (\w+)", ran)
    _, name, _, _, home = shlex.split((DEPLOY / "systemd/mimeo.sysusers").read_text())
    assert made == [home, name] == [volume, user] and f"User={user}\n" in unit
    for page in (DOCS / "install.md", KOLLA / "README.md"):
        said = page.read_text()
        assert f"the user {number}" in said and re.search(rf":/etc/mimeo:ro -v mimeo:{volume}\s", said), page
    # The default lies beside the configuration, which cannot be written there.
    [of_the_guide] = [block.text for block in blocks(DOCS / "install.md") if block.language == "toml"]
    for text in (of_the_guide, *(path.read_text() for path in (DEPLOY / "mimeo.toml", KOLLA / "mimeo/mimeo.toml"))):
        assert tomllib.loads(text)["ledger"]["url"] == f"sqlite:{volume}/mimeo.db"


@pytest.mark.parametrize("page", [DOCS / "install.md", KOLLA / "README.md"], ids=lambda page: page.parent.name)
def test_a_container_is_called_by_its_name_and_given_what_it_needs(page):
    text = page.read_text().replace("\\\n", " ")
    [run_line] = re.findall(r"\b(?:podman|docker) run .*", text)
    words = shlex.split(run_line)
    called = re.findall(r"\b(?:podman|docker) exec (\S+)", text)
    assert called and set(called) == {words[words.index("--name") + 1]}
    # The login, where the chapter has it.
    assert "/etc/openstack:/etc/openstack:ro" in words or "OS_CLIENT_CONFIG_FILE=/etc/mimeo/clouds.yaml" in words
    for name in [word for option, word in itertools.pairwise(words) if option == "-e" and "=" not in word]:
        assert re.search(rf"^ *export {name}=", text, re.MULTILINE), f"nobody sets {name}"


@pytest.mark.parametrize("block", [*all_blocks("nginx"), *of_readme("nginx")], ids=str)
def test_nginx_takes_it(block, tmp_path):
    (tmp_path / "srv").mkdir()
    server = block.text.replace("/srv", f"{tmp_path}/srv")
    temporary = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    conf = tmp_path / "nginx.conf"
    http = f"access_log off; {temporary} server {{ listen 127.0.0.1:1; {server} }}"
    conf.write_text(f"pid {tmp_path}/pid; events {{}} http {{ {http} }}")
    run(["/usr/sbin/nginx", "-t", "-c", conf, "-p", tmp_path, "-e", tmp_path / "error.log"])


@pytest.mark.timeout(600)
def test_the_first_days(cloud, mimeo, images):
    """A new user of the guide does all that it says, chapter by chapter, with Glance, Keystone and Mimeo as it has them."""
    keystone, glance = cloud.keystone, cloud.glance
    day = Day(cloud, mimeo)
    policies = day.dir / "policy.yaml"
    policies.write_text(block_of("security.md", "yaml").text)
    glance.reconfigured({**day.glance_options(), "oslo_policy": {"policy_file": policies}})
    # Mimeo's user is no administrator but by the role that the guide gives it.
    keystone.revoke("mimeo", "admin")
    try:
        day.configure()
        for page in chapters():
            for block in blocks(page):
                if block.language == "console":
                    for command, expected in block.commands():
                        day.run(block, command, expected)
        assert day.wrong == []
        day.tenants_can_do_what_they_could()
    finally:
        day.stop()
        keystone.grant("mimeo", "admin")


def block_of(page: str, language: str, number: int = 0):
    return [block for block in blocks(DOCS / page) if block.language == language][number]


class Day:
    """One directory, in which the commands of the guide run one after the other."""

    def __init__(self, cloud, mimeo):
        self.cloud, self.mimeo = cloud, mimeo
        self.dir = mimeo.dir
        # All that is not as the guide says; one look at it is enough.
        self.wrong: list[str] = []
        (self.dir / "debian-12.raw").write_bytes(os.urandom(1 << 20))
        (self.dir / "glance-api.conf.d").mkdir()
        (self.dir / "backups").mkdir()
        (self.dir / "glance-api.conf.d/more.conf").write_text("[DEFAULT]\n")
        # What stands in the guide, and what it is here.
        self.places = {
            **{f"http://10.0.0.1{n}/images/": server.url for n, server in enumerate(cloud.nginx, 1)},
            "http://10.0.0.5:5000/v3": cloud.keystone.url,
            "rabbit://mimeo:secret@10.0.0.5:5672/": cloud.rabbitmq.transport_url,
            "http://127.0.0.1:9393": f"http://127.0.0.1:{mimeo.port}",
            "/etc/glance/glance-api.conf.d": str(self.dir / "glance-api.conf.d"),
            "/etc/glance/glance-api.conf": str(cloud.glance.dir / "glance-api.conf"),
            "/var/lib/mimeo/": f"{self.dir}/",
            "/var/backups/": f"{self.dir}/backups/",
        }

    def here(self, text: str) -> str:
        for there, place in self.places.items():
            text = text.replace(there, place)
        return text

    def glance_options(self) -> dict[str, dict]:
        """What the quick start says to put into glance-api.conf, for this cloud's addresses."""
        ports = ",".join(str(port) for port in self.cloud.glance.allowed_ports)
        options: dict[str, dict] = {}
        for line in block_of("quick-start.md", "ini").text.splitlines():
            if line.startswith("["):
                section = options.setdefault(line.strip("[]"), {})
            elif "=" in line and not line.startswith("#"):
                name, value = (part.strip() for part in line.split("=", 1))
                section[name] = re.sub(r"10\.0\.0\.\d+", "127.0.0.1", value).replace("8080", ports)
        return options

    def configure(self) -> None:
        """The quick start's mimeo.toml and clouds.yaml, with the tests' short times and ports besides."""
        config = tomllib.loads(self.here(block_of("quick-start.md", "toml").text))
        config["events"]["queue"] = self.mimeo.queue
        config["store_defaults"] = QUICK["store_defaults"]
        usual = {name: section for name, section in QUICK.items() if name != "store_defaults"}
        stores = {f"stores.{name}": section for name, section in config.pop("stores").items()}
        self.mimeo.config_file.write_text(
            toml({**config, **stores, **usual, "api": {"listen": f"127.0.0.1:{self.mimeo.port}"}}))
        clouds = yaml.safe_load(self.here(block_of("quick-start.md", "yaml").text))
        (self.dir / "clouds.yaml").write_text(yaml.safe_dump(clouds))
        own = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "MIMEO_"))}
        path = f"{BINARY.parent}:{VENV / 'bin'}:{own['PATH']}"
        self.mimeo_env = {"OS_CLIENT_CONFIG_FILE": str(self.dir / "clouds.yaml"), "MIMEO_CONFIG": "mimeo.toml"}
        self.env = {**own, "PATH": path, "NO_COLOR": "1", "MIMEO_PASSWORD": clouds["clouds"]["mimeo"]["auth"]["password"]}
        self.mimeo.credentials = self.mimeo_env

    def run(self, block, command: str, expected: list[str]) -> None:
        command = self.here(command.removeprefix("sudo ").removeprefix("-u mimeo "))
        program, *words = command.split()
        if program == "systemctl":
            return self.systemctl(*[word for word in words if not word.startswith("-")])
        if program == "mimeo":
            env = {**self.env, **self.mimeo_env}
        else:
            env = {**self.env, **self.cloud.keystone.os_env("admin")}
        begun = time.monotonic()
        done = subprocess.run(["bash", "-c", command], env=env, cwd=self.dir, capture_output=True, text=True, timeout=120,
                              stdin=subprocess.DEVNULL)
        print(f"{time.monotonic() - begun:6.1f} s  {block}: {command}")
        said = f"{block}: {command}\n{done.stdout}\n{done.stderr}"
        if done.returncode != 0:
            self.wrong.append(f"ended with {done.returncode}: {said}")
        for line in expected:
            pattern = ".*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
            lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
            if not any(re.search(pattern, line) for line in lines):
                self.wrong.append(f"{line!r} is not in the output of {said}")

    def systemctl(self, verb: str, unit: str) -> None:
        """What systemd does to the service; test_package.py has a real one."""
        assert unit == "mimeo"
        match verb:
            case "enable" | "start":
                self.mimeo.start()
            case "restart":
                self.stop()
                self.mimeo.start()
            case "stop":
                self.stop()
            case "reload":
                self.mimeo.reload()
            case "status":
                assert self.mimeo.running()
            case _:
                raise AssertionError(f"systemctl {verb}?")

    def stop(self) -> None:
        self.mimeo.stop()

    def tenants_can_do_what_they_could(self) -> None:
        """Under the policies of the security chapter: upload, download, change; but no location."""
        token = self.cloud.keystone.token("alice").value
        url = f"{self.cloud.glance.url}/v2/images"
        headers = {"X-Auth-Token": token}
        record = {"name": "alice's", "disk_format": "raw", "container_format": "bare"}
        made = requests.post(url, headers=headers, json=record)
        image = f"{url}/{made.json()['id']}"
        binary = {**headers, "Content-Type": "application/octet-stream"}
        assert requests.put(f"{image}/file", headers=binary, data=b"hers").status_code == 204
        assert requests.get(f"{image}/file", headers=headers).content == b"hers"
        patch = {**headers, "Content-Type": "application/openstack-images-v2.1-json-patch"}

        def change(path: str, value) -> int:
            body = json.dumps([{"op": "add", "path": path, "value": value}])
            return requests.patch(image, headers=patch, data=body).status_code

        assert change("/hers", "yes") == 200
        location = {"url": self.cloud.nginx[0].url + "anything", "metadata": {}}
        assert change("/locations/-", location) == 403
        assert "locations" in requests.get(image, headers=headers).json(), "no policy hides them: see the chapter"


def test_the_day_without_the_option(cloud, mimeo, images):
    """What the security chapter says of a Glance that shows no locations any more: images are served, nothing is removed,
    what is new is kept, and Mimeo says what is wrong. With the option all is as it was."""
    mimeo.serve()
    kept, gone = images.create(b"kept"), images.create(b"gone")
    for image in (kept, gone):
        mimeo.wait_registered(image)
    cloud.glance.reconfigured({"DEFAULT": {"show_multiple_locations": "false"}})
    images.delete(gone)
    new = images.create(b"new")
    for image in (kept, new):
        mimeo.wait_reason(image, "http1", {"locations-forbidden"})
        assert mimeo.replica(image, "http1")["state"] == "proven"
    refused = "nothing is removed: Glance does not show the locations of images"
    eventually(lambda: mimeo.status(gone)["state"] == "retiring", 30, "its end is known")
    seen = len(mimeo.log_lines())
    eventually(lambda: any(refused in line for line in mimeo.log_lines()[seen:]), 30, "a sweep that removes nothing")
    assert all(len(mimeo.objects(store, gone)) == 1 for store in mimeo.stores)
    cloud.glance.take_away(kept)
    token = cloud.keystone.token("admin").value
    read = requests.get(f"{cloud.glance.url}/v2/images/{kept}/file", headers={"X-Auth-Token": token})
    assert read.content == b"kept", "served from what was registered before"
    code, out, _ = mimeo.run("check", timeout=180)
    assert code == 1 and "show_multiple_locations = true" in out

    cloud.glance.reconfigured(None)
    for image in (kept, new):
        mimeo.wait_registered(image)
    eventually(lambda: not any(mimeo.objects(store, gone) for store in mimeo.stores), 60, "what is deleted is removed")
