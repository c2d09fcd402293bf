"""Attempts from the reports of several sources, compared with a literal transcription of the rule."""

import pytest
from attrs import Factory, define, evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.detect.events import event
from tests.parse.worst import is_linear_in, seconds

from ringfence.detect.sessions import HORIZON, MOST_ATTEMPTS, MOST_CLOSED, SESSION_LIFE, Attempts, Senders
from ringfence.values.event import EventKind, SecurityEvent, Service, SourceId

AMI, LOG, WIRE = SourceId("pbx", "ami"), SourceId("pbx", "log:messages#notice"), SourceId("", "wire")
SOURCES = (AMI, LOG, WIRE)
ELSEWHERE = SourceId("other", "ami")
FAILED = EventKind.CHALLENGE_RESPONSE_FAILED


def record(attempts: Attempts, source: SourceId, now: float, tag: int) -> int | None:
    """Match a report, or else add an attempt, as :class:`Senders` does."""
    known = attempts.match(source, now)
    if known is None:
        attempts.add(source, now, tag)
    return known


@define
class Naive:
    """The rule: a report matches the oldest attempt within the horizon that may be the one it is about.

    Neither its source has reported that attempt, nor another Asterisk.
    """

    attempts: list[tuple[float, set[SourceId]]] = Factory(list)

    def is_new(self, source: SourceId, now: float) -> bool:
        """Whether the report is a new attempt, found by a search of all attempts so far."""
        for at, reported_by in self.attempts:
            pbxs = {one.asterisk for one in (source, *reported_by) if one != WIRE}
            if now - at < HORIZON and source not in reported_by and len(pbxs) < 2:
                reported_by.add(source)
                return False
        self.attempts.append((now, {source}))
        return True


@given(
    st.lists(
        st.tuples(st.sampled_from((*SOURCES, ELSEWHERE)), st.sampled_from((0.0, 0.3, 4.0, 10.0, 11.0))),
        max_size=60,
    )
)
def test_reports_match_as_the_rule_requires(reports: list[tuple[SourceId, float]]) -> None:
    """The same reports are new as by the rule itself, whatever the sources report, and when."""
    attempts, naive, now = Attempts(), Naive(), 0.0
    for source, pause in reports:
        now += pause
        assert naive.is_new(source, now) is (record(attempts, source, now, 0) is None)


@given(st.lists(st.sampled_from(SOURCES), max_size=60))
def test_the_source_with_most_reports_counts(sources: list[SourceId]) -> None:
    """In any interleaving, the number of attempts is the highest number that one source reports."""
    attempts = Attempts()
    new = sum(record(attempts, source, 0.0, 0) is None for source in sources)

    assert max((sources.count(source) for source in SOURCES), default=0) == new


@given(st.lists(st.sampled_from((AMI, ELSEWHERE, WIRE)), max_size=60))
def test_each_asterisk_counts(sources: list[SourceId]) -> None:
    """In any interleaving, what one Asterisk reports pays for no attempt that another one reports."""
    attempts = Attempts()
    new = sum(record(attempts, source, 0.0, 0) is None for source in sources)

    by_asterisks = sources.count(AMI) + sources.count(ELSEWHERE)
    assert max(by_asterisks, sources.count(WIRE)) <= new <= len(sources)


def test_an_attempt_of_another_asterisk_is_unknown() -> None:
    """A copied attempt is known to both Asterisks until one reports it."""
    attempts = Attempts()
    assert record(attempts, WIRE, 0.0, 7) is None
    assert (attempts.is_known(AMI, 0.0), attempts.is_known(ELSEWHERE, 0.0)) == (True, True)

    assert record(attempts, ELSEWHERE, 0.0, 8) == 7
    assert (attempts.is_known(AMI, 0.0), attempts.is_known(ELSEWHERE, 0.0)) == (False, False)
    assert record(attempts, AMI, 0.0, 9) is None
    assert record(attempts, WIRE, 0.0, 10) == 9


@pytest.mark.parametrize(
    ("asked", "account"), [("sip:300@pbx.example", "sip:300@pbx.example"), ("204", "301")]
)
def test_a_rejected_call_of_chan_sip_names_its_caller(asked: str, account: str) -> None:
    """The challenge of a call names the caller's URI, and the event of the wrong password a number."""
    senders = Senders()
    challenge = event(EventKind.CHALLENGE_SENT, service=Service.SIP, account=asked, session=b"call-1")
    rejected = event(EventKind.INVALID_PASSWORD, service=Service.SIP, account="301", session=b"call-1")
    assert senders.report(challenge, 0.0) is None

    attempt = senders.report(rejected, 0.0)
    assert attempt is not None
    assert attempt.account == account


def test_an_old_surplus_is_no_credit() -> None:
    """A surplus of one source from before the horizon hides no attempt that another source reports now."""
    attempts = Attempts()

    assert [record(attempts, AMI, 0.0, 0) for _ in range(5)] == [None] * 5
    assert [record(attempts, LOG, HORIZON, 0) for _ in range(5)] == [None] * 5


def test_a_forgotten_attempt_counts_again() -> None:
    """Open attempts are bounded: a report of a discarded one matches the next, and one counts again."""
    attempts = Attempts()
    for tag in range(MOST_ATTEMPTS + 1):
        assert record(attempts, AMI, 0.0, tag) is None

    assert [record(attempts, LOG, 0.0, -1) for _ in range(MOST_ATTEMPTS)] == [*range(1, MOST_ATTEMPTS + 1)]
    assert record(attempts, LOG, 0.0, -1) is None


def test_a_report_that_only_matches_makes_no_attempt() -> None:
    """``match`` makes no attempt, and matches each report of another source once."""
    attempts = Attempts()

    assert attempts.match(LOG, 0.0) is None
    assert record(attempts, AMI, 0.0, 7) is None
    assert attempts.match(LOG, 0.0) == 7
    assert attempts.match(LOG, 0.0) is None
    assert attempts.match(WIRE, HORIZON) is None


def test_reports_take_linear_time() -> None:
    """However many attempts are open, also of another Asterisk."""

    def look_up(number: int) -> None:
        attempts = Attempts()
        for tag in range(number):
            attempts.add(AMI, 0.0, tag)
        for _ in range(5 * number):
            assert not attempts.is_known(AMI, 0.0)
            assert attempts.match(ELSEWHERE, 0.0) is None

    assert is_linear_in(lambda size: seconds(look_up, size), MOST_ATTEMPTS)


def test_a_late_report_matches_a_closed_attempt_of_its_account_and_time_once() -> None:
    """No report of another account, time or Asterisk matches, nor a second one; the latest are kept."""
    attempts, late = Attempts(closed=[]), HORIZON + 2.0
    for tag in range(MOST_CLOSED + 1):
        attempts.add(AMI, 0.0, tag, account=1)

    assert attempts.match_late(AMI, 1, 0.0, late) is None
    assert attempts.match_late(ELSEWHERE, 1, 0.0, late) is None
    assert attempts.match_late(LOG, 2, 0.0, late) is None
    assert attempts.match_late(LOG, 1, HORIZON, late) is None
    assert attempts.match_late(LOG, 1, 0.0, SESSION_LIFE) is None
    kept = [attempts.match_late(LOG, 1, 0.0, late) for _ in range(MOST_CLOSED)]
    assert kept == [*range(1, MOST_CLOSED + 1)]
    assert attempts.match_late(LOG, 1, 0.0, late) is None


def test_a_report_that_has_waited_ends_no_session_early() -> None:
    """A session lasts from its latest use, also if a line of an earlier time is listed meanwhile."""
    senders, told = Senders(), event(FAILED, source=LOG)
    address = told.remote.address
    senders.session(address, told.session, 50.0)
    senders.record_unconfirmed(told, address, 1.0)
    senders.expire(1.0 + SESSION_LIFE)
    assert senders.find_session(address, told.session) is not None


@pytest.mark.parametrize(("caller", "is_same"), [("bob", True), ("carol", False)])
def test_a_late_report_names_a_caller_of_chan_sip_in_its_own_way(caller: str, *, is_same: bool) -> None:
    """AMI names the dialled number, and before it the caller's URI; the copied call names the URI's user."""
    senders, sip, late = Senders(), Service.SIP, HORIZON + 2.0
    call = event(EventKind.REFUSED, source=WIRE, service=sip, account="bob")
    assert senders.record_report(call, call.remote.address, 0.0, 7, 0.0) is None
    uri = f"sip:{caller}@198.18.0.1"
    challenged = event(EventKind.CHALLENGE_SENT, service=sip, account=uri, challenge=b"n")
    refused = event(EventKind.INVALID_PASSWORD, service=sip, account="100", challenge=b"n", response=b"r")
    assert senders.report(challenged, late) is None
    assert senders.report(refused, late) is not None
    tag = senders.record_report(refused, refused.remote.address, late, 8, 0.0)
    assert tag == (7 if is_same else None)


def is_shared(one: SecurityEvent, other: SecurityEvent) -> bool:
    """Whether an event reports the attempt that another source has reported by ``one``."""
    senders = Senders()
    senders.record_report(one, one.remote.address, 0.0)
    other = evolve(other, source=evolve(other.source, name=LOG.name))
    return senders.match_report(other, other.remote.address, 0.0) is not None


def test_which_events_report_the_same_attempts() -> None:
    """PJSIP shares by Call-ID, guesses at chan_sip and AMI share by address, and two PBXs share nothing."""
    sip = Service.SIP
    elsewhere = SourceId("other", "ami")

    assert is_shared(event(FAILED), event(EventKind.INVALID_ACCOUNT_ID, port=1))
    assert not is_shared(event(FAILED), event(FAILED, session=b"call-2"))
    assert not is_shared(event(FAILED), event(FAILED, address="192.0.2.8"))
    assert not is_shared(event(FAILED), event(FAILED, source=elsewhere))
    assert is_shared(event(FAILED, service=sip), event(FAILED, service=sip, session=b""))
    assert is_shared(event(FAILED, service=sip), event(EventKind.INVALID_PASSWORD, service=sip))
    for acl_name, shared in (("device_must_match_acl", True), ("no_extension_match", False)):
        refused = event(EventKind.FAILED_ACL, service=sip, acl_name=acl_name)
        assert is_shared(event(FAILED, service=sip), refused) is shared
    manager = event(EventKind.FAILED_ACL, service=Service.AMI, session=b"0x1")
    assert is_shared(event(FAILED, service=Service.AMI), manager)
