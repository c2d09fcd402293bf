"""The history: the attempts of each subject, stored as bytes and returned unchanged."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.detect.events import attempt

from ringfence.detect.findings import DuplicateReport
from ringfence.detect.history import (
    ASIDE,
    LATEST,
    MOST,
    History,
    fact_from,
    fact_of,
    pack_network,
    unpack_network,
)
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.event import MOST_ACCOUNT, EventKind, Service, Transport

HOUR = 3_600.0
ONE = pack_network(ip_network("192.0.2.1"))
SUBJECTS = ("192.0.2.1/32", "192.0.2.0/24", "2001:db8::/64", "2001:db8::1/128", "2001:db8::/48")

ATTEMPTS = st.builds(
    Attempt,
    asterisk=st.sampled_from(["pbx", "branch"]),
    address=st.just(ip_address("192.0.2.1")),
    kind=st.sampled_from(AttemptKind),
    proof=st.sampled_from(Proof),
    service=st.sampled_from(Service),
    transport=st.sampled_from(Transport),
    account=st.text(max_size=10),
    event=st.sampled_from(EventKind),
    time=st.integers(1_700_000_000, 1_700_100_000).map(float),
    trusted=st.booleans(),
    tampered=st.booleans(),
    forged_address=st.sampled_from([None, ip_address("203.0.113.9"), ip_address("2001:db8::9")]),
    session=st.integers(0, 2**32 - 1),
    sources=st.sampled_from([(), ("ami",), ("ami", "wire")]),
    evidence=st.sampled_from(["", "00442079460000", "é"]),
)


@pytest.mark.parametrize("text", SUBJECTS)
def test_a_key_stands_for_one_network(text: str) -> None:
    """A key converts back to its network."""
    assert str(unpack_network(pack_network(ip_network(text)))) == text


@given(made=ATTEMPTS)
def test_an_attempt_comes_back_as_it_was(made: Attempt) -> None:
    """An attempt comes back complete, its time to the millisecond and its account as UTF-8 can encode it."""
    history = History(HOUR)
    history.add(ONE, evolve(made, time=1_700_000_000.0), 5.0)
    history.add(ONE, made, 7.0)
    kept = history.packed(ONE)[-1]
    back = history.attempts(ONE)[-1]
    assert back.time == pytest.approx(made.time, abs=0.002)
    account = made.account.encode("utf-8", "replace").decode()
    assert evolve(back, time=0.0) == evolve(made, time=0.0, account=account)
    assert (back.session, back.sources, back.evidence) == (made.session, made.sources, made.evidence)
    assert fact_of(kept) == fact_from(made, 7.0)


def test_an_address_within_a_subject_is_remembered() -> None:
    """For an IPv6 /64 the history keeps which of its addresses made each attempt."""
    history = History(HOUR)
    key = pack_network(ip_network("2001:db8::/64"))
    history.add(key, attempt("2001:db8::abcd"), 0.0)
    assert [str(one.address) for one in history.attempts(key)] == ["2001:db8::abcd"]


def test_the_evidence_of_an_attempt_is_remembered() -> None:
    """What else a request shows, such as the number that it dialled, comes back apart from the account."""
    history = History(HOUR)
    history.add(ONE, evolve(attempt(), evidence="00442079460000"), 0.0)
    [packed] = history.packed(ONE)
    [back] = history.attempts(ONE)
    assert (fact_of(packed).evidence, back.evidence) == (b"00442079460000", "00442079460000")
    assert back.account == attempt().account


def test_a_late_attempt_is_inserted_in_order() -> None:
    """Attempts are kept in the order in which they happened."""
    history = History(HOUR)
    for now in (10.0, 30.0, 20.0):
        history.add(ONE, attempt(time=now), now)
    assert [fact_of(kept).at for kept in history.packed(ONE)] == [10.0, 20.0, 30.0]


def test_of_one_subject_the_latest_are_kept_and_each_account_once() -> None:
    """The latest attempts are kept, and one of each account.

    A phone that repeats one account forever does not push out an attacker that tries others at its address.
    """
    history = History(HOUR)
    for number in range(20):
        history.add(ONE, attempt(account=f"other{number}"), float(number))
    for number in range(1_000):
        history.add(ONE, attempt(account="phone"), 100.0 + number)
    facts = [fact_of(kept) for kept in history.packed(ONE)]
    assert len(facts) == MOST
    assert {fact.account for fact in facts} == {b"phone"} | {b"other%d" % number for number in range(20)}
    assert [fact.at for fact in facts[-LATEST:]] == [1_100.0 - LATEST + n for n in range(LATEST)]


@pytest.mark.parametrize("aside", [{"trusted": False}, {"kind": AttemptKind.FLOOD}])
def test_attempts_without_effect_displace_no_others(aside: dict[str, Any]) -> None:
    """Attempts that lead to no ban do not push out those that do."""
    history = History(HOUR)
    for number in range(8):
        history.add(ONE, attempt(account="204", proof=Proof.HANDSHAKE), float(number))
        for _ in range(40):
            history.add(ONE, evolve(attempt(account="x"), **aside), float(number))
    counted = [one for one in map(fact_of, history.packed(ONE)) if one.account == b"204"]
    assert [fact.at for fact in counted] == [float(number) for number in range(8)]
    assert len(history.packed(ONE)) <= MOST


def test_attempts_that_count_for_no_stranger_have_places_of_their_own() -> None:
    """Failures of a phone beside a flood hide no flood, and enough other attempts have room."""
    history = History(HOUR)
    for number in range(MOST):
        history.add(ONE, evolve(attempt(account="x"), trusted=False), float(number))
        history.add(ONE, attempt(account="204"), float(number), aside=True)
        history.add(ONE, attempt(account="204", kind=AttemptKind.FLOOD), float(number))
        history.add(ONE, attempt(account="300"), float(number))
    facts = [fact_of(packed) for packed in history.packed(ONE)]
    floods = [fact for fact in facts if fact.kind is AttemptKind.FLOOD]
    failures = [fact for fact in facts if fact.account == b"204" and fact not in floods]
    others = [fact for fact in facts if fact.account == b"300"]
    assert (len(floods), len(failures)) == (ASIDE, ASIDE)
    assert len(others) >= LATEST


def test_what_is_spent_goes_before_what_is_not() -> None:
    """Consumed attempts make room for new ones first."""
    history = History(HOUR)
    for number in range(MOST):
        history.add(ONE, attempt(account=f"a{number}"), float(number))
    history.consume(ONE)
    for _ in range(10):
        history.add(ONE, attempt(account="b"), 100.0)
    facts = [fact_of(kept) for kept in history.packed(ONE)]
    assert (len(facts), sum(not fact.consumed for fact in facts)) == (MOST, 10)


def test_a_long_account_takes_no_room() -> None:
    """The longest account that a parser returns takes little room."""
    history = History(HOUR)
    [kept] = history.add(ONE, attempt(account="x" * MOST_ACCOUNT), 0.0)
    assert len(kept) < 100


def test_proof_raises_what_was_claimed_in_that_session_alone() -> None:
    """A proof raises the claimed attempts of its session alone and returns them; a second one raises none."""
    history = History(HOUR)
    for session in (1, 2, 1):
        history.add(ONE, evolve(attempt(), session=session), 0.0)
    assert len(history.prove(ONE, 1)) == 2
    assert [one.proof for one in history.attempts(ONE)] == [Proof.NONCE, Proof.CLAIMED, Proof.NONCE]
    assert history.prove(ONE, 1) == []


def test_proof_raises_a_single_attempt() -> None:
    """A proven single attempt is no forged datagram, and stays when the history makes room."""
    history = History(HOUR, max_attempts=16)
    history.add(ONE, evolve(attempt(), session=1), 0.0)
    assert len(history.prove(ONE, 1)) == 1
    for number in range(2, 40):
        history.add(pack_network(ip_network(f"192.0.2.{number}")), attempt(f"192.0.2.{number}"), 1.0)
    assert [one.proof for one in history.attempts(ONE)] == [Proof.NONCE]
    assert (len(history), history.evicted) == (16, 23)


def reported(source: str, *, session: int = 1, service: Service = Service.PJSIP) -> DuplicateReport:
    """Return a report of an attempt that another source has reported."""
    return DuplicateReport(ip_address("192.0.2.7"), session, service, source, EventKind.FAILED_ACL, None)


def test_a_further_source_is_recorded_on_the_first_attempt_without_it() -> None:
    """A further source is recorded on the first attempt of the session that it has not reported yet.

    Each source reports the attempts of one session in their order.
    """
    history = History(HOUR)
    for now in (0.0, 1.0):
        history.add(ONE, evolve(attempt(), session=1, sources=("ami",)), now)
    for _ in range(3):
        history.add_source(ONE, reported("wire"), 2.0)
    history.add_source(ONE, reported("log", session=2), 2.0)
    history.add_source(ONE, reported("log", service=Service.SIP), 2.0)
    history.add_source(ONE, reported("log"), 60.0)
    assert [one.sources for one in history.attempts(ONE)] == [("ami", "wire")] * 2


@pytest.mark.parametrize(
    ("first", "later", "event", "account"),
    [
        (EventKind.INVALID_ACCOUNT_ID, "ami", EventKind.CHALLENGE_RESPONSE_FAILED, "300"),
        (EventKind.REFUSED, "ami", EventKind.CHALLENGE_RESPONSE_FAILED, "300"),
        (EventKind.REFUSED, "log", EventKind.CHALLENGE_RESPONSE_FAILED, "204"),
        (EventKind.INVALID_ACCOUNT_ID, "log", EventKind.INVALID_ACCOUNT_ID, "204"),
        (EventKind.HIDDEN, "ami", EventKind.HIDDEN, "204"),
        (EventKind.DIVERTED, "ami", EventKind.DIVERTED, "204"),
    ],
)
def test_ami_decides_on_the_event_and_the_account(
    first: EventKind, later: str, event: EventKind, account: str
) -> None:
    """A line of the log has only the reason that a copied packet lacks. What is hidden stays hidden."""
    history = History(HOUR)
    one = evolve(attempt("2001:db8::1"), event=first, account="204", evidence="é", session=1)
    for number, trusted in enumerate((False, True)):
        history.add(ONE, evolve(one, trusted=trusted, sources=("log:x",)), float(number))
    report = DuplicateReport(one.address, 1, Service.PJSIP, later, EventKind.CHALLENGE_RESPONSE_FAILED, None)
    found = history.add_source(ONE, evolve(report, account="300", decides=later == "ami"), 2.0)
    unconfirmed, changed = history.attempts(ONE)
    assert (changed.event, changed.account, changed.evidence) == (event, account, "é")
    assert (changed.address, changed.sources) == (one.address, ("log:x", later))
    assert (unconfirmed.event, unconfirmed.account, unconfirmed.sources) == (first, "204", ("log:x",))
    assert (found is None) == (event is first)


def test_a_report_that_explains_nothing_leaves_the_reason_to_ami() -> None:
    """Its source is added. A line that calls the account unknown would make AMI's report a second guess."""
    history = History(HOUR)
    history.add(ONE, evolve(attempt(), event=EventKind.REFUSED, sources=("wire",), session=1), 0.0)
    line = evolve(reported("log"), event=EventKind.INVALID_ACCOUNT_ID, explains=False)
    assert history.add_source(ONE, line, 1.0) is None
    [kept] = history.attempts(ONE)
    assert (kept.event, kept.sources) == (EventKind.REFUSED, ("wire", "log"))


def test_no_report_of_a_guess_changes_what_only_the_kernel_saw() -> None:
    """Such an attempt names no session, so a report of any session could be about it."""
    history = History(HOUR)
    unseen = evolve(attempt(), kind=AttemptKind.UNEXPLAINED, event=EventKind.UNEXPLAINED, account="")
    history.add(ONE, evolve(unseen, sources=("wire",)), 0.0)
    assert history.add_source(ONE, evolve(reported("ami"), account="204", decides=True), 1.0) is None
    [kept] = history.attempts(ONE)
    assert (kept.event, kept.account, kept.sources) == (EventKind.UNEXPLAINED, "", ("wire",))


CHECKED, UNKNOWN = EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_ACCOUNT_ID
REFUSED, HIDDEN = EventKind.REFUSED, EventKind.HIDDEN


def known(event: EventKind, source: str, account: str = "204") -> Attempt:
    """Return an attempt that a source has reported."""
    return evolve(attempt(account=account), event=event, sources=(source,), session=1)


@pytest.mark.parametrize("fingerprint", [0, 9])
def test_ami_decides_on_no_attempt_of_another_request(fingerprint: int) -> None:
    """It decides on a later one with its own fingerprint. Without one, its report is about no password."""
    history = History(HOUR)
    history.add(ONE, known(REFUSED, "wire", "300"), 0.0, fingerprint=7)
    report = evolve(reported("ami"), event=CHECKED, account="204", decides=True, fingerprint=fingerprint)
    assert history.add_source(ONE, report, 1.0) is None
    history.add(ONE, known(REFUSED, "wire", "user"), 2.0, fingerprint=fingerprint)
    found = history.add_source(ONE, report, 3.0)
    assert found is not None
    assert [fact_of(packed).account for packed in found] == [b"user", b"204"]
    assert [(one.event, one.account, one.sources) for one in history.attempts(ONE)] == [
        (REFUSED, "300", ("wire",)),
        (CHECKED, "204", ("wire", "ami")),
    ]


def copy(fingerprint: int, event: EventKind = REFUSED, account: str = "300") -> DuplicateReport:
    """Return the report of copied packets about a guess."""
    return evolve(reported("wire"), event=event, account=account, fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("event", "fingerprint", "report", "friend", "becomes"),
    [
        (CHECKED, 6, copy(9), False, (REFUSED, "300")),
        (CHECKED, 0, copy(9), False, (REFUSED, "300")),
        (CHECKED, 6, copy(6), False, (CHECKED, "204")),
        (CHECKED, 6, copy(0), False, (CHECKED, "204")),
        (CHECKED, 6, copy(8), False, (CHECKED, "204")),
        (CHECKED, 6, copy(8, HIDDEN), False, (HIDDEN, "300")),
        (CHECKED, 6, copy(9, REFUSED, "204"), False, (CHECKED, "204")),
        (CHECKED, 6, copy(9, HIDDEN, "204"), False, (HIDDEN, "204")),
        (UNKNOWN, 0, copy(9), False, (UNKNOWN, "204")),
        (UNKNOWN, 0, copy(9), True, (REFUSED, "300")),
        (UNKNOWN, 0, copy(8), True, (UNKNOWN, "204")),
    ],
)
def test_an_attempt_becomes_the_copied_guess_that_it_may_hide(
    event: EventKind,
    fingerprint: int,
    report: DuplicateReport,
    becomes: tuple[EventKind, str],
    *,
    friend: bool,
) -> None:
    """AMI has reported another request, and reports each guess that is neither hidden nor ambiguous (odd).

    An unknown account counts for less only of a friend.
    """
    history = History(HOUR)
    history.add(ONE, known(event, "ami"), 0.0, fingerprint=fingerprint)
    found = history.add_source(ONE, report, 1.0, friend=friend)
    [kept] = history.attempts(ONE)
    assert (kept.event, kept.account, kept.sources) == (*becomes, ("ami", "wire"))
    assert (found is None) is (becomes == (event, "204"))


def test_an_attempt_that_only_the_log_shows_becomes_any_copied_guess() -> None:
    """Its sender may have written the line, and AMI may not be connected."""
    history = History(HOUR)
    history.add(ONE, known(CHECKED, "log:x"), 0.0)
    assert history.add_source(ONE, copy(8), 1.0) is not None
    [kept] = history.attempts(ONE)
    assert (kept.event, kept.account, kept.sources) == (REFUSED, "300", ("log:x", "wire"))


@pytest.mark.parametrize(("friend", "event"), [(False, UNKNOWN), (True, REFUSED)])
def test_ami_calls_the_account_of_a_strangers_copied_guess_unknown(event: EventKind, *, friend: bool) -> None:
    """It may report a call before its guess, without a fingerprint. Of a friend that would count for less."""
    history = History(HOUR)
    history.add(ONE, known(REFUSED, "wire", "300"), 0.0, fingerprint=8)
    report = evolve(reported("ami"), event=UNKNOWN, account="300", decides=True)
    found = history.add_source(ONE, report, 1.0, friend=friend)
    [kept] = history.attempts(ONE)
    assert (kept.event, found is None) == (event, friend)


def test_a_copied_guess_that_may_be_of_several_attempts_is_of_its_own_request() -> None:
    """The oldest attempt is the wrong one if another has the fingerprint of the copy."""
    history = History(HOUR)
    for now, fingerprint in enumerate((6, 0, 8)):
        history.add(ONE, known(CHECKED, "ami"), float(now), fingerprint=fingerprint)
    for fingerprint in (8, 9, 9):
        history.add_source(ONE, copy(fingerprint, account=f"x{fingerprint}"), 3.0)
    assert [one.account for one in history.attempts(ONE)] == ["x9", "x9", "204"]
    assert history.add_source(ONE, copy(9), 4.0) is None


def test_what_is_spent_stays_known() -> None:
    """A consumed attempt stays known; one consumed by a claimed ban still counts towards a full one."""
    history = History(HOUR)
    history.add(ONE, attempt(), 0.0)
    history.consume(ONE, claimed=True)
    assert [(fact.consumed, fact.claim_consumed) for fact in map(fact_of, history.packed(ONE))] == [
        (False, True)
    ]
    history.add(ONE, attempt(), 1.0)
    history.consume(ONE)
    assert [(fact.consumed, fact.claim_consumed) for fact in map(fact_of, history.packed(ONE))] == [
        (True, True),
        (True, False),
    ]
    history.consume(pack_network(ip_network("192.0.2.0/24")))


def test_what_is_older_than_asked_for_goes() -> None:
    """Attempts expire in batches, at the latest a sixth of the time late."""
    history = History(HOUR)
    history.add(ONE, attempt(), 0.0)
    other = pack_network(ip_network("192.0.2.2"))
    for proof in (Proof.CLAIMED, Proof.CLAIMED, Proof.NONCE):
        history.add(other, attempt("192.0.2.2", proof=proof), 0.0)
    third = pack_network(ip_network("192.0.2.3"))
    for _ in range(2):
        history.add(third, attempt("192.0.2.3", proof=Proof.CLAIMED), 0.0)
    history.expire(HOUR)
    assert len(history) == 6
    history.expire(HOUR * 7 / 6)
    assert (len(history), history.packed(ONE)) == (0, [])


def test_a_clock_that_is_set_moves_the_times_of_day() -> None:
    """Also those of attempts before, and nothing before the first attempt."""
    history = History(HOUR)
    history.follow_clock(5.0)
    history.add(ONE, attempt(time=1_000.0), 0.0)
    history.follow_clock(1e9)
    assert [one.time for one in history.attempts(ONE)] == [1e9 + 1_000.0]


def test_the_retention_starts_at_the_last_attempt() -> None:
    """The retention time runs from the last attempt of a subject."""
    history = History(HOUR)
    history.add(ONE, attempt(), 0.0)
    history.add(ONE, attempt(), HOUR / 2)
    history.expire(HOUR * 7 / 6)
    assert len(history.packed(ONE)) == 2


def test_single_claimed_ones_go_first_the_oldest_of_the_oldest() -> None:
    """Single claimed attempts are evicted first, the oldest first, before subjects that were seen twice.

    A forged datagram makes such an attempt at no cost.
    """
    history = History(HOUR, max_attempts=4)
    for now in (0.0, 1.0):
        history.add(ONE, attempt(), now)
    for number in range(2, 40):
        history.add(
            pack_network(ip_network(f"192.0.2.{number}")), attempt(f"192.0.2.{number}"), float(number)
        )
    assert len(history.packed(ONE)) == 2
    assert (len(history), history.evicted) == (4, 36)


def test_without_single_attempts_the_oldest_subject_is_discarded() -> None:
    """Where single attempts are few, the subject that was silent longest goes with all its attempts.

    A new subject always has a place.
    """
    history = History(HOUR, max_attempts=4)
    for number in (1, 2, 3):
        for now in (0.0, 1.0):
            history.add(
                pack_network(ip_network(f"192.0.2.{number}")), attempt(f"192.0.2.{number}"), number + now
            )
    assert (history.packed(ONE), len(history), history.evicted) == ([], 4, 1)
    assert len(history.packed(pack_network(ip_network("192.0.2.3")))) == 2


def test_no_number_of_claims_makes_a_proven_attempt_forgotten() -> None:
    """Two forged datagrams from each source do not displace a sender whose address is proven."""
    history = History(HOUR, max_attempts=8)
    history.add(ONE, evolve(attempt(), proof=Proof.NONCE), 0.0)
    for number in range(2, 40):
        for now in (0.0, 1.0):
            key = pack_network(ip_network(f"192.0.2.{number}"))
            history.add(key, attempt(f"192.0.2.{number}"), number + now)
    assert len(history) <= 8
    assert [one.proof for one in history.attempts(ONE)] == [Proof.NONCE]


def test_the_latest_subjects_are_given_first() -> None:
    """The latest subjects come first, those with several attempts before those with one."""
    history = History(HOUR)
    for last in (1, 2, 3, 3, 1):
        history.add(pack_network(ip_network(f"192.0.2.{last}")), attempt(f"192.0.2.{last}"), 0.0)
    found = [(str(unpack_network(key)), len(kept)) for key, kept in history.latest(10)]
    assert found == [("192.0.2.1/32", 2), ("192.0.2.3/32", 2), ("192.0.2.2/32", 1)]
    assert len(list(history.latest(1))) == 2


def test_the_names_of_sources_are_bounded() -> None:
    """Names of Asterisks beyond sixteen share the last place, and no attempt is lost."""
    history = History(HOUR)
    for number in range(20):
        history.add(ONE, evolve(attempt(), asterisk=f"pbx{number}"), float(number))
    names = [one.asterisk for one in history.attempts(ONE)]
    assert (names[0], names[14], len(names), len(set(names))) == ("pbx0", "pbx14", 20, 16)


def test_a_generation_without_a_full_subject_is_passed_over() -> None:
    """If the oldest generation has single claimed attempts only, and few, the next one makes room."""
    history = History(HOUR, max_attempts=100)
    history.add(pack_network(ip_network("203.0.113.9")), attempt("203.0.113.9"), 0.0)
    for number in range(1, 60):
        for now in (HOUR / 2, HOUR / 2 + 1):
            history.add(pack_network(ip_network(f"192.0.2.{number}")), attempt(f"192.0.2.{number}"), now)
    assert history.packed(ONE) == []
    assert len(history.packed(pack_network(ip_network("203.0.113.9")))) == 1
