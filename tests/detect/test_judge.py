"""The judge: the evidence of its decisions, and how near each rule is.

The transcripts test which attempts lead to which ban.
"""

from ipaddress import ip_address

from attrs import evolve
from tests.detect.driven import Driven
from tests.detect.events import attempt

from ringfence.detect.friends import Friends
from ringfence.detect.rules import RULES, Of
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.friend import Friend, FriendReason


def made(address: str, what: str, account: str, time: float = 0.0) -> Attempt:
    """Return a guess or a probe; with ``?`` behind *what* its address is only claimed."""
    kind = AttemptKind.PROBE if what == "probe" else AttemptKind.GUESS
    proof = Proof.CLAIMED if what.endswith("?") else Proof.NONCE
    return attempt(address, time, kind=kind, proof=proof, account=account)


def friendly() -> Driven:
    """Return a detector that knows a phone at 192.0.2.7, with account 204."""
    friends = Friends()
    friends.add(Friend("pbx", ip_address("192.0.2.7"), "204", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e9))
    return Driven(RULES, friends=friends)


def test_the_evidence_of_a_full_ban_leaves_out_claims_first() -> None:
    """If there are more attempts than the rule needs, the earliest claims are left out."""
    detector = Driven(RULES)
    kinds = ["guess", "guess", "guess", "guess?", "guess?", "guess"]
    decisions = [
        detector.judged(made("192.0.2.7", what, "a", float(time)), float(time)).decision
        for time, what in enumerate(kinds)
    ]
    assert decisions[-1] is not None
    assert [one.time for one in decisions[-1].attempts] == [0.0, 1.0, 2.0, 4.0, 5.0]


def test_how_near_a_friend_is_names_the_window_of_the_nearer_number() -> None:
    """The count names the window that is nearer to its number.

    Ten guesses at one account are nearest to 22 within 30 s. Later two of them count, of 20 within 10 min.
    """
    detector = friendly()
    for _ in range(10):
        detector.judged(made("192.0.2.7", "guess", "777"), 0.0)

    for now, have, number, window in ((1.0, 10, 22, 30.0), (60.0, 2, 20, 600.0)):
        counts = detector.summary_of(ip_address("192.0.2.7"), now).counts
        [guess] = [count for count in counts if count.rule.name == "guess"]
        assert (guess.have, guess.number, guess.within) == (have, number, window)


def test_how_near_each_rule_is_can_be_asked() -> None:
    """The summary shows each rule's count, its proven part, and when the first attempt leaves the window."""
    detector = Driven(RULES)
    for number, what in enumerate(("guess", "guess?", "probe")):
        detector.judged(made("192.0.2.7", what, "a", float(number)), float(number))
    story = detector.summary_of(ip_address("192.0.2.7"), 3.0)
    counts = {c.rule.name: (c.have, c.number, c.proven, c.ends) for c in story.counts}
    assert counts["guess"] == (2, 5, 1, 600.0)
    assert counts["probe"] == (1, 3, 1, 3_602.0)
    assert counts["slow"] == (3, 20, 2, 86_400.0)
    assert counts["prefix"] == (2, 20, 2, 3_600.0)
    assert counts["manager"] == (0, 3, 0, None)
    assert [one.kind for one in story.attempts] == [AttemptKind.GUESS, AttemptKind.GUESS, AttemptKind.PROBE]
    assert (str(story.subject), story.exempt, story.friends) == ("192.0.2.7/32", False, ())


def test_a_friends_counts_are_those_for_friends() -> None:
    """A friend's summary shows the counts and numbers that apply to friends."""
    detector = friendly()
    for account in ("204", "x1", "x2"):
        detector.judged(made("192.0.2.7", "guess", account), 0.0)
    counts = {
        c.rule.name: (c.have, c.number) for c in detector.summary_of(ip_address("192.0.2.7"), 1.0).counts
    }
    assert (counts["guess"], counts["enumeration"]) == ((2, 20), (2, 20))


def test_claims_decide_on_no_second_claimed_ban() -> None:
    """Where only a full ban may follow, claimed attempts ban nothing and ask for no place in the limit."""
    detector = Driven(RULES)
    claim = made("198.51.100.7", "guess?", "a")
    subject = detector._subjects.find(claim.address)
    kept = [detector._history.add(subject.key, claim, float(number)) for number in range(5)]
    assert detector._judge.decide(subject, kept[-1], claim, 5.0, narrowed=True) is None
    assert not detector._claims.refused


def test_a_rule_can_count_values_of_any_field() -> None:
    """Three calls in one session count once for a rule that counts sessions, of strangers and of friends."""
    [probe] = [rule for rule in RULES if rule.name == "probe"]
    sessions = evolve(probe, friends=3, of=Of("session", one="call", several="calls"))
    detector = Driven((sessions,), friends=friendly().friends)
    for address in ("192.0.2.7", "198.51.100.7"):
        calls = [evolve(made(address, "probe", "a"), session=one) for one in (1, 1, 1, 2, 3)]
        decisions = [detector.judged(call, 0.0).decision for call in calls[:-1]]
        [count] = detector.summary_of(ip_address(address), 0.0).counts

        assert decisions == [None] * 4
        assert (count.have, count.number, count.rule.one, count.rule.several) == (2, 3, "call", "calls")
        assert detector.judged(calls[-1], 0.0).decision is not None
