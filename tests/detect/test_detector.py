"""The detector as transcripts: the attempts with their times, and the judgement of each.

A line is ``TIME ADDRESS [KIND] [untrusted] -> STANDING[; BAN]``. By default the kind is a guess and
the address is proven.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.detect.driven import Driven
from tests.detect.events import SENDER, attempt, event
from tests.support.listening import connected

from ringfence.ban_facts import ClockSet, Fact, Forgotten, NotRemoved, Over, Unbanned
from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import Bounds
from ringfence.detect.findings import AttributedAttempt, DuplicateReport, Finding, NewProof, WrongAnswer
from ringfence.detect.judgement import Counts, Disposition, Judgement, Watched
from ringfence.detect.observation import NEW_FOR
from ringfence.detect.rules import RULES, By, Claimed, Rule
from ringfence.errors import FirewallError
from ringfence.ledger import Record, key_of
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import WHOLE_SCOPES, Ban, BanEnd, Scope
from ringfence.values.event import EventKind, Service
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import NetworkSet
from ringfence.values.packet import CopiedAnswer

GUESS = next(rule for rule in RULES if rule.name == "guess")
PHONE = FriendReason.REACHABLE
PROBE = Rule("probe", "m", frozenset({AttemptKind.PROBE}), 2, 60.0, (60.0,))
NETWORK = ip_network(f"{SENDER}/32")
OWN = NetworkSet([ip_network("192.0.2.128/25"), ip_network("2001:db8:0:1::1/128")])


def line_of(judgement: Judgement) -> str:
    """Return a judgement as the right side of a line."""
    decision = judgement.decision
    if decision is None:
        return str(judgement.disposition)
    narrow = "" if decision.seconds is None else f", {decision.seconds:.0f} s of {decision.scope}"
    who = f"{decision.rule.name} bans {decision.subject} for {len(decision.attempts)}{narrow}"
    return f"{judgement.disposition}; {who}"


def attempt_of(words: str) -> tuple[float, Attempt]:
    """Parse the left side of a line."""
    time, address, *rest = words.split()
    kinds = [AttemptKind(word) for word in rest if word != "untrusted"]
    kind = kinds[0] if kinds else AttemptKind.GUESS
    trusted = "untrusted" not in rest
    return float(time), attempt(address, float(time), kind=kind, proof=Proof.NONCE, trusted=trusted)


def unban(detector: Driven, network: str = SENDER) -> None:
    """End the bans of a network that were assumed."""
    detector.bans.discard_assumed(ip_network(network))
    detector.record_unban(ip_network(network))


def counts(*, exempt: int = 0, unconfirmed: int = 0, late: int = 0, **kinds: int) -> Counts:
    """Return counts with these numbers of attempts, all proven by a nonce."""
    found = Counts(exempt=exempt, unconfirmed=unconfirmed, late=late)
    for kind, number in kinds.items():
        found.by_kind[AttemptKind(kind)][Proof.NONCE] = number
    return found


def play(detector: Driven, transcript: str) -> None:
    """Judge the attempts of a transcript and compare each judgement with its line."""
    lines = [" ".join(line.split()) for line in transcript.strip().splitlines()]
    played = []
    for line in lines:
        left, _, _ = line.partition(" -> ")
        time, one = attempt_of(left)
        played.append(f"{left} -> {line_of(detector.judged(one, time))}")
    assert played == lines


def test_attempts_of_a_banned_subject_are_late() -> None:
    """An attempt of a banned subject is late; after the ban or an unban the count begins again."""
    detector = Driven((evolve(GUESS, attempts=2),))
    play(detector, "0 192.0.2.7 -> counted")
    detector.bans.assume(ip_network("192.0.2.7/32"), Scope.FULL, 10.0)
    play(
        detector,
        """
          1.0  192.0.2.7 -> late
          9.99 192.0.2.7 -> late
          9.99 192.0.2.8 -> counted
          10   192.0.2.7 -> counted; guess bans 192.0.2.7/32 for 2
        """,
    )
    detector.bans.assume(ip_network("192.0.2.7/32"), Scope.FULL, 100.0)
    play(detector, "11 192.0.2.7 -> late")
    unban(detector, "192.0.2.7/32")
    play(detector, "12 192.0.2.7 -> counted")
    detector.record_unban(ip_network("192.0.2.7/32"))
    play(detector, "13 192.0.2.7 -> counted")
    assert detector.counts == counts(guess=8, late=3)


@pytest.mark.parametrize(
    ("fact", "begins_again"),
    [
        (Forgotten(NETWORK, Scope.FULL), True),
        (Over(NETWORK, Scope.FULL, BanEnd.REMOVED), True),
        (Over(NETWORK, Scope.FULL, BanEnd.DISPLACED), True),
        (Over(NETWORK, Scope.FULL, BanEnd.EXPIRED), False),
        (NotRemoved([NETWORK], FirewallError("busy")), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_early_end_of_a_ban_lets_the_count_begin_again(fact: Fact, *, begins_again: bool) -> None:
    """A ban that was removed, displaced or forgotten clears the count; one that expired does not."""
    detector = Driven((evolve(GUESS, attempts=2),))
    play(detector, "0 192.0.2.7 -> counted")
    detector.on_fact(fact)
    play(detector, f"1 192.0.2.7 -> counted{'' if begins_again else '; guess bans 192.0.2.7/32 for 2'}")


@pytest.mark.parametrize(
    ("unbanned", "begins_again"),
    [("192.0.2.7/32", True), ("192.0.2.0/24", True), ("192.0.2.8/32", False), ("192.0.0.0/16", False)],
)
def test_an_unban_within_a_banned_network_clears_the_count(unbanned: str, *, begins_again: bool) -> None:
    """An unban clears the count of each sender in what was unbanned, up to a /24, whatever was banned."""
    detector = Driven((evolve(GUESS, attempts=2),))
    play(detector, "0 192.0.2.7 -> counted")
    detector.on_fact(Over(ip_network("192.0.2.0/24"), Scope.FULL, BanEnd.REMOVED))
    detector.on_fact(Unbanned(ip_network(unbanned)))
    play(detector, f"1 192.0.2.7 -> counted{'' if begins_again else '; guess bans 192.0.2.7/32 for 2'}")


def test_those_never_banned_are_not_counted() -> None:
    """Exempt networks are judged first, whether banned or not."""
    detector = Driven((evolve(GUESS, attempts=1),), exempt=OWN)
    detector.bans.assume(ip_network("192.0.2.128/32"), Scope.FULL, 10.0)
    play(
        detector,
        """
          0 192.0.2.127   -> counted; guess bans 192.0.2.127/32 for 1
          0 192.0.2.128   -> exempt
          0 192.0.2.255   untrusted -> exempt
          0 2001:db8:0:1::1 -> exempt
        """,
    )
    assert detector.counts == counts(guess=4, exempt=3)


def test_what_may_be_a_strangers_is_unconfirmed() -> None:
    """Untrusted attempts are listed separately, ban nothing, and add nothing to trusted ones."""
    detector = Driven((evolve(GUESS, attempts=2),))
    subject = ip_network("192.0.2.7/32")
    made = tuple(attempt(time=time, trusted=time == 3.0, proof=Proof.NONCE) for time in range(4))
    play(
        detector,
        """
          0 192.0.2.7 untrusted -> unconfirmed
          1 192.0.2.7 untrusted -> unconfirmed
          2 192.0.2.7 untrusted -> unconfirmed
        """,
    )
    assert detector.watched(3.0) == [Watched(subject, "", 0, 1, Disposition.UNCONFIRMED, made[:3])]
    play(detector, "3 192.0.2.7 -> counted")
    assert detector.watched(4.0) == [Watched(subject, "guess", 1, 2, Disposition.COUNTED, made)]
    play(detector, "4 192.0.2.7 -> counted; guess bans 192.0.2.7/32 for 2")
    assert detector.watched(4.0) == []
    assert detector.counts == counts(guess=5, unconfirmed=3)
    assert detector.counts.attempts == 5


def test_guess_counts_neither_probes_nor_the_manager() -> None:
    """Each rule counts its own kinds, and an attempt that no rule counts is judged so, trusted or not."""
    detector = Driven((evolve(GUESS, attempts=1),))
    play(
        detector,
        """
          0 192.0.2.7 probe             -> no rule
          0 192.0.2.7 probe untrusted   -> no rule
          0 192.0.2.7 manager           -> no rule
          0 192.0.2.7 guess             -> counted; guess bans 192.0.2.7/32 for 1
        """,
    )
    assert detector.counts == counts(guess=1, probe=2, manager=1)


def test_new_rules_look_at_what_was_done_already() -> None:
    """New lengths, numbers or windows keep earlier attempts; attempts that led to a ban stay consumed."""
    detector = Driven((evolve(GUESS, attempts=2), PROBE))
    play(detector, "0 192.0.2.7 -> counted")
    play(detector, "0 192.0.2.7 probe -> counted")
    detector.configure((evolve(GUESS, attempts=2, ban=(1.0,)), evolve(PROBE, attempts=3)))
    play(detector, "1 192.0.2.7 probe -> counted")
    play(detector, "1 192.0.2.7 -> counted; guess bans 192.0.2.7/32 for 2")
    play(detector, "2 192.0.2.7 -> counted")
    detector.configure((evolve(GUESS, attempts=3),))
    play(detector, "3 192.0.2.7 -> counted")
    play(detector, "4 192.0.2.7 -> counted; guess bans 192.0.2.7/32 for 3")
    detector.configure(())
    play(detector, "6 192.0.2.7 -> no rule")


def test_all_phones_are_observed_when_asterisk_has_failed_to_report() -> None:
    """Somebody hides guesses, perhaps without any answer, and the log does not name the address."""
    detector = Driven(RULES)
    for address, tie in ((SENDER, PHONE), ("192.0.2.9", FriendReason.TRUNK), ("2001:db8::1", PHONE)):
        detector.friends.add(Friend("pbx", ip_address(address), "204", tie, 0.0, 0.0, 1e9))
    assert detector.observed(10.0) == set()
    detector.observe_silence(10.0)
    assert detector.observed(10.0) == {ip_address(SENDER), ip_address("2001:db8::1")}
    detector.friends.add(Friend("pbx", ip_address("192.0.2.10"), "204", PHONE, 0.0, 0.0, 1e9))
    observed = detector.observed(9.9 + NEW_FOR)
    assert ip_address("192.0.2.10") in observed
    assert detector.observed(9.9 + NEW_FOR) is observed
    assert detector.observed(10.0 + NEW_FOR) == set()


def test_new_limits_begin_the_counts_of_claimed_bans_again() -> None:
    """After a reload of ``[claimed]``, a sender's next ban is its first one, of the new length."""
    detector = Driven((GUESS,))
    lengths = []
    for now, limits in ((0.0, Claimed()), (700.0, Claimed(ban=(60.0, 90.0)))):
        detector.configure((GUESS,), claimed=limits)
        claims = [detector.judged(attempt(SENDER, now, proof=Proof.CLAIMED), now) for _ in range(6)]
        lengths += [one.decision.seconds for one in claims if one.decision is not None]
    assert lengths == [Claimed().ban[0], 60.0]


def test_new_rules_do_not_shorten_claimed_bans() -> None:
    """A sender's next ban on unproven evidence is longer, also after a reload of other rules."""
    detector = Driven((GUESS,))
    lengths = []
    for now in (0.0, 700.0, 1_400.0):
        claims = [detector.judged(attempt(SENDER, now, proof=Proof.CLAIMED), now) for _ in range(6)]
        lengths += [one.decision.seconds for one in claims if one.decision is not None]
        detector.configure((evolve(GUESS, ban=(now + 1.0,)),))
    assert lengths == [*Claimed().ban]


def test_new_rules_hold_for_friends_too() -> None:
    """After a reload the limits of the new rules decide on a friend's attempts."""
    detector = Driven(RULES)
    detector.friends.add(Friend("pbx", ip_address(SENDER), "204", FriendReason.REACHABLE, 0.0, 0.0, 1e9))
    detector.configure((evolve(GUESS, friends=2),))
    play(detector, "0 192.0.2.7 -> friend")
    play(detector, "1 192.0.2.7 -> friend; guess bans 192.0.2.7/32 for 2, 3600 s of sip-udp")


def test_what_is_forgotten_for_want_of_room_is_counted() -> None:
    """Evicted subjects of the windows and sessions are counted in one number."""
    detector = Driven(RULES, bounds=Bounds(attempts=2))
    for number in range(5):
        detector.judged(attempt(f"192.0.2.{number}"), 0.0)
    assert detector.evicted == 3
    for number in range(8193):
        detector.observe(event(EventKind.CHALLENGE_SENT, service=Service.SIP, session=b"%d" % number), 0.0)
    assert detector.evicted == 4


def remembered(detector: Driven, addresses: Iterable[str]) -> int:
    """Return the number of attempts of these addresses that the detector remembers."""
    return sum(len(detector.summary_of(ip_address(address), 30_000.0).attempts) for address in addresses)


def test_what_is_not_evicted_is_remembered() -> None:
    """Of two thousand addresses, all are known that were not counted as evicted."""
    detector = Driven(RULES, bounds=Bounds(attempts=1_000))
    addresses = [f"198.18.{number // 250}.{number % 250}" for number in range(2_000)]
    for address in addresses:
        detector.judged(attempt(address), 0.0)
    assert remembered(detector, addresses) == 2_000 - detector.evicted > 900


def test_attempts_that_one_subject_lost_take_no_room() -> None:
    """Of two hundred attempts of one address 64 are kept, which leaves room for others."""
    detector = Driven(RULES, bounds=Bounds(attempts=80))
    for number in range(200):
        detector.judged(attempt(SENDER, trusted=False), float(number))
    for number in range(10):
        detector.judged(attempt(f"203.0.113.{number}"), 200.0)
    assert detector.evicted == 0


def test_the_oldest_of_forged_addresses_are_evicted_first() -> None:
    """Single claims of hours ago go before those of now."""
    detector = Driven(RULES, bounds=Bounds(attempts=16))
    for network, now in (("198.51.100", 0.0), ("203.0.113", 20_000.0)):
        for number in range(10):
            detector.judged(attempt(f"{network}.{number}", now), now)
    assert remembered(detector, (f"203.0.113.{number}" for number in range(10))) == 10


@pytest.mark.parametrize("step", [400 * 86_400.0, -400 * 86_400.0])
def test_attempts_keep_their_distance_when_the_clock_is_set(step: float) -> None:
    """The times of earlier attempts move, as those of bans, and later ones have the time of the new clock."""
    detector = Driven(RULES)
    detector.judged(attempt(SENDER, 1_000.0), 0.0)
    detector.on_fact(ClockSet(step))
    detector.judged(attempt(SENDER, 1_010.0 + step), 10.0)
    times = [one.time - step for one in detector.summary_of(ip_address(SENDER), 10.0).attempts]
    assert times == [1_000.0, 1_010.0]


def test_forged_addresses_evict_no_attempt_that_was_proven_late() -> None:
    """A single attempt stays in memory once a nonce has proven it, however many addresses are forged."""
    detector = Driven(RULES, bounds=Bounds(attempts=16))
    detector.observe_answers([], 0.0, 0.0, "pbx")
    detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"s", challenge=b"n"), 0.0)
    detector.observe_answers([CopiedAnswer(NAMED, 5062, HERE, 5060, b"s", b"n", NAMED)], 0.1, 0.1, "pbx")
    for number in range(100):
        detector.judged(attempt(f"203.0.113.{number}"), 1.0)
    [kept] = detector.summary_of(NAMED, 1.0).attempts
    assert kept.proof is Proof.NONCE


def test_forged_addresses_evict_no_proven_session() -> None:
    """A session that answered a challenge stays proven, however many addresses are forged."""
    detector = Driven(RULES, bounds=Bounds(sessions=8))
    detector.observe_answers([CopiedAnswer(NAMED, 5062, HERE, 5060, b"s", b"n", NAMED)], 0.0, 0.0, "pbx")
    detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=b"s", challenge=b"n"), 0.0)
    for number in range(100):
        detector.observe(event(EventKind.INVALID_ACCOUNT_ID, 1.0, address=f"203.0.113.{number}"), 1.0)
    [judgement] = detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, 2.0, session=b"s"), 2.0)
    assert judgement.attempt.proof is Proof.NONCE


def test_no_repeat_is_forgiven_after_an_eviction() -> None:
    """A discarded sender may have been forgiven a repeat already, so each repeat counts."""
    for others, attempts in ((0, 1), (20, 2)):
        detector = Driven(RULES, bounds=Bounds(sessions=8))
        for number in range(others):
            detector.observe(event(EventKind.INVALID_ACCOUNT_ID, address=f"203.0.113.{number}"), 0.0)
        guess = event(EventKind.CHALLENGE_RESPONSE_FAILED, 1.0, challenge=b"n", response=b"r")
        judged = [*detector.observe(guess, 1.0), *detector.observe(evolve(guess, time=2.0), 2.0)]
        assert len(judged) == attempts


def test_nothing_is_concluded_of_a_session_that_was_evicted() -> None:
    """AMI reports the challenge of an evicted session too late to be compared with it."""
    detector = Driven(RULES, sources=KnownSources(frozenset({"pbx"})), bounds=Bounds(sessions=64))
    calls = [b"%d" % number for number in range(9)]
    for call in (b"before", b"evicted", *calls):
        detector.observe_answers([CopiedAnswer(NAMED, 5062, HERE, 5060, call, b"", NAMED)], 1.0, 1.0, "pbx")
        if call != b"evicted":
            detector.observe(event(EventKind.CHALLENGE_SENT, 1.0, session=call), 1.0)
    detector.observe(event(EventKind.CHALLENGE_SENT, 1.1, session=b"evicted"), 1.1)
    assert detector.tick(7.0, 7.0, listening=connected(0.0)) == []


def test_the_watched_are_those_nearest_to_a_ban() -> None:
    """``watched`` returns at most the requested number, nearest first, without those whose window is over."""
    detector = Driven((GUESS,))
    for number in range(30):
        for _ in range(1 + (number < 2)):
            detector.judged(attempt(f"192.0.2.{number}", float(number)), float(number))
    watched = detector.watched(30.0, most=3)
    assert [(str(one.subject), len(one.attempts)) for one in watched] == [
        ("192.0.2.1/32", 2),
        ("192.0.2.0/32", 2),
        ("192.0.2.29/32", 1),
    ]
    assert len(detector.watched(30.0)) == 20
    assert detector.watched(1000.0) == []


def test_a_ban_covers_its_scope() -> None:
    """A narrow ban covers its own scope, one of SIP the narrow ones too, and a full ban every scope."""
    narrow = {scope: {scope} for scope in (Scope.SIP_UDP, Scope.SIP_TCP)}
    for scope, covered in {Scope.FULL: {*Scope}, Scope.SIP: {*Scope} - {Scope.FULL}, **narrow}.items():
        detector = Driven((GUESS,))
        detector.bans.assume(ip_network("192.0.2.7/32"), scope, 10.0)
        found = {one for one in Scope if detector.is_banned(ip_address("192.0.2.7"), one, 9.0)}

        assert found == covered
        assert not detector.is_banned(ip_address("192.0.2.8"), scope, 9.0)
        assert not detector.is_banned(ip_address("192.0.2.7"), scope, 10.0)


def test_attempts_are_late_while_the_kernel_has_a_ban() -> None:
    """Attempts of a banned subject count nothing while the kernel has the ban, and count afterwards."""
    detector = Driven((evolve(GUESS, attempts=2),))
    for network in (ip_network("192.0.2.7/32"), ip_network("2001:db8::/64")):
        one = Ban(network, since=0.0, expires=100.0, rule="guess")
        detector.bans.put(key_of(network), Record.of(one))
    play(
        detector,
        """
          0 192.0.2.7   -> late
          0 2001:db8::5 -> late
          0 192.0.2.8   -> counted
        """,
    )
    detector.bans.clear()
    play(
        detector,
        """
          1 192.0.2.7 -> counted
          1 192.0.2.7 -> counted; guess bans 192.0.2.7/32 for 2
        """,
    )


def test_a_distributed_attack_is_over_where_other_rules_come() -> None:
    """New rules clear the alarm of a distributed attack, and its count begins again."""
    detector = Driven(RULES)
    for number in range(8):
        detector.judged(attempt(f"198.51.{number}.1", proof=Proof.NONCE), 0.0)
    [cleared] = detector.configure((GUESS,))
    assert isinstance(cleared, AlarmChange)
    assert (cleared.code, cleared.cleared) == ("attack.distributed", True)


GUESSER, NAMED, HERE = ip_address("198.51.100.9"), ip_address(SENDER), ip_address("198.18.0.1")


def test_proofs_of_several_lose_no_ban() -> None:
    """Proofs that the wire shows at once can complete a ban for more than one address."""
    detector = Driven(RULES, sources=KnownSources(frozenset({"pbx"})))
    detector.observe_answers([], 0.0, 0.0, "pbx")
    addresses = [ip_address(f"192.0.2.{last}") for last in (1, 2)]
    challenges = []
    for place, address in enumerate(addresses):
        for number in range(5):
            session, nonce = b"%d-%d" % (place, number), b"n%d-%d" % (place, number)
            told = event(
                EventKind.CHALLENGE_RESPONSE_FAILED, address=str(address), session=session, challenge=nonce
            )
            detector.observe(told, float(number))
            challenges.append(CopiedAnswer(address, 5062, HERE, 5060, session, nonce, address))
    judged = detector.observe_answers(challenges, 5.0, 5.0, "pbx")
    full = {judgement.decision.subject for judgement in judged if judgement.decision is not None}
    assert full == {ip_network("192.0.2.1/32"), ip_network("192.0.2.2/32")}
    assert detector.counts.by_kind[AttemptKind.GUESS] == [10, 0, 0]
    assert detector.counts.proven_later[AttemptKind.GUESS] == 10


def test_old_passwords_that_are_proven_later_ban_no_new_address() -> None:
    """A phone with a new temporary address stays a phone, also if its guesses are proven later."""
    detector = Driven(RULES, sources=KnownSources(frozenset({"pbx"})))
    detector.friends.add(
        Friend("pbx", ip_address("2001:db8::7"), "alice", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e9)
    )
    judged = proven_in_one_call(detector, ["2001:db8::8"] * 9, 1)

    assert [one.decision for one in judged if one.decision is not None] == []


def proven_in_one_call(detector: Driven, addresses: Iterable[str], number: int) -> list[Judgement]:
    """Judge ``number`` claimed attempts of each address, then a proof of the last one, in one call each."""
    judged: list[Judgement] = []
    for host, address in enumerate(addresses, 1):
        claims = [evolve(attempt(address), session=100 * host + n) for n in range(number)]
        proof = NewProof("pbx", ip_address(address), claims[-1].session, Proof.NONCE)
        findings: list[Finding] = [*(AttributedAttempt(claim, 0.0) for claim in claims), proof]
        judged += [effect for effect in detector._on_findings(findings, 0.0) if isinstance(effect, Judgement)]
    return judged


@pytest.mark.parametrize("proof", [Proof.CLAIMED, Proof.NONCE])
def test_late_guesses_where_a_guilty_account_works_widen_no_ban(proof: Proof) -> None:
    """The ban of one transport stays as it is, though the phone there is a friend no more."""
    detector = Driven((GUESS,))
    detector.friends.new.taint(NETWORK, 100.0)
    detector.bans.assume(NETWORK, Scope.SIP_UDP, 100.0)
    findings: list[Finding] = []
    for session in range(1, 11):
        findings.append(AttributedAttempt(evolve(attempt(proof=proof), session=session), 0.0))
        if proof is Proof.CLAIMED:
            findings.append(NewProof("pbx", ip_address(SENDER), session, Proof.NONCE))
    judged = [one for one in detector._on_findings(findings, 0.0) if isinstance(one, Judgement)]

    assert [(one.disposition, one.decision) for one in judged] == [(Disposition.LATE, None)] * 10


def reason_learned(session: int) -> Finding:
    """Return that the log names an attempt's reason: its account does not exist."""
    unknown = EventKind.INVALID_ACCOUNT_ID
    return DuplicateReport(ip_address(SENDER), session, Service.PJSIP, "pbx/log", unknown, None)


def proof_learned(session: int) -> Finding:
    """Return that a nonce proves the address of an attempt."""
    return NewProof("pbx", ip_address(SENDER), session, Proof.NONCE)


def answer_learned(session: int) -> Finding:
    """Return that an attempt had credentials."""
    return WrongAnswer("pbx", ip_address(SENDER), session)


@pytest.mark.parametrize(
    ("proof", "learned"),
    [(Proof.NONCE, reason_learned), (Proof.CLAIMED, proof_learned), (Proof.NONCE, answer_learned)],
)
@pytest.mark.parametrize("banned", [True, False], ids=["banned", "free"])
def test_what_is_learned_later_bans_one_transport_where_a_guilty_account_works(
    proof: Proof, learned: Callable[[int], Finding], *, banned: bool
) -> None:
    """Such an address loses the transport that was misused, whichever report completes the attempts."""
    detector = Driven(RULES)
    findings: list[Finding] = []
    sessions = range(1, 31 if banned else 3)  # three claimed guesses are a ban of UDP in any case
    for session in sessions:
        one = evolve(
            attempt(proof=proof, account=f"nobody{session}"), session=session, event=EventKind.REFUSED
        )
        findings.append(AttributedAttempt(evolve(one, credentials=learned is not answer_learned), 0.0))
    detector.friends.new.taint(NETWORK, 100.0)
    if banned:
        detector.bans.assume(NETWORK, Scope.SIP_UDP, 100.0)
    judged = detector._on_findings([*findings, *map(learned, sessions)], 0.0)
    scopes = {one.decision.scope for one in judged if isinstance(one, Judgement) and one.decision}

    assert scopes == (set() if banned else {Scope.SIP_UDP})


@pytest.mark.parametrize("banned", [True, False], ids=["banned", "free"])
def test_a_guess_that_ami_reports_after_a_line_bans_where_a_guilty_account_works(*, banned: bool) -> None:
    """The line said that the account does not exist, which is no guess elsewhere."""
    detector = Driven(RULES)
    detector.friends.new.taint(NETWORK, 100.0)
    if banned:
        detector.bans.assume(NETWORK, Scope.SIP_UDP, 100.0)
    line = evolve(attempt(proof=Proof.NONCE), session=1, event=EventKind.INVALID_ACCOUNT_ID)
    checked = EventKind.CHALLENGE_RESPONSE_FAILED
    guess = DuplicateReport(line.address, 1, Service.PJSIP, "ami", checked, None, "300", decides=True)
    effects = detector._on_findings([AttributedAttempt(line, 0.0), guess], 0.0)
    decided = [one.decision for one in effects if isinstance(one, Judgement) and one.decision is not None]
    assert [one.scope for one in decided] == ([] if banned else [Scope.SIP_UDP])


def test_a_proof_adds_no_second_claimed_ban() -> None:
    """After a claimed ban, the proof of one of ten attempts may only lead to a full ban."""
    judged = proven_in_one_call(Driven((GUESS,)), [SENDER], 10)

    decisions = [judgement.decision for judgement in judged if judgement.decision is not None]
    assert [decision.scope for decision in decisions] == [Scope.SIP_UDP]


def test_the_ban_of_a_prefix_is_not_replaced_by_that_of_a_member() -> None:
    """If a proof completes the count of a prefix, the prefix is banned, though its sender is due too."""
    prefix = next(rule for rule in RULES if rule.by is By.PREFIX)
    prefix = evolve(prefix, attempts=2, addresses=2)
    detector = Driven((evolve(GUESS, attempts=2), prefix))
    judged = proven_in_one_call(detector, ["203.0.113.1", "203.0.113.2"], 2)

    decisions = [one.decision for one in judged if one.decision is not None]
    full = [str(decision.subject) for decision in decisions if decision.scope in WHOLE_SCOPES]
    assert full == ["203.0.113.1/32", "203.0.113.0/24"]


def test_what_is_set_can_be_read() -> None:
    """The exempt networks, the number of waiting reports and the subject of an address can be read."""
    detector = Driven(RULES, exempt=OWN)
    assert detector.exempt is OWN
    assert detector.waiting == 0
    assert detector.subject_of(ip_address("2001:db8::7")) == ip_network("2001:db8::/64")


def test_the_same_rules_change_nothing() -> None:
    """New settings with the same rules clear no alarm and keep all counts."""
    detector = Driven(RULES)
    for now in range(4):
        detector.judged(attempt(SENDER, float(now)), float(now))
    assert detector.configure(RULES, KnownSources()) == ()
    assert detector.judged(attempt(SENDER, 4.0), 4.0).decision is not None


def test_a_banned_subject_is_not_watched() -> None:
    """A banned subject is not among the watched; after an unban its attempts count from zero."""
    detector = Driven(RULES)
    for now in range(4):
        detector.judged(attempt(SENDER, float(now)), float(now))
    assert len(detector.watched(4.0)) == 1
    detector.bans.assume(ip_network(SENDER), Scope.FULL, 600.0)
    assert detector.watched(4.0) == []
    unban(detector)
    assert detector.judged(attempt(SENDER, 5.0), 5.0).decision is None
