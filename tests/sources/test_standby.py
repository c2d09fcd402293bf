"""SECURITY lines in standby: each event of AMI and a log counts once, with any loss of AMI."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.events import event

from ringfence.parse.log import LogReader
from ringfence.sources import standby as module
from ringfence.sources.standby import CAUGHT_UP, LOOK_EVERY, STALLED, Standby, StandbyLog
from ringfence.values.event import EventKind, SecurityEvent, SourceId

START = 1_795_154_722.0
"""The wall clock when the monotonic one shows 0."""
NOTICE = (
    b"[2026-11-20 06:05:22] NOTICE[1] chan_sip.c: "
    b"Registration from '' failed for '192.0.2.8' - Wrong password\n"
)


def line(number: int, time: float, service: bytes = b"PJSIP") -> bytes:
    """Return the SECURITY line of an event at ``time`` on the monotonic clock, with a port of its own."""
    stamp = (
        datetime.fromtimestamp(round(START + time, 3), UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "+0000")
    )
    return (
        b"[2026-11-20 06:05:22] SECURITY[1] res_security_log.c: "
        b'SecurityEvent="InvalidAccountID",EventTV="%b",Severity="Error",Service="%b",EventVersion="1",'
        b'AccountID="a",SessionID="s%d",LocalAddress="IPV4/UDP/198.18.0.1/5060",'
        b'RemoteAddress="IPV4/UDP/192.0.2.7/%d"\n' % (stamp.encode(), service, number, 1_000 + number)
    )


def ami_event(number: int, time: float) -> SecurityEvent:
    """Return the same event as AMI delivers it."""
    return event(
        EventKind.INVALID_ACCOUNT_ID,
        round(START + time, 3),
        address="192.0.2.7",
        port=1_000 + number,
        session=b"s%d" % number,
    )


@define
class Pbx:
    """AMI and one log of an Asterisk, and the security events that were passed on."""

    handed: list[SecurityEvent] = field(factory=list)
    times: list[float] = field(factory=list)
    confirmed: list[SecurityEvent] = field(factory=list)
    notices: int = 0
    standby: Standby = field(init=False)
    reader: LogReader = field(init=False)
    log: StandbyLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.standby = Standby(self._take, lambda events, _: self.confirmed.extend(events))
        self.reader = LogReader(SourceId("pbx", "log:full"))
        self.log = StandbyLog(self.standby, self.reader)

    def _take(self, events: Sequence[SecurityEvent], now: float) -> None:
        self.handed += events
        self.times += [now] * len(events)

    def ami(self, now: float, *events: SecurityEvent, own: bool = False) -> None:
        """Deliver these events by AMI; ``own``: they are of ringfence's own login, and no attempt."""
        self.standby.coverage.deliver(events[0].time, events[-1].time, now)
        if not own:
            self.standby.on_ami_events(events, now)

    def read(self, now: float, data: bytes, *, live: bool = True) -> None:
        """Read these bytes of the log; without any, check whether AMI still delivers."""
        if data:
            parts = self.log.receive(data, START + now, now, live=live)
        else:
            parts = self.log.end_if_over(START + now, now)
            self.log.resume(now)
        for part in parts:
            found = [reading.event for reading in part.results if reading.event is not None]
            self._take([one for one in found if not one.source.notices], part.at)
            self.notices += sum(one.source.notices for one in found)

    @property
    def ports(self) -> list[int]:
        """The numbers of the events that were passed on."""
        return [one.remote.port - 1_000 for one in self.handed]


@pytest.fixture(name="pbx")
def _pbx() -> Pbx:
    """Return a PBX whose AMI has delivered long enough that its log is in standby."""
    pbx = Pbx()
    pbx.ami(0.0, ami_event(0, 0.0), own=True)
    pbx.read(CAUGHT_UP, b"")
    assert pbx.log.standing_by
    return pbx


def test_without_ami_every_line_counts() -> None:
    """A log is read from the first line on, and two logs with the same line count it once."""
    pbx = Pbx()
    pbx.read(1.0, line(1, 1.0) + NOTICE)
    assert (pbx.ports, pbx.notices) == ([1], 1)
    other = StandbyLog(pbx.standby, LogReader(SourceId("pbx", "log:security")))
    (part,) = other.receive(line(1, 1.0) + line(2, 1.0), START + 1, 1.0, live=True)
    assert [reading.event is not None for reading in part.results] == [False, True]


def test_one_log_without_ami_is_not_compared() -> None:
    """There is no other source, so each of its lines is an event, also a repeated one."""
    pbx = Pbx()
    pbx.standby = Standby(pbx._take, ami=False)
    pbx.log = StandbyLog(pbx.standby, pbx.reader)
    pbx.read(1.0, line(1, 1.0) * 2)
    assert pbx.ports == [1, 1]


def test_while_ami_delivers_only_notices_are_read(pbx: Pbx) -> None:
    """Events of AMI are not passed on again, before it or after it, also when AMI is lost much later."""
    pbx.read(20.0, line(1, 20.0) + NOTICE)
    pbx.ami(20.1, ami_event(1, 20.0), ami_event(2, 20.1))
    pbx.read(20.2, line(2, 20.1) + NOTICE)
    assert (pbx.ports, pbx.notices, pbx.reader.counts.standby) == ([1, 2], 2, 2)
    pbx.standby.coverage.end()
    pbx.read(30.0, b"")
    assert (pbx.ports, pbx.log.standing_by) == ([1, 2], False)


def test_a_piece_that_continues_a_line_is_no_missed_event(pbx: Pbx) -> None:
    """The held bytes may begin with a later piece of a line of a container, which imitates a message."""
    head = b"2026-11-20T06:05:22.365000000Z stdout "
    pbx.read(20.0, head + b"F " + NOTICE + head + b"P [2026-11-20 06:05:22] VERBOSE[1] a.c: x\n")
    pbx.read(20.1, head + b"F " + line(1, 20.0) + head + b"F " + line(2, 20.1))
    assert pbx.reader.counts.standby == 1
    pbx.standby.coverage.end()
    pbx.read(30.0, b"")
    assert (pbx.ports, pbx.notices) == ([2], 1)


def test_missed_events_count_when_ami_is_lost(pbx: Pbx) -> None:
    """They count in order, at the time at which they were read, and then each line as it comes."""
    pbx.ami(20.1, ami_event(1, 20.0))
    pbx.read(20.2, line(1, 20.0) + NOTICE + line(2, 20.01))
    pbx.read(20.3, line(3, 20.2))
    assert pbx.ports == [1]
    assert pbx.log.due_in == LOOK_EVERY
    pbx.standby.coverage.end()
    pbx.read(21.0, line(4, 21.0))
    assert (pbx.ports, pbx.times, pbx.notices) == ([1, 2, 3, 4], [20.1, 20.2, 20.3, 21.0], 1)
    assert pbx.log.due_in is None


def test_a_new_connection_does_not_hide_the_gap_before_it(pbx: Pbx) -> None:
    """AMI was lost and is back before the log was checked: its first event shows the end of the gap."""
    pbx.ami(20.0, ami_event(1, 20.0))
    pbx.read(20.1, line(1, 20.0) + line(2, 20.1))
    pbx.standby.coverage.end()
    pbx.ami(21.0, ami_event(0, 20.5), own=True)
    pbx.ami(22.5, ami_event(3, 22.5))
    pbx.read(22.6, line(3, 22.5))
    assert pbx.ports == [1, 3, 2]


def test_after_the_overlap_the_log_stands_by_again(pbx: Pbx) -> None:
    """Once the log is far enough after AMI's first event, its lines are skipped."""
    pbx.standby.coverage.end()
    pbx.read(20.0, line(1, 20.0))
    pbx.ami(21.0, ami_event(0, 21.0), own=True)
    states = []
    pbx.read(21.1, line(2, 20.9))
    states.append(pbx.log.standing_by)
    pbx.ami(23.0, ami_event(3, 23.0))
    pbx.read(23.1, line(3, 23.0))
    states.append(pbx.log.standing_by)
    assert states == [False, True]
    pbx.read(23.2, line(4, 23.1))
    assert pbx.ports == [1, 2, 3]


def test_stalled_ami_is_not_awaited(pbx: Pbx) -> None:
    """Later events of AMI do not count again, and are passed on as better evidence."""
    pbx.read(20.0, line(1, 20.0))
    pbx.read(20.0 + STALLED, b"")
    assert pbx.ports == []
    pbx.read(20.1 + STALLED, b"")
    assert pbx.ports == [1]
    pbx.ami(25.0, ami_event(1, 20.0), ami_event(2, 25.0))
    assert pbx.ports == [1, 2]
    assert [one.remote.port for one in pbx.confirmed] == [1_001]


def test_filtered_events_are_no_stall(pbx: Pbx) -> None:
    """An eventfilter keeps failed manager logins from AMI, so their lines show nothing."""
    pbx.read(20.0, line(1, 20.0, b"AMI"))
    pbx.read(30.0, b"")
    assert pbx.log.standing_by


def test_an_event_with_an_escape_in_its_session_is_the_same_in_both(pbx: Pbx) -> None:
    """Asterisk leaves the text between an ESC and the next m out of a log."""
    pbx.ami(20.1, evolve(ami_event(1, 20.0), session=b"s\x1b[1m1"))
    pbx.read(20.2, line(1, 20.0))
    pbx.standby.coverage.end()
    pbx.read(20.3, b"")
    assert pbx.ports == [1]


def test_old_lines_count_until_ami_delivers() -> None:
    """After a restart AMI delivers first; earlier lines of the log count, and nothing counts twice."""
    pbx = Pbx()
    pbx.ami(100.0, ami_event(0, 100.0), own=True)
    pbx.ami(100.2, ami_event(3, 100.2))
    past = line(1, 10.0) + line(2, 99.9) + line(3, 100.2)
    pbx.read(100.3, past, live=False)
    assert pbx.ports == [3, 1, 2]


def test_bytes_beyond_the_limit_are_parsed_at_once(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, and memory stays bounded."""
    monkeypatch.setattr(module, "MOST_HELD", 1_000)
    for number in range(1, 6):
        pbx.read(20.0, line(number, 20.0))
    assert pbx.ports == [1, 2, 3, 4, 5]


def test_a_message_that_waits_for_its_end_is_read_once(pbx: Pbx) -> None:
    """AMI is lost between two pieces of a message: it counts with its end."""
    whole = line(1, 20.0).replace(b'"a"', b'"a\nb"')
    pbx.read(20.0, line(2, 20.0) + whole[:-30])
    pbx.standby.coverage.end()
    pbx.read(20.01, whole[-30:])
    assert sorted(pbx.ports) == [1, 2]


def test_an_idle_log_stands_by_in_time() -> None:
    """Without a line the time since AMI's first event decides."""
    pbx = Pbx()
    pbx.ami(100.0, ami_event(0, 100.0), own=True)
    states = []
    for now in (100.0 + CAUGHT_UP - 0.1, 100.0 + CAUGHT_UP):
        pbx.read(now, b"")
        states.append(pbx.log.standing_by)
    assert states == [False, True]


CUTS = st.lists(
    st.tuples(st.floats(0.5, 15.0), st.floats(0.0, 8.0), st.floats(0.1, 15.0)), min_size=0, max_size=4
)
"""For how long AMI delivers, how much later its loss is found, and how long after that it is back."""
GAPS = st.lists(st.floats(0.0, 1.5), min_size=1, max_size=80)


Happening = tuple[float, int, str]
"""The time of a happening, the number of the event if it is one, and its kind."""


def of_ami(times: Sequence[float], cuts: Sequence[tuple[float, float, float]]) -> Iterator[Happening]:
    """Yield the changes of AMI, and its deliveries of events."""
    since = 0.5
    for lasts, unnoticed, away in [*cuts, (1_000.0, 0.0, 0.0)]:
        yield since, 0, "login"
        for number, time in enumerate(times, 1):
            if since < time < since + lasts:
                yield time, number, "ami"
        yield since + lasts + unnoticed, 0, "lost"
        since += lasts + unnoticed + away


def of_log(times: Sequence[float], late: float, pieces: int) -> Iterator[Happening]:
    """Yield when each line is written: in order, and some of them late."""
    at = 0.0
    for number, time in enumerate(times, 1):
        at = max(at, time + 0.01 + late * (number // pieces % 2))
        yield at, number, "log"


@given(gaps=GAPS, cuts=CUTS, late=st.floats(0.0, 2.0), pieces=st.integers(1, 5))
@settings(deadline=None, max_examples=2 * settings().max_examples)
def test_every_event_counts_once_with_any_loss_of_ami(
    gaps: list[float], cuts: list[tuple[float, float, float]], late: float, pieces: int
) -> None:
    """Events at any time, AMI that comes and goes, and a log that is late and comes in pieces."""
    times = [round(1.0 + time, 3) for time in accumulate(gaps)]
    looks = [(look * LOOK_EVERY, 0, "look") for look in range(int((times[-1] + 50) / LOOK_EVERY))]
    pbx = Pbx()
    unread = b""
    for now, number, what in sorted([*of_ami(times, cuts), *of_log(times, late, pieces), *looks]):
        if what == "log":
            unread += line(number, times[number - 1])
        if what == "look" or (what == "log" and (number % pieces == 0 or number == len(times))):
            pbx.read(now, unread)
            unread = b""
        elif what == "lost":
            pbx.standby.coverage.end()
        elif what != "log":
            time = times[number - 1] if number else now
            pbx.ami(now, ami_event(number, time), own=what == "login")
    assert sorted(pbx.ports) == [*range(1, len(times) + 1)]
