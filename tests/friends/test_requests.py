"""What commands are answered about friends, with requests as they come off the socket."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from tests.friends.world import AUTHENTICATED, NOW, World, success

from ringfence.errors import ControlError
from ringfence.friends.document import as_json
from ringfence.friends.requests import Requests

PHONE, OTHER = "192.0.2.7", "192.0.2.8"


class Desk:
    """Who answers, and over which friends."""

    def __init__(self) -> None:
        self.world = World()
        self.requests = Requests(self.world.keeping, lambda: self.world.now)

    def ask(self, do: str, **request: object) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Ask as a command does."""
        return self.requests.handlers()[f"friends_{do}"](json.loads(json.dumps(request)))

    def listed(self) -> list[dict[str, str]]:
        """Give every reason."""
        rows: list[dict[str, str]] = json.loads(b"".join(self.requests.listed()))
        return rows


@pytest.fixture(name="desk")
def _desk() -> Desk:
    """Give a desk, and nobody is a friend."""
    return Desk()


def rows(*addresses: str) -> list[dict[str, str]]:
    """Give friends as a document has them."""
    other = World()
    for address in addresses:
        other.keeping.succeeded(success(address))
    return [as_json(friend) for friend in other.keeping.friends.all()]


@pytest.mark.parametrize("number", [0, 1, 499, 500, 501, 1_000])
def test_every_reason_is_listed(desk: Desk, number: int) -> None:
    """However many there are, in parts; they are those that there were when it was asked."""
    addresses = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(number)]
    for address in addresses:
        desk.world.keeping.succeeded(success(address, address))
    parts = desk.requests.listed()
    desk.world.keeping.succeeded(success("10.9.9.9"))

    assert [row["address"] for row in json.loads(b"".join(parts))] == addresses


def test_an_import_is_taken_when_it_is_whole(desk: Desk) -> None:
    """Parts of one transfer are one import; what was begun and not ended is nothing."""
    assert desk.ask("import", friends=rows(PHONE), transfer="a", more=True) == 1
    assert desk.listed() == []
    assert desk.ask("import", friends=rows(OTHER), transfer="b", more=True) == 1
    assert desk.ask("import", friends=rows("192.0.2.9"), transfer="b") == 2
    assert {row["address"] for row in desk.listed()} == {OTHER, "192.0.2.9"}
    assert {row["tie"] for row in desk.listed()} == {"imported"}
    assert desk.ask("import", friends=[], transfer="b") == 0


def test_a_part_that_is_wrong_takes_all_of_it_away(desk: Desk) -> None:
    """Nothing is half done; the next import begins anew."""
    desk.ask("import", friends=rows(PHONE), transfer="a", more=True)
    faults: list[object] = [[{}], {"a": 1}, 7, None, ["x"], [{**rows(PHONE)[0], "address": "here"}]]
    for wrong in faults:
        with pytest.raises(ControlError, match="no friends that can be taken, so none is: "):
            desk.ask("import", friends=wrong, transfer="a")
    with pytest.raises(ControlError):
        desk.ask("import", transfer="a")

    assert desk.listed() == []
    assert desk.ask("import", friends=rows(OTHER), transfer="a") == 1


def test_more_than_are_kept_are_not_taken(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer without end fills no memory."""
    monkeypatch.setattr("ringfence.friends.requests.MOST", 1)
    desk.ask("import", friends=rows(PHONE), transfer="a", more=True)
    with pytest.raises(ControlError, match="more than 1"):
        desk.ask("import", friends=rows(OTHER), transfer="a", more=True)


def test_what_is_over_is_not_taken(desk: Desk) -> None:
    """An old document makes no friends."""
    old = rows(PHONE)
    desk.world.now = NOW + 1e6
    desk.ask("import", friends=old)

    assert desk.listed() == []


def test_an_address_is_forgotten(desk: Desk) -> None:
    """With every reason; whoever is none has no reason, and what is no address is refused."""
    desk.world.keeping.succeeded(success(PHONE))
    desk.world.keeping.succeeded(success(PHONE, "bob"))
    desk.world.keeping.succeeded(success(OTHER))

    assert desk.ask("forget", address=PHONE) == 2
    assert desk.ask("forget", address=PHONE) == 0
    assert desk.world.keeping.friends.addresses() == [ip_address(OTHER)]
    assert list(desk.world.ties(OTHER)) == [AUTHENTICATED]
    for wrong in ({}, {"address": "192.0.2.0/24"}, {"address": None}):
        with pytest.raises(ControlError, match="no address"):
            desk.ask("forget", **wrong)
