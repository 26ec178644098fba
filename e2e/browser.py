"""Real Chromium, from Debian, as a person has it: pages, keys, and what the browser itself complains about."""

import tempfile
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]
# What WCAG 2.2 asks of a page, and what axe itself thinks good.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def chromium():
    """A browser with a fresh profile, which goes with it."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        # Chromium writes there whatever the profile is.
        env = {"HOME": home, "PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env=env)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A person's window on the dashboard. `complaints` has what the browser wrote into its console: with the
    content-security policy in force, an inline style or script would be there."""

    def __init__(self, browser: Browser, base: str, width: int = 1280, height: int = 900, **options):
        self.context = browser.new_context(base_url=base, viewport={"width": width, "height": height}, **options)
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, line) -> None:
        # An answer that refuses is no complaint about the page.
        if line.type in ("error", "warning") and "the server responded with a status of" not in line.text:
            self.complaints.append(line.text)

    def sign_in(self, token: str) -> None:
        self.page.goto("/sign-in")
        self.page.get_by_label("Token", exact=True).fill(token)
        self.page.get_by_label("With a token").get_by_role("button", name="Sign in").click()
        self.page.get_by_role("button", name="Sign out").wait_for()

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page as it is."""
        found = Axe().run(self.page, options={"runOnly": {"type": "tag", "values": RULES}}).response["violations"]
        return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes'][:3]]}" for one in found]

    def close(self) -> None:
        self.context.close()
