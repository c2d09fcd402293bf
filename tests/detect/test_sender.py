"""The table of senders: it counts the attempts that each source reports, within its bounds."""

import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from math import inf

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.events import NOTICES, PBX, ROLES, SENDER, event
from tests.support.captures import Capture, captures

from ringfence.detect.sessions import HORIZON, MOST_ATTEMPTS, UNREPORTED_FOR, Role, Senders
from ringfence.parse.ami import AmiDecoder
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.event import EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.network import Address


def fed(senders: Senders, events: Iterable[SecurityEvent]) -> list[Attempt]:
    """Feed events that arrive when they happen, and return their attempts."""
    return [attempt for one in events if (attempt := senders.report(one, one.time)) is not None]


def replayed(capture: Capture) -> list[Attempt]:
    """Return the attempts that a recording of AMI makes."""
    decoder = AmiDecoder(PBX)
    heard = decoder.receive(b"Asterisk Call Manager/11.0.0\r\n" + capture.ami.read_bytes(), 0.0)
    heard += decoder.tick(1.0)
    return fed(Senders(), [one for one in heard if isinstance(one, SecurityEvent)])


@pytest.mark.parametrize("capture", [c for c in captures() if c.group.endswith("16")], ids=str)
def test_chan_sips_events_are_claimed_and_not_trusted(capture: Capture) -> None:
    """Events of chan_sip are claimed and untrusted, because a Via can put a stranger into them.

    Events of PJSIP are trusted.
    """
    for attempt in replayed(capture):
        chan_sip = attempt.service is Service.SIP
        assert (attempt.proof, attempt.trusted) == (Proof.CLAIMED, not chan_sip)


OPENS, ASKS = EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_SENT
FAILS = EventKind.CHALLENGE_RESPONSE_FAILED


@pytest.mark.parametrize(
    ("before", "opener", "challenge", "failed"),
    [
        ([], True, False, True),
        ([OPENS], False, False, False),
        ([OPENS, ASKS], False, False, False),
        ([OPENS, OPENS], True, True, False),
        ([OPENS, ASKS, OPENS], True, True, False),
        ([OPENS, ASKS, FAILS], True, False, True),
        ([OPENS, FAILS], True, False, True),
    ],
    ids=["idle", "open", "owing", "both", "both again", "all answered", "answered without a challenge"],
)
def test_a_state_decides_which_event_reports(
    before: list[EventKind], *, opener: bool, challenge: bool, failed: bool
) -> None:
    """An event reports an attempt in the states that the table marks, and in no other."""
    for kind, reports in ((OPENS, opener), (ASKS, challenge), (FAILS, failed)):
        senders = Senders()
        fed(senders, [event(one) for one in before])
        assert bool(fed(senders, [event(kind)])) is reports


def test_the_fifth_attempt_is_known_early() -> None:
    """An unknown account counts at the first event of each probe, and a known one at each failure."""
    unknown = [EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_SENT]
    known = [EventKind.CHALLENGE_SENT, EventKind.CHALLENGE_RESPONSE_FAILED]
    for kinds, counted in ((unknown, [True, False]), (known, [False, True])):
        senders = Senders()
        for number in range(5):
            events = [event(kind, session=b"%d" % number) for kind in kinds]
            assert [senders.report(one, 0.0) is not None for one in events] == counted


def test_an_attempt_has_the_values_of_the_event() -> None:
    """An attempt carries the event's own values; a tampered event proves nothing."""
    told = event(
        EventKind.CHALLENGE_RESPONSE_FAILED, 7.5, transport=Transport.TLS, account="x" * 48, tampered=True
    )
    assert Senders().report(told, 100.0) == Attempt(
        asterisk="pbx",
        address=ip_address("192.0.2.7"),
        kind=AttemptKind.GUESS,
        proof=Proof.CLAIMED,
        service=Service.PJSIP,
        transport=Transport.TLS,
        account="x" * 48,
        event=EventKind.CHALLENGE_RESPONSE_FAILED,
        time=7.5,
        trusted=True,
        tampered=True,
    )


def test_reports_of_a_discarded_session_are_not_compared() -> None:
    """A session may be discarded while a line waits: then nothing shows that its attempt has counted."""
    senders = Senders()
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES)
    senders.leave_out(line)

    assert not senders.others_report_as_many(line, 0.0)
    assert senders.evicted == 0


def test_chan_sips_notices_of_one_request_have_its_port_in_common() -> None:
    """Two notices of a peer's ACL are one attempt if they share the port, and two if they do not."""
    senders = Senders()
    notices = [
        event(
            EventKind.FAILED_ACL,
            service=Service.SIP,
            source=NOTICES,
            port=port,
            acl_name="device_must_match_acl",
            session=b"",
        )
        for port in (5062, 5062, 5063, 5064)
    ]
    assert [senders.report(one, 0.0) is not None for one in notices] == [True, False, True, True]


OPENER, CHALLENGE, FAILED, HALF, PROBE, SUCCESS = (
    Role.OPENER,
    Role.CHALLENGE,
    Role.FAILED,
    Role.HALF,
    Role.PROBE,
    Role.SUCCESS,
)


def told(roles: Sequence[Role]) -> int:
    """Return how many attempts the roles of one session make, by the table at the head of ``session``."""
    half, owed, n = False, 0, 0
    for role in roles:
        if role is OPENER:
            if half:
                n += 1
                owed += 1
            half = True
        elif role is CHALLENGE:
            if half:
                half = False
                n += 1
                owed += 1
        elif role in (FAILED, PROBE):
            half = False
            if owed:
                owed -= 1
            else:
                n += 1
    halves = sum(role is HALF for role in roles)
    return n + (1 if half and owed == 0 else 0) + -(-halves // 2)


class NaiveTable:
    """A table that keeps all roles of each session and counts them again each time."""

    def __init__(self) -> None:
        self.heard: dict[tuple[SourceId, Service, Address, bytes], list[Role]] = {}
        self.most: Counter[tuple[SourceId, Service, Address, bytes]] = Counter()
        self.seen: dict[tuple[SourceId, Service, Address, bytes], float] = {}

    def receive(self, one: SecurityEvent) -> bool:
        """Whether the event is a new attempt."""
        key = (one.source, one.service, one.remote.address, one.session)
        role = ROLES.get((one.service, one.kind, one.acl_name), Role.NONE)
        role = OPENER if role is Role.QUESTION else role  # the table gets only questions that count
        if role is Role.NONE or (role is SUCCESS and one.tampered):
            return False
        if role is SUCCESS or one.time - self.seen.get(key, one.time) > 32.0:
            self.heard.pop(key, None)
            self.most.pop(key, None)
        if role is SUCCESS:
            self.seen.pop(key, None)
            return False
        if role is CHALLENGE and one.service is Service.PJSIP and key not in self.heard:
            return False  # every good registration has one
        self.seen[key] = one.time
        roles = self.heard.setdefault(key, [])
        if role is PROBE and CHALLENGE in roles:
            return False
        roles.append(role)
        before = self.most[key]
        self.most[key] = max(before, told(roles))
        return self.most[key] > before


MEANINGS = st.sampled_from([*ROLES, (Service.PJSIP, EventKind.SESSION_LIMIT, "")])
STEPS = st.tuples(
    MEANINGS,
    st.sampled_from(["192.0.2.7", "192.0.2.8", "2001:db8::7"]),
    st.sampled_from([b"1", b"2", b"x" * 65]),
    st.sampled_from([PBX, SourceId("pbx", "log"), SourceId("branch", "ami")]),
    st.sampled_from([0.0, 0.0, 0.25, 31.0, 33.0, 70.0]),
    st.booleans(),
)


@given(st.lists(STEPS, max_size=60))
@settings(deadline=None, max_examples=4 * settings().max_examples)
def test_the_numbers_are_those_of_the_table(
    steps: list[tuple[tuple[Service, EventKind, str], str, bytes, SourceId, float, bool]],
) -> None:
    """On any events of any sources, addresses and sessions, the numbers are those of the table."""
    senders, naive, now = Senders(), NaiveTable(), 0.0
    for (service, kind, acl), address, session, source, wait, tampered in steps:
        now += wait
        one = event(
            kind,
            now,
            service=service,
            acl_name=acl,
            address=address,
            session=session,
            source=source,
            tampered=tampered,
        )
        assert (senders.report(one, now) is not None) == naive.receive(one)


# The events that one or two requests at a time leave in one session: each opener gets its own answer.
BLOCKS = st.sampled_from(
    [
        [EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_SENT],
        [EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_RESPONSE_FAILED],
        [EventKind.CHALLENGE_SENT],
        [EventKind.CHALLENGE_RESPONSE_FAILED],
        [EventKind.INVALID_ACCOUNT_ID] * 2 + [EventKind.CHALLENGE_SENT] * 2,
        [EventKind.INVALID_ACCOUNT_ID] * 2 + [EventKind.CHALLENGE_RESPONSE_FAILED] * 2,
    ]
)
SENDERS = st.tuples(
    st.sampled_from(["192.0.2.7", "192.0.2.8", "192.0.2.9"]), st.sampled_from([b"1", b"2", b"3"])
)


@given(st.lists(st.tuples(BLOCKS, SENDERS), max_size=60), st.integers(1, 20))
@settings(deadline=None, max_examples=4 * settings().max_examples)
def test_forgetting_early_counts_too_much_and_never_too_little(
    blocks: list[tuple[list[EventKind], tuple[str, bytes]]], sessions: int
) -> None:
    """For each address, a table with little room counts at least as many attempts as one with enough room."""
    small, large = Senders(max_sessions=sessions), Senders()
    counted: Counter[str] = Counter()
    for kinds, (address, session) in blocks:
        for kind in kinds:
            one = event(kind, address=address, session=session)
            counted[address] += (small.report(one, 0.0) is not None) - (large.report(one, 0.0) is not None)
        assert len(small) <= sessions
        assert counted[address] >= 0
    assert large.evicted == 0


def test_only_a_discarded_attempt_is_evicted() -> None:
    """A report that matches an open attempt evicts nothing, nor does one after all attempts have expired."""
    senders, by_ami = Senders(), event(EventKind.CHALLENGE_RESPONSE_FAILED)
    by_log = evolve(by_ami, source=evolve(by_ami.source, name="log:messages#security"))
    for one in (by_ami, by_log):
        for tag in range(MOST_ATTEMPTS):
            senders.record_report(one, one.remote.address, 0.0, tag)
    assert senders.evicted == 0

    senders.record_report(by_ami, by_ami.remote.address, 0.0)
    assert senders.evicted == 1

    senders.record_report(by_ami, by_ami.remote.address, HORIZON)
    assert senders.evicted == 1


def by_wire(senders: Senders, address: str, call: bytes, now: float = 0.0) -> Address:
    """Report a guess by the wire; return its sender."""
    refused = event(EventKind.REFUSED, address=address, session=call)
    refused = evolve(refused, source=SourceId("pbx", "wire"))
    senders.record_report(refused, refused.remote.address, now)
    return refused.remote.address


def test_what_ami_has_not_reported_outlives_its_sender() -> None:
    """AMI's late reports find how many attempts others have counted, though the sender was evicted."""
    senders = Senders(max_sessions=8)
    sender = by_wire(senders, SENDER, b"1")
    by_wire(senders, SENDER, b"2")
    by_wire(senders, SENDER, b"3")
    by_ami = event(EventKind.CHALLENGE_RESPONSE_FAILED, address=SENDER, session=b"3")
    senders.record_report(by_ami, sender, 0.0)
    for number in range(3):
        by_wire(senders, f"203.0.113.{number}", b"%d" % number)
    assert senders.evicted
    assert [senders.take_unreported(sender, 12.0) for _ in range(3)] == [True, True, False]

    others = [by_wire(senders, f"203.0.114.{number}", b"%d" % number) for number in range(9)]
    assert [senders.take_unreported(one, UNREPORTED_FOR) for one in others] == [False] * 9
    others = [by_wire(senders, f"203.0.115.{number}", b"%d" % number, 700.0) for number in range(9)]
    late = 700.0 + UNREPORTED_FOR - 1.0
    assert [senders.take_unreported(one, late) for one in others] == [False] * 5 + [True] * 4


def test_only_the_reports_of_a_discarded_session_may_have_counted() -> None:
    """An early discarded session makes no report of another sender late, until too many are remembered."""
    senders = Senders(max_sessions=8)
    first = by_wire(senders, SENDER, b"1", 1.0)
    rest = [by_wire(senders, f"203.0.113.{number}", b"2", 2.0) for number in range(4)]

    assert [senders.forgotten_until(one) for one in (first, *rest)] == [1.0, *[-inf] * 4]

    later = [by_wire(senders, f"203.0.114.{number}", b"3", 3.0) for number in range(4)]
    assert [senders.forgotten_until(one) for one in (first, *rest, *later)] == [1.0, *[2.0] * 4, *[1.0] * 4]


def test_an_old_session_is_not_discarded_early() -> None:
    """A session that nothing used for ten seconds can be discarded: reports about it are late anyway."""
    senders = Senders(max_sessions=8)
    first = by_wire(senders, SENDER, b"1", 1.0)
    for number in range(4):
        by_wire(senders, f"203.0.113.{number}", b"2", 1.0 + HORIZON)

    assert senders.evicted == 1
    assert senders.forgotten_until(first) == -inf


def opened(senders: Senders, address: str = SENDER, session: bytes = b"call-1", now: float = 0.0) -> None:
    """Report a sender's request that begins a session."""
    senders.report(event(EventKind.INVALID_ACCOUNT_ID, address=address, session=session), now)


def test_memory_is_bounded_per_sender_and_in_total() -> None:
    """Sessions are bounded, a quarter of them for each sender, unproven senders to half as many as sessions.

    Evictions are counted.
    """
    senders = Senders(max_sessions=100)
    for number in range(50):
        opened(senders, session=b"%d" % number)
    assert (len(senders), senders.evicted) == (25, 25)
    for number in range(200):
        opened(senders, f"198.51.100.{number}")
    assert (len(senders), senders.evicted, senders.senders) == (50, 200, 50)


def test_one_address_cannot_push_out_the_others() -> None:
    """A sender that opens session after session loses its own sessions, not those of others."""
    senders = Senders(max_sessions=80)
    opened(senders, "198.51.100.1")
    for number in range(1000):
        opened(senders, session=b"%d" % number)
    assert senders.report(event(EventKind.CHALLENGE_SENT, address="198.51.100.1"), 0.0) is None
    assert senders.report(event(EventKind.INVALID_ACCOUNT_ID, address="198.51.100.1"), 0.0) is None


def test_forged_senders_push_out_no_proven_one() -> None:
    """A sender with a proof keeps its session, however many addresses are forged."""
    senders = Senders(max_sessions=100)
    opened(senders)
    senders.record_proof(ip_address(SENDER), 0.0)
    for number in range(1_000):
        for session in (b"1", b"2", b"3"):
            opened(senders, str(ip_address("198.51.100.0") + number), session)
    assert len(senders) in range(98, 101)
    assert senders.find_session(ip_address(SENDER), b"call-1") is not None


def test_proven_senders_are_bounded_too() -> None:
    """Half as many senders as sessions are proven; the one that was used longest ago goes first."""
    senders = Senders(max_sessions=16)
    for number in range(10):
        opened(senders, f"198.51.100.{number}")
        senders.record_proof(ip_address(f"198.51.100.{number}"), 0.0)
    assert senders.senders == 8
    assert senders.find(ip_address("198.51.100.1")) is None


def test_the_oldest_session_goes_if_all_senders_are_proven() -> None:
    """Proven senders with many sessions stay within the bound of all sessions."""
    senders = Senders(max_sessions=64)
    for number in range(16):
        senders.record_proof(ip_address(f"198.51.100.{number}"), 0.0)
    for number in range(200):
        opened(senders, f"198.51.100.{number % 16}", b"%d" % number)
    assert len(senders) == 64
    assert senders.find_session(ip_address("198.51.100.7"), b"199") is not None


def test_a_discarded_session_is_freed_at_once() -> None:
    """No table refers to a discarded session, because a flood discards many thousands within its life."""
    senders = Senders(max_sessions=4)
    opened(senders)
    first = weakref.ref(senders.session(ip_address(SENDER), b"call-1", 0.0))
    opened(senders, session=b"call-2")
    assert first() is None


@pytest.mark.parametrize("other", [SENDER, "198.51.100.1"])
def test_an_event_of_a_known_session_makes_it_the_one_used_last(other: str) -> None:
    """A session that continues stays, and those used before it expire, of the same sender and of others."""
    senders = Senders(max_sessions=8)  # a sender has two
    for now, address, session in ((0.0, SENDER, b"1"), (1.0, other, b"2"), (10.0, SENDER, b"1")):
        opened(senders, address, session, now)
    if other == SENDER:
        opened(senders, session=b"3", now=11.0)
        assert sorted(senders.sender_at(ip_address(SENDER), 11.0).sessions) == [b"1", b"3"]
    else:
        senders.expire(65.0)
        assert len(senders) == 1
    assert senders.find_session(ip_address(SENDER), b"1") is not None


def test_expiry_ends_when_the_age_of_a_session_is_rounded() -> None:
    """A session at the end of its life is used or expired: 0.1 + 64 is 64.1, but 64.1 - 0.1 is below 64."""
    senders = Senders()
    opened(senders, now=0.1)
    senders.expire(64.1)
    assert len(senders) == 1


def test_an_unused_session_is_discarded() -> None:
    """A session expires 64 s after its last use, and its sender with it."""
    senders = Senders()
    opened(senders, session=b"1")
    opened(senders, session=b"2", now=36.0)
    opened(senders, "198.51.100.1", now=63.0)
    opened(senders, session=b"2", now=64.0)
    assert (len(senders), senders.senders) == (2, 2)
    senders.expire(164.0)
    assert (len(senders), senders.senders, senders.evicted) == (0, 0, 0)


def test_a_sender_stays_while_a_fact_is_needed() -> None:
    """A sender without sessions stays until its last fact is no longer needed."""
    senders = Senders()
    opened(senders)
    senders.sender_at(ip_address(SENDER), 0.0).keep(600.0)
    senders.expire(599.0)
    assert (len(senders), senders.senders) == (0, 1)
    senders.expire(600.0)
    assert senders.senders == 0


def test_a_challenge_out_of_nothing_is_not_kept() -> None:
    """A challenge of PJSIP alone takes no room; one of chan_sip does, as it shows who has an account."""
    senders = Senders()
    senders.report(event(EventKind.CHALLENGE_SENT), 0.0)
    assert len(senders) == 0
    senders.report(event(EventKind.CHALLENGE_SENT, service=Service.SIP), 0.0)
    assert len(senders) == 1


def failure(time: float, **changes: object) -> SecurityEvent:
    """Return a failed response over UDP with a challenge and a response."""
    one = event(EventKind.CHALLENGE_RESPONSE_FAILED, time, challenge=b"C", response=b"R")
    return evolve(one, **changes)  # type: ignore[arg-type]  # values by name


def test_after_an_eviction_nothing_is_forgiven() -> None:
    """A discarded sender may have been forgiven already, so repetitions count for ten minutes."""
    senders = Senders(max_sessions=16)
    for number in range(17):
        opened(senders, f"198.51.100.{number}")
    assert len(fed(senders, [failure(598.0), failure(599.0)])) == 2
    assert [attempt.time for attempt in fed(senders, [failure(600.0), failure(601.0)])] == [601.0]
