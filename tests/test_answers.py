"""What commands are answered: over a real keeper, with requests as they come off the socket."""

import asyncio
import inspect
import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.support.kept import Kept, kept, settings

from ringfence.answers import Answers
from ringfence.errors import ControlError, StoreError
from ringfence.firewall.contract import Usage
from ringfence.model import network_from
from ringfence.report import Seen
from ringfence.values import MAX_DURATION


class Office:
    """Answers, and who asks."""

    def __init__(self, made: Kept) -> None:
        self.kept = made
        made.keeper.mount()
        self.handlers = Answers(made.keeper, self._seen).handlers()

    def _seen(self, usage: Usage) -> Seen:
        keeper = self.kept.keeper
        return Seen(
            now=0.0,
            sources=(),
            wire=None,
            detector=self.kept.detector,
            reconciler=keeper.reconciler,
            usage=usage,
            why="",
            alarms=keeper.alarms.up,
        )

    def ask(self, do: str, **request: object) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Ask as a command does, and give what it would read."""
        answer = self.handlers[do](json.loads(json.dumps(request)))
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
        """Give who is listed; of those that touch ``networks``, where any is named."""
        asked = {"networks": list(networks)} if networks else {}
        return {row["address"] for row in self.ask("bans", **asked)}


@pytest.fixture(name="office")
def _office(tmp_path: Path) -> Iterator[Office]:
    """Give answers over a guard that is mounted."""
    with kept(tmp_path, settings("198.51.100.0/24")) as made:
        yield Office(made)


def test_bans_are_placed_listed_and_lifted(office: Office) -> None:
    """By address and network of both versions; what could not be done is a line."""
    networks = ["192.0.2.1", "203.0.113.0/24", "2001:db8::/64", "::ffff:192.0.2.2", "198.51.100.7"]
    problems = office.ask("ban", networks=networks, seconds=60, reason="a reason")

    assert problems == ["198.51.100.7/32: is allowed (see: ringfence allow list)"]
    assert office.listed() == {"192.0.2.1", "203.0.113.0/24", "2001:db8::/64", "192.0.2.2"}
    assert office.ask("unban", networks=["203.0.113.1", "192.0.2.9"]) == {
        "problems": ["192.0.2.9/32: is not banned"],
        "notes": ["203.0.113.0/24: the rest of it stays banned, in 8 parts"],
    }
    assert office.ask("unban", all=True) == 11
    assert office.listed() == set()


def test_a_list_may_be_of_some(office: Office) -> None:
    """Those that lie in what is asked for, or cover it."""
    office.ask("ban", networks=["192.0.2.1", "203.0.113.0/24", "2001:db8::/64"], seconds=60)

    assert office.listed("192.0.2.0/24", "203.0.113.77") == {"192.0.2.1", "203.0.113.0/24"}
    assert office.listed("2001:db8::5") == {"2001:db8::/64"}
    assert office.listed("192.0.2.2") == set()


@pytest.mark.parametrize("seconds", [None, "60", 0, -1, MAX_DURATION * 1.01, float("inf"), float("nan"), []])
def test_a_ban_needs_a_length(office: Office, seconds: object) -> None:
    """A number of seconds that a ban may last; nothing is banned otherwise."""
    with pytest.raises(ControlError, match="a ban needs a length"):
        office.ask("ban", networks=["192.0.2.1"], seconds=seconds)
    assert office.listed() == set()


@pytest.mark.parametrize(
    "networks", [None, 7, "192.0.2.1", ["nobody"], [7.5], [None], ["192.0.2.1/24"], [{}]]
)
@pytest.mark.parametrize("do", ["ban", "unban", "bans"])
def test_what_is_no_network_is_refused(office: Office, do: str, networks: object) -> None:
    """With its name where it has one; whatever JSON can hold."""
    with pytest.raises(ControlError, match="not an address or network"):
        office.ask(do, networks=networks, seconds=60)


def test_a_reason_is_a_text(office: Office) -> None:
    """Anything else is refused."""
    with pytest.raises(ControlError, match="a reason is a text"):
        office.ask("ban", networks=["192.0.2.1"], seconds=60, reason=7)


def test_by_force_who_is_protected_is_banned_and_not_passed_over(office: Office) -> None:
    """The kernel's roll of who passes has him no more; without force he is refused with the reason."""
    gateway = ip_network("203.0.113.1")
    office.kept.keeper._protected_changed({gateway: "a gateway"})
    assert "a gateway" in office.ask("ban", networks=["203.0.113.1"], seconds=60)[0]

    assert office.ask("ban", networks=["203.0.113.1"], seconds=60, force=True) == []
    assert office.listed() == {"203.0.113.1"}


def test_off_and_on(office: Office) -> None:
    """Off is empty and is shown; what has time left is back with on."""
    office.ask("ban", networks=["192.0.2.1"], seconds=60)
    assert office.ask("off") is True
    assert (office.listed(), office.ask("status")["enforced"]) == (set(), 0)
    with pytest.raises(ControlError, match="switched off"):
        office.ask("ban", networks=["192.0.2.1"], seconds=60)
    assert office.ask("on") is True
    assert office.listed() == {"192.0.2.1"}


def test_off_that_will_not_last_is_told(office: Office) -> None:
    """Where the store forgets everything with the daemon, it is off, and that it will not stay is told."""
    office.ask("ban", networks=["192.0.2.1"], seconds=60)
    office.kept.enforcer.records.fleeting = "the disk is full"
    with pytest.raises(StoreError, match=r"everything is removed, but .* not remembered: the disk is full"):
        office.ask("off")

    assert (office.listed(), office.kept.enforcer.enforcing) == (set(), False)


def test_the_status_is_of_now(office: Office) -> None:
    """Before it answers it looks: what somebody has taken away a moment ago is not said to be enforced."""
    office.ask("ban", networks=["192.0.2.1", "192.0.2.2"], seconds=3_600)
    office.kept.backend.lose(network_from("192.0.2.1"))
    status = office.ask("status")

    assert (status["enforced"], status["expected"]) == (1, 2)


def test_a_trial_is_confirmed_once(office: Office) -> None:
    """It says whether there was one."""
    assert office.ask("confirm") is False


def test_friends_are_listed_counted_taken_and_forgotten(office: Office) -> None:
    """Another server's are in force at once; the status says how many addresses there are."""
    assert (office.ask("friends"), office.ask("status")["friends"]) == ([], 0)
    row = {
        "address": "192.0.2.7",
        "account": "alice",
        "asterisk": "twin",
        "tie": "authenticated",
        "since": "2023-11-14T22:00:00Z",
        "seen": "2023-11-14T22:10:00Z",
        "until": "2023-11-15T00:00:00Z",
    }
    assert office.ask("friends_import", friends=[row], transfer="one") == 1
    assert office.ask("friends") == [row | {"tie": "imported"}]
    assert office.ask("status")["friends"] == 1
    assert len(office.ask("friends", networks=["198.51.100.0/24", "192.0.2.0/24"])) == 1
    assert office.ask("friends", networks=["198.51.100.0/24", "2001:db8::/32"]) == []
    assert office.ask("friends_forget", address="192.0.2.7") == 1
    assert office.ask("friends") == []
