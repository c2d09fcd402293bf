"""Asterisk's export in a running daemon: what it shows, and when messages are missing."""

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from tests.detect.events import event
from tests.support.sources import KnownHost

from ringfence.config.loader import parse
from ringfence.features.hep.alarms import NO_EXPORT
from ringfence.features.hep.guard import EXPORT_WITHIN, SURE, ExportReader, build
from ringfence.features.hep.stage import PREFIX
from ringfence.guard.source_manager import DAY
from ringfence.netlink.nflog import Logged
from ringfence.parse.hep import MOST_CONNECTIONS, Exported
from ringfence.sources.state import Condition, State
from ringfence.sources.wire import WireCounts, WireSink, WireSource
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.packet import CopiedAnswer

REMOTE = Endpoint(ip_address("192.0.2.7"), 40_000, Transport.TLS)
REPORTED = evolve(event(EventKind.CHALLENGE_SENT), remote=REMOTE)
PACKET = b"a packet"


class Watched:
    """A reader of Asterisk's export, its clock, the parsed message, and the wire."""

    def __init__(self) -> None:
        self.now = 0.0
        self.parsed: Exported | None = Exported(REMOTE)
        self.sure: list[bool] = []
        wire: Any = SimpleNamespace(condition=Condition(State.LISTENING), counts=WireCounts())
        self.wire = wire
        clock: Any = SimpleNamespace(mono=lambda: self.now)
        parser: Any = SimpleNamespace(read=self._parse)
        self.reader = ExportReader(parser, wire, clock, frozenset({REPORTED.source.asterisk}))

    def _parse(self, packet: bytes, *, sure: bool) -> Exported | None:
        assert packet == PACKET
        self.sure.append(sure)
        return self.parsed

    def read(self, parsed: Exported | None, lost: float = 0.0) -> object:
        """Read a packet that parses to this."""
        self.parsed = parsed
        return self.reader.read(PACKET, self.now, lost)

    def alarm_after(self, seconds: float) -> str:
        """Return the text of the alarm after this time; "" if there is none."""
        self.now += seconds
        return "".join(alarm.text for alarm in self.reader.alarms())


def test_what_a_packet_shows_is_passed_on() -> None:
    """A message counts; a known packet shows nothing; another packet cannot be parsed."""
    here = Watched()
    message = CopiedAnswer(REMOTE.address, REMOTE.port, ip_address("198.51.100.1"), 5061, b"call", b"")
    assert here.read(Exported(REMOTE, message)) == (message,)
    assert here.read(Exported(REMOTE)) == ()
    assert here.read(None) is None


def test_soon_after_a_loss_a_missing_request_shows_nothing() -> None:
    """The parser gets this fact with each packet."""
    here = Watched()
    for now in (SURE, SURE - 0.1):
        here.now = now
        here.read(None)
    assert here.sure == [True, False]


def test_the_wire_passes_copies_to_the_reader_of_their_prefix() -> None:
    """Only those of Asterisk's user, and those of a prefix without a reader are skipped."""
    source = WireSource(WireSink(), KnownHost({5: True, 6: False}))
    reader: Any = SimpleNamespace(read=lambda packet, _now, _lost: [] if packet == PACKET else None)
    source.readers[PREFIX.encode()] = reader
    copies = [
        Logged(None, payload, own=True, prefix=prefix, user=user)
        for payload, prefix, user in (
            (PACKET, b"hep", 5),
            (PACKET, b"hep", 6),
            (PACKET, b"other", 5),
            (b"text", b"hep", 5),
        )
    ]
    for copy in copies:
        source.on_packet(copy, 0.0)
    assert source.counts == WireCounts(exported=1, foreign=1, unreadable=1)


def test_a_message_that_is_not_exported_is_an_alarm_for_a_day() -> None:
    """The text states what to do if nothing arrives at all, and otherwise that a sender suppresses it."""
    for exported, text in ((0, NO_EXPORT), (7, "keeps Asterisk from exporting")):
        here = Watched()
        here.wire.counts.exported = exported
        here.reader.on_events([REPORTED])
        assert here.alarm_after(EXPORT_WITHIN - 0.1) == ""
        assert text in here.alarm_after(0.1)
        assert text in here.alarm_after(DAY - 1.0)
        assert here.alarm_after(1.0) == ""


def test_the_first_exported_message_ends_the_alarm_about_those_before() -> None:
    """Somebody has set up the export, so no sender kept Asterisk from exporting what was missing before."""
    here = Watched()
    here.reader.on_events([REPORTED])
    assert here.alarm_after(EXPORT_WITHIN) == NO_EXPORT
    here.reader.on_events([REPORTED])
    here.now += EXPORT_WITHIN / 2
    here.read(Exported(evolve(REMOTE, port=40_001)))
    here.wire.counts.exported = 1
    assert here.alarm_after(EXPORT_WITHIN) == ""
    here.reader.on_events([REPORTED])
    assert "keeps Asterisk from exporting" in here.alarm_after(EXPORT_WITHIN)


@pytest.mark.parametrize("exported", [0.0, EXPORT_WITHIN, EXPORT_WITHIN + 0.5])
def test_an_exported_message_is_no_alarm(exported: float) -> None:
    """It may come before or after AMI's report."""
    here = Watched()
    for now in sorted({exported, EXPORT_WITHIN}):
        here.now = now
        if now == exported:
            here.read(Exported(REMOTE))
        if now == EXPORT_WITHIN:
            here.reader.on_events([REPORTED])
    assert here.alarm_after(2 * EXPORT_WITHIN) == ""


def test_only_the_latest_connections_are_known() -> None:
    """The one whose last message is the oldest is forgotten first."""
    here = Watched()
    for port in range(MOST_CONNECTIONS + 1):
        here.read(Exported(evolve(REMOTE, port=port)))
    assert [one.port for one in here.reader._exported] == [*range(1, MOST_CONNECTIONS + 1)]


@pytest.mark.parametrize(
    "other",
    [
        evolve(REPORTED, service=Service.SIP),
        evolve(REPORTED, source=SourceId("pbx", "log:full")),
        evolve(REPORTED, remote=evolve(REMOTE, transport=Transport.WS)),
    ],
)
def test_which_messages_need_no_export(other: SecurityEvent) -> None:
    """Those of chan_sip, of other transports, and those that only a log reports."""
    here = Watched()
    here.reader.on_events([other])
    assert here.alarm_after(EXPORT_WITHIN) == ""


def test_nothing_is_missed_while_the_wire_is_not_read() -> None:
    """A message of that time is forgotten, but a refusal without its request is an alarm."""
    here = Watched()
    here.wire.condition = Condition(State.LOST)
    here.reader.on_events([REPORTED])
    assert here.alarm_after(EXPORT_WITHIN) == ""
    here.read(Exported(REMOTE, unasked=True))
    assert here.alarm_after(1.0) == NO_EXPORT


def test_an_asterisk_without_the_export_misses_nothing() -> None:
    """Of several Asterisks, only those whose export is configured can lack messages."""
    tree = {"asterisk": [{"name": "pbx", "hep": {"enabled": True}}, {"name": "other"}]}
    here = Watched()
    wire: Any = SimpleNamespace(
        condition=Condition(State.LISTENING), counts=WireCounts(exported=7), readers={}
    )
    given: Any = SimpleNamespace(
        side=SimpleNamespace(
            common=SimpleNamespace(clock=SimpleNamespace(mono=lambda: here.now)),
            exempt=SimpleNamespace(protected=SimpleNamespace(is_own=lambda _: False)),
        ),
        reloader=SimpleNamespace(settings=parse(tree, "", {}, secrets=False)),
        wire=SimpleNamespace(source=wire),
        pipeline=SimpleNamespace(listeners=[]),
    )
    made = build(given)
    assert made is not None
    here.reader = made
    here.reader.on_events([evolve(REPORTED, source=SourceId("other", "ami"))])
    assert here.alarm_after(EXPORT_WITHIN) == ""
    here.reader.on_events([evolve(REPORTED, source=SourceId("pbx", "ami"))])
    assert "keeps Asterisk from exporting" in here.alarm_after(EXPORT_WITHIN)
