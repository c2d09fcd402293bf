"""The answers to commands, from the parts of a real daemon, with requests as the socket delivers them."""

import asyncio
import inspect
import json
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.kept import Kept, kept, settings
from tests.support.recorded import active

from ringfence.bans.book import CHUNK
from ringfence.control_server import Encoded
from ringfence.errors import ControlError, StoreError
from ringfence.firewall.contract import Counters
from ringfence.guard.facts import FailureMemory
from ringfence.guard.feature import Feature
from ringfence.guard.request_fields import PeerRole
from ringfence.guard.request_table import check_request
from ringfence.guard.requests import RequestHandlers
from ringfence.guard.status import StatusData
from ringfence.store.writer import Writer
from ringfence.values.ban import Ban
from ringfence.values.network import parse_network


class Office:
    """The request handlers, and a client that asks them. The status has the parts of ``features``."""

    def __init__(self, made: Kept, *features: Feature) -> None:
        self.kept = made
        self._features = features
        made.side.start()
        side = made.side
        status: Any = SimpleNamespace(collect=self._seen)
        self.handlers = RequestHandlers(side, status, FailureMemory(side.exempt.friends.friends)).handlers()

    def _seen(self, usage: Counters) -> StatusData:
        return StatusData(
            now=0.0,
            sources=(),
            others=(),
            detector=self.kept.detector,
            reconciler=self.kept.side.kernel.reconciler,
            usage=usage,
            why="",
            alarms=self.kept.alarms.active,
            features={key: part for one in self._features for key, part in one.section().as_json().items()},
        )

    def ask(self, do: str, **request: object) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Return the answer that a command would read."""
        received = json.loads(json.dumps(request))
        check_request(PeerRole.ADMINISTRATOR, do, received)
        answer = self.handlers[do](received)
        if inspect.isawaitable(answer):
            answer = asyncio.run(self._wait(answer))
        if isinstance(answer, bytes):
            return json.loads(answer)
        if hasattr(answer, "parts"):
            return json.loads(b"".join(answer.parts))
        return json.loads(json.dumps(answer))

    async def _wait(self, answer: Any) -> Any:  # noqa: ANN401 - whatever it is
        return await answer

    def listed(self, *networks: str) -> set[str]:
        """Return the listed addresses, or only those that overlap ``networks``."""
        asked: dict[str, Any] = {"networks": list(networks)} if networks else {}
        return {row["address"] for row in self.ask("bans", most=99, **asked)}


@pytest.fixture(name="office")
def _office(tmp_path: Path) -> Iterator[Office]:
    """Return request handlers over a mounted guard."""
    with kept(tmp_path, settings("198.51.100.0/24")) as made:
        yield Office(made)


def test_bans_are_placed_listed_and_ended(office: Office) -> None:
    """Addresses and networks of both versions are banned, listed and unbanned; each failure is one line."""
    networks = ["192.0.2.1", "203.0.113.0/24", "2001:db8::/64", "::ffff:192.0.2.2", "198.51.100.7"]
    answer = office.ask("ban", networks=networks, seconds=60, reason="a reason")

    assert answer == {
        "problems": ["198.51.100.7: is allowed (see: ringfence allow list)"],
        "notes": [],
    }
    assert office.listed() == {"192.0.2.1", "203.0.113.0/24", "2001:db8::/64", "192.0.2.2"}
    assert office.ask("unban", networks=["203.0.113.1", "192.0.2.9"]) == {
        "problems": [],
        "notes": ["203.0.113.0/24: the rest of it stays banned, in 8 parts"],
        "not_banned": ["192.0.2.9"],
        "ended": 1,
    }
    assert office.ask("unban", all=True) == 11
    assert office.listed() == set()


def test_many_bans_are_placed_in_parts(office: Office) -> None:
    """The kernel gets the bans of one command ``CHUNK`` at a time, so that other bans can go between."""
    networks = [str(ip_network((0x2C000000 + number, 32))) for number in range(CHUNK + 1)]
    office.kept.backend.batches.clear()
    assert office.ask("ban", networks=networks, seconds=60)["problems"] == []

    assert [len(batch) for batch in office.kept.backend.batches] == [CHUNK, 1]
    assert len(office.listed()) == 99
    assert office.ask("unban", all=True) == CHUNK + 1


def test_a_ban_that_replaces_a_longer_one_says_so(office: Office) -> None:
    """The last ban counts. The answer names each address whose ban ends earlier by this, and no other."""
    networks = ["192.0.2.1", "192.0.2.2", "2001:db8::/64"]
    office.ask("ban", networks=["192.0.2.1"], seconds=60)
    office.ask("ban", networks=["192.0.2.2", "2001:db8::/64"], seconds=7 * 86_400)
    office.kept.now += 3_600

    assert office.ask("ban", networks=networks, seconds=3_600) == {
        "problems": [],
        "notes": [
            "192.0.2.2: this ban of 1h replaces a longer one, which had 6d 23h left",
            "2001:db8::/64: this ban of 1h replaces a longer one, which had 6d 23h left",
        ],
    }
    assert office.ask("ban", networks=networks, seconds=3_600)["notes"] == []


def test_a_list_may_be_of_some(office: Office) -> None:
    """A filtered list has the bans that lie in the given networks or cover them."""
    office.ask("ban", networks=["192.0.2.1", "203.0.113.0/24", "2001:db8::/64"], seconds=60)

    assert office.listed("192.0.2.0/24", "203.0.113.77") == {"192.0.2.1", "203.0.113.0/24"}
    assert office.listed("2001:db8::5") == {"2001:db8::/64"}
    assert office.listed("192.0.2.2") == set()


def test_a_list_may_have_a_limit(office: Office) -> None:
    """A limited list has the bans that end last."""
    for number in (3, 1, 5, 2, 4):
        office.ask("ban", networks=[f"192.0.2.{number}"], seconds=60 * number)

    assert {row["address"] for row in office.ask("bans", most=2)} == {"192.0.2.4", "192.0.2.5"}
    assert len(office.ask("bans", most=9)) == 5


def test_with_force_a_protected_address_is_banned(office: Office) -> None:
    """A protected address is refused with the reason; with force it is banned and no longer passes."""
    gateway = ip_network("203.0.113.1")
    office.kept.side.exempt.protected.set_part("gateways", {gateway: "a gateway"})
    office.kept.side.exempt.networks.on_protected()
    assert "a gateway" in office.ask("ban", networks=["203.0.113.1"], seconds=60)["problems"][0]

    assert office.ask("ban", networks=["203.0.113.1"], seconds=60, force=True)["problems"] == []
    assert office.listed() == {"203.0.113.1"}


def test_off_and_on(office: Office) -> None:
    """After `off` no ban is active and `status` shows it; `on` restores bans that have time left."""
    office.ask("ban", networks=["192.0.2.1"], seconds=60)
    assert office.ask("off") is True
    assert (office.listed(), office.ask("status")["enforced"]) == (set(), 0)
    with pytest.raises(ControlError, match="switched off"):
        office.ask("ban", networks=["192.0.2.1"], seconds=60)
    assert office.ask("on") is True
    assert office.listed() == {"192.0.2.1"}


def test_an_off_while_on_waits_for_the_disk_holds(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `off` that comes while an `on` waits for the disk is the latest command: that `on` is refused."""
    office.ask("off")

    async def slow_disk() -> bool:
        office.handlers["off"]({})
        return True

    with monkeypatch.context() as patch:
        patch.setattr(office.kept.store.best_effort, "caught_up", slow_disk)
        with pytest.raises(ControlError, match="switched off again"):
            office.ask("on")
    assert not office.kept.enforcer.enforcing
    assert office.kept.store.records.switched_off
    assert office.ask("on") is True
    assert office.kept.enforcer.enforcing


def test_off_without_a_record_holds(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the store cannot keep `off`, enforcement stays off, and the status shows what is missing."""
    office.ask("ban", networks=["192.0.2.1"], seconds=60)

    def full(_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(office.kept.store.state, "set_switched_off", full)
    assert office.ask("off") is True
    office.kept.side.kernel.manager.retry_switch()

    assert (office.listed(), office.kept.enforcer.enforcing) == (set(), False)
    assert office.kept.store.best_effort.lacks == "the disk is full"
    assert "a reboot may switch it on" in str(office.kept.side.present_alarms)


def test_the_status_is_of_now(office: Office) -> None:
    """The status checks the kernel before it answers, so a ban that was just removed is not counted."""
    office.ask("ban", networks=["192.0.2.1", "192.0.2.2"], seconds=3_600)
    office.kept.backend.lose(parse_network("192.0.2.1"))
    status = office.ask("status")

    assert (status["enforced"], status["expected"]) == (1, 2)


def test_friends_are_listed_counted_taken_and_forgotten(office: Office) -> None:
    """Imported friends count at once, can be listed and forgotten, and the status counts their addresses."""
    assert (office.ask("friends"), office.ask("status")["friends"]) == ([], 0)
    row = {
        "address": "192.0.2.7",
        "account": "alice",
        "asterisk": "twin",
        "reason": "authenticated",
        "since": "2023-11-14T22:00:00Z",
        "seen": "2023-11-14T22:10:00Z",
        "until": "2023-11-15T00:00:00Z",
    }
    assert office.ask("friends_import", friends=[row], transfer="one") == 1
    assert office.ask("friends") == [row | {"reason": "imported"}]
    assert office.ask("status")["friends"] == 1
    assert len(office.ask("friends", networks=["198.51.100.0/24", "192.0.2.0/24"])) == 1
    assert office.ask("friends", networks=["198.51.100.0/24", "2001:db8::/32"]) == []
    assert office.ask("friends_forget", address="192.0.2.7") == 1
    assert office.ask("friends") == []


@pytest.mark.parametrize(
    ("do", "fields"),
    [
        ("bans", {"most": 9}),
        ("past_bans", {}),
        ("alarms", {}),
        ("alarms", {"past": True}),
        ("friends", {}),
        ("lists", {"side": "deny"}),
    ],
)
def test_long_lists_are_read_when_their_parts_are_made(
    office: Office, do: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler of a long list reads nothing: the control socket makes the parts in a thread, in turn."""
    made: list[str] = []
    tables = office.kept.side.common.store
    for owner, name in (
        (office.kept.side.kernel.backend, "list"),
        (tables.bans, "ended"),
        (tables.alarms, "past"),
        (tables.entries, "in_order"),
    ):
        read = getattr(owner, name)

        def noted(*given: Any, read: Any = read, name: str = name) -> Any:  # noqa: ANN401 - any method
            made.append(name)
            return read(*given)

        monkeypatch.setattr(owner, name, noted)
    answer = office.handlers[do](fields)

    assert isinstance(answer, Encoded)
    assert made == []
    assert isinstance(json.loads(b"".join(answer.parts)), list)
    assert bool(made) is (do != "friends" and (do, fields) != ("alarms", {}))


def test_a_ban_is_on_disk_when_the_gate_has_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate waits for a slow disk before it answers, so a crash right after it does not end the ban."""
    with kept(tmp_path) as made, Writer() as later:
        bans = made.store.bans
        record = bans.record

        def slow(new: Sequence[Ban]) -> None:
            time.sleep(0.1)
            record(new)

        monkeypatch.setattr(bans, "record", slow)
        monkeypatch.setattr(made.store.best_effort, "_later", later)
        office = Office(made)
        assert office.ask("ban", networks=["192.0.2.1"], seconds=60)["problems"] == []
        assert asyncio.run(made.store.best_effort.recorded()) == ""
        assert [str(ban.network) for ban in active(made.store, made.side.common.clock.wall())] == [
            "192.0.2.1/32"
        ]
