"""Requests to the lists, as the control socket carries them."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.lists.world import At

from ringfence.errors import ControlError
from ringfence.lists.entries import MAX_AT_ONCE, Addition, Answer, addresses


def test_an_addition_is_read() -> None:
    """Valid entries are accepted, and invalid ones are reported."""
    addition = Addition.of({"what": ["192.0.2.1", "rubbish"], "note": "office", "seconds": 7_200})

    assert [value.text for value in addition.values] == ["192.0.2.1"]
    assert [wrong.split(":")[0] for wrong in addition.wrong] == ["rubbish"]
    assert (addition.note, addition.seconds, addition.force) == ("office", 7_200, False)
    assert Addition.of({"what": ["192.0.2.1"], "force": True}).force


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"what": "192.0.2.1"},
        {"what": []},
        {"what": [1]},
        {"what": [""]},
        {"what": ["x" * 1_000]},
        {"what": ["192.0.2.1"] * (MAX_AT_ONCE + 1)},
        {"what": ["192.0.2.1"], "note": 5},
        {"what": ["192.0.2.1"], "note": "two\nlines"},
        {"what": ["192.0.2.1"], "note": "x" * 1_000},
        {"what": ["192.0.2.1"], "seconds": 0},
        {"what": ["192.0.2.1"], "seconds": True},
        {"what": ["192.0.2.1"], "seconds": "1h"},
        {"what": ["192.0.2.1"], "seconds": 1e12},
        {"what": ["192.0.2.1"], "seconds": float("nan")},
    ],
)
def test_an_invalid_request_is_refused(request_: dict[str, object]) -> None:
    """A request of another shape is an error of the client, and the answer states it."""
    with pytest.raises(ControlError, match=r"a text|seconds|texts"):
        Addition.of(request_)


def test_answers_and_rows_are_json(tmp_path: Path) -> None:
    """Times have the same format as in every listing."""
    assert Answer(done=["a"]).as_json() == {"done": ["a"], "problems": [], "notes": []}
    at = At(tmp_path)
    at.now = 0.0
    at.ask("allow_add", what=["192.0.2.1"])
    [row] = at.ask("lists", side="allow")
    assert row == {
        "entry": "192.0.2.1",
        "source": "command",
        "note": "",
        "added": "1970-01-01T00:00:00Z",
        "ends": None,
        "forced": False,
        "networks": 1,
        "leads_to": [],
    }


def test_addresses_are_in_order() -> None:
    """IPv4 comes first, and an address has no prefix length."""
    networks = frozenset(map(ip_network, ["2001:db8::1", "192.0.2.10", "192.0.2.9"]))

    assert addresses(networks) == ["192.0.2.9", "192.0.2.10", "2001:db8::1"]
