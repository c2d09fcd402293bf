"""The Markdown pages of the project: their headings, links, code blocks and commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs"
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("[CR]*.md"), *FOLDER.glob("*.md"), *ROOT.glob("tests/*/README.md"))
)
"""Every page, by its path from the project's root."""

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:^|(?<=[|&] ))\s*(?:sudo )?(?:/opt/ringfence/bin/)?ringfence (.*)")
_END = re.compile(r" [|&<>#] ?| > |; |$")


def text_of(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text("utf-8")


def blocks_of(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of one language."""
    return [body for name, body in _FENCED.findall(text) if name == language]


def prose_of(text: str) -> str:
    """Return a page without its fenced code blocks."""
    return _FENCED.sub("", text)


def section_of(text: str, heading: str) -> str:
    """Return the text under a heading, up to the next heading of the same or a higher level."""
    level = heading.partition(" ")[0]
    _, _, rest = text.partition(f"\n{heading}\n")
    assert rest, f"no heading {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of the first table of a text, without the table's head."""
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert lines is not None, "no table"
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines[0].splitlines()[2:]
    ]


def links_of(text: str) -> list[str]:
    """Return the targets of all links of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", prose_of(text))


def anchors_of(text: str) -> set[str]:
    """Return the headings of a page as links to them are written."""
    headings = re.findall(r"^#+ (.*)$", prose_of(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each ringfence command in a page: in shell blocks and in inline code."""
    lines = [line for block in blocks_of(text, "sh") for line in block.splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`(ringfence [^`]+)`", prose_of(text))]
    for line in lines:
        command = _COMMAND.search(line)
        if command is not None:
            yield shlex.split(_END.split(command[1], maxsplit=1)[0])
