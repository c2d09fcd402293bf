"""The document by which one server tells another: what is written is read, and nothing else is."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import evolve
from tests.friends.world import NOW

from ringfence.friends.document import (
    FORMAT,
    LONGEST,
    MAX_LINE,
    MAX_TEXT,
    VERSION,
    as_json,
    friend_from,
    lines_of,
    read,
)
from ringfence.model import Friend, Tie

ALICE = Friend("pbx", ip_address("192.0.2.7"), "alice", Tie.AUTHENTICATED, NOW - 900, NOW - 60, NOW + 3_600)
HEAD = json.dumps({"format": FORMAT, "version": VERSION}).encode()
ROW = as_json(ALICE)


def document(*friends: Friend) -> list[bytes]:
    """Write friends as a document."""
    return [line.encode() for line in lines_of(map(as_json, friends))]


def changed(**values: object) -> bytes:
    """Give ALICE's line with other values; None leaves one out."""
    return json.dumps({key: value for key, value in {**ROW, **values}.items() if value is not None}).encode()


def test_what_is_exported_is_imported() -> None:
    """With its account and times; what is proven comes as imported, and a phone's own word stays that."""
    claimed = evolve(ALICE, address=ip_address("2001:db8::7"), account="電話 \\x1b", tie=Tie.REGISTERED)
    found = read(document(ALICE, claimed), NOW)

    assert found.faults == []
    assert found.friends == [evolve(ALICE, tie=Tie.IMPORTED), claimed]


def test_what_was_imported_is_not_exported() -> None:
    """Two servers that tell each other do not keep a friend for ever."""
    assert document(evolve(ALICE, tie=Tie.IMPORTED)) == [HEAD]
    assert read([HEAD], NOW).faults == []


def test_nobody_is_a_friend_for_longer_than_there() -> None:
    """Until its end there, a month at most; what is over is left out and counted; no time is to come."""
    far = evolve(ALICE, since=NOW + 10, seen=NOW + 20, until=NOW + 2 * LONGEST)
    found = read(document(evolve(ALICE, until=NOW), far), NOW)

    assert found.over == 1
    assert found.friends == [evolve(far, tie=Tie.IMPORTED, since=NOW, seen=NOW, until=NOW + LONGEST)]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"rubbish", "no JSON"),
        (b"[" * 4_000, "no JSON"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b" " * MAX_LINE + b"{}", f"longer than {MAX_LINE} bytes"),
        (changed(until=None), '"until" is missing'),
        (changed(note="x"), '"note" is not known'),
        (changed(address="here"), "'here' does not appear to be an IPv4 or IPv6 address"),
        (changed(address="127.0.0.1"), "no phone is at 127.0.0.1"),
        (changed(address="fe80::1%eth0"), "no phone is at fe80::1%eth0"),
        (changed(account=7), f"account: must be a text of at most {MAX_TEXT} characters"),
        (changed(account="x" * 257), f"account: must be a text of at most {MAX_TEXT} characters"),
        (changed(account="\ud800"), "account: half a character"),
        (changed(tie="cousin"), "tie: one of authenticated, reachable, registered, trunk, imported"),
        (changed(since="today"), "since: must be a time such as 2026-11-20T10:14:03Z"),
        (changed(seen="2001-01-01T00:00:00Z"), "since, seen and until are not in order"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_every_fault_is_told_with_its_line(line: bytes, fault: str) -> None:
    """What is not exactly a friend says why; the others are read on, so that all faults come at once."""
    found = read([HEAD, changed(), line, b"\n", b"{}"], NOW)

    assert found.faults == [f"line 3: {fault}", 'line 5: "account" is missing']
    assert len(found.friends) == 1


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ([], "there is nothing: is this what `ringfence friends export` wrote?"),
        ([b"192.0.2.7\n"], "no JSON: is this what `ringfence friends export` wrote?"),
        ([changed()], 'no document of friends: it begins with {"format": "ringfence friends", "version": 1}'),
        (
            [json.dumps({"format": FORMAT, "version": 2}).encode()],
            "version 2 is not known here (1 is): upgrade this ringfence",
        ),
        (
            [json.dumps({"format": FORMAT, "version": True}).encode()],
            "version true is not known here (1 is): upgrade this ringfence",
        ),
    ],
    ids=["empty", "a list", "no head", "newer", "no number"],
)
def test_what_is_no_such_document_is_one_fault(head: list[bytes], fault: str) -> None:
    """A wrong file is not complained of line by line."""
    assert read([*head, *head], NOW).faults == [f"line 1: {fault}"]


def test_more_than_are_kept_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading ends there, whatever follows."""
    monkeypatch.setattr("ringfence.friends.document.MOST", 2)

    assert read([HEAD, *[changed()] * 9], NOW).faults == ["line 4: more than 2 friends are not kept"]


def test_a_friend_is_read_from_nothing_but_its_keys() -> None:
    """A request that is no object of texts is a ValueError."""
    row: dict[str, Any] = {**ROW, "until": None}
    with pytest.raises(ValueError, match="until: must be a text"):
        friend_from(row, NOW)
