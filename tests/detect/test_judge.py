"""The judge: tables of rules applied to the attempts of subjects.

A line of a transcript is ``TIME ADDRESS WHAT ACCOUNT -> RULE NETWORK SCOPE``, or ``-> -`` where no ban
follows. WHAT is ``guess`` (a known account), ``unknown``, ``probe`` or ``manager``, with ``?`` behind it
where the address is only claimed.
"""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.driven import Driven
from tests.detect.events import attempt

from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Disposition
from ringfence.detect.rules import RULES, Claimed
from ringfence.model import Attempt, AttemptKind, EventKind, Friend, FriendReason, Proof, Scope

KINDS = {"probe": AttemptKind.PROBE, "manager": AttemptKind.MANAGER}
DECOYS = tuple(evolve(rule, accounts=frozenset({"100"})) if rule.name == "decoy" else rule for rule in RULES)


def made(address: str, what: str, account: str, time: float = 0.0) -> Attempt:
    """Return the attempt of a line."""
    kind = KINDS.get(what.removesuffix("?"), AttemptKind.GUESS)
    proof = Proof.CLAIMED if what.endswith("?") else Proof.NONCE
    told = attempt(address, time, kind=kind, proof=proof, account=account)
    unknown = what.startswith("unknown")
    return evolve(told, event=EventKind.INVALID_ACCOUNT_ID if unknown else told.event)


def play(detector: Driven, transcript: str) -> None:
    """Judge the attempts of a transcript and compare the decisions."""
    lines = [" ".join(line.split()) for line in transcript.strip().splitlines()]
    played = []
    for line in lines:
        left = line.partition(" -> ")[0]
        time, address, what, account = left.split()
        decision = detector.judged(made(address, what, account, float(time)), float(time)).decision
        follows = f"{decision.rule.name} {decision.subject} {decision.scope}" if decision else "-"
        if decision is not None and decision.seconds is not None:
            detector.bans.assume(decision.subject, decision.scope, float(time) + decision.seconds)
        played.append(f"{left} -> {follows}")
    assert played == lines


def friendly(
    *accounts: str, tie: FriendReason = FriendReason.AUTHENTICATED, claimed: Claimed | None = None
) -> Driven:
    """Return a detector that knows phones at 192.0.2.7."""
    friends = Friends()
    for account in accounts:
        friends.add(Friend("pbx", ip_address("192.0.2.7"), account, tie, 0.0, 0.0, 1e9))
    return Driven(RULES, friends=friends, claimed=claimed)


def test_claimed_guesses_are_a_narrow_ban_and_proven_ones_a_full_one() -> None:
    """Claimed guesses are a narrow ban at the same number as proven ones are a full one.

    An address that is proven during its narrow ban is banned in full.
    """
    play(
        Driven(RULES),
        """
        0 192.0.2.7 guess? a -> -
        1 192.0.2.7 guess? a -> -
        2 192.0.2.7 guess? a -> -
        3 192.0.2.7 guess? a -> -
        4 192.0.2.7 guess? a -> guess 192.0.2.7/32 sip-udp
        5 192.0.2.7 guess? a -> -
        6 192.0.2.7 guess  a -> -
        7 192.0.2.7 guess  a -> -
        8 192.0.2.7 guess  a -> -
        9 192.0.2.7 guess  a -> guess 192.0.2.7/32 full
        """,
    )


def test_the_last_of_a_full_bans_attempts_may_be_claimed() -> None:
    """One claimed attempt of a full ban is allowed, as the last request has no answer yet; two are not."""
    play(
        Driven(RULES),
        """
        0 192.0.2.7 guess  a -> -
        1 192.0.2.7 guess  a -> -
        2 192.0.2.7 guess  a -> -
        3 192.0.2.7 guess? a -> -
        4 192.0.2.7 guess? a -> guess 192.0.2.7/32 sip-udp
        5 192.0.2.7 guess  a -> guess 192.0.2.7/32 full
        """,
    )


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


def test_three_unknown_accounts_are_an_enumeration() -> None:
    """Three different accounts that do not exist are an enumeration; a repeated one is a guess at most."""
    play(
        Driven(RULES),
        """
        0 192.0.2.7 unknown a -> -
        1 192.0.2.7 unknown a -> -
        2 192.0.2.7 unknown b -> -
        3 192.0.2.8 guess   a -> -
        3 192.0.2.8 guess   b -> -
        3 192.0.2.8 guess   c -> -
        4 192.0.2.7 unknown c -> enumeration 192.0.2.7/32 full
        """,
    )


def test_twenty_in_a_day_are_slow() -> None:
    """Twenty attempts in a day are slow, although they are too rare for any other rule."""
    lines = [f"{n * 4000} 192.0.2.7 guess a -> -" for n in range(19)]
    play(Driven(RULES), "\n".join([*lines, "76000 192.0.2.7 guess a -> slow 192.0.2.7/32 full"]))


def test_three_probes_in_an_hour_and_three_manager_logins() -> None:
    """Three probes in an hour, or three manager logins, are a ban, each of their own kind alone."""
    play(
        Driven(RULES),
        """
        0    192.0.2.7 probe   900 -> -
        0    192.0.2.8 manager adm -> -
        1000 192.0.2.7 probe   900 -> -
        2000 192.0.2.7 probe   900 -> probe 192.0.2.7/32 full
        100  192.0.2.8 manager adm -> -
        200  192.0.2.8 manager adm -> manager 192.0.2.8/32 full
        """,
    )


def test_a_decoy_is_a_ban_at_once_where_it_is_proven() -> None:
    """One proven attempt at a decoy is a ban; a single claimed datagram bans nothing here either."""
    play(
        Driven(DECOYS),
        """
        0 192.0.2.7 guess    100 -> decoy 192.0.2.7/32 full
        0 192.0.2.8 unknown? 100 -> -
        1 192.0.2.8 unknown? 100 -> decoy 192.0.2.8/32 sip-udp
        0 192.0.2.9 guess    101 -> -
        """,
    )


@pytest.mark.parametrize(
    ("addresses", "network"),
    [
        ([f"192.0.2.{n}" for n in range(1, 6)], "192.0.2.0/24"),
        ([f"2001:db8:1:{n:x}::1" for n in range(1, 6)], "2001:db8:1::/48"),
    ],
)
def test_attempts_from_many_addresses_of_a_network_ban_it(addresses: list[str], network: str) -> None:
    """The twentieth attempt bans the network, after four by each address; the attempts are the evidence."""
    detector = Driven(RULES)
    decisions = [
        detector.judged(made(address, "guess", "a"), float(number)).decision
        for number in range(4)
        for address in addresses
    ]
    assert [decision is None for decision in decisions] == [True] * 19 + [False]
    decision = decisions[-1]
    assert decision is not None
    assert (decision.rule.name, str(decision.subject), len(decision.attempts)) == ("prefix", network, 20)
    assert {str(one.address) for one in decision.attempts} == set(addresses)


def test_claimed_attempts_ban_no_network() -> None:
    """Claimed attempts ban no network, so a forger of its addresses does not have it banned."""
    detector = Driven(RULES)
    for number in range(100):
        judged = detector.judged(made(f"192.0.2.{number}", "guess?", "a"), 0.0)
        assert judged.decision is None


def test_where_a_friend_lives_each_neighbour_is_banned_for_himself() -> None:
    """In a friend's network each neighbour is banned alone, and the friend is not.

    The ban follows a neighbour's second attempt, once the network has made enough for a ban.
    """
    detector = friendly("204")
    for number in range(20):
        guess = made(f"192.0.2.{100 + number}", "guess", f"a{number}")
        assert detector.judged(guess, 0.0).decision is None
    again = detector.judged(made("192.0.2.100", "guess", "b"), 1.0).decision
    assert again is not None
    assert (again.rule.name, str(again.subject)) == ("prefix", "192.0.2.100/32")
    assert detector.judged(made("192.0.2.200", "guess", "b"), 1.0).decision is None
    assert detector.judged(made("192.0.2.7", "guess", "204"), 1.0).decision is None


def test_the_neighbours_in_a_friends_64_are_one() -> None:
    """The neighbours in a friend's /64 are counted and banned as one, and the friend is not.

    A sender has all of its /64.
    """
    detector = friendly()
    detector.friends.add(
        Friend("pbx", ip_address("2001:db8::7"), "204", FriendReason.REACHABLE, 0.0, 0.0, 1e9)
    )
    judged = [detector.judged(made(f"2001:db8::{number}", "guess", "a"), 0.0) for number in range(100, 105)]
    assert [str(j.decision.subject) for j in judged if j.decision] == ["2001:db8::/64"]
    detector.bans.assume(judged[-1].subject, Scope.FULL, 100.0)
    assert detector.judged(made("2001:db8::7", "guess", "204"), 0.0).disposition is Disposition.FRIEND


def test_two_addresses_are_no_rotation() -> None:
    """Two addresses are no rotation, as three of a network must take part."""
    detector = Driven(RULES)
    for number in range(8):
        assert detector.judged(made(f"198.51.100.{number % 2}", "guess", "a"), 0.0).decision is None


def test_an_account_under_distributed_attack_takes_two_failures_of_a_stranger() -> None:
    """While eight addresses fail on an account within an hour, a stranger's second failure is a ban.

    The attack raises one alarm, which clears when the attack is over.
    """
    detector = Driven(RULES)
    for number in range(8):
        assert detector.judged(made(f"198.51.{number}.1", "guess", "204"), 0.0).decision is None
    assert [(n.code, n.subject) for n in detector.take_alarms()] == [("attack.distributed", "204 of pbx")]
    play(
        detector,
        """
        1 203.0.113.1 guess  204 -> -
        2 203.0.113.1 guess  204 -> distributed 203.0.113.1/32 full
        3 203.0.113.2 guess  205 -> -
        4 203.0.113.2 guess  205 -> -
        5 203.0.113.3 guess? 204 -> -
        6 203.0.113.3 guess? 204 -> distributed 203.0.113.3/32 sip-udp
        """,
    )
    assert detector.take_alarms() == []
    detector.tick(3_700.0)
    assert [(n.code, n.cleared) for n in detector.take_alarms()] == [("attack.distributed", True)]


def test_an_account_that_does_not_exist_is_not_under_distributed_attack() -> None:
    """An account that does not exist is not under distributed attack, because every scanner tries 100."""
    detector = Driven(RULES)
    for number in range(20):
        detector.judged(made(f"198.51.{number}.1", "unknown", "100"), 0.0)
    assert detector.take_alarms() == []


def test_a_broken_phone_of_a_friend_leads_to_no_ban() -> None:
    """A friend that fails every five seconds for a day, on its own or a new account, is not banned."""
    detector = friendly("204")
    for number in range(2_000):
        for account in ("204", "777"):
            judged = detector.judged(made("192.0.2.7", "guess", account, number * 5.0), number * 5.0)
            assert (judged.decision, judged.disposition) == (None, Disposition.FRIEND)
    assert {(n.code, n.subject) for n in detector.take_alarms()} == {
        ("phone.broken", "204 at 192.0.2.7"),
        ("phone.failing", "777 at 192.0.2.7"),
    }


def test_how_near_a_friend_is_names_the_window_of_the_nearer_number() -> None:
    """The count names the window that is nearer to its number.

    Ten guesses at once are nearer to 30 within 15 s; a minute later they are ten of 180 within 10 min.
    """
    detector = friendly("204")
    for _ in range(10):
        detector.judged(made("192.0.2.7", "guess", "777"), 0.0)

    for now, number, window in ((1.0, 30, 15.0), (60.0, 180, 600.0)):
        counts = detector.summary_of(ip_address("192.0.2.7"), now).counts
        [guess] = [count for count in counts if count.rule.name == "guess"]
        assert (guess.have, guess.number, guess.within) == (10, number, window)


def test_a_friend_that_tries_many_accounts_is_banned() -> None:
    """A friend is banned for the twentieth account that never worked there; its own accounts do not count."""
    detector = friendly("204", "205")
    for number in range(19):
        assert detector.judged(made("192.0.2.7", "guess", f"x{number}"), float(number)).decision is None
    assert detector.judged(made("192.0.2.7", "guess", "205"), 20.0).decision is None
    assert detector.judged(made("192.0.2.7", "guess", "x3"), 20.0).decision is None
    decision = detector.judged(made("192.0.2.7", "unknown", "x19"), 21.0).decision
    assert decision is not None
    assert decision.rule.name == "enumeration"


@pytest.mark.parametrize(("number", "every"), [(30, 0.5), (180, 3.3)])
def test_a_friend_that_guesses_elsewhere_at_full_speed_is_banned(number: int, every: float) -> None:
    """A friend that guesses at full speed on another account is banned, since no phone retries that fast.

    No phone tries twice a second, or every three seconds for long, on an account that never worked there.
    """
    detector = friendly("204")
    for index in range(number - 1):
        assert detector.judged(made("192.0.2.7", "guess", "205"), index * every).decision is None
    decision = detector.judged(made("192.0.2.7", "guess", "205"), (number - 1) * every).decision
    assert decision is not None
    assert decision.rule.name == "guess"


@pytest.mark.parametrize(("account", "every"), [("204", 0.01), ("205", 5.0)])
def test_a_broken_phone_is_never_banned(account: str, every: float) -> None:
    """A phone is not banned on its own account at any speed, nor a new one every five seconds for hours."""
    detector = friendly("204")
    for number in range(3_000):
        assert detector.judged(made("192.0.2.7", "guess", account), number * every).decision is None


def test_a_trunk_is_never_banned() -> None:
    """A trunk is never banned, whatever fails there, and however fast."""
    detector = friendly("204", tie=FriendReason.TRUNK)
    for number in range(1_000):
        assert detector.judged(made("192.0.2.7", "guess", f"x{number}"), number * 0.01).decision is None


def test_an_account_that_pjsip_does_not_have_is_no_account() -> None:
    """PJSIP's ``<unknown>`` is no account, so addresses that fail on it do not attack one together."""
    detector = Driven(RULES)
    for number in range(20):
        detector.judged(made(f"198.51.{number}.1", "guess", "<unknown>"), 0.0)
    assert detector.take_alarms() == []
    for number in range(3):
        assert detector.judged(made("203.0.113.7", "unknown", "<unknown>"), float(number)).decision is None


def test_twenty_claimed_attempts_are_a_ban_of_a_day() -> None:
    """Twenty claimed attempts within a day are a ban by ``slow``, with the full length of that rule.

    The bans of other rules are short if they are only claimed.
    """
    detector = friendly("204")
    found = []
    for number in range(20):
        now = number * 600.0
        judged = detector.judged(made("198.51.100.7", "guess?", "a"), now)
        if judged.decision is not None:
            found.append(judged.decision)
    assert [(one.rule.name, one.scope, one.seconds) for one in found] == [("slow", Scope.SIP_UDP, 86_400.0)]
    assert detector.judged(made("198.51.100.7", "guess?", "a"), 12_600.0).decision is None


def test_claims_under_a_friends_address_ban_nothing() -> None:
    """Claimed attempts in a friend's name ban nothing, whatever their kind and number."""
    detector = friendly("204")
    for number in range(1_000):
        assert detector.judged(made("192.0.2.7", "unknown?", f"x{number}"), number * 0.01).decision is None


def test_a_phones_word_is_no_proof() -> None:
    """A contact that only claims its address is exempt from claims, not from proven attempts."""
    detector = friendly("204", tie=FriendReason.REGISTERED)
    for number in range(20):
        assert detector.judged(made("192.0.2.7", "guess?", "a"), float(number)).decision is None
    decisions = [detector.judged(made("192.0.2.7", "guess", "a"), 20.0 + n).decision for n in range(5)]
    assert [decision is not None for decision in decisions] == [False] * 4 + [True]


def test_so_many_claimed_bans_a_minute() -> None:
    """Beyond so many claimed bans a minute an alarm reports spoofing; proven addresses are still banned."""
    detector = friendly("204", claimed=Claimed(per_minute=3))
    banned = 0
    for number in range(50):
        for _ in range(6):
            judged = detector.judged(made(f"198.51.100.{number}", "guess?", "a"), number * 0.1)
            if judged.decision is not None:
                detector.bans.assume(judged.decision.subject, judged.decision.scope, 600.0)
                banned += 1
    assert banned == 3
    assert {notice.code for notice in detector.take_alarms()} == {"attack.spoofing"}
    nothing = "9 203.0.113.1 guess a -> -\n"
    play(detector, 4 * nothing + "9 203.0.113.1 guess a -> guess 203.0.113.1/32 full")


def test_a_rule_that_is_off_does_nothing() -> None:
    """A disabled rule does nothing, and makes no other rule stricter."""
    rules = tuple(evolve(rule, enabled=rule.name != "guess") for rule in RULES)
    detector = Driven(rules)
    for number in range(19):
        assert detector.judged(made("192.0.2.7", "guess", "a"), float(number)).decision is None


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
    detector = friendly("204")
    for account in ("204", "x1", "x2"):
        detector.judged(made("192.0.2.7", "guess", account), 0.0)
    counts = {
        c.rule.name: (c.have, c.number) for c in detector.summary_of(ip_address("192.0.2.7"), 1.0).counts
    }
    assert (counts["guess"], counts["enumeration"]) == ((2, 30), (2, 20))


def test_a_refused_guesser_that_persists_is_banned() -> None:
    """A guesser that was refused a claimed ban is banned if it persists, whatever a forger does."""
    detector = friendly("204", claimed=Claimed(per_minute=1))
    first = [detector.judged(made("198.51.100.1", "guess?", "a"), 0.0).decision for _ in range(5)]
    assert first[-1] is not None
    banned_after = next(
        number
        for number in range(1, 100)
        if detector.judged(made("203.0.113.1", "guess?", "a"), number * 0.5).decision is not None
    )
    assert banned_after == 25  # ten seconds after the fifth, with more than twenty made


def test_a_claimed_attempt_of_a_friend_decides_and_forgets_nothing() -> None:
    """A claimed attempt of a friend does not decide, and a proven one that follows does.

    Without the wire claims are counted.
    """
    detector = friendly("204")
    for number in range(25):
        what = "guess?" if number == 19 else "guess"
        judged = detector.judged(made("192.0.2.7", what, f"x{number}"), float(number))
        assert (judged.decision is None) == (number != 20)
        if judged.decision is not None:
            break


def test_outage_mode_exempts_what_worked_and_nothing_else() -> None:
    """Outage mode exempts accounts that worked at the address, so an attacker there gains nothing."""
    detector = friendly(*[str(200 + n) for n in range(6)])
    for number in range(6):
        detector.judged(made("192.0.2.7", "guess", str(200 + number)), 0.0)
    assert detector.friends.outage_mode
    for number in range(2_000):
        assert detector.judged(made("192.0.2.7", "guess", "200"), number * 0.01).decision is None
    decisions = [detector.judged(made("192.0.2.7", "guess", f"x{n}"), 20.0).decision for n in range(20)]
    assert [decision is not None for decision in decisions] == [False] * 19 + [True]


def test_offices_with_other_account_names_are_not_banned_in_an_outage() -> None:
    """Offices whose phones use other names than Asterisk's endpoints are not banned in an outage.

    Asterisk names its endpoints and phones their users, so no phone is known by name.
    """
    friends = Friends()
    for office in range(4):
        for number in range(50):
            reason = Friend(
                "pbx", ip_address(f"198.51.{office}.7"), f"t{office}-{number}", FriendReason.TRUNK, 0, 0, 1e9
            )
            friends.add(reason)
    detector = Driven(RULES, friends=friends)
    for number in range(8_000):
        told = made(f"198.51.{number % 4}.7", "unknown", str(number // 4 % 50), number * 0.1)
        assert detector.judged(told, number * 0.1).decision is None
    assert "phones.all_failing" in {notice.code for notice in detector.take_alarms()}


def test_a_partly_proven_guesser_meets_the_limit_of_claimed_bans() -> None:
    """Five attempts of which one is proven are a claim, and beyond the limit they ban nothing."""
    detector = friendly(claimed=Claimed(per_minute=1))
    claims = "0 198.51.100.1 guess? a -> -\n"
    play(detector, 4 * claims + "0 198.51.100.1 guess? a -> guess 198.51.100.1/32 sip-udp")
    assert detector.take_alarms() == []
    play(detector, "1 203.0.113.1 guess a -> -\n" + 4 * "1 203.0.113.1 guess? a -> -\n")
    assert {change.code for change in detector.take_alarms()} == {"attack.spoofing"}


def test_claims_decide_on_no_second_claimed_ban() -> None:
    """Where only a full ban may follow, claimed attempts ban nothing and ask for no place in the limit."""
    detector = friendly()
    claim = made("198.51.100.7", "guess?", "a")
    subject = detector._subjects.of(claim.address)
    kept = [detector._history.add(subject.key, claim, float(number)) for number in range(5)]
    assert detector._judge.decide(subject, kept[-1], claim, 5.0, narrowed=True) is None
    assert not detector._claims.refused
