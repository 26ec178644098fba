"""The operator's guide as its tests read it: chapters, and the blocks of code in them.

What is done with a block goes by its language:

- `toml`: a configuration, or a part of one, which Mimeo must accept.
- `ini`: of glance-api.conf (each option must be one of Glance's) or of a systemd unit.
- `yaml`: policies of Glance, or a clouds.yaml, which the tests of the first day use; or part of a prometheus.yml.
- `console`: what is typed behind a `$ ` is run, in the order of the chapters; other lines must come in its output.
- `nginx`: part of a server that nginx must accept.
- `text`: what can be run here by nobody. No command of Mimeo's may hide there.
"""

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"toml", "ini", "yaml", "console", "nginx", "text"}


@dataclass
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.name}:{self.line}"

    def commands(self) -> list[tuple[str, list[str]]]:
        """Of a `console` block: each command, and the lines that its output must have."""
        commands: list[tuple[str, list[str]]] = []
        for line in self.text.replace("\\\n", "").splitlines():
            if line.startswith("$ "):
                commands.append((line.removeprefix("$ ").split(" #")[0].strip(), []))
            elif line.strip():
                commands[-1][1].append(line)
        return commands


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))


def inline_commands(page: Path) -> list[str]:
    """What stands behind `mimeo` in the commands that a page has in its text."""
    text = FENCE.sub("", page.read_text())
    return [" ".join(command.split()) for command in
            re.findall(r"`(?:sudo (?:-u mimeo )?|(?:podman|docker) exec mimeo |target/release/)?mimeo ([^`]+)`", text)]


def links(page: Path) -> list[str]:
    """The targets of a page's links, but for those that lead out of the project."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be reached by, as mdBook and code forges make it."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def chapters() -> list[Path]:
    return [DOCS / name for name in links(DOCS / "SUMMARY.md")]


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        indent, language, code = match.groups()
        lines = [line.removeprefix(indent) for line in code.splitlines()]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, "\n".join(lines) + "\n"))
    return found


def all_blocks(language: str | None = None) -> list[Block]:
    return [block for page in chapters() for block in blocks(page) if language in (None, block.language)]


def file_block(path: Path, language: str) -> Block:
    """A file that is as true as the guide."""
    return Block(path, 1, language, path.read_text())
