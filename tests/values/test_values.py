"""Secrets are never shown, and hostile text is always escaped."""

import copy
import json
import logging
import pickle
import sys
import unicodedata
from io import StringIO
from ipaddress import ip_network

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config.schema import AmiSettings, AsteriskSettings, Settings
from ringfence.sources.ami import AmiTarget
from ringfence.values.event import SourceId
from ringfence.values.network import parse_network
from ringfence.values.secret import Secret
from ringfence.values.text import printable

CLEAR = "hunter2-correct-horse"
SECRET = Secret(CLEAR)
MASK = "Secret('***')"


@pytest.mark.parametrize(
    "shown",
    [
        repr(SECRET),
        str(SECRET),
        f"{SECRET}",
        f"{SECRET!r}",
        f"{SECRET!s}",
        "{}".format(SECRET),  # noqa: UP032 - every way there is
        "%s" % SECRET,  # noqa: UP031 - every way there is
        "%r" % SECRET,  # noqa: UP031 - every way there is
    ],
)
def test_a_secret_is_masked_in_every_text(shown: str) -> None:
    """Every way to convert a secret to text returns the mask."""
    assert shown == MASK


@pytest.mark.parametrize(
    "holder",
    [
        AmiTarget("pbx", "127.0.0.1", 5038, "ringfence", SECRET),
        Settings(asterisk=(AsteriskSettings(ami=AmiSettings(secret=SECRET)),)),
        [SECRET],
        {"secret": SECRET},
        ValueError(SECRET),
    ],
)
def test_a_container_of_a_secret_shows_the_mask(holder: object) -> None:
    """The repr of a value that contains a secret, at any depth, shows the mask."""
    shown = repr(holder) + str(holder)

    assert MASK in shown
    assert CLEAR not in shown


def test_a_secret_is_not_logged() -> None:
    """Neither the standard library's logging nor structlog's renderers write the password."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    record = logging.LogRecord("test", logging.ERROR, "", 0, "%s %r", (SECRET, SECRET), None)
    handler.emit(record)
    rendered = [
        structlog.processors.LogfmtRenderer()(None, "", {"secret": SECRET, "deep": {"secret": SECRET}}),
        structlog.processors.JSONRenderer()(None, "", {"secret": SECRET}),
        structlog.processors.KeyValueRenderer()(None, "", {"secret": SECRET}),
    ]

    assert stream.getvalue() == f"{MASK} {MASK}\n"
    assert [CLEAR in str(line) for line in rendered] == [False, False, False]


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_cannot_be_serialized(take: object) -> None:
    """Pickling, copying and JSON reject a secret, and the error does not show it."""
    assert callable(take)

    with pytest.raises(TypeError) as caught:
        take(SECRET)

    assert CLEAR not in str(caught.value)


def test_secrets_compare_by_their_clear_text() -> None:
    """Two secrets are equal if their passwords are equal, and no text equals a secret."""
    assert Secret(CLEAR) == SECRET
    assert hash(Secret(CLEAR)) == hash(SECRET)
    assert Secret("another") != SECRET
    assert SECRET != CLEAR
    assert SECRET.reveal() == CLEAR


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("alice", "alice"),
        ("büro 7", "büro 7"),
        ("電話", "電話"),
        ("a\nb\r\n", "a\\nb\\r\\n"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("\u202egnp", "\\u202egnp"),  # reverses the writing direction
        ("\u2028\ufeff\U000e0041", "\\u2028\\ufeff\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_hostile_text_is_escaped(text: str, shown: str) -> None:
    """Characters that a terminal would obey or hide are escaped; visible text stays as it is."""
    assert printable(text) == shown


def test_every_invisible_character_is_escaped() -> None:
    """Controls, formats, separators, surrogates, private and unassigned characters are escaped."""
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
    strange = [
        c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in hidden and c != " "
    ]
    strange += "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u2800\u3164\ufe00\ufe0f\uffa0\U000e0100\U000e01ef"

    assert {"\x1b", "\x7f", "\x85", "\x9b", "\u200b", "\u202e", "\u2028", "\u2066", "\ufeff"} <= {*strange}
    shown = printable("".join(strange))
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.count("\\") == len(strange)  # the escape of each


@given(st.text())
def test_escaping_twice_changes_nothing(text: str) -> None:
    """Text that was escaped once is not changed when it is escaped again for display."""
    assert printable(printable(text)) == printable(text)


def test_a_source_has_a_name() -> None:
    """The text of a source is the name of its Asterisk and its own name."""
    assert str(SourceId("pbx", "ami")) == "pbx/ami"


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:0:0/95", None),
        ("fe80::1%eth0", None),
        ("192.0.2.1/24", None),
        ("pbx.example", None),
        ("", None),
    ],
)
def test_networks_are_parsed_as_packets_carry_them(text: str, network: str | None) -> None:
    """An IPv4-mapped address becomes IPv4; a zone, host bits and a name are rejected."""
    if network is None:
        with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
            parse_network(text)
    else:
        assert parse_network(text) == ip_network(network)
