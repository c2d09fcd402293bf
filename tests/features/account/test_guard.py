"""The watch of logins in the daemon: alarms, strangers and bans."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from attrs import evolve
from tests.support.kept import PHONE, Kept, kept, settings
from tests.support.mmdb import write
from tests.support.tables import with_tables

from ringfence.config.schema import Settings
from ringfence.detect.judgement import Login
from ringfence.features.account.guard import LoginWatch
from ringfence.features.account.places import DAY, LEARN_FOR
from ringfence.features.account.settings import AccountSettings, Elsewhere
from ringfence.features.account.table import AccountTable
from ringfence.values.network import Address

HOME, NEAR, ABROAD = map(ip_address, ("192.0.2.1", "192.0.3.1", "203.0.113.7"))


class Watched:
    """A watch, its daemon's parts, and logins of alice, who has a home since a month."""

    def __init__(self, made: Kept, elsewhere: Elsewhere, loop: asyncio.Runner) -> None:
        self.made, self.side = made, made.side
        self.watch = LoginWatch(made.side, elsewhere)
        made.side.common.listeners.append(self.watch)
        self.friends = made.side.exempt.friends
        self.loop = loop

    def login(
        self, address: Address, account: str = "alice", *, guessed: bool = False, proven: bool = True
    ) -> None:
        """Log in, as the pipeline reports it, and wait for the grade."""
        self.made.now += 1
        now = self.side.kernel.enforcer.now()  # as the pipeline does before events
        friend = evolve(PHONE, address=address, account=account, seen=now, until=now + 7_200)
        befriends = proven and self.friends.friends.admit(friend)
        login = Login(friend, befriends=befriends, guessed=guessed, proven=proven)
        self.watch.on_login(login)
        if login.befriends:
            self.friends.on_login(friend)
        self.work()

    def work(self) -> None:
        """Let the coroutines of the watch work."""
        self.loop.run(self._work())

    async def _work(self) -> None:
        grading, saving = self.watch.jobs()
        saving.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await grading

    def ask(self, do: str) -> Any:  # noqa: ANN401 - any JSON value
        """Send a request about alice."""
        return self.watch.handlers()[do]({"account": "alice"})

    def alarms(self) -> list[str]:
        """Return the subjects of the alarms about logins elsewhere."""
        return [one.subject for one in self.made.alarms.active if one.code == "account.elsewhere"]

    def is_friend(self, address: Address) -> bool:
        """Whether an address is a friend."""
        return self.friends.friends.has(address)

    def bans(self) -> list[tuple[str, str, str]]:
        """Return the address, the scope and the rule of each ban."""
        ledger = self.side.kernel.enforcer.ledger
        bans = [ledger.ban(key) for key in ledger.all_keys()]
        return [(str(ban.network), str(ban.scope), ban.rule) for ban in bans if ban is not None]


async def _done_here(work: Callable[..., object], *arguments: object) -> object:
    return work(*arguments)


@contextmanager
def watched(folder: Path, elsewhere: Elsewhere, wanted: Settings | None = None) -> Iterator[Watched]:
    """Yield a watch that knows a home of alice and one of bob. It has no threads, which may be slow."""
    with kept(folder, wanted) as made, asyncio.Runner() as loop, patch("asyncio.to_thread", _done_here):
        made.side.start()
        made.side.exempt.friends.startup.for_bans = True
        found = Watched(made, elsewhere, loop)
        found.login(HOME)
        found.login(ip_address("198.51.100.1"), "bob")
        made.now += LEARN_FOR
        found.friends.expire()
        yield found


@pytest.mark.parametrize("step", [60 * DAY, 400 * DAY, -400 * DAY])
def test_a_set_clock_ends_no_learning_and_forgets_no_home(tmp_path: Path, step: float) -> None:
    """A new account is still learned, an old one has its home, and its login elsewhere is an alarm."""
    with watched(tmp_path, Elsewhere.BLOCK) as found:
        found.login(HOME, "carol")
        found.made.ahead = step
        found.login(ABROAD, "carol")
        assert (found.alarms(), found.bans()) == ([], [])
        found.login(ip_address("100.70.0.1"))
        assert found.alarms() == ["alice at 100.70.0.0/16"]
        found.login(HOME)
        assert (len(found.alarms()), found.is_friend(HOME)) == (1, True)
        found.made.now += LEARN_FOR
        found.login(ip_address("100.64.0.1"), "carol")
        assert found.alarms()[0] == "carol at 100.64.0.0/16"


@pytest.mark.parametrize("step", [60 * DAY, 400 * DAY, -400 * DAY])
def test_a_clock_that_is_set_between_two_runs_changes_no_age(tmp_path: Path, step: float) -> None:
    """A new account is still learned, and an old one has its home."""
    with watched(tmp_path, Elsewhere.BLOCK) as found:
        found.login(HOME, "carol")
        found.watch.finish()
        found.made.ahead = step
        found.watch = LoginWatch(found.side, Elsewhere.BLOCK)
        found.login(ABROAD, "carol")
        assert (found.alarms(), found.bans()) == ([], [])
        found.login(ip_address("100.70.0.1"))
        assert found.alarms() == ["alice at 100.70.0.0/16"]


def test_a_crash_after_the_start_changes_no_age(tmp_path: Path) -> None:
    """If the clock was set while the daemon was down, the moved times are saved as soon as it works."""
    with watched(tmp_path, Elsewhere.BLOCK) as found:
        found.watch.finish()
        table, clock = AccountTable(found.made.store.connection), found.made.clock
        before = {key: account.since for key, account in table.load(clock.wall())}
        found.made.ahead = 60 * DAY
        found.watch = LoginWatch(found.side, Elsewhere.BLOCK)
        found.work()
        after = {key: account.since for key, account in table.load(clock.wall())}
        assert [after[key] - since for key, since in before.items()] == pytest.approx([60 * DAY] * 2)


@pytest.mark.parametrize("elsewhere", Elsewhere)
def test_a_login_elsewhere(tmp_path: Path, elsewhere: Elsewhere) -> None:
    """It is an alarm; its address is a friend, a stranger or banned; a confirmation ends that."""
    with watched(tmp_path, elsewhere) as found:
        found.login(ABROAD)
        assert found.alarms() == ["alice at 203.0.0.0/16"]
        assert found.is_friend(ABROAD) is (elsewhere is Elsewhere.NOTIFY)
        blocked = [("203.0.113.7/32", "sip", "elsewhere")] if elsewhere is Elsewhere.BLOCK else []
        assert found.bans() == blocked
        for address in (HOME, NEAR):
            found.login(address)
            assert found.is_friend(address)
        assert len(found.bans()) == len(blocked)

        confirmed = found.ask("account_confirm")
        assert [(one["network"], one["grade"]) for one in confirmed] == [("203.0.113.0/24", "confirmed")]
        assert (found.alarms(), found.bans()) == ([], [])
        found.login(ABROAD)
        assert found.is_friend(ABROAD)
        assert (found.alarms(), found.bans()) == ([], [])
        assert [one["grade"] for one in found.ask("account")["places"]] == [
            "confirmed",
            "new network",
            "learned",
        ]


@pytest.mark.parametrize("elsewhere", Elsewhere)
def test_a_login_after_guesses_has_an_alarm_already(tmp_path: Path, elsewhere: Elsewhere) -> None:
    """``password.guessed`` reports it; otherwise it is treated like a login elsewhere."""
    with watched(tmp_path, elsewhere) as found:
        found.login(NEAR, guessed=True)
        assert found.alarms() == []
        assert found.is_friend(NEAR) is (elsewhere is Elsewhere.NOTIFY)
        assert len(found.bans()) == (elsewhere is Elsewhere.BLOCK)


def test_a_ban_silences_no_phone_at_a_known_place(tmp_path: Path) -> None:
    """Guesses at bob's home, at an allowed address and at a friend's address are banned by no login."""
    with watched(tmp_path, Elsewhere.BLOCK, settings("203.0.113.0/25")) as found:
        found.login(ip_address("198.51.100.1"), guessed=True)
        found.login(ABROAD)
        guest = ip_address("203.0.113.200")
        found.friends.add([evolve(PHONE, address=guest, account="carol", until=found.made.now + 60)])
        found.login(guest)
        assert found.bans() == []
        assert found.alarms() == ["alice at 203.0.0.0/16"]
        assert {one.account for one in found.friends.friends.reasons(guest)} == {"carol"}


def test_a_login_with_a_forged_address_bans_nobody(tmp_path: Path) -> None:
    """Somebody with a password may have the challenge sent elsewhere: it is an alarm, and no ban."""
    with watched(tmp_path, Elsewhere.BLOCK) as found:
        for _ in range(2):
            found.login(ABROAD, proven=False)
            assert (found.alarms(), found.bans()) == (["alice at 203.0.0.0/16"], [])
        found.login(ABROAD)
        assert len(found.bans()) == 1


def test_a_ban_waits_for_the_friends(tmp_path: Path) -> None:
    """While the daemon starts, the address may be that of a friend; the next login there is banned."""
    with watched(tmp_path, Elsewhere.BLOCK) as found:
        found.friends.startup.for_bans = False
        found.login(ABROAD)
        assert found.bans() == []
        found.friends.startup.for_bans = True
        found.login(ABROAD)
        assert len(found.bans()) == 1


def test_a_changed_setting_counts_for_known_places(tmp_path: Path) -> None:
    """With ``stranger``, an earlier login elsewhere makes no friend any more, also after a restart."""
    with watched(tmp_path, Elsewhere.NOTIFY) as found:
        found.login(ABROAD)
        assert found.is_friend(ABROAD)
        strict = with_tables(settings(), account=AccountSettings(Elsewhere.STRANGER))
        found.watch.on_fact(strict)
        assert not found.is_friend(ABROAD)
        found.watch.finish()
        again = Watched(found.made, Elsewhere.STRANGER, found.loop)
        again.login(ABROAD)
        assert not again.is_friend(ABROAD)
        again.watch.on_fact(settings())
        again.login(ABROAD)
        assert again.is_friend(ABROAD)
        assert again.ask("account")["learns_until"] is None


def test_a_confirmation_ends_the_alarms_about_homes_too(tmp_path: Path) -> None:
    """After five days the place is a home, and its alarm still asks for the confirmation, which ends it."""
    with watched(tmp_path, Elsewhere.STRANGER) as found:
        for _ in range(6):
            found.login(ABROAD)
            found.made.now += DAY
            found.friends.expire()
        assert len(found.alarms()) == 1
        found.ask("account_confirm")
        assert found.alarms() == []


def test_five_days_end_the_restriction(tmp_path: Path) -> None:
    """On the fifth day elsewhere, the account makes a friend there."""
    with watched(tmp_path, Elsewhere.STRANGER) as found:
        known = []
        for _ in range(6):
            found.login(ABROAD)
            known.append(found.is_friend(ABROAD))
            found.made.now += DAY
            found.friends.expire()
        assert known == [False] * 5 + [True]


def test_places_have_countries(tmp_path: Path) -> None:
    """With a database, a new country is the alarm; a new network of a known country is only shown."""
    record = {"country": {"iso_code": "DE"}}
    records = [("192.0.0.0/16", record), ("203.0.113.0/24", {"country": {"iso_code": "FR"}})]
    with watched(tmp_path, Elsewhere.NOTIFY) as found:
        found.side.common.locator.configure([write(tmp_path / "geo.mmdb", records)])
        found.watch.on_fact(settings())
        found.loop.run(found.watch.update())
        found.login(NEAR)
        found.login(ABROAD)
        found.login(ip_address("203.0.113.99"))
        assert found.alarms() == ["alice at FR"]
        [alarm] = (one for one in found.made.alarms.active if one.code == "account.elsewhere")
        assert (alarm.times, "203.0.113.99 (FR)" in alarm.text) == (2, True)
        shown = found.side.common.followers.latest(["alarm"])
        assert [row["code"] for row in shown] == ["account.network", *["account.elsewhere"] * 2]
        assert "192.0.3.1 (DE), a new network" in str(shown[0]["text"])
        assert {one.value for one in found.watch.section().numbers} == {2, 4}


def test_places_get_their_countries_when_a_database_appears(tmp_path: Path) -> None:
    """A database that is installed later needs no reload: the places from before get their countries."""
    with watched(tmp_path, Elsewhere.NOTIFY) as found:
        found.side.common.locator.configure([tmp_path / "geo.mmdb"])
        found.loop.run(found.watch.update())
        found.login(NEAR)
        assert {one["country"] for one in found.ask("account")["places"]} == {""}

        write(tmp_path / "geo.mmdb", [("192.0.0.0/16", {"country": {"iso_code": "DE"}})])
        found.loop.run(found.watch.update())
        assert [one["country"] for one in found.ask("account")["places"]] == ["DE", "DE"]


def test_an_office_that_moves_is_one_alarm(tmp_path: Path) -> None:
    """Without a database, the accounts in a new network are one alarm, which names the last one, too."""
    with watched(tmp_path, Elsewhere.NOTIFY) as found:
        found.login(ABROAD, "bob")
        found.login(ABROAD)
        assert found.alarms() == ["bob at 203.0.0.0/16"]
        [text] = [one.text for one in found.made.alarms.active if one.code == "account.elsewhere"]
        assert "a network that nobody here used before, except bob" in text
        assert "ringfence account alice confirm" in text
        found.ask("account_confirm")
        assert found.alarms() == []
        found.login(ABROAD, "bob")
        assert found.alarms() == []


def test_a_failed_look_up_is_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon goes on, and the next login at the place is graded."""
    with watched(tmp_path, Elsewhere.NOTIFY) as found:
        with monkeypatch.context() as patch:
            patch.setattr(type(found.side.common.locator), "of", None)
            found.login(ABROAD)
        assert {one.code for one in found.made.alarms.active} == {"task.failed"}
        found.login(ABROAD)
        assert found.alarms() == ["alice at 203.0.0.0/16"]


def test_waiting_logins_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a login at a new place is not graded; the phone logs in again."""
    monkeypatch.setattr("ringfence.features.account.guard.MOST_WAITING", 1)
    with watched(tmp_path, Elsewhere.NOTIFY) as found:
        for address in ("203.0.113.7", "203.1.113.7"):
            found.watch.on_login(Login(evolve(PHONE, address=ip_address(address))))
        found.work()
        assert len(found.ask("account")["places"]) == 2


@pytest.mark.parametrize("elsewhere", Elsewhere)
def test_a_new_database_makes_no_login_at_home_one_from_abroad(tmp_path: Path, elsewhere: Elsewhere) -> None:
    """The homes of an account are located before a login at a new place is compared with them."""
    with watched(tmp_path, elsewhere) as found:
        record = {"country": {"iso_code": "DE"}}
        found.side.common.locator.configure([write(tmp_path / "geo.mmdb", [("192.0.0.0/16", record)])])
        found.login(NEAR)
        assert (found.alarms(), found.bans(), found.is_friend(NEAR)) == ([], [], True)
        assert [one["grade"] for one in found.ask("account")["places"]] == ["new network", "learned"]


def test_a_stranger_is_no_former_friend_either(tmp_path: Path) -> None:
    """An address that was a friend before the setting changed is not admitted by the fence any more."""
    with watched(tmp_path, Elsewhere.NOTIFY) as found:
        found.login(HOME)
        found.login(ABROAD)
        found.made.now += 7_200
        found.friends.expire()
        assert not found.is_friend(ABROAD)
        lists = found.side.kernel.lists
        assert lists.passes(ip_network(ABROAD))
        strict = with_tables(settings(), account=AccountSettings(Elsewhere.STRANGER))
        found.watch.on_fact(strict)
        assert not lists.passes(ip_network(ABROAD))
        assert lists.passes(ip_network(HOME))


def test_a_full_disk_gets_one_write_about_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one waits, no other is queued, so days of a full disk push no ban out; then all is written."""
    with watched(tmp_path, Elsewhere.NOTIFY) as found:
        best_effort, table = found.made.store.best_effort, found.watch._table
        monkeypatch.setattr(best_effort, "_later", lambda _: None)
        login = Login(evolve(PHONE, address=HOME), befriends=False, guessed=False, proven=True)
        for _ in range(3):
            found.made.now += DAY
            found.watch.on_login(login)
            found.loop.run(found.watch.update())
        assert len(best_effort.waiting_calls(table.save)) == 1

        best_effort.write_kept()
        found.loop.run(found.watch.update())
        best_effort.write_kept()
        places = [place for _, account in table.load(found.made.now) for place in account.places.values()]
        assert max(place.last for place in places) == found.made.now
