"""The output that the pages show: its table heads and labels are those of the program."""

import re
from collections.abc import Iterator

import pytest
from tests.docs import pages
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.mmdb import Number, write

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = b"198.18.1.101"
LOGIN = capture("asterisk-22", "good-register").ami.read_bytes()
SHOWN = [
    "\n".join(pages.blocks_of(pages.text_of(page), "text"))
    for page in ("README.md", "docs/operating.md", "docs/lists-and-friends.md")
]
RARE = {"probe", "repaired", "limiter", "ration", "asking", "fence", "dropped", "evidence"}
"""Labels that a dry run without special events does not print."""

_WIDE = {"COLUMNS": "100"}  # "59m 59s" instead of "1h" would leave no room for a column


@pytest.fixture(name="printed", scope="module")
def _printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the output of a daemon's commands about a sender near a ban and a banned one."""
    folder = tmp_path_factory.mktemp("output")
    tcp = GUESSES.replace(GUESSER, b"198.18.1.7").replace(b"IPV4/UDP", b"IPV4/TCP")
    again = tcp.replace(b"SessionID: ", b"SessionID: again-")
    record = {"country": {"iso_code": "DE"}, "autonomous_system_number": Number(6, 64_496)}
    database = write(folder / "geo.mmdb", [("198.18.0.0/15", record)])
    with (
        ami_server(Script(play=[GRANTED, GUESSES, tcp, again, LOGIN])) as pbx,
        Guard(folder, ami={"port": pbx.port}, geo={"database": [str(database)]}, environ=_WIDE) as guard,
    ):
        until(lambda: guard.banned() == {"198.18.1.7"}, "the ban")
        until(lambda: guard.ask("account", account="alice")["places"], "the login")
        commands = [
            "status",
            "check",
            "bans",
            "friends",
            "why 198.18.1.7",
            "why 198.18.1.101",
            "why alice",
            "allow list",
        ]
        commands += ["history", "account alice"]
        commands.append(f"replay {capture('hostile-22', 'preemptive-unknown').security_log}")
        return "\n".join(guard.command(*command.split()).stdout for command in commands)


def _heads(text: str) -> Iterator[str]:
    """Yield the columns of each table of a text."""
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z]{4,}(?: \([A-Z]+\))?(?: {2,}[A-Z]+(?: [A-Z(][A-Za-z)]+)*)+ *", line):
            yield from re.split(r" {2,}", line.strip())


def _labels(text: str) -> set[str]:
    """Return the labels of the lines of ``status`` and ``why``."""
    return {match[1] for match in re.finditer(r"^([a-z]+) {2,}\S", text, re.MULTILINE)}


def test_the_columns_that_are_shown_exist(printed: str) -> None:
    """Each column of a table in the pages is one that a command prints."""
    shown = {column for text in SHOWN for column in _heads(text)}

    assert {"WATCHED", "PROVEN", "SOURCES", "AFTER"} <= shown
    assert shown - {*_heads(printed)} == set()


def test_the_labels_that_are_shown_exist(printed: str) -> None:
    """Each label of a line in the pages is one that a command prints, and ``status`` has no other."""
    shown = {label for text in SHOWN for label in _labels(text)} - {"ok"}
    explained = set(re.findall(r"^\| `([a-z]+)` \|", pages.text_of("docs/operating.md"), re.MULTILINE))

    assert shown - RARE - _labels(printed) == set()
    status = printed.partition("\nWATCHED")[0]
    assert _labels(status) - explained == set()
