"""A secret shows itself to nobody who does not ask, and hostile text is made fit for a terminal."""

import copy
import json
import logging
import pickle
from io import StringIO
from ipaddress import ip_network

import pytest
import structlog

from ringfence.config import AmiSettings, AsteriskSettings, Settings
from ringfence.model import Secret, SourceId, network_from, printable
from ringfence.sources.ami import AmiTarget

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
def test_a_secret_is_masked_however_it_is_written(shown: str) -> None:
    """Every way to make text of a secret gives the mask."""
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
def test_what_holds_a_secret_shows_the_mask(holder: object) -> None:
    """The repr of a value with a secret in it, however deep, has the mask in its place."""
    shown = repr(holder) + str(holder)

    assert MASK in shown
    assert CLEAR not in shown


def test_a_secret_is_not_logged() -> None:
    """Neither the standard library's logging nor structlog's renderers write it out."""
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
def test_a_secret_is_not_carried_away(take: object) -> None:
    """Pickling, copying and JSON refuse a secret, and their refusal does not tell it."""
    assert callable(take)

    with pytest.raises(TypeError) as caught:
        take(SECRET)

    assert CLEAR not in str(caught.value)


def test_secrets_compare_in_the_clear() -> None:
    """Two secrets are equal when their passwords are, and no text is equal to one."""
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
        ("\u202egnp", "\\u202egnp"),  # turns the writing's direction
        ("\u2028\ufeff\U000e0041", "\\u2028\\ufeff\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_hostile_text_is_escaped(text: str, shown: str) -> None:
    """What a terminal would obey, or hide, stands as an escape; what people write stays."""
    assert printable(text) == shown


def test_a_source_has_a_name() -> None:
    """A source is named by its Asterisk and its way of hearing it."""
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
def test_networks_are_read_as_packets_carry_them(text: str, network: str | None) -> None:
    """IPv4 comes out of its IPv6 clothes; a zone, host bits and a name are refused."""
    if network is None:
        with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
            network_from(text)
    else:
        assert network_from(text) == ip_network(network)
