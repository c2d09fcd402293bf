"""Attempts of friends: their limits, and guesses that stay unproven."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import SENDER, attempt

from ringfence.alarm_codes import AlarmCode
from ringfence.detect.friend_attempts import MOST, PROVEN_WITHIN, UNPROVEN, UNSHIELDED_FOR, FriendAttempts
from ringfence.detect.friends import Friends
from ringfence.detect.history import History, Subjects
from ringfence.detect.judgement import Counts
from ringfence.detect.new_friends import MOST_STOLEN
from ringfence.detect.rules import HOUR, RULES
from ringfence.values.attempt import Attempt, AttemptCounts, AttemptKind, Proof
from ringfence.values.event import EventKind, Transport
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import NetworkSet, sender_of

GUESS = evolve(
    attempt(SENDER, account="201"), event=EventKind.CHALLENGE_RESPONSE_FAILED, transport=Transport.UDP
)
PROVEN = evolve(GUESS, proof=Proof.NONCE)
BY_NAME = {rule.name: rule for rule in RULES}


class Office:
    """The attempts of one friend, whose account is 204."""

    def __init__(self, *, sees_wire: bool = True, reason: FriendReason = FriendReason.AUTHENTICATED) -> None:
        friends = Friends()
        friends.add(Friend("pbx", GUESS.address, "204", reason, 0.0, 0.0, 1e9))
        self.subjects = Subjects(friends, NetworkSet())
        self.history = History(HOUR)
        self.counts = Counts()
        self.attempts = FriendAttempts(self.subjects, self.history, self.counts)
        self.attempts.configure(RULES)
        self.attempts.sees_wire = sees_wire

    def fails(self, one: Attempt, now: float) -> str | None:
        """Record an attempt; return the rule that bans, if any."""
        subject = self.subjects.find(one.address)
        self.history.add(subject.key, one, now)
        decision, _ = self.attempts.on_attempt(subject, one, now)
        return decision.rule.name if decision is not None else None

    def alarms(self, now: float) -> list[AlarmCode]:
        """Return the alarms of a tick about unprovable guesses."""
        codes = [change.code for change in self.attempts.tick(now)]
        return [code for code in codes if code is AlarmCode.EVIDENCE_UNPROVABLE]


def test_unproven_guesses_are_an_alarm_when_their_proof_is_late() -> None:
    """The first guess decides when the address is due; then four unproven guesses in an hour are an alarm."""
    office = Office()
    for number in range(UNPROVEN):
        assert office.fails(GUESS, 0.1 * number) is None
    assert office.alarms(PROVEN_WITHIN - 0.1) == []
    assert office.alarms(PROVEN_WITHIN) == [AlarmCode.EVIDENCE_UNPROVABLE]
    assert office.alarms(PROVEN_WITHIN) == []
    assert office.attempts.unshielded(UNSHIELDED_FOR) == [GUESS.address]
    assert office.attempts.unshielded(PROVEN_WITHIN + UNSHIELDED_FOR) == []


@pytest.mark.parametrize(
    "other",
    [evolve(GUESS, event=EventKind.INVALID_ACCOUNT_ID), evolve(GUESS, transport=Transport.TLS), PROVEN],
    ids=["unknown", "tls", "proven"],
)
def test_only_unproven_datagrams_with_a_password_wait_for_a_proof(other: Attempt) -> None:
    """An unknown account has no password to find, and a connection proves its address."""
    office = Office()
    for number in range(2 * UNPROVEN):
        office.fails(other, 0.1 * number)
    assert office.alarms(10.0) == []


def test_only_proven_attempts_count_while_the_wire_can_prove() -> None:
    """A claim counts against a friend only without a wire, and even then it leads to no ban."""
    for sees_wire, have in ((True, 0), (False, 40)):
        office = Office(sees_wire=sees_wire)
        assert {office.fails(GUESS, 0.1 * number) for number in range(40)} == {None}
        assert (office.counts.friends, office.counts.uncounted) == (40, 40)
        subject = office.subjects.find(GUESS.address)
        assert (office.attempts.nearest(BY_NAME["guess"], subject, 4.0).have > 0) is (have > 0)


@pytest.mark.parametrize("sees_wire", [True, False])
@pytest.mark.parametrize("one", [GUESS, PROVEN], ids=["claimed", "proven"])
def test_an_attempt_is_uncounted_once(one: Attempt, *, sees_wire: bool) -> None:
    """In outage mode, an attempt on an account of its own address counts once as uncounted, proven or not."""
    office = Office(sees_wire=sees_wire)
    office.subjects.friends.set_outage_mode(on=True)
    office.fails(evolve(one, account="204"), 0.0)
    assert (office.counts.friends, office.counts.uncounted) == (1, 1)


def test_a_programs_pace_of_proven_guesses_is_a_ban_except_for_a_trunk() -> None:
    """The 22nd fast guess at foreign accounts is a ban, and counting starts again; a trunk has none."""
    office = Office()
    assert [office.fails(PROVEN, 0.1 * number) for number in range(23)] == [None] * 21 + ["guess", None]
    trunk = Office(reason=FriendReason.TRUNK)
    assert {trunk.fails(PROVEN, 0.1 * number) for number in range(60)} == {None}


def test_wrong_numbers_of_a_friend_are_no_slow_guesses() -> None:
    """A wrong number is at no account; only its own rule counts it."""
    office = Office()
    probes = [evolve(PROVEN, kind=AttemptKind.PROBE, account=f"x{number}") for number in range(100)]
    assert {office.fails(one, 100.0 * number) for number, one in enumerate(probes)} == {None}


def test_without_a_rule_a_guess_where_a_guilty_account_works_is_no_ban() -> None:
    """The administrator has switched off the rules that count guesses."""
    office = Office()
    subject = office.subjects.find(GUESS.address)
    office.attempts.configure([rule for rule in RULES if rule.name == "probe"])
    assert office.attempts.on_tainted(subject, PROVEN, 0.0) == (None, ())


def test_the_tables_are_bounded() -> None:
    """A sender that forges the addresses of many friends pushes out the oldest ones."""
    office = Office()
    for number in range(MOST + 10):
        address = ip_address(number + 1)
        office.subjects.friends.add(Friend("pbx", address, "204", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e9))
        office.attempts.on_unprovable(address, 0.0)
    assert len(office.attempts.unshielded(0.0)) == MOST


def test_a_friends_ban_is_on_proven_attempts_also_without_the_wire() -> None:
    """Two claims, of a broken phone there, must not let a login end the ban for guesses by TLS."""
    office = Office(sees_wire=False)
    for number in range(2):
        office.fails(evolve(GUESS, account="204"), 0.1 * number)
    guess = evolve(GUESS, transport=Transport.TLS, proof=Proof.HANDSHAKE)
    subject, decisions = office.subjects.find(GUESS.address), []
    for number in range(22):
        now = 1.0 + 0.1 * number
        office.history.add(subject.key, guess, now)
        decision, _ = office.attempts.on_attempt(subject, guess, now)
        decisions += [decision] if decision is not None else []
    [decision] = decisions
    assert AttemptCounts.of(decision.attempts).are_proven


def test_a_guess_that_did_not_count_takes_back_no_other() -> None:
    """Otherwise each guess could be followed by a datagram with an invented nonce that cancels it."""
    office = Office()
    subject, banned = office.subjects.find(GUESS.address), list[str | None]()
    for number in range(22):
        banned.append(office.fails(PROVEN, 0.2 * number))
        office.fails(GUESS, 0.2 * number + 0.1)
        office.attempts.take_back(subject, GUESS)
    assert banned == [None] * 21 + ["guess"]


def test_a_guess_from_an_office_takes_back_none_that_counts_against_an_account() -> None:
    """It counts against no account itself, so it must not cancel one that did."""
    office, account = Office(), ("pbx", "204")
    friends = office.subjects.friends
    friends.new.restore(account, sender_of(GUESS.address), 0.0)
    office.fails(PROVEN, 0.0)
    for number in range(MOST_STOLEN):
        reason = FriendReason.AUTHENTICATED
        friends.add(Friend("pbx", GUESS.address, f"30{number}", reason, 0.0, 0.0, 1e9))
    office.fails(PROVEN, 1.0)
    counting = friends.new._accounts[account].guesses
    assert len(counting) == 1
    office.attempts.take_back(office.subjects.find(GUESS.address), PROVEN)
    assert len(counting) == 1


def test_one_of_two_guesses_at_an_account_is_taken_back() -> None:
    """The other one still counts, for each limit and as a value."""
    office, rule = Office(), BY_NAME["enumeration"]
    subject = office.subjects.find(GUESS.address)
    office.attempts.take_back(subject, PROVEN)
    for number in range(2):
        office.fails(PROVEN, 0.1 * number)
    have = []
    for _ in range(2):
        office.attempts.take_back(subject, PROVEN)
        have.append(office.attempts.nearest(rule, subject, 1.0).have)
    assert have == [1, 0]
