"""The dashboard, in a real browser."""

import os
import re

import pytest
from playwright.sync_api import expect

from browser import Visit, chromium
from cloud.base import eventually
from cloud.keystone import PROJECTS, SECRET
from mimeo import NO_SCAN

MiB = 1 << 20
LONG = 30_000
PAGES = ["/", "/transfers", "/stores", "/rules", "/deletes", "/sign-in"]

# One that matches images, and one that is no rule.
WHAT_IFS = ["/rules?when=&store=http1", "/rules?when=image.siez&store=http1"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser, mimeo):
    """A function that opens a window on the dashboard. Whatever a window's browser complained about fails the test."""
    opened: list[Visit] = []

    def open_one(token: str | None = "own", **options) -> Visit:
        one = Visit(browser, f"http://127.0.0.1:{mimeo.port}", **options)
        opened.append(one)
        if token:
            one.sign_in((mimeo.dir / "mimeo.token").read_text().strip() if token == "own" else token)
        return one

    yield open_one
    complaints = [line for one in opened for line in one.complaints]
    for one in opened:
        one.close()
    assert not complaints, complaints


@pytest.fixture
def reader(cloud):
    """A user of Keystone with the role `reader` alone that counts here."""
    keystone = cloud.keystone
    keystone.ids["role:reader"] = keystone._find("role", "reader")
    keystone.grant("alice", "reader")
    yield "alice"
    keystone.revoke("alice", "reader")


def by_keystone(page, user: str, password: str = SECRET) -> None:
    page.get_by_label("User", exact=True).fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_label("Project", exact=True).fill(PROJECTS[user])
    page.get_by_label("With your OpenStack user").get_by_role("button", name="Sign in").click()


def cell(page, name: str, store: str):
    """The sign of one copy in the matrix, by what a screen reader says of it."""
    return page.get_by_role("row").filter(has_text=name).get_by_role("img", name=re.compile(f"^{store}: "))


def test_signing_in_by_keystone_and_finding_an_image(mimeo, images, visit, reader):
    """An admin by Keystone comes back to where they wanted to go; a reader sees the same, and no button."""
    rules = [{"name": "all"}, {"name": "of Debian", "when": 'image.name.startsWith("debian")'}]
    mimeo.serve(api={"reader_roles": ["reader"]}, rules=rules)
    wanted, other = images.create(b"one", name="ubuntu-26.04"), images.create(b"two", name="debian-13")
    for image in (wanted, other):
        mimeo.wait_registered(image)
    page = visit(token=None).page
    page.goto("/?q=ubuntu")
    expect(page).to_have_title(re.compile("Sign in"))
    by_keystone(page, "admin", "wrong")
    expect(page.get_by_role("alert")).to_contain_text("Keystone refuses")
    by_keystone(page, "admin")
    expect(page.get_by_role("link", name="ubuntu-26.04")).to_be_visible()
    expect(page.get_by_role("link", name="debian-13")).to_have_count(0)
    for store in mimeo.stores:
        expect(cell(page, "ubuntu-26.04", store)).to_have_accessible_name(f"{store}: registered")
    page.get_by_role("link", name="Show all").click()
    expect(page.get_by_role("link", name="debian-13")).to_be_visible()
    page.get_by_label("Rule", exact=True).select_option("of Debian")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("link", name="ubuntu-26.04")).to_have_count(0)
    page.get_by_role("link", name="debian-13").click()
    expect(page.get_by_text("all, of Debian")).to_be_visible()
    page.get_by_role("link", name="Images", exact=True).first.click()
    page.get_by_label("State", exact=True).select_option("failed")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No image is like that.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.goto("/stores")
    expect(page).to_have_title(re.compile("Sign in"))
    by_keystone(page, reader)
    expect(page.get_by_role("heading", name="Stores", exact=True)).to_be_visible()
    page.goto(f"/images/{wanted}")
    expect(page.get_by_role("heading", name="ubuntu-26.04")).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(1)
    expect(page.get_by_role("button")).to_have_text("Sign out")


def test_the_images_of_one_owner(mimeo, images, visit):
    """Found by the owner's id; with another id there is none."""
    mimeo.serve()
    tenant = images.as_user("alice")
    images.create(b"an admin's", name="of-admin")
    tenant.create(b"hers", name="of-alice")
    page = visit().page
    for name in ("of-admin", "of-alice"):
        expect(page.get_by_role("link", name=name)).to_be_visible(timeout=LONG)

    def owned_by(owner: str) -> None:
        page.get_by_label("Owner").fill(owner)
        page.get_by_role("button", name="Filter").click()
        page.wait_for_url(re.compile(f"owner={owner}"))
        expect(page.get_by_label("Owner")).to_have_value(owner)

    for owner, shown, hidden in (
        (tenant.project, "of-alice", "of-admin"),
        (images.project, "of-admin", "of-alice"),
        ("nobody", None, "of-alice"),
    ):
        owned_by(owner)
        if shown:
            expect(page.get_by_role("link", name=shown)).to_be_visible()
        else:
            expect(page.get_by_text("No image is like that.")).to_be_visible()
        expect(page.get_by_role("link", name=hidden)).to_have_count(0)


def test_what_another_rule_would_do(mimeo, images, visit):
    """The images that match are named, and where they would be new; or why it is no rule. Nothing is done."""
    rules = [{"name": "small", "when": "image.size < 100", "stores": ["http1"]}]
    mimeo.serve(rules=rules)
    image, large = images.create(b"small", name="a-small-one"), images.create(bytes(1000), name="a-large-one")
    mimeo.wait_registered(image, stores=["http1"])
    eventually(lambda: mimeo.status(large)["state"] == "unmanaged", 30, "no rule matches the large one")
    page = visit().page
    page.get_by_role("link", name="Rules", exact=True).click()
    in_force = page.get_by_role("table", name="The rules in force").get_by_role("row").filter(has_text="small")
    expect(in_force).to_contain_text("image.size < 100")
    expect(in_force.get_by_role("cell").nth(2)).to_have_text("1")

    def ask(when: str, *stores: str, copies: str = "") -> None:
        page.get_by_label("When: a CEL expression").fill(when)
        for store in mimeo.stores:
            page.get_by_label(store, exact=True).set_checked(store in stores)
        page.get_by_label("Copies").fill(copies)
        page.get_by_role("button", name="Try it").click()

    told, matching = page.get_by_role("status"), page.get_by_role("table", name="Images that match")
    ask("image.size > 2", "http1", "http3")
    expect(told).to_contain_text("2 of 2 images match")
    for name, new in (("a-small-one", "http3"), ("a-large-one", "http1, http3")):
        cells = matching.get_by_role("row").filter(has_text=name).get_by_role("cell")
        expect(cells).to_have_text(["http1, http3", new])
    ask('image.name == "a-small-one"', "http1", "http2", copies="1")
    expect(told).to_contain_text("1 of 2 images match")
    cells = matching.get_by_role("row").filter(has_text="a-small-one").get_by_role("cell")
    expect(cells).to_have_text(["http1", "nothing"])
    ask("image.siez > 2", "http1")
    expect(page.get_by_role("alert")).to_contain_text("siez")
    expect(page.get_by_label("When: a CEL expression")).to_have_value("image.siez > 2")
    ask("true")
    expect(page.get_by_role("alert")).to_contain_text("choose one at least")
    page.get_by_role("link", name="Which images match small").click()
    expect(told).to_contain_text("1 of 2 images match")
    expect(matching.get_by_role("link", name="a-small-one")).to_be_visible()
    assert [replica["store"] for replica in mimeo.status(image)["replicas"]] == ["http1"]
    assert mimeo.status(large)["state"] == "unmanaged" and not any(mimeo.objects(s, large) for s in mimeo.stores)


def test_a_transfer_is_watched_until_it_finishes(mimeo, images, visit):
    """Its progress, rate and time left come without a reload; and so does its end."""
    mimeo.serve(**{"stores.http2": {"bandwidth": "256KiB/s"}})
    page = visit().page
    page.goto("/transfers")
    expect(page.get_by_text("Nothing is copied")).to_be_visible()
    expect(page.locator("#live")).to_have_text("Live")
    image = images.create(os.urandom(16 * MiB), name="large")
    row = page.locator("#running").get_by_role("row").filter(has_text="http2")
    expect(row).to_contain_text("copying", timeout=LONG)
    expect(row).to_contain_text("/s", timeout=LONG)
    expect(row).to_contain_text(re.compile(r"\d+ (s|min)"), timeout=LONG)
    bar = row.get_by_role("progressbar")
    begun = float(bar.get_attribute("value"))
    eventually(lambda: float(bar.get_attribute("value")) > begun, 30, "the bar moves")
    assert mimeo.patch_limits({"stores": {"http2": {"bandwidth": None}}}).ok
    mimeo.wait_registered(image)
    done = page.locator("#finished").get_by_role("row").filter(has_text="http2")
    expect(done).to_contain_text("registered", timeout=LONG)
    expect(page.get_by_text("Nothing is copied")).to_be_visible(timeout=LONG)
    page.goto("/stores")
    chart = page.get_by_role("img", name=re.compile("Throughput of http2"))
    expect(chart).to_be_visible()
    expect(page.get_by_role("region").or_(page.locator("section")).filter(has_text="http2").first).to_contain_text("1 of 1")


def test_a_failure_says_what_to_do_and_is_tried_again(cloud, mimeo, images, visit, faulty):
    broken = faulty()
    broken.fault("PUT", "status", 507)
    mimeo.use(*cloud.nginx[:2], broken)
    mimeo.serve(retry={"first": "1h", "max": "1h"}, **NO_SCAN)
    image = images.create(os.urandom(MiB), name="unlucky")
    mimeo.wait_reason(image, "http3", {"store-full"})
    page = visit().page
    expect(cell(page, "unlucky", "http3")).to_have_accessible_name("http3: failed, store-full")
    page.get_by_role("link", name="unlucky").click()
    problem = page.get_by_label("What is wrong")
    expect(problem).to_contain_text("http3")
    expect(problem).to_contain_text("make room, or raise its quota")
    expect(page.locator("#history")).to_contain_text("store-full")
    broken.heal()
    page.get_by_role("button", name="Try again now").click()
    expect(page.get_by_text("Mimeo looks at the image now")).to_be_visible()
    expect(problem).to_have_count(0, timeout=LONG)
    expect(page.locator("#copies").get_by_role("row").filter(has_text="http3")).to_contain_text("registered", timeout=LONG)
    mimeo.wait_registered(image)


def test_many_deletions_wait_for_a_word(mimeo, images, visit):
    mimeo.serve(gc={"interval": "1s", "grace": "5s", "max_images": 1})
    made = [images.create(b"bits", name=f"doomed-{number}") for number in range(3)]
    for image in made:
        mimeo.wait_registered(image)
    for image in made:
        images.delete(image)
    eventually(lambda: mimeo.overview()["held_deletes"] == 3, 30, "the guard holds them")
    page = visit().page
    page.get_by_role("link", name="held deletes").click()
    expect(page.get_by_text("These deletions are held.")).to_be_visible()
    rows = page.get_by_role("row").filter(has_text="doomed-")
    expect(rows).to_have_count(9)
    assert all(mimeo.objects(store) for store in mimeo.stores)
    page.get_by_label("I have looked at the list").check()
    page.get_by_role("button", name="Confirm the deletions").click()
    expect(page.get_by_text("Confirmed:")).to_be_visible()
    eventually(lambda: not any(mimeo.objects(store) for store in mimeo.stores), 30, "the copies are gone")


def test_everybody_can_use_every_page(cloud, mimeo, images, visit, faulty):
    """axe-core finds nothing on any page, on a phone and on a desk, in the light and in the dark; nor has the browser
    anything to complain about (the fixture looks): no script or style is inline."""
    broken = faulty()
    broken.fault("PUT", "status", 507)
    mimeo.use(*cloud.nginx[:2], broken)
    # One that matches, and one that cannot be answered, which is told in its row.
    rules = [{"name": "all"}, {"name": "gold", "when": 'image.properties.tier == "gold"'}]
    mimeo.serve(retry={"first": "1h", "max": "1h"}, gc={"interval": "1s", "grace": "5s", "max_images": 1}, rules=rules)
    failed = images.create(os.urandom(1000), name="failed")
    gone = [images.create(b"gone", name="gone") for _ in range(2)]
    for image in (failed, *gone):
        mimeo.wait_reason(image, "http3", {"store-full"})
    for image in gone:
        images.delete(image)
    eventually(lambda: mimeo.overview()["held_deletes"] == 2, 30, "the guard holds them")
    for options in ({"color_scheme": "light", "width": 1440}, {"color_scheme": "dark", "width": 390}):
        one = visit(**options)
        for path in [*PAGES, f"/images/{failed}", "/?state=nothing", *WHAT_IFS]:
            one.page.goto(path)
            assert not one.violations(), (path, options, one.violations())
            wide = one.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{path} is {wide} pixels wider than {options}"


def test_without_javascript_all_can_be_read_and_every_form_works(cloud, mimeo, images, visit, faulty):
    broken = faulty()
    broken.fault("PUT", "status", 507)
    mimeo.use(*cloud.nginx[:2], broken)
    mimeo.serve(retry={"first": "1h", "max": "1h"}, **NO_SCAN)
    image = images.create(os.urandom(1000), name="plain")
    mimeo.wait_reason(image, "http3", {"store-full"})
    page = visit(java_script_enabled=False).page
    page.get_by_label("Name or id").fill("plain")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="plain").click()
    broken.heal()
    page.get_by_role("button", name="Try again now").click()
    mimeo.wait_registered(image)
    page.reload()
    expect(page.locator("#copies")).not_to_contain_text("failed")
    page.get_by_role("button", name="Read all copies again").click()
    expect(page.get_by_text("All copies are read again")).to_be_visible()


def test_with_the_keyboard_alone(mimeo, images, visit):
    """The first key leads past the head of the page; each thing that can be used can be reached, and is seen to be."""
    mimeo.serve()
    image = images.create(b"bits", name="reached")
    mimeo.wait_registered(image)
    page = visit().page
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate("""() => {
            const at = document.activeElement, style = getComputedStyle(at);
            return [at.id, style.outlineStyle, style.outlineWidth];
        }""")
        assert focused[1] != "none" and focused[2] != "0px", focused
        if focused[0] == f"i-{image}":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="reached")).to_be_visible()
