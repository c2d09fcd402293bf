"""Answers of RDAP servers: real shapes, nested entities, and everything that a hostile server may send."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.notify.samples import HOSTILE
from tests.support.registry import answer, entity

from ringfence.notify.rdap_answer import MAX_CONTACT, MAX_ENTITIES, Registration, parse_answer


def parsed(document: object) -> Registration:
    """Return what is found in an answer."""
    found = parse_answer(json.dumps(document).encode())
    assert found is not None
    return found


def test_the_contact_of_a_network() -> None:
    """The registration has the abuse contact, the country, the name and the ends of the network."""
    found = parsed(answer(entity("noc@example.net", roles=["technical"]), entity("abuse@example.net")))

    assert found == Registration(
        "abuse@example.net", "DE", "EXAMPLE-NET", ip_address("9.0.0.0"), ip_address("9.0.255.255")
    )
    assert found.covers(ip_address("9.0.7.7"))
    assert not found.covers(ip_address("9.1.0.0"))
    assert not found.covers(ip_address("::900:707"))


def test_a_nested_entity_has_the_contact() -> None:
    """ARIN writes the abuse desk inside the registrant; an outer contact is preferred."""
    inner = entity("inner@example.net")
    registrant = entity("owner@example.net", roles=["registrant"], entities=[{"entities": [inner]}])

    assert parsed(answer(registrant)).abuse == "inner@example.net"
    assert parsed(answer(registrant, entity("outer@example.net"))).abuse == "outer@example.net"


@pytest.mark.parametrize(
    ("emails", "expected"),
    [
        (["first@example.net", "second@example.net"], "first@example.net"),
        (["no address", "second@example.net"], "second@example.net"),
        ([["email", {}, "text", "a@b.com"], ["email", {"type": "abuse"}, "text", "d@e.fr"]], "d@e.fr"),
        ([["EMAIL", {"type": ["work", "abuse"]}, "uri", "mailto:d@e.fr"]], "d@e.fr"),
        ([["email", {}, "text", 1, None, "d@e.fr"]], "d@e.fr"),
        ([["tel", {}, "text", "d@e.fr"]], ""),
        ([["email", {}, "text"]], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_which_mail_address_is_the_contact(emails: list[object], expected: str) -> None:
    """The address marked for abuse is the contact, otherwise the first valid one."""
    assert parsed(answer(entity(*emails))).abuse == expected


def test_an_abuse_entity_without_an_address_is_passed_over() -> None:
    """A later entity may have the contact."""
    assert parsed(answer(entity(), entity("abuse@example.net"))).abuse == "abuse@example.net"


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE,
        "a@b.c\r\nBcc: victim@example.com",
        "a@b.c\n",
        "\u202eten.elpmaxe@esuba",
        "abuse@exämple.net",
        "a@b.c, d@e.f",
        "Abuse <a@b.c>",
        "-oQ/tmp@b.c",
        "abuse@everyone",
        "a@b..c",
        "a@.b.c",
        "a@@b.c",
        "a@127.0.0.1",
        "a@b.c-",
        "@b.c",
        "a" * 65 + "@example.net",
        "a@" + "b." * 5_000 + "c",
        "a@" + "b" * MAX_CONTACT + ".net",
    ],
)
def test_a_contact_that_is_no_mail_address_is_left_out(text: str) -> None:
    """Text that could add a header, a recipient or a line, and an address that is too long, is not shown."""
    assert parsed(answer(entity(text))).abuse == ""


@pytest.mark.parametrize(
    "text",
    [*HOSTILE, "EVIL; abuse: security@bank.example", "see https://bank.example", "x" * 65, "a\n", "", ";"],
)
def test_a_name_that_could_imitate_a_contact_is_left_out(text: str) -> None:
    """A name has letters, digits, blanks and a few signs, and at most 64 characters."""
    assert parsed(answer(name=text, handle=text)).name == ""
    assert parsed(answer(name=" Dept. of R&D / O'Neil_1+1 ")).name == "Dept. of R&D / O'Neil_1+1"


def test_the_handle_replaces_a_missing_name() -> None:
    """A country that is no code of two letters is left out."""
    found = parsed(answer(name="", handle="NET-1", country="Germany"))

    assert (found.name, found.country) == ("NET-1", "")
    assert parsed(answer(country="de")).country == "DE"


@pytest.mark.parametrize(
    ("first", "last", "known"),
    [
        ("9.0.0.0", "9.255.255.255", True),
        ("8.0.0.0", "9.255.255.255", False),
        ("0.0.0.0", "255.255.255.255", False),
        ("9.0.0.0/32", "9.0.0.255/32", True),
        ("2a00:2381::", "2a00:2381:ffff:ffff:ffff:ffff:ffff:ffff", True),
        ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", False),
        ("9.0.0.0", "2a00::", False),
        ("9.0.0.0", 9, False),
        ("9.0.0.0", "junk", False),
    ],
)
def test_the_ends_of_a_network(first: object, last: object, known: object) -> None:
    """The ends are unknown if they are invalid, or if the network is a block of a registry."""
    assert (parsed(answer(startAddress=first, endAddress=last)).first is not None) is known


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"9" * 10_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b"[" * 100_000,
        b'{"entities": [' * 50_000,
        b'{"a":1} trailing',
    ],
)
def test_what_is_not_an_answer(body: bytes) -> None:
    """Text that is no JSON object, is nested too deeply or has a huge number is no answer."""
    assert parse_answer(body) is None


def test_entities_are_bounded() -> None:
    """A contact behind thousands of entities, or deep inside them, is not found, and the search ends."""
    deep: dict[str, object] = entity("abuse@example.net")
    for _ in range(MAX_ENTITIES + 1):
        deep = {"entities": [deep]}

    assert parsed(deep).abuse == ""
    assert parsed(answer(*[{}] * MAX_ENTITIES, entity("abuse@example.net"))).abuse == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["abuse", "email", "vcard", "a@b.c", "9.0.0.0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=6)
    | st.dictionaries(
        st.sampled_from(
            ["entities", "roles", "vcardArray", "startAddress", "endAddress", "name", "handle", "country"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=40,
)  # fmt: skip


@given(JSON)
def test_no_answer_raises(document: Any) -> None:  # noqa: ANN401 - any JSON
    """Values of wrong types are left out, wherever they are."""
    for one in (document, answer(document), answer({"roles": ["abuse"], "vcardArray": document})):
        found = parse_answer(json.dumps(one).encode())
        if found is not None:
            assert (found.abuse + found.country + found.name).isprintable()


@given(st.binary(max_size=200))
def test_no_bytes_raise(body: bytes) -> None:
    """A server may send anything."""
    parse_answer(body)
