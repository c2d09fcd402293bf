"""``ringfence top``, in a real terminal and in a pipe."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

from ringfence.cli.screen import cropped
from ringfence.features.tops.command import frame

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = "198.18.1.101"
ROWS, COLUMNS = 24, 80
HOSTILE = "2\x1b[2J\u202e04" + "x" * 65_536


@pytest.fixture(name="guard", scope="module")
def _guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Return a daemon that banned a guesser, the same for all tests."""
    folder = tmp_path_factory.mktemp("top")
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(folder, ami={"port": pbx.port}, rules={"guess": {"attempts": 3}}) as guard,
    ):
        until(lambda: guard.banned() == {GUESSER}, "the ban")
        yield guard


class Terminal:
    """A command on a terminal of 80 by 24."""

    def __init__(self, guard: Guard, term: str) -> None:
        self._main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environ = {key: value for key, value in guard._environ.items() if key not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            guard._command_line("top"),
            env=environ | {"TERM": term, "NO_COLOR": "1", "LANG": "C.UTF-8"},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        self.shown = ""

    def until(self, text: str) -> None:
        """Read until a text is shown."""
        end = time.monotonic() + 30
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} is not in {self.shown[-3_000:]!r}"
            if select.select([self._main], [], [], 0.1)[0]:
                self.shown += os.read(self._main, 65_536).decode("utf-8", "replace")

    def press(self, key: str) -> None:
        """Press a key."""
        self.shown = ""
        os.write(self._main, key.encode())

    def close(self) -> None:
        """Close the terminal."""
        os.close(self._main)


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_the_display_fits_a_terminal(guard: Guard, term: str) -> None:
    """Health, attempts and bans are shown on 80 by 24 without colour; the keys sort, pause and end it."""
    terminal = Terminal(guard, term)
    try:
        terminal.until("q quit  p pause  s sort")
        assert GUESSER in terminal.shown
        assert "wrong password" in terminal.shown
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.shown), "a colour"
        if term == "dumb":
            assert "\x1b" not in terminal.shown
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.shown).replace("\r", "")
        assert max(len(line) for line in text.split("\n")) <= COLUMNS
        terminal.press("s")
        if term != "dumb":
            terminal.until("BANS by time left")
            terminal.press("p")
            terminal.until("PAUSED")
        terminal.press("q")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        terminal.close()


def test_an_invalid_configuration_leaves_the_display_intact(guard: Guard) -> None:
    """Its errors are not printed into the live screen."""
    terminal = Terminal(guard, "xterm-256color")
    try:
        terminal.until("q quit")
        guard.config.write_text(guard.config.read_text("utf-8") + "\n[nonsense]\n", "utf-8")
        terminal.press("s")
        terminal.until("BANS by time left")
        time.sleep(2.5)  # two more answers of the daemon
        terminal.press("s")
        terminal.until("BANS by address")
        assert "nonsense" not in terminal.shown
        terminal.press("q")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        terminal.close()
        guard.configure()


def test_the_accounts_and_addresses_with_the_most_attempts(guard: Guard) -> None:
    """Both lists have the attempts of the period; in a pipe the display is printed once."""
    accounts = guard.must("top", "accounts").splitlines()
    addresses = json.loads(guard.must("top", "addresses", "--since", "7d", "--json"))

    assert accounts[0].split() == ["ACCOUNT", "ATTEMPTS", "LAST", "HOUR", "(UTC)", "NOTE"]
    assert accounts[1].split()[:2] == ["alice", "3"]
    assert [(row["name"], row["attempts"], row["banned"]) for row in addresses] == [(GUESSER, 3, True)]
    assert GUESSER in guard.must("top")


def view(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - a view
    """Return what the daemon reports."""
    sender = {"time": "2026-11-21T02:41:25Z", "subject": "192.0.2.1", "account": HOSTILE, "accounts": 1}
    sender |= {"times": 40, "country": "", "reason": "wrong password", "standing": "counted"}
    ban = {"address": "2001:db8::/64", "rule": "guess", "scope": "sip-udp", "left": 60, "accounts": 2}
    alarm = {"code": "phone.broken", "subject": HOSTILE, "text": HOSTILE, "times": 1}
    return {
        "time": "2026-11-21T02:41:25Z",
        "backend": "nftables",
        "enforcing": True,
        "bans": 1,
        "attempts": 5,
        "friends": 2,
        "minutes": [0] * 59 + [5],
        "alarms": [alarm] * 5,
        "alarm_count": len(changed.get("alarms", [alarm] * 5)),
        "senders": [sender] * 50,
        "latest_bans": [ban | {"account": HOSTILE}] * 200,
        **changed,
    }


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 60)])
def test_hostile_names_fit_the_display(size: tuple[int, int]) -> None:
    """Names of 64 KB with control characters neither break a line nor reach the terminal."""
    width, height = size
    page = frame(view(), width, height, {"sort": "address", "paused": "paused"}, blocks=True)
    lines = cropped(page, width - 1).plain.split("\n")

    assert len(lines) == height - 1
    assert all(line.isprintable() and len(line) < width for line in lines)
    assert lines[-1].endswith("PAUSED")
    assert any("and 2 more" in line for line in lines)
    assert height < ROWS or any(line.startswith("      1m  2001:db8::/64") for line in lines)


@pytest.mark.parametrize(
    ("address", "reason", "country"),
    [
        ("203.0.113.177", "wrong password", "200x  NL"),
        ("2001:db8:1234:5678::/64", "wrong password", "200x  NL"),
        ("2001:db8:1234:5678::/64", "unknown extension", "200x"),
    ],
)
def test_no_column_is_cut_at_80_columns(address: str, reason: str, country: str) -> None:
    """With real names and numbers, each line ends with its last column, and the columns are aligned.

    The country is left out if the line would be too long.
    """
    sender = {"time": "2026-11-21T02:41:25Z", "subject": address, "account": "reception", "accounts": 12}
    sender |= {"times": 200, "country": "NL", "reason": reason, "standing": "counted"}
    other = sender | {"subject": "192.0.2.1", "account": "", "accounts": 0, "country": ""}
    other |= {"reason": "ACL", "times": 1}
    ban = {"address": address, "rule": "enumeration", "scope": "sip-udp", "left": 86_399, "accounts": 12}
    shown = view(
        senders=[sender, other],
        latest_bans=[ban | {"account": "reception-desk-2"}],
        alarms=[],
        bans=12_345,
        attempts=1_234_567,
    )
    page = frame(shown, COLUMNS, ROWS, {"sort": "newest", "paused": ""}, blocks=True)
    lines = cropped(page, COLUMNS - 1).plain.split("\n")

    assert lines[0].endswith("enforcing  02:41:25")
    assert lines[1] == "12345 bans  1234567 attempts  2 friends"
    (first,) = (line for line in lines if line.endswith(f"{country}  {reason} (counted)"))
    (second,) = (line for line in lines if line.endswith("ACL (counted)"))
    assert first.index(reason) == second.index("ACL")
    assert any(line.endswith("enumeration (sip-udp)") for line in lines)
    assert not any(line.endswith("…") for line in lines)


def drawn(shown: dict[str, Any], width: int, height: int) -> list[str]:
    """Return the lines of the display."""
    lines = frame(shown, width, height, {"sort": "newest", "paused": ""}, blocks=True)
    return cropped(lines, width - 1).plain.split("\n")


def test_bans_by_address_are_in_the_order_of_the_numbers() -> None:
    """A lower address comes first, also if it has fewer digits, and IPv4 comes before IPv6."""
    ban = {"rule": "guess", "scope": "full", "left": 60, "account": "", "accounts": 0}
    addresses = ["2001:db8::/64", "100.64.0.1", "20.0.0.1", "20.0.0.0/24"]
    shown = view(alarms=[], senders=[], latest_bans=[ban | {"address": one} for one in addresses])
    lines = [line for line, _ in frame(shown, COLUMNS, ROWS, {"sort": "address", "paused": ""}, blocks=True)]

    sorted_ones = [line.split()[1] for line in lines if line.endswith(" guess")]
    assert sorted_ones == ["20.0.0.0/24", "20.0.0.1", "100.64.0.1", "2001:db8::/64"]


def test_the_narrowest_display_is_cut() -> None:
    """A terminal of a few columns shows the beginning of each line."""
    assert max(map(len, drawn(view(), 5, 24))) == 4


def test_a_reason_that_has_no_room_gets_a_line_of_its_own() -> None:
    """The longest reason, beside the longest network, is shown whole at 80 columns."""
    sender: dict[str, Any] = {"time": "2026-11-21T02:41:25Z", "subject": "2001:db8:1234:5678::/64"}
    sender |= {"account": "reception", "accounts": 12, "times": 200, "country": "NL"}
    sender |= {"reason": "wrong password or account", "standing": "unconfirmed"}
    shown = drawn(view(senders=[sender], alarms=[], latest_bans=[]), COLUMNS, ROWS)

    (place,) = (number for number, line in enumerate(shown) if "2001:db8" in line)
    assert shown[place].endswith("200x")
    assert shown[place + 1].strip() == "wrong password or account (unconfirmed)"


LONG = (
    "no request has succeeded for 40 s: status 403: the key of the bouncer, or the machine, is not accepted"
)


@pytest.mark.parametrize(("number", "height", "whole"), [(1, 24, True), (3, 24, True), (3, 12, False)])
def test_a_long_alarm_is_wrapped_at_words(number: int, height: int, whole: bool) -> None:  # noqa: FBT001 - a column
    """At 80 columns, alarms have a quarter of the lines; a shortened one shows it, and where the rest is."""
    alarm = {"code": "fleet.failed", "subject": "pull", "text": LONG, "times": 1}
    lines = [line for line in drawn(view(alarms=[alarm] * number), COLUMNS, height) if line.startswith("! ")]

    text = " ".join(line.removeprefix("! ").strip() for line in lines)
    assert text.count(f"fleet.failed pull: {LONG}") == (number if whole else 0)
    assert text.endswith("… the whole texts: ringfence alarms") is not whole
    assert all(line.endswith(" …") for line in lines[:-1]) is not whole


def test_alarms_that_the_daemon_leaves_out_are_counted() -> None:
    """The daemon sends only some of the alarms, and the number of all."""
    assert "! and 57 more; see: ringfence alarms" in drawn(view(alarm_count=60), COLUMNS, ROWS)
