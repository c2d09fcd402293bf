"""Unbans without the daemon: what is refused, and what happens if the kernel or the database is empty."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Guard, until
from tests.support.netns import run
from tests.support.unprivileged import unprivileged

from ringfence.config import loader
from ringfence.config.schema import Settings
from ringfence.errors import (
    ControlError,
    DaemonUnreachableError,
    StoreError,
)
from ringfence.guard import offline
from ringfence.guard.process import claim_sets
from ringfence.values.network import Network

ADDRESS = ip_network("203.0.113.1")
OTHER = ip_network("203.0.113.2")

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.fixture(name="guard", params=["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def _guard(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Guard]:
    """Return a daemon with two bans in the kernel."""
    with Guard(tmp_path, firewall={"backend": request.param}) as guard:
        assert guard.ask("ban", networks=[str(ADDRESS), str(OTHER)], seconds=3_600)["problems"] == []
        until(lambda: _recorded(guard) == 2, "the records")  # a thread writes them after the answer
        yield guard


def _recorded(guard: Guard) -> int:
    """Return the number of bans in the database."""
    with closing(sqlite3.connect(guard.settings["store"]["path"])) as database:
        return int(database.execute("SELECT count(*) FROM bans").fetchone()[0])


def settings_of(guard: Guard) -> Settings:
    """Return the settings of a guard's configuration file."""
    return loader.load(guard.config)


def unban(settings: Settings, *networks: Network) -> Any:  # noqa: ANN401 - any JSON value
    """Unban these networks, or all, as a command does without the daemon; return the answer."""
    which = {"networks": [str(network) for network in networks]} if networks else {"all": True}
    return offline.ANSWERS["unban"](settings, which)


def test_nothing_is_done_while_a_daemon_lives(guard: Guard) -> None:
    """Offline unbans are refused while a daemon has the database or the sets: it would restore the bans."""
    with pytest.raises(DaemonUnreachableError, match="a daemon runs, but does not answer"):
        unban(settings_of(guard), ADDRESS)
    with pytest.raises(DaemonUnreachableError, match="a daemon runs, but does not answer"):
        unban(settings_of(guard))
    assert guard.banned() == {"203.0.113.1", "203.0.113.2"}
    guard.kill()
    with claim_sets(guard.folder), pytest.raises(DaemonUnreachableError, match="Its bans stay"):
        unban(settings_of(guard), ADDRESS)


def test_only_root_can(guard: Guard) -> None:
    """Other users than root get one line with the two ways to unban."""
    settings = settings_of(guard)
    guard.kill()
    with unprivileged(), pytest.raises(DaemonUnreachableError, match=r"run this as root \(sudo\), or start"):
        unban(settings, ADDRESS)


@pytest.mark.parametrize("do", ["alarms", "friends", "past_bans"])
def test_a_database_in_a_closed_folder_is_an_error(tmp_path: Path, do: str) -> None:
    """Users who may not know whether there is a database get the reason, not an empty list."""
    closed = tmp_path / "closed"
    settings = settings_of(Guard(tmp_path, store={"path": closed / "ringfence.db"}))
    closed.mkdir(0o700)
    with unprivileged(), pytest.raises(StoreError, match="Permission denied"):
        offline.ANSWERS[do](settings, {})


def test_switched_off_is_refused_as_by_the_daemon(guard: Guard) -> None:
    """While enforcement is off, no ban is active, so an unban is refused."""
    guard.ask("off")
    guard.kill()
    with pytest.raises(ControlError, match="enforcement is switched off"):
        unban(settings_of(guard), ADDRESS)


def test_a_ban_that_only_the_database_has_ends(guard: Guard) -> None:
    """After a reboot an unban leaves the kernel empty, and the next start restores only the other ban."""
    guard.kill()
    run("nft", "flush", "ruleset")
    for name in run("ipset", "list", "-name").split():
        run("ipset", "destroy", name)

    assert unban(settings_of(guard), ADDRESS)["problems"] == []
    assert guard.banned() == set()
    guard.start()
    assert guard.banned() == {"203.0.113.2"}


def test_a_ban_that_only_the_kernel_has_ends(guard: Guard) -> None:
    """Without the database, the kernel decides which addresses are banned."""
    guard.kill()
    for file in guard.folder.glob("ringfence.db*"):
        file.unlink()

    assert unban(settings_of(guard), ADDRESS)["problems"] == []
    assert guard.banned() == {"203.0.113.2"}
    assert unban(settings_of(guard)) == 1


def test_an_end_that_cannot_be_recorded_is_a_problem(guard: Guard) -> None:
    """If an unban cannot be recorded, the kernel unbans, and the error warns of the next start."""
    guard.kill()
    for file in guard.folder.glob("ringfence.db*"):
        file.unlink()
    (guard.folder / "ringfence.db").mkdir()

    with pytest.raises(StoreError, match="removed from the kernel, but the next start bans again"):
        unban(settings_of(guard), ADDRESS)
    assert guard.banned() == {"203.0.113.2"}


def test_rules_and_lists_stay(guard: Guard) -> None:
    """An unban that splits a network keeps the rules, the allow list and the deny list."""
    guard.ask("allow_add", what=["192.0.2.0/25"])
    guard.ask("deny_add", what=["198.51.100.0/25"])
    assert guard.ask("ban", networks=["203.0.113.64/26"], seconds=3_600)["problems"] == []
    guard.kill()
    assert unban(settings_of(guard), ip_network("203.0.113.100"))["problems"] == []
    rules = run("nft", "list", "ruleset") + run("ipset", "save")

    assert "192.0.2.0/25" in rules
    assert "198.51.100.0/25" in rules
    assert {"203.0.113.96/30", "203.0.113.101"} <= guard.banned()
