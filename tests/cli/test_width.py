"""The output of commands on a terminal of 80 columns, with long addresses and names."""

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator

import pytest
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.mmdb import write
from tests.support.warm import start

COLUMNS = 80
GUESSER = "2001:db8:1234:5678:9abc:def0:1234:5678"
ACCOUNTS = (b"a-rather-long-account-name-of-a-phone-in-the-reception", b"100")
GUESSES = capture("asterisk-22", "wrong-password-register-ipv6").ami.read_bytes()
COMMANDS = [
    ["alarms"],
    ["allow", "list"],
    ["bans"],
    ["bans", "--past"],
    ["check"],
    ["deny", "list"],
    ["events"],
    ["feeds", "add"],
    ["feeds", "list"],
    ["friends"],
    ["history"],
    ["report"],
    ["status"],
    ["top", "accounts"],
    ["top", "addresses"],
    ["why", GUESSER],
    ["why", "2001:db8:1234:5678::/64"],
    ["why", "100"],
]


@pytest.fixture(name="guard", scope="module")
def _guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Return a daemon with long names in each list: a guesser, bans, entries, and a feed without a list."""
    folder = tmp_path_factory.mktemp("width")
    database = write(folder / "geo.mmdb", [("2001:db8::/32", {"country": {"iso_code": "NL"}})], aliases=False)
    guesses = [
        GUESSES.replace(b"fd00:18::b", GUESSER.encode())
        .replace(b"AccountID: alice", b"AccountID: " + account)
        .replace(b"SessionID: ", b"SessionID: " + account)
        for account in ACCOUNTS
    ]
    feed = {"name": "a-feed-with-a-long-name-of-its-own", "file": str(folder / "none.txt")}
    with (
        ami_server(Script(play=[GRANTED, *guesses])) as pbx,
        Guard(folder, ami={"port": pbx.port}, geo={"database": [str(database)]}, feeds=[feed]) as guard,
    ):
        until(lambda: guard.status()["attempts"] == 6, "the attempts")
        guard.ask("ban", networks=["2001:db8:ffff:1234::/64", "203.0.113.9"], seconds=3_600)
        guard.ask("unban", networks=["203.0.113.9"])
        guard.ask("allow_add", what=["2001:db8:1111:2222::/64"], note="the office of a customer " * 5)
        yield guard


def shown(guard: Guard, command: list[str]) -> list[str]:
    """Return the lines that a command writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environ = {name: text for name, text in guard._environ.items() if name not in {"COLUMNS", "LINES"}}
    with open(theirs, "wb") as out:  # noqa: PTH123 - it is a descriptor
        line = guard._command_line(*command)
        process = start(line, environ=environ | {"TERM": "dumb"}, stdout=out, stderr=out)
    text = b""
    try:
        while data := os.read(ours, 65_536):
            text += data
    except OSError:  # the process has closed its end
        pass
    finally:
        os.close(ours)
        process.wait(20)
    return text.decode("utf-8").replace("\r", "").split("\n")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_output_fits_80_columns(guard: Guard, command: list[str]) -> None:
    """No line is longer than the terminal, except a word that must stay whole, such as a path."""
    lines = shown(guard, command)

    assert any(line.strip() for line in lines)
    assert [line for line in lines if len(line) > COLUMNS and len(line.split()) > 1] == []


@pytest.mark.parametrize("about", [GUESSER, "100"])
def test_a_fact_is_one_line_in_a_pipe(guard: Guard, about: str) -> None:
    """In a pipe no fact of ``why`` continues on a second line."""
    lines = Guard(guard.folder, environ={"COLUMNS": ""}).command("why", about).stdout.splitlines()

    assert [line for line in lines if line.startswith(" " * 10)] == []
