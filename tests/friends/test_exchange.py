"""The document that passes friends from one server to another: export and import, and invalid input."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import evolve
from tests.friends.world import NOW

from ringfence.friends.exchange import (
    FORMAT,
    LONGEST,
    MAX_LINE,
    MAX_TEXT,
    VERSION,
    as_json,
    friend_from,
    lines_of,
    parse_document,
)
from ringfence.values.friend import Friend, FriendReason

ALICE = Friend(
    "pbx", ip_address("192.0.2.7"), "alice", FriendReason.AUTHENTICATED, NOW - 900, NOW - 60, NOW + 3_600
)
HEAD = json.dumps({"format": FORMAT, "version": VERSION}).encode()
ROW = as_json(ALICE)


def document(*friends: Friend) -> list[bytes]:
    """Return friends as the lines of a document."""
    return [line.encode() for line in lines_of(map(as_json, friends))]


def changed(**values: object) -> bytes:
    """Return ALICE's line with other values; None omits a key."""
    return json.dumps({key: value for key, value in {**ROW, **values}.items() if value is not None}).encode()


def test_an_exported_document_can_be_imported() -> None:
    """Account and times are kept; a proven friend becomes imported, a claimed one stays registered."""
    claimed = evolve(
        ALICE, address=ip_address("2001:db8::7"), account="電話 \\x1b", reason=FriendReason.REGISTERED
    )
    found = parse_document(document(ALICE, claimed), NOW)

    assert found.faults == []
    assert found.friends == [evolve(ALICE, reason=FriendReason.IMPORTED), claimed]


def test_imported_friends_are_not_exported() -> None:
    """Imported friends are not exported, so two servers cannot keep a friend alive forever."""
    assert document(evolve(ALICE, reason=FriendReason.IMPORTED)) == [HEAD]
    assert parse_document([HEAD], NOW).faults == []


def test_an_imported_friend_ends_as_on_the_other_server() -> None:
    """A friend lasts until its end there, a month at most; expired ones are counted, future times cut."""
    far = evolve(ALICE, since=NOW + 10, seen=NOW + 20, until=NOW + 2 * LONGEST)
    found = parse_document(document(evolve(ALICE, until=NOW), far), NOW)

    assert found.expired == 1
    assert found.friends == [
        evolve(far, reason=FriendReason.IMPORTED, since=NOW, seen=NOW, until=NOW + LONGEST)
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"rubbish", "not JSON"),
        (b"[" * 4_000, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b" " * MAX_LINE + b"{}", f"longer than {MAX_LINE} bytes"),
        (changed(until=None), '"until" is missing'),
        (changed(note="x"), '"note" is unknown'),
        (changed(address="here"), "'here' does not appear to be an IPv4 or IPv6 address"),
        (changed(address="127.0.0.1"), "127.0.0.1 cannot be a phone"),
        (changed(address="fe80::1%eth0"), "fe80::1%eth0 cannot be a phone"),
        (changed(account=7), f"account: must be a text of at most {MAX_TEXT} characters"),
        (changed(account="x" * 257), f"account: must be a text of at most {MAX_TEXT} characters"),
        (changed(account="\ud800"), "account: half a character"),
        (changed(reason="cousin"), "reason: one of authenticated, reachable, registered, trunk, imported"),
        (changed(since="today"), "since: must be a time such as 2026-11-20T10:14:03Z"),
        (changed(seen="2001-01-01T00:00:00Z"), "since, seen and until are not in order"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_every_fault_has_its_line_number(line: bytes, fault: str) -> None:
    """Each invalid line is reported with its reason, and reading continues to find all faults at once."""
    found = parse_document([HEAD, changed(), line, b"\n", b"{}"], NOW)

    assert found.faults == [f"line 3: {fault}", 'line 5: "account" is missing']
    assert len(found.friends) == 1


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ([], "the file is empty: is this what `ringfence friends export` wrote?"),
        ([b"192.0.2.7\n"], "not JSON: is this what `ringfence friends export` wrote?"),
        (
            [changed()],
            'not a list of friends, which begins with {"format": "ringfence friends", "version": 1}',
        ),
        (
            [json.dumps({"format": FORMAT, "version": 2}).encode()],
            "version 2 is not supported (1 is): upgrade this ringfence",
        ),
        (
            [json.dumps({"format": FORMAT, "version": True}).encode()],
            "version true is not supported (1 is): upgrade this ringfence",
        ),
    ],
    ids=["empty", "a list", "no head", "newer", "no number"],
)
def test_another_kind_of_document_is_one_fault(head: list[bytes], fault: str) -> None:
    """A file of another format is reported once, not line by line."""
    assert parse_document([*head, *head], NOW).faults == [f"line 1: {fault}"]


def test_too_many_friends_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading ends at the limit, whatever follows."""
    monkeypatch.setattr("ringfence.friends.exchange.MOST", 2)

    assert parse_document([HEAD, *[changed()] * 9], NOW).faults == [
        "line 4: more than 2 friends are not kept"
    ]


def test_a_value_of_the_wrong_type_is_an_error() -> None:
    """A row with a value of the wrong type is a ValueError."""
    row: dict[str, Any] = {**ROW, "until": None}
    with pytest.raises(ValueError, match="until: must be a text"):
        friend_from(row, NOW)
