"""Requests about friends and their answers, as they arrive at the control socket."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from tests.friends.world import AUTHENTICATED, NOW, World, success
from tests.support.clock import SetClock

from ringfence.errors import ControlError
from ringfence.friends.exchange import FriendRequests, as_json

PHONE, OTHER = "192.0.2.7", "192.0.2.8"


class Desk:
    """The handlers of friend requests, with their friends."""

    def __init__(self) -> None:
        self.world = World()
        self.requests = FriendRequests(self.world.keeping, SetClock(lambda: self.world.now))

    def ask(self, do: str, **request: object) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Send a request as a command does."""
        return self.requests.handlers()[f"friends_{do}"](json.loads(json.dumps(request)))

    def listed(self) -> list[dict[str, str]]:
        """Return every reason as the listing has it."""
        rows: list[dict[str, str]] = json.loads(b"".join(self.requests.listed()))
        return rows


@pytest.fixture(name="desk")
def _desk() -> Desk:
    """Return handlers without friends."""
    return Desk()


def rows(*addresses: str) -> list[dict[str, str]]:
    """Return friends as rows of a document."""
    other = World()
    for address in addresses:
        other.keeping.on_login(success(address))
    return [as_json(friend) for friend in other.keeping.friends.all()]


@pytest.mark.parametrize("number", [0, 1, 499, 500, 501, 1_000])
def test_every_reason_is_listed(desk: Desk, number: int) -> None:
    """The listing comes in parts for any number of friends, with those of its beginning."""
    addresses = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(number)]
    for address in addresses:
        desk.world.keeping.on_login(success(address, address))
    parts = desk.requests.listed()
    first = next(parts)
    desk.world.keeping.on_login(success("10.9.9.9"))

    assert [row["address"] for row in json.loads(b"".join([first, *parts]))] == addresses


def test_an_import_applies_when_it_is_complete(desk: Desk) -> None:
    """The parts of one transfer are one import; an unfinished transfer has no effect."""
    assert desk.ask("import", friends=rows(PHONE), transfer="a", more=True) == 1
    assert desk.listed() == []
    assert desk.ask("import", friends=rows(OTHER), transfer="b", more=True) == 1
    assert desk.ask("import", friends=rows("192.0.2.9"), transfer="b") == 2
    assert {row["address"] for row in desk.listed()} == {OTHER, "192.0.2.9"}
    assert {row["reason"] for row in desk.listed()} == {"imported"}
    assert desk.ask("import", friends=[], transfer="b") == 0


def test_two_imports_at_once_do_not_mix(desk: Desk) -> None:
    """The one that another interrupts is refused: it would import only its last part, as if that were all."""
    desk.ask("import", friends=rows(PHONE), transfer="a", more=True)
    desk.ask("import", friends=rows(OTHER), transfer="b", more=True)
    with pytest.raises(ControlError, match="another import came between"):
        desk.ask("import", friends=rows("192.0.2.9"), transfer="a", before=1)
    assert desk.listed() == []
    assert desk.ask("import", friends=rows("192.0.2.9"), transfer="b", before=1) == 2


def test_an_invalid_part_cancels_the_import(desk: Desk) -> None:
    """An invalid part discards the whole import, and the next import starts again from the beginning."""
    desk.ask("import", friends=rows(PHONE), transfer="a", more=True)
    faults: list[object] = [[{}], {"a": 1}, 7, None, ["x"], [{**rows(PHONE)[0], "address": "here"}]]
    for wrong in faults:
        with pytest.raises(ControlError, match="no friend was imported, because one is invalid: "):
            desk.ask("import", friends=wrong, transfer="a")
    with pytest.raises(ControlError):
        desk.ask("import", transfer="a")

    assert desk.listed() == []
    assert desk.ask("import", friends=rows(OTHER), transfer="a") == 1


def test_an_import_of_too_many_friends_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless transfer cannot fill the memory."""
    monkeypatch.setattr("ringfence.friends.exchange.MOST", 1)
    desk.ask("import", friends=rows(PHONE), transfer="a", more=True)
    with pytest.raises(ControlError, match="more than 1"):
        desk.ask("import", friends=rows(OTHER), transfer="a", more=True)


def test_an_expired_friend_is_not_imported(desk: Desk) -> None:
    """An expired document adds no friends."""
    old = rows(PHONE)
    desk.world.now = NOW + 1e6
    desk.ask("import", friends=old)

    assert desk.listed() == []


def test_an_address_is_forgotten(desk: Desk) -> None:
    """All reasons of an address are removed; other addresses count as 0, and invalid ones are refused."""
    desk.world.keeping.on_login(success(PHONE))
    desk.world.keeping.on_login(success(PHONE, "bob"))
    desk.world.keeping.on_login(success(OTHER))

    assert desk.ask("forget", address=PHONE) == 2
    assert desk.ask("forget", address=PHONE) == 0
    assert desk.world.keeping.friends.addresses() == [ip_address(OTHER)]
    assert list(desk.world.ties(OTHER)) == [AUTHENTICATED]
    for wrong in ({}, {"address": "192.0.2.0/24"}, {"address": None}):
        with pytest.raises(ControlError, match="not an address"):
            desk.ask("forget", **wrong)
