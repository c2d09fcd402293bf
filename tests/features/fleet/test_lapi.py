"""Answers of CrowdSec's local API: whole, cut, hostile."""

import json
from ipaddress import ip_network
from sys import getsizeof
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.features.fleet import lapi
from ringfence.features.fleet.lapi import (
    MAX_LOGIN,
    MAX_ROW,
    MAX_SECONDS,
    MAX_SKIPPED,
    MAX_TEXT,
    MAX_TOKEN,
    MOST_TEXTS,
    DecisionPage,
    LapiDecision,
    parse_decisions,
    parse_duration,
    parse_login,
    parse_page,
)

ROW: dict[str, Any] = {
    "duration": "59m59.923566508s",
    "id": 1,
    "origin": "ringfence:pbx-a",
    "scenario": "ringfence/guess",
    "scope": "Range",
    "type": "ban",
    "value": "198.51.100.0/24",
}
"""A decision as CrowdSec 1.4.6 writes it."""
NUMBER = LapiDecision(1, ip_network("198.51.100.0/24"), "ringfence/guess", "ringfence:pbx-a", 3599.923566508)


def page(*new: object, deleted: object = None) -> bytes:
    """Return an answer with these decisions."""
    return json.dumps({"deleted": deleted, "new": [*new]}).encode()


def test_an_answer_has_new_and_deleted_decisions() -> None:
    """Decisions are parsed in order, and ``null``, as 1.4.6 writes it, is an empty list."""
    found = parse_page(page(ROW, {**ROW, "id": 2}, deleted=[{**ROW, "duration": "-7.590746ms"}]))

    assert [one.number for one in found.new] == [1, 2]
    assert NUMBER in found.new
    assert next(one.network for one in found.new) == ip_network("198.51.100.0/24")
    assert [one.seconds for one in found.deleted] == [pytest.approx(-0.00759, abs=1e-5)]
    assert parse_page(b'{"deleted":null,"new":null}') == parse_page(b'{"deleted":[],"new":[]}')
    assert [*parse_page(b'{"new":null}').new] == []


@pytest.mark.parametrize(
    "change",
    [
        {"id": -1},
        {"id": True},
        {"id": "1"},
        {"id": 2**63},
        {"value": "nobody"},
        {"value": "198.51.100.1/33"},
        {"value": "/24"},
        {"value": "198.51.100.1\0"},
        {"value": "fe80::1%eth0"},
        {"value": 7},
        {"scope": "Country"},
        {"scope": None},
        {"type": "captcha"},
        {"scenario": "x" * (MAX_TEXT + 1)},
        {"origin": "x" * (MAX_TEXT + 1)},
        {"origin": ["x"]},
        {"duration": "soon"},
        {"duration": 7},
        {"duration": ["1h"]},
    ],
)
def test_a_decision_that_cannot_be_used_is_left_out(change: dict[str, Any]) -> None:
    """A decision of another kind, or with a wrong field, is counted, and the others stay."""
    found = parse_page(page({**ROW, **change}, ROW))

    assert ([*found.new], len(found.left_out)) == ([NUMBER], 1)


@pytest.mark.parametrize("missing", sorted(ROW))
def test_a_decision_without_a_field_is_left_out(missing: str) -> None:
    """Each field is needed."""
    row = {key: value for key, value in ROW.items() if key != missing}

    number = None if missing == "id" else ROW["id"]
    assert parse_page(page(row, ["x"], None, "x")).left_out == (number, None, None, None)


@pytest.mark.parametrize(
    "value", ["198.51.100.7/24", "::ffff:198.51.100.7/120", "198.51.100.7/255.255.255.0"]
)
def test_a_network_may_be_written_with_any_of_its_addresses(value: str) -> None:
    """CrowdSec keeps the network of a decision as an administrator typed it."""
    assert [*parse_page(page({**ROW, "value": value})).new] == [NUMBER]


def test_the_decisions_about_an_address() -> None:
    """A list of decisions is parsed like one of the stream; ``null`` is an empty one."""
    assert parse_decisions(json.dumps([ROW, {"id": 2}]).encode()) == (NUMBER,)
    assert parse_decisions(b"null") == ()
    with pytest.raises(ValueError, match="no list"):
        parse_decisions(b"{}")


def test_an_endless_decision_is_shortened() -> None:
    """No decision lasts longer than ten years."""
    [found] = parse_page(page({**ROW, "duration": "9999999h"})).new

    assert found.seconds == MAX_SECONDS


def test_every_cut_answer_is_refused() -> None:
    """An answer that ends too early, at whatever byte, is no answer, nor is one with trailing bytes."""
    whole = page(ROW, deleted=[ROW])

    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"."):
            parse_page(whole[:end])
    with pytest.raises(ValueError, match="Extra data"):
        parse_page(whole + b"x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"message":"access forbidden"}',
        b'{"new":7}',
        b'{"deleted":{}}',
        b"[" * 100_000,
        b'{"new":' + b"9" * 10_000 + b"}",
        b'{"new":[],"x":}',
        b'{"new":[],"x":{"y":[1,2',
        b'{"new":[],"x":"' + b"x" * MAX_SKIPPED + b'"}',
        b'{"new":[7 8]}',
        b'{"new":[' + b"[" * 2_000 + b"]" * 2_000 + b"]}",
    ],
)
def test_another_answer_is_refused(body: bytes) -> None:
    """Anything but an answer of the stream raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_page(body)


@pytest.mark.parametrize(
    "value", ['"a \\" text"', "1.5e3", "null", "[]", '{"a":[{"b":"}"}]}', '[[1],["]"]]', " [ 1 , 2 ] "]
)
def test_other_values_of_an_answer_are_skipped(value: str) -> None:
    """Names that are no lists of decisions are ignored, whatever they have."""
    row = json.dumps(ROW)
    body = f' {{ "links" : {value} , "new" : [ {row} , {{"id":2,"x":{value}}} ] , "more" : {value} }} '
    found = parse_page(body.encode())
    assert ([*found.new], [*found.deleted], found.left_out) == ([NUMBER], [], (2,))


def test_only_so_many_brackets_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that are no decisions cost time, too."""
    monkeypatch.setattr(lapi, "MOST_MARKS", 1_002)
    assert parse_page(b'{"new":[],"x":[' + b"[]," * 499 + b"1]}") == DecisionPage()
    with pytest.raises(ValueError, match="too many values"):
        parse_page(b'{"new":[],"x":[' + b"[]," * 500 + b"1]}")


@pytest.mark.parametrize("rest", [b',"x":[' + b"1," * MAX_SKIPPED + b"1]}", b" " * (MAX_SKIPPED + 1) + b"}"])
def test_no_step_searches_for_long(rest: bytes) -> None:
    """Meanwhile no other thread of the daemon runs: so much between two marks makes an answer invalid."""
    with pytest.raises(ValueError, match=r"too long|where it must be"):
        parse_page(b'{"new":[]' + rest)


@pytest.mark.parametrize("member", [b'"a":1', b'"a":"b"', b'"new":null', b'"new":[]', b'"deleted":[]'])
def test_an_answer_has_a_maximum_number_of_members(member: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member costs time although it has no bracket, and so does a list of decisions that is empty."""
    monkeypatch.setattr(lapi, "MOST_MARKS", 1_000)
    assert parse_page(b'{"new":[]' + (b"," + member) * 999 + b"}") == DecisionPage()
    with pytest.raises(ValueError, match="too many values"):
        parse_page(b'{"new":[]' + (b"," + member) * 1_000 + b"}")


def test_a_decision_may_have_more_than_is_needed() -> None:
    """A later CrowdSec may add values, also nested ones."""
    found = parse_page(page({**ROW, "x": {"y": ["z", {"a": [1]}]}, "n": None, "o": {}}))
    assert [*found.new] == [NUMBER]


@pytest.mark.parametrize("value", ["x" * MAX_ROW, "\\" * MAX_ROW, [[[["x" * MAX_ROW]]], {"y": "]"}]])
def test_a_long_decision_is_left_out(value: object) -> None:
    """A decision of many bytes is not decoded, and the others stay."""
    found = parse_page(page({**ROW, "x": value}, {**ROW, "scenario": value}, ROW, deleted=[{"id": value}]))
    assert ([*found.new], [*found.deleted], found.left_out) == ([NUMBER], [], (None, None))


@pytest.mark.parametrize(
    "unit",
    [
        b"{},",
        b"[],",
        b"1,",
        b'{"a":[[[]]]},',
        b'"",',
        b"[" * 100 + b"]" * 100 + b",",
    ],
)
def test_an_answer_has_a_maximum_number_of_decisions(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of an answer could otherwise become millions of objects."""
    monkeypatch.setattr(lapi, "MOST_ROWS", 1_000)
    assert len(parse_page(b'{"new":[' + unit * 999 + b"null]}").left_out) == 1_000
    with pytest.raises(ValueError, match="more than 1000 decisions"):
        parse_page(b'{"new":[' + unit * 1_000 + b"null]}")


@pytest.mark.parametrize("name", ["scenario", "origin"])
def test_the_texts_of_an_answer_have_a_maximum_memory(name: str) -> None:
    """One character of four bytes makes each of a text's characters as large. A text in use has room."""
    rows = [{**ROW, "id": n, name: f"{n:06}" + "x" * 190 + "\U0001f600"} for n in range(MOST_TEXTS // 800)]
    found = parse_page(page(*rows, ROW, {**ROW, "id": 1_000_000, name: rows[0][name]}))
    assert 0 < len(found.left_out) < len(rows) / 2
    assert [one.number for one in found.new][-1] == 1_000_000
    texts = {id(text): text for one in found.new for text in (one.scenario, one.origin)}
    assert len(texts) == len({*texts.values()})
    assert sum(map(getsizeof, texts.values())) <= MOST_TEXTS


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    """Whatever the bytes are, there is a result or a ValueError."""
    for parse in (parse_page, parse_login):
        try:
            parse(body)
        except ValueError:
            continue


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(ROW)), _JSON))
def test_any_field_is_parsed_or_left_out(fields: dict[str, Any]) -> None:
    """Whatever a field holds, the other decisions of the answer stay."""
    found = parse_page(page({**ROW, **fields}, ROW, deleted=[{**ROW, **fields}]))

    assert [*found.new][-1] == NUMBER
    assert len(found.new) + len(found.left_out) == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("1h", 3_600.0),
        ("-1h2m3.5s", -3_723.5),
        ("+1m", 60.0),
        (".5s", 0.5),
        ("300ms", 0.3),
        ("5µs", 5e-6),
        ("5us", 5e-6),
        ("7ns", 7e-9),
    ],
)
def test_durations_of_go(text: str, seconds: float) -> None:
    """All units of Go are known."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-", "1", "h", "1x", "0x", "1.2.3s", ".s", "1h ", "--1h", "1" * 65])
def test_other_durations_are_refused(text: str) -> None:
    """A text that Go does not write is no duration."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_a_login_has_a_token_and_its_end() -> None:
    """The end of the token is in seconds since the epoch."""
    login = parse_login(b'{"code":200,"expire":"2026-11-20T21:12:02Z","token":"eyJ.a-b_c"}')

    assert (login.token, login.expires) == ("eyJ.a-b_c", 1_795_209_122.0)


@pytest.mark.parametrize(
    ("token", "expire"),
    [
        (None, "2026-11-20T21:12:02Z"),
        ("", "2026-11-20T21:12:02Z"),
        ("a b", "2026-11-20T21:12:02Z"),
        ("a\r\nb", "2026-11-20T21:12:02Z"),
        ("ä", "2026-11-20T21:12:02Z"),
        ("x" * (MAX_TOKEN + 1), "2026-11-20T21:12:02Z"),
        ("x", None),
        ("x", "soon"),
        ("x", "2026-11-20T21:12:02"),
        ("x" * MAX_LOGIN, "2026-11-20T21:12:02Z"),
    ],
)
def test_a_login_without_a_usable_token_is_refused(token: object, expire: object) -> None:
    """A token must fit into a header, and have an end."""
    with pytest.raises(ValueError, match=r"."):
        parse_login(json.dumps({"token": token, "expire": expire}).encode())
    with pytest.raises(ValueError, match="no JSON object"):
        parse_login(b"[]")


def test_a_decision_about_an_endless_text_is_left_out() -> None:
    """A text longer than any network is no network, even if its number has many zeros before it."""
    rows = [
        {"id": 1, "value": f"192.0.2.0/{'0' * 50}24", "scope": "ip", "type": "ban"},
        {"id": 2, "value": "192.0.2.0/24", "scope": "range", "type": "ban"},
    ]
    texts = {"scenario": "s", "origin": "o", "duration": "1h"}
    page = parse_page(json.dumps({"new": [row | texts for row in rows]}).encode())
    assert [one.number for one in page.new] == [2]
    assert page.left_out == (1,)
