"""``ringfence bans --past``, with the daemon up and down."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.amiserver import Script
from tests.support.attempts import ban_of
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

from ringfence.cli.common import account_cell
from ringfence.store.database import Store

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = "198.18.1.101"


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> Iterator[Guard]:
    """Return a daemon that banned a guesser, whose ban an administrator ended."""
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(
            tmp_path, environ={"COLUMNS": "120"}, ami={"port": pbx.port}, rules={"guess": {"attempts": 3}}
        ) as guard,
    ):
        until(lambda: guard.banned() == {GUESSER}, "the ban")
        guard.must("unban", GUESSER)
        yield guard


def test_ended_bans_have_accounts_and_local_times(guard: Guard) -> None:
    """The list has the account and how the ban ended; --local changes the times, and not the JSON."""
    head, line = guard.must("bans", "--past").splitlines()
    [row] = json.loads(guard.must("bans", "--past", "--since", "1h", "--json", "--local"))

    assert head.split() == ["ADDRESS", "RULE", "ACCOUNT", "BAN", "SINCE", "ENDED", "(UTC)", "AFTER", "HOW"]
    assert line.split()[:5] == [GUESSER, "guess", "(sip-udp)", "alice", "1."]
    assert line.split()[-1] == "removed"
    assert (row["account"], row["accounts"], row["end"]) == ("alice", 1, "removed")
    assert row["ended"].endswith("Z")
    assert "ENDED (LOCAL)" in guard.must("bans", "--past", "--local")
    assert guard.must("bans", "--past", "192.0.2.1") == "No ban ended in this time.\n"


def test_without_the_daemon_the_database_is_read(guard: Guard) -> None:
    """Without the daemon the list is the same, and a note names its origin."""
    guard.stop()
    done = guard.command("bans", "--past")

    assert (done.returncode, done.stdout.splitlines()[1].split()[0]) == (0, GUESSER)
    assert "read from its database" in done.stderr


def test_a_list_that_is_cut_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If as many bans ended as an answer may have, a note says that only the latest are listed."""
    for module in ("cli.bans", "guard.facts"):
        monkeypatch.setattr(f"ringfence.{module}.MOST_ENDED", 2)
    with Store.open(tmp_path / "ringfence.db", owner=False) as store:
        store.bans.record([ban_of(f"192.0.2.{number}", time.time() - 7_200.0) for number in range(3)])
    done = Guard(tmp_path).command("bans", "--past")

    assert (done.returncode, done.stdout.count("192.0.2.")) == (0, 2)
    assert "Only the latest 2 are listed.\n" in done.stderr


@pytest.mark.parametrize("options", [("--since", "1h"), ("--past", "--watch"), ("--past", "--since", "x")])
def test_options_that_do_not_fit(tmp_path: Path, options: tuple[str, ...]) -> None:
    """--since belongs to --past and is a duration, and --watch shows current bans."""
    assert Guard(tmp_path).command("bans", *options).returncode == 2


def test_an_account_in_a_table_is_short() -> None:
    """A long account is cut, the number of other accounts stays."""
    assert account_cell({"account": "204", "accounts": 1}) == "204"
    assert account_cell({"account": "2" * 40, "accounts": 4}) == f"{'2' * 8}… +3"
    assert account_cell({"account": "", "accounts": 0}) == "-"
