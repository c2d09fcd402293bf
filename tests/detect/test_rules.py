"""The default rules."""

import pytest

from ringfence.detect.judge import claimed_for, proven_for
from ringfence.detect.rules import (
    DAY,
    HOUR,
    MINUTE,
    RETURN_WITHIN,
    RULES,
    By,
    Claimed,
    FriendLimit,
    Rule,
    counted_rule,
    is_proven,
)
from ringfence.values.attempt import AttemptKind, Proof
from ringfence.values.ban import Scope

BY_NAME = {rule.name: rule for rule in RULES}
GUESS, FLOOD = BY_NAME["guess"], BY_NAME["flood"]


def test_guess_is_five_in_ten_minutes() -> None:
    """The default rule ``guess`` counts guesses only, no misdialled calls and no manager logins."""
    expected = Rule(
        name="guess",
        meaning="somebody tries passwords or accounts",
        counts=frozenset({AttemptKind.GUESS}),
        attempts=5,
        window=10 * MINUTE,
        ban=(HOUR, 6 * HOUR, DAY, 7 * DAY),
        friends=180,
        limits=(FriendLimit(20, 30.0, more=2), FriendLimit(20, 10 * MINUTE, each=2)),
        scope=Scope.SIP,
    )
    assert expected == GUESS


@pytest.mark.parametrize(
    ("name", "attempts", "window", "ban"),
    [
        ("enumeration", 3, 10 * MINUTE, GUESS.ban),
        ("slow", 20, DAY, (DAY,)),
        ("probe", 3, HOUR, GUESS.ban),
        ("prefix", 20, HOUR, (DAY,)),
        ("distributed", 8, HOUR, GUESS.ban),
        ("decoy", 1, DAY, (7 * DAY,)),
        ("manager", 3, 10 * MINUTE, (DAY,)),
        ("unexplained", 20, 9 * MINUTE, GUESS.ban),
    ],
)
def test_the_numbers_are_those_that_are_promised(
    name: str, attempts: int, window: float, ban: tuple[float, ...]
) -> None:
    """Each rule has the documented number, window and lengths of bans."""
    rule = BY_NAME[name]
    assert (rule.attempts, rule.window, rule.ban, rule.enabled) == (attempts, window, ban, True)


def test_friends_have_higher_limits() -> None:
    """Of a friend, these rules need so many attempts, and the other rules do not apply."""
    limits = {
        rule.name: [(one.number, one.window, one.each, one.more) for one in rule.for_friends]
        for rule in RULES
        if rule.for_friends
    }
    assert limits == {
        "guess": [(180, 600.0, 0, 0), (20, 30.0, 0, 2), (20, 600.0, 2, 0)],
        "enumeration": [(20, 600.0, 0, 0)],
        "probe": [(300, 3_600.0, 0, 0)],
        "manager": [(300, 600.0, 0, 0)],
        "slow": [(60, 86_400.0, 2, 0)],
        "unexplained": [(12, 540.0, 0, 0)],
    }


@pytest.mark.parametrize(("accounts", "needed"), [(0, 20), (1, 22), (10, 40), (11, 40)])
def test_a_friends_limit_grows_with_its_accounts(accounts: int, needed: int) -> None:
    """Each account raises the limit, and from the eleventh on none does."""
    assert FriendLimit(20, 30.0, more=2).needed(accounts) == needed


def test_each_rule_counts_its_kinds_of_attempts() -> None:
    """A rule counts these kinds of attempts, of one sender unless it names another group."""
    guess, probe, manager = AttemptKind.GUESS, AttemptKind.PROBE, AttemptKind.MANAGER
    assert {rule.name: ({*rule.counts}, rule.by) for rule in RULES} == {
        "guess": ({guess}, By.SUBJECT),
        "decoy": ({guess, manager}, By.SUBJECT),
        "enumeration": ({guess}, By.SUBJECT),
        "probe": ({probe}, By.SUBJECT),
        "manager": ({manager}, By.SUBJECT),
        "slow": ({guess, probe}, By.SUBJECT),
        "prefix": ({guess, probe, manager}, By.PREFIX),
        "distributed": ({guess}, By.ACCOUNT),
        "unexplained": ({AttemptKind.UNEXPLAINED}, By.SUBJECT),
        "flood": ({AttemptKind.FLOOD}, By.SUBJECT),
    }


def test_some_rules_have_a_condition_of_their_own() -> None:
    """These are the rules with more conditions than a number of attempts."""
    assert {rule.name for rule in RULES if rule.of.unknown} == {"enumeration"}
    assert {rule.name: rule.addresses for rule in RULES if rule.addresses} == {"prefix": 3}
    assert {rule.name: rule.strangers for rule in RULES if rule.strangers} == {"distributed": 2}
    assert {rule.name: rule.accounts for rule in RULES if rule.accounts is not None} == {"decoy": frozenset()}
    assert {rule.name for rule in RULES if rule.insists} == {"slow"}


def test_bans_on_unproven_evidence_are_short_and_few() -> None:
    """They last ten minutes, half an hour and two hours on return within a day, 600 of them a minute."""
    claimed = Claimed()
    assert (claimed.ban, claimed.returns_within) == ((600.0, 1_800.0, 7_200.0), 86_400.0)
    assert claimed.per_minute == 600


@pytest.mark.parametrize(
    ("name", "one", "several"),
    [
        ("guess", "guess", "guesses"),
        ("enumeration", "account that does not exist", "accounts that do not exist"),
        ("slow", "attempt", "attempts"),
    ],
)
def test_a_rule_has_words_for_what_it_counts(name: str, one: str, several: str) -> None:
    """The words are those of the rule, of its only kind of attempts, or those for attempts."""
    assert (BY_NAME[name].one, BY_NAME[name].several) == (one, several)


@pytest.mark.parametrize(("number", "proven", "claimed"), [(1, 1, 2), (2, 1, 2), (3, 2, 3), (5, 4, 5)])
def test_a_full_ban_takes_all_but_one_proven(number: int, proven: int, claimed: int) -> None:
    """A full ban allows one unproven attempt, and one datagram alone, which may be forged, bans nothing."""
    assert (proven_for(number), claimed_for(number)) == (proven, claimed)


def test_what_is_more_than_claimed_is_proven() -> None:
    """A nonce that came back and a handshake are proofs, and a claim is not."""
    assert [is_proven(proof) for proof in Proof] == [False, True, True]


def test_flood_is_ten_seconds_over_the_limit_and_closes_the_sip_ports() -> None:
    """The rule ``flood`` bans UDP to the SIP ports for ten minutes, as a datagram's address may be forged."""
    expected = Rule(
        name="flood",
        meaning="somebody floods the SIP ports",
        counts=frozenset({AttemptKind.FLOOD}),
        attempts=10,
        window=15.0,
        ban=(10 * MINUTE,),
        scope=Scope.SIP_UDP,
    )
    assert expected == FLOOD


def test_only_what_no_person_does_closes_every_port() -> None:
    """Bans for wrong passwords and numbers close the SIP ports only, and no web page and no SSH."""
    of = {scope: {rule.name for rule in RULES if rule.scope is scope} for scope in Scope}
    assert of == {
        Scope.FULL: {"enumeration", "manager"},
        Scope.SIP: {"guess", "decoy", "probe", "slow", "prefix", "distributed"},
        Scope.SIP_TCP: {"unexplained"},
        Scope.SIP_UDP: {"flood"},
    }


@pytest.mark.parametrize(
    ("before", "length"), [(0, HOUR), (1, 6 * HOUR), (2, DAY), (3, 7 * DAY), (4, 7 * DAY), (1000, 7 * DAY)]
)
def test_bans_grow_longer_on_return(before: int, length: float) -> None:
    """Each ban within the time of return is the next longer one, and the last length stays."""
    assert GUESS.ban_for(before) == length


def test_a_rule_with_one_length_keeps_it() -> None:
    """With a single length every ban is of that length."""
    rule = Rule("r", "m", frozenset(), 1, 1.0, (HOUR,))
    assert [rule.ban_for(before) for before in (0, 1, 9)] == [HOUR] * 3


def test_return_is_within_thirty_days() -> None:
    """The time of return is thirty days, in seconds."""
    assert RETURN_WITHIN == 30 * 24 * 3600


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_can_be_used(rule: Rule) -> None:
    """Names are unique, a window can count each number, and bans never get shorter."""
    assert [other.name for other in RULES].count(rule.name) == 1
    assert rule.attempts >= 1
    assert rule.window > 0
    assert rule.counts
    assert list(rule.ban) == sorted(rule.ban)
    assert rule.ban[0] > 0
    assert rule.meaning


def test_bans_are_counted_under_the_names_of_the_rules() -> None:
    """A ban is counted under its rule or the administrator, and under ``other`` if its rule is unknown."""
    rules = "guess", "elsewhere", "bare_address", "admin", "removed"
    assert [counted_rule(rule) for rule in rules] == ["guess", "elsewhere", "bare_address", "admin", "other"]
