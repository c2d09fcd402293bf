"""Transcripts: which attempts lead to which ban."""

from collections.abc import Callable, Iterable
from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.transcripts.reports import (
    AMI,
    ATTACKER,
    BYSTANDER,
    NOTICE,
    PHONE,
    copied,
    failed,
    friend,
    probed,
    report,
    sent,
    wrong,
    wrong_by_notice,
)
from tests.support.transcript import Banned, Entry, Exempt, Player, Step, Unbanned, at, ticks

from ringfence.values.ban import Scope
from ringfence.values.event import EventKind, SecurityEvent, Service, Transport
from ringfence.values.packet import CopiedRequest

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
_CALLS = iter(range(1_000_000))


def guess(address: str = ATTACKER, account: str = "204", *, proven: bool = True) -> SecurityEvent:
    """Return a guess under a Call-ID of its own: by TLS, or by UDP if its address is only claimed."""
    transport = Transport.TLS if proven else Transport.UDP
    return failed(address, b"%d" % next(_CALLS), account=account, transport=transport)


def unknown(
    address: str = ATTACKER, account: str = "100", *, proven: bool = True
) -> tuple[SecurityEvent, SecurityEvent]:
    """Return a guess at an account that does not exist: a request without credentials, and a wrong answer."""
    transport = Transport.TLS if proven else Transport.UDP
    call = b"%d" % next(_CALLS)
    return (
        probed(address, call, account=account, method="", transport=transport),
        failed(address, call, account="<unknown>", transport=transport),
    )


def calls(address: str = ATTACKER, account: str = "100", *, proven: bool = True) -> SecurityEvent:
    """Return a call of a stranger that no ``identify`` matches, without credentials."""
    transport = Transport.TCP if proven else Transport.UDP
    return probed(address, b"%d" % next(_CALLS), account=account, transport=transport)


def claimed(times: Iterable[float], address: str = ATTACKER) -> list[Step]:
    """Return claimed guesses at these times."""
    return [at(time, guess(address, proven=False)) for time in times]


def when(guard: Player, *steps: Step) -> dict[float, list[str]]:
    """Return the bans of each step that leads to one."""
    return {step.time: bans for step in steps if (bans := guard.play(step).bans)}


# -- full bans and claimed ones --------------------------------------------------------------------------


def test_a_full_ban_needs_all_but_one_of_its_attempts_proven() -> None:
    """The last request may not have been answered yet; with two unproven attempts the ban is narrow."""
    for number, bans in (
        (4, ["guess bans 192.0.2.7/32 by sip after 5"]),
        (3, ["guess bans 192.0.2.7/32 by sip-udp for 600 s after 5"]),
    ):
        steps = [at(n, guess(proven=n < number)) for n in range(5)]
        assert Player().play(*steps).bans == bans


def test_proof_of_a_narrowly_banned_address_is_a_full_ban() -> None:
    """Claims from a narrowly banned address change nothing any more; its proven attempts count."""
    guard = Player()
    assert len(guard.play(*claimed(range(5))).bans) == 1
    guard.play(at(5, Banned("192.0.2.7/32", 600.0, Scope.SIP_UDP)))
    assert guard.play(*claimed(range(6, 26))).of("late") == [ATTACKER] * 20
    steps = [at(30 + n, guess()) for n in range(4)]
    assert when(guard, *steps) == {33.0: ["guess bans 192.0.2.7/32 by sip after 5"]}


def test_a_rule_may_close_the_ports_of_asterisk_only() -> None:
    """With scope "sip" a proven ban covers SIP; later attempts are late, and claims still lead to less."""
    for enforced in (False, True):
        guard = Player(changed={"guess": {"scope": Scope.SIP}}, firewall=enforced)
        steps = [at(n, guess()) for n in range(5)]
        assert guard.play(*steps).bans == ["guess bans 192.0.2.7/32 by sip after 5"]
        guard.play(at(5, Banned("192.0.2.7/32", 600.0, Scope.SIP)))
        late = guard.play(*(at(6 + n, guess(proven=n % 2 == 0)) for n in range(10)))
        assert (late.of("late"), late.bans) == ([ATTACKER] * 10, [])
        steps = [at(700 + n, guess()) for n in range(5)]
        assert guard.play(*steps).bans == ["guess bans 192.0.2.7/32 by sip after 5"]
        narrow = guard.play(*claimed(range(800, 805), BYSTANDER))
        assert narrow.bans == [f"guess bans {BYSTANDER}/32 by sip-udp for 600 s after 5"]


def test_the_scope_of_every_rule_reaches_its_ban() -> None:
    """A ban of a prefix has the scope of its rule too; that of a friend covers what it misused."""
    sip = {"scope": Scope.SIP}
    guard = Player(rules=["prefix"], changed={"prefix": sip})
    bans = guard.play(*(at(n, guess(f"192.0.2.{n % 4}")) for n in range(20))).bans
    assert bans == ["prefix bans 192.0.2.0/24 by sip after 20"]

    guard = Player(rules=["guess"], changed={"guess": sip})
    guard.play(at(0, friend(PHONE)))
    bans = guard.play(*(at(1 + n / 10, guess(PHONE, "999")) for n in range(30))).bans
    assert [ban.split(" after")[0] for ban in bans] == [f"guess bans {PHONE}/32 by sip-tcp for 3600 s"]


def test_attempts_that_led_to_a_full_ban_count_no_more() -> None:
    """The next full ban needs five new attempts."""
    assert when(Player(), *(at(n, guess()) for n in range(14))) == {
        4.0: ["guess bans 192.0.2.7/32 by sip after 5"],
        9.0: ["guess bans 192.0.2.7/32 by sip after 5"],
    }


def test_attempts_that_led_to_a_ban_make_room_for_new_ones() -> None:
    """Of the 64 attempts that are kept of an address, those that led to a ban are discarded first."""
    guard = Player(rules=("guess", "slow"), changed={"slow": {"attempts": 62, "window": DAY}})
    guard.play(*(at(n, guess(account=f"{n}")) for n in range(5)))
    assert [*when(guard, *(at(1_000 + 400 * n, guess()) for n in range(62)))] == [1_000.0 + 400 * 61]


def test_claims_that_led_to_a_ban_count_no_more() -> None:
    """The next narrow ban needs five new claims."""
    assert [*when(Player(), *claimed(range(14)))] == [4.0, 9.0]


def test_claims_that_led_to_a_narrow_ban_count_for_a_full_one() -> None:
    """Claims of a narrow ban that are proven later count for a full ban.

    The address is banned in full without new guesses.
    """
    guard = Player()
    guard.play(*(at(n, failed(call=b"one", nonce=b"n")) for n in range(5)))
    assert guard.play(at(6, sent(call=b"one", nonce=b"n"), copied(call=b"one", nonce=b"n"))).bans == [
        "guess bans 192.0.2.7/32 by sip after 5"
    ]


def test_claimed_bans_grow_on_return_within_a_day() -> None:
    """The lengths are 10 min, 30 min, 2 h and again 2 h; after a day without a ban they begin again."""
    guard = Player(rules=("guess",))
    lengths = []
    for start in (0.0, HOUR, 2 * HOUR, 3 * HOUR, 5 * DAY):
        (ban,) = guard.play(*claimed(start + n for n in range(5))).bans
        lengths.append(ban.partition(" for ")[2])
    assert lengths == [
        "600 s after 5",
        "1800 s after 5",
        "7200 s after 5",
        "7200 s after 5",
        "600 s after 5",
    ]


@pytest.mark.parametrize(("later", "length"), [(DAY - 0.1, "1800"), (DAY, "600")])
def test_the_ladder_of_claimed_bans_is_reset_after_a_day(later: float, length: str) -> None:
    """The lengths of claimed bans begin again a day after the last claimed ban."""
    guard = Player(rules=("guess",))
    guard.play(*claimed([0.0] * 5))
    (ban,) = guard.play(*claimed([later] * 5)).bans
    assert ban == f"guess bans 192.0.2.7/32 by sip-udp for {length} s after 5"


def test_the_day_of_return_runs_from_the_last_claimed_ban() -> None:
    """An address that returns every twenty hours is banned for longer each time."""
    guard = Player(rules=("guess",))
    bans = [ban for n in range(3) for ban in guard.play(*claimed([n * 20 * HOUR] * 5)).bans]
    assert [ban.partition(" for ")[2] for ban in bans] == [
        "600 s after 5",
        "1800 s after 5",
        "7200 s after 5",
    ]


def test_so_many_new_claimed_bans_a_minute() -> None:
    """Beyond the limit an alarm reports forged addresses; proven addresses are still banned."""
    guard = Player(claimed_per_minute=3)
    steps = [step for n in range(5) for step in claimed([float(n)] * 5, f"203.0.113.{n}")]
    happened = guard.play(*steps)
    assert [ban.split(" ")[2] for ban in happened.bans] == [f"203.0.113.{n}/32" for n in range(3)]
    assert happened.alarms == ["attack.spoofing"]
    assert len(guard.play(*(at(5, guess()) for _ in range(5))).bans) == 1
    assert len(guard.play(*claimed([60.0] * 5, "203.0.113.100")).bans) == 1
    assert guard.play(*claimed([60.5] * 5, "203.0.113.101")).bans == []


def test_partly_proven_guessers_have_a_limit_of_their_own() -> None:
    """Five attempts of which one is proven are a claim; it competes with other such claims only."""
    guard = Player(claimed_per_minute=1)
    assert guard.play(*claimed([0.0] * 5, BYSTANDER)).alarms == []
    for address, bans, alarms in (
        ("192.0.2.1", ["guess bans 192.0.2.1/32 by sip-udp for 600 s after 5"], []),
        ("192.0.2.2", [], ["attack.spoofing"]),
    ):
        happened = guard.play(at(1, guess(address)), *claimed([1.0] * 4, address))
        assert (happened.bans, happened.alarms) == (bans, alarms)


def test_an_address_that_was_banned_before_needs_no_room_in_the_minute() -> None:
    """A forger that fills every minute does not prevent the ban of an earlier guesser that returns."""
    guard = Player(claimed_per_minute=1)
    guard.play(*claimed(range(5)))
    guard.play(*claimed([100.0] * 5, BYSTANDER))
    assert len(guard.play(*claimed([101.0] * 5)).bans) == 1


def test_an_address_that_returns_takes_no_room_of_the_minute() -> None:
    """An address that was banned before and a new one are banned in the same minute."""
    guard = Player(claimed_per_minute=1)
    guard.play(*claimed(range(5)))
    assert len(guard.play(*claimed([100.0] * 5), *claimed([101.0] * 5, BYSTANDER)).bans) == 2


def test_three_unknown_accounts_are_an_enumeration() -> None:
    """Three different unknown accounts within ten minutes are an enumeration.

    A repeated account, or one that exists, does not count.
    """
    accounts = ["100", "100", "101", "102"]
    assert Player().play(*(at(n, *unknown(account=one)) for n, one in enumerate(accounts))).bans == [
        "enumeration bans 192.0.2.7/32 in full after 3"
    ]
    assert Player().play(*(at(n, guess(account=str(100 + n))) for n in range(4))).bans == []
    assert Player().play(*(at(n, *unknown(account="<unknown>")) for n in range(4))).bans == []


def test_a_claim_at_an_account_does_not_replace_its_proven_attempt() -> None:
    """If a claim follows a proven attempt at the same unknown account, the proven one counts."""
    attempts = [("100", True), ("101", True), ("100", False), ("102", False)]
    steps = [at(n, *unknown(account=one, proven=proven)) for n, (one, proven) in enumerate(attempts)]
    assert Player().play(*steps).bans == ["enumeration bans 192.0.2.7/32 in full after 3"]


@pytest.mark.parametrize(
    ("proven", "scope", "rule"),
    [(True, "FULL", "enumeration"), (True, "SIP", "guess"), (False, "FULL", "guess")],
)
def test_of_two_rules_the_wider_ban_decides_and_then_the_first_rule(
    *, proven: bool, scope: str, rule: str
) -> None:
    """Five guesses at three unknown accounts fill two rules at once; claimed bans are equally narrow.

    ``scope`` is that of ``enumeration``.
    """
    accounts = ["100", "100", "101", "101", "102"]
    guard = Player(changed={"enumeration": {"scope": Scope[scope]}})
    happened = guard.play(*(at(n, *unknown(account=one, proven=proven)) for n, one in enumerate(accounts)))
    assert [ban.split(" ")[0] for ban in happened.bans] == [rule]


def test_a_decoy_is_a_ban_at_once() -> None:
    """One proven attempt at a decoy is a ban; of claims, two are needed for a narrow ban.

    A call at a decoy had no credentials. If it is proven, one is a narrow ban.
    """
    guard = Player(changed={"decoy": {"accounts": frozenset({"100"})}})
    assert guard.play(at(0, *unknown(account="101"))).bans == []
    assert guard.play(at(1, *unknown())).bans == [
        "decoy bans 192.0.2.7/32 by sip-tcp for 600 s after 1",
        "decoy bans 192.0.2.7/32 by sip after 1",
    ]
    assert guard.play(at(2, *unknown(BYSTANDER, proven=False))).bans == []
    assert guard.play(at(3, *unknown(BYSTANDER, proven=False))).bans == [
        "decoy bans 203.0.113.9/32 by sip-udp for 600 s after 1"
    ]


def test_only_attempts_at_a_decoy_count_by_its_rule() -> None:
    """A claimed guess at another account does not count towards the rule ``decoy``."""
    guard = Player(changed={"decoy": {"accounts": frozenset({"100"})}})
    assert guard.play(*claimed([0.0])).bans == []
    assert guard.play(at(1, *unknown(proven=False))).bans == []


def test_twenty_claims_in_a_day_are_slow() -> None:
    """Claims that led to claimed bans count for ``slow``, whose ban has the rule's own length."""
    steps = [at(n * HOUR + m, guess(proven=False)) for n in range(4) for m in range(5)]
    bans = when(Player(), *steps, at(4 * HOUR, guess(proven=False)))
    assert [*bans] == [4.0, HOUR + 4, 2 * HOUR + 4, 3 * HOUR + 4, 4 * HOUR]
    assert bans[4 * HOUR] == ["slow bans 192.0.2.7/32 by sip-udp for 86400 s after 20"]


def test_claims_that_led_to_a_slow_ban_count_no_more() -> None:
    """The next ban by ``slow`` needs twenty new claims."""
    assert [*when(Player(rules=("slow",)), *claimed(range(45)))] == [19.0, 39.0]


def manager(address: str = ATTACKER) -> SecurityEvent:
    """Return a failed manager login."""
    return report(EventKind.INVALID_PASSWORD, address, b"0x1", service=Service.AMI, transport=Transport.TCP)


def test_each_rule_counts_its_own_kinds() -> None:
    """Manager logins are no guesses, and guesses are no manager logins."""
    steps = [
        at(0, guess()),
        at(1, guess()),
        at(2, guess()),
        at(3, guess()),
        at(4, manager()),
        at(5, manager()),
    ]
    assert Player(rules=("guess", "manager")).play(*steps).bans == []


def called() -> SecurityEvent:
    """Return a guest's call by TLS to an extension that does not exist."""
    call = b"%d" % next(_CALLS)
    return report(
        EventKind.FAILED_ACL, call=call, acl="no_extension_match", transport=Transport.TLS, account=""
    )


def test_calls_and_guesses_of_a_day_are_slow_together() -> None:
    """Ten guesses and ten calls to unknown extensions within a day are a ban by ``slow``.

    It is narrow, because the calls had no credentials.
    """
    steps = [at(n * 4_000, guess() if n % 2 else called()) for n in range(20)]
    assert when(Player(), *steps) == {76_000.0: ["slow bans 192.0.2.7/32 by sip-tcp for 600 s after 20"]}


# -- offices whose phones have old passwords


def test_an_office_with_old_passwords_is_named() -> None:
    """A ban for wrong passwords of three existing accounts raises an alarm, and closes SIP only."""
    for scope in (Scope.SIP, Scope.FULL):
        guard = Player(changed={"guess": {"scope": scope}})
        happened = guard.play(*(at(n, guess(account=str(204 + n % 3))) for n in range(5)))
        assert happened.bans == ["guess bans 192.0.2.7/32 by sip after 5"]
        assert happened.alarms == ["office.banned of 192.0.2.7"]


@pytest.mark.parametrize(("accounts", "scope"), [(2, Scope.SIP), (2, Scope.FULL)])
def test_a_guesser_at_two_accounts_is_no_office(accounts: int, scope: Scope) -> None:
    """A ban for wrong passwords of fewer accounts, or of accounts that do not exist, raises no alarm."""
    guard = Player(changed={"guess": {"scope": scope}})
    happened = guard.play(*(at(n, guess(account=str(204 + n % accounts))) for n in range(5)))
    text = "in full" if scope is Scope.FULL else "by sip"
    assert (happened.bans, happened.alarms) == ([f"guess bans 192.0.2.7/32 {text} after 5"], [])
    unknowns = [at(10 + n, *unknown(BYSTANDER, str(n))) for n in range(3)]
    assert guard.play(*unknowns).alarms == []


def refused(number: int) -> list[Entry]:
    """Return what the wire sees of a guess of an office's phone: no reason, and no account that exists."""
    call, nonce = b"office-%d" % number, b"n%d" % number
    return [
        copied(call=call, sequence=1, transport=Transport.TCP),
        sent(call=call, nonce=nonce, sequence=1, transport=Transport.TCP),
        copied(call=call, nonce=nonce, sequence=2, transport=Transport.TCP, registers=str(204 + number)),
        sent(call=call, nonce=b"m%d" % number, sequence=2, transport=Transport.TCP),
    ]


def test_an_office_is_named_when_ami_names_its_accounts_later() -> None:
    """The wire reports five guesses, which is a ban, and AMI then names the accounts of three."""
    guard = Player()
    happened = guard.play(*(at(0.01 * n, *refused(n)) for n in range(5)))
    assert (happened.bans, happened.alarms) == (["guess bans 192.0.2.7/32 by sip after 5"], [])
    alarms = []
    for number in range(5):
        call, nonce = b"office-%d" % number, b"n%d" % number
        report = failed(
            call=call, nonce=nonce, account=str(204 + number), transport=Transport.TCP, response=b"r"
        )
        alarms.append(guard.play(at(1 + number, report)).alarms)
    assert alarms == [[], [], ["office.banned of 192.0.2.7"], [], []]


# -- web pages that make a browser guess


def opened(port: int = 5062, address: str = ATTACKER) -> CopiedRequest:
    """Return the request for a WebSocket by a browser that shows a page of another site."""
    return CopiedRequest(ip_address(address), port, (), (), transport=Transport.TCP, page=True)


def by_page(account: str = "204", port: int = 5062) -> SecurityEvent:
    """Return a guess by WebSocket."""
    return failed(call=b"%d" % next(_CALLS), account=account, transport=Transport.WS, port=port)


def test_the_guesses_of_a_page_close_tcp_only() -> None:
    """A browser that guesses for a page loses the SIP ports by TCP, and is no attacker elsewhere."""
    guard = Player(firewall=True)
    happened = guard.play(at(0, opened()), *(at(n, by_page()) for n in range(5)))
    assert happened.bans == ["guess bans 192.0.2.7/32 by sip-tcp after 5"]
    guard.play(at(5, Banned("192.0.2.7/32", 600.0, Scope.SIP_TCP)))
    happened = guard.play(*(at(6 + n, by_page()) for n in range(9)))
    assert (happened.bans, happened.of("late")) == ([], [ATTACKER] * 9)


def test_an_own_mistake_beside_the_guesses_of_a_page_closes_tcp_only() -> None:
    """Four own guesses and one of a page close TCP; the sender's next five close all SIP ports."""
    guard = Player()
    own = [at(1 + n, by_page(port=5063)) for n in range(4)]
    happened = guard.play(at(0, opened()), *own, at(5, by_page()))
    assert happened.bans == ["guess bans 192.0.2.7/32 by sip-tcp after 5"]
    happened = guard.play(*(at(6 + n, by_page(port=5063)) for n in range(5)))
    assert happened.bans == ["guess bans 192.0.2.7/32 by sip after 5"]


def test_forged_claims_beside_the_guesses_of_a_page_close_tcp_only() -> None:
    """Claims are not the address's own guesses. So a sender that forges them does not widen a page's ban."""
    guard = Player(rules=("guess",))
    guard.play(*claimed(range(5)))
    happened = guard.play(at(9, opened()), *(at(10 + n, by_page()) for n in range(4)))
    assert happened.bans == ["guess bans 192.0.2.7/32 by sip-tcp after 5"]


def test_a_claimed_ban_consumes_only_what_its_rule_counts() -> None:
    """A sender that calls three unknown extensions by TCP between its guesses by UDP gets no more guesses."""
    steps = [*claimed(range(4)), *(at(5 + n, called()) for n in range(3)), *claimed([9])]
    assert when(Player(rules=("guess", "probe")), *steps) == {
        7: ["probe bans 192.0.2.7/32 by sip-tcp for 600 s after 3"],
        9: ["guess bans 192.0.2.7/32 by sip-udp for 1800 s after 5"],
    }


def test_enough_own_guesses_beside_those_of_a_page_close_all_sip_ports() -> None:
    """Five own guesses are proven late, when a page has guessed too: they are enough by themselves."""
    guard = Player(rules=("guess",))
    own = [at(n, failed(call=b"own", nonce=b"late", account=f"20{n}")) for n in range(5)]
    guard.play(*own, at(9, opened()), *(at(10 + n, by_page()) for n in range(3)))
    happened = guard.play(at(14, sent(ATTACKER, b"own", nonce=b"late")))
    assert happened.bans == ["guess bans 192.0.2.7/32 by sip after 5"]


def test_the_readers_of_a_page_are_no_prefix_that_attacks() -> None:
    """Guesses that a page makes the browsers of a /24 send close nothing but TCP, to each that sends five."""
    guard = Player(rules=("prefix",))
    pages = at(0, *(opened(address=f"192.0.2.{n}") for n in range(10)))
    guesses = [
        at(1 + n, failed(f"192.0.2.{n % 10}", b"%d" % next(_CALLS), transport=Transport.WS))
        for n in range(20)
    ]
    assert guard.play(pages, *guesses).bans == []


# -- requests without credentials


@pytest.mark.parametrize(
    ("request_of", "number", "rule"), [(calls, 5, "guess"), (lambda **_: called(), 3, "probe")]
)
def test_calls_of_a_stranger_close_only_their_transport(
    request_of: Callable[..., SecurityEvent], number: int, rule: str
) -> None:
    """Calls that no ``identify`` matches lead to a short ban of their transport, although it proves them."""
    guard = Player(firewall=True)
    happened = guard.play(*(at(n, request_of()) for n in range(number)))
    assert happened.bans == [f"{rule} bans 192.0.2.7/32 by sip-tcp for 600 s after {number}"]
    guard.play(at(number, Banned("192.0.2.7/32", 600.0, Scope.SIP_TCP)))
    happened = guard.play(*(at(number + n, request_of()) for n in range(9)))
    assert (happened.bans, happened.of("late")) == ([], ["192.0.2.7"] * 9)


def test_calls_of_a_stranger_by_udp_close_udp() -> None:
    """By UDP the ban for calls without credentials is the one for claimed evidence."""
    happened = Player().play(*(at(n, calls(proven=False)) for n in range(5)))
    assert happened.bans == ["guess bans 192.0.2.7/32 by sip-udp for 600 s after 5"]


def test_the_nodes_of_a_carrier_are_no_prefix_that_attacks() -> None:
    """Calls of many hosts of a /24 ban neither the /24, nor a host that calls twice, nor raise an alarm."""
    steps = tuple(at(n, calls(f"192.0.2.{n % 10}")) for n in range(60))
    happened = Player(rules=("prefix", "distributed")).play(*steps)
    assert (happened.bans, happened.alarms) == ([], [])
    guard = Player(rules=("prefix",))
    assert guard.play(*steps).bans == []
    happened = guard.play(at(61, *(guess(f"192.0.2.{n}") for n in range(20))))
    assert happened.bans == ["prefix bans 192.0.2.0/24 by sip after 20"]


def test_a_stranger_with_a_friend_in_its_prefix_is_not_banned_for_calls() -> None:
    """A host whose prefix must not be banned gets no ban of its own for calls without credentials."""
    guard = Player(rules=("prefix",))
    steps = at(0, friend("192.0.2.99")), at(1, calls("192.0.2.3"), calls("192.0.2.3"))
    guesses = [at(2 + n, guess(f"192.0.2.{n % 3}")) for n in range(21)]
    bans = guard.play(*steps, *guesses).bans
    assert {ban.split(" ")[2] for ban in bans} == {"192.0.2.1/32", "192.0.2.2/32"}
    assert guard.play(at(30, guess("192.0.2.3"))).bans == []


def test_strangers_that_may_be_carriers_are_known() -> None:
    """Of the banned senders, those may be carriers that made no attempt with credentials."""
    guard = Player(firewall=True)
    for number, (address, guesses) in enumerate([(ATTACKER, 0), (BYSTANDER, 1), ("192.0.2.8", 0)]):
        guard.play(at(10 * number, *(calls(address) for _ in range(5))))
        guard.play(at(10 * number + 1, *(guess(address) for _ in range(guesses))))
    guard.play(
        *(
            at(40 + n, Banned(f"{address}/32", 600.0, Scope.SIP_TCP))
            for n, address in enumerate((ATTACKER, BYSTANDER, "192.0.2.9"))
        )
    )
    guard.play(at(50, Banned("192.0.2.8/32", 600.0)))
    assert guard.unidentified() == [f"{ATTACKER}/32 sip-tcp"]


def wrong_call(account: str, *, by: str = AMI) -> Step:
    """Return a guess by INVITE at an account that does not exist: the call, and its wrong answer."""
    call = b"%d" % next(_CALLS)
    invite = probed(call=call, account=account, transport=Transport.TCP)
    answer = failed(call=call, account="<unknown>", transport=Transport.TCP, by=by, forgeable=by != AMI)
    return at(float(call), invite, answer)


def test_a_call_with_a_wrong_password_is_a_guess() -> None:
    """A call counts at once, and as a guess when a wrong answer follows; a line of the log shows none."""
    guard = Player(rules=("enumeration", "guess"))
    happened = guard.play(*(wrong_call(account) for account in ("100", "101", "102")))
    assert (happened.counted, happened.bans) == (3, ["enumeration bans 192.0.2.7/32 in full after 3"])
    guard = Player(rules=("enumeration",))
    happened = guard.play(*(wrong_call(account, by=NOTICE) for account in ("100", "101", "102")))
    assert (happened.counted, happened.bans) == (
        3,
        ["enumeration bans 192.0.2.7/32 by sip-tcp for 600 s after 3"],
    )


def test_the_wrong_answer_to_a_call_at_the_last_guess_makes_the_ban_full() -> None:
    """Three guesses and two calls are a narrow ban; the wrong answer after a call makes it full."""
    guard = Player(rules=("guess",))
    call = calls()
    guard.play(*(at(n, guess()) for n in range(3)), at(3, calls()))
    answer = evolve(failed(call=call.session, account="<unknown>"), remote=call.remote)
    assert guard.play(at(4, call)).bans == ["guess bans 192.0.2.7/32 by sip-tcp for 600 s after 5"]
    assert guard.play(at(5, answer)).bans == ["guess bans 192.0.2.7/32 by sip after 5"]


def test_the_wrong_answer_of_an_exempt_address_bans_nothing() -> None:
    """Calls and guesses of an exempt address are no attempts that count."""
    guard = Player(rules=("guess",))
    guard.play(at(0, Exempt(("192.0.2.7/32",))))
    assert guard.play(*(wrong_call("100") for _ in range(9))).bans == []


def test_the_wrong_answer_of_a_phone_to_a_call_bans_nothing() -> None:
    """A phone with a new temporary address whose account is unknown for now stays a phone."""
    guard = Player(rules=("guess",))
    near, call = "2001:db8::5", b"call"
    guard.play(at(0, friend("2001:db8::4", account="204")))
    invite = probed(near, call, account="204", transport=Transport.TCP)
    answer = failed(near, call, account="<unknown>", transport=Transport.TCP)
    assert guard.play(*(at(n, invite, answer) for n in range(9))).bans == []


def test_the_wrong_answer_to_a_call_by_udp_proves_nothing() -> None:
    """Calls by UDP whose answers are wrong are claimed guesses."""
    guard = Player(sources=("AMI",), rules=("guess",))
    invites = [calls(proven=False) for _ in range(5)]
    answers = [evolve(failed(call=one.session, account="<unknown>"), remote=one.remote) for one in invites]
    steps = [at(n, *pair) for n, pair in enumerate(zip(invites, answers, strict=True))]
    assert guard.play(*steps).bans == ["guess bans 192.0.2.7/32 by sip-udp for 600 s after 5"]


def test_manager_logins_count_for_a_prefix_and_at_a_decoy() -> None:
    """Failed manager logins of ten addresses ban their prefix, and one at a decoy bans its address.

    These bans are as wide as those of ``manager``, if that rule is on.
    """
    rotated = [at(n, manager(f"192.0.2.{n % 10}")) for n in range(20)]
    assert Player(rules=("prefix",)).play(*rotated).bans == ["prefix bans 192.0.2.0/24 by sip after 20"]
    both = Player(rules=("prefix", "manager"))
    assert both.play(*rotated).bans == ["prefix bans 192.0.2.0/24 in full after 20"]
    for scope, text in ((Scope.FULL, "in full"), (Scope.SIP, "by sip")):
        guard = Player(changed={"decoy": {"accounts": frozenset({"204"})}, "manager": {"scope": scope}})
        assert guard.play(at(0, manager())).bans == [f"decoy bans 192.0.2.7/32 {text} after 1"]


def test_a_ban_of_sip_stops_no_login_at_the_manager() -> None:
    """Failed manager logins count while a ban of SIP lasts, and lead to a full ban; guesses are late."""
    guard = Player(firewall=True)
    guard.play(at(0, Banned("192.0.2.7/32", 3_600.0, Scope.SIP)))
    happened = guard.play(*(at(n, guess(), manager()) for n in range(1, 4)))
    assert happened.bans == ["manager bans 192.0.2.7/32 in full after 3"]
    assert happened.of("late") == ["192.0.2.7"] * 3


@pytest.mark.parametrize(
    ("transport", "first", "bans"),
    [
        (Transport.TLS, 16, ["guess bans 192.0.2.7/32 in full after 5"]),
        (Transport.TLS, 10, []),
        (Transport.UDP, 16, []),
    ],
)
def test_a_ban_of_sip_that_stops_nothing_becomes_a_full_one(
    transport: Transport, first: float, bans: list[str]
) -> None:
    """Proven guesses that go on long after a ban of the SIP ports take a port that it does not cover.

    Those from a queue, and those of a sender that may be forged, show nothing.
    """
    guard = Player(firewall=True)
    guard.play(at(0, Banned("192.0.2.7/32", 3_600.0, Scope.SIP)))
    happened = guard.play(*(at(first + n, guess(proven=transport is Transport.TLS)) for n in range(5)))
    assert happened.bans == bans
    assert happened.of("late") == ["192.0.2.7"] * 5


def test_an_office_and_a_browser_keep_their_ban_of_sip() -> None:
    """Late failures at several existing accounts, or of a web page, may come from a slow Asterisk."""
    office = [at(16 + n, guess(account=str(204 + n))) for n in range(5)]
    page = [at(0, opened()), *(at(16 + n, by_page()) for n in range(5))]
    for steps in (office, page):
        guard = Player(firewall=True)
        happened = guard.play(at(0, Banned("192.0.2.7/32", 3_600.0, Scope.SIP)), *steps)
        assert (happened.bans, happened.of("late")) == ([], ["192.0.2.7"] * 5)


def test_a_full_ban_stops_logins_at_the_manager() -> None:
    """Failed manager logins are late while a full ban lasts."""
    guard = Player(firewall=True)
    happened = guard.play(at(0, Banned("192.0.2.7/32", 3_600.0)), *(at(n, manager()) for n in range(1, 4)))
    assert happened.of("late") == ["192.0.2.7"] * 3
    assert happened.bans == []


def test_other_attempts_bring_no_guess_back_into_its_window() -> None:
    """Calls between them do not make two guesses from over ten minutes ago count with three new ones."""
    guesses = [at(time, guess()) for time in (0, 1, 700, 701, 702)]
    calls = [at(time, called()) for time in (698, 699)]
    assert Player().play(sorted([*guesses, *calls], key=lambda step: step.time)).bans == []


def test_a_rule_that_is_off_does_nothing() -> None:
    """A disabled rule does nothing, and makes no other rule stricter."""
    steps = [at(n, guess()) for n in range(19)]
    assert Player(rules=("slow", "enumeration", "manager")).play(*steps).bans == []


# -- subjects --------------------------------------------------------------------------------------------


def test_a_64_is_one_subject() -> None:
    """The addresses of a /64 are one subject, since a host owns its /64, and two /64s share nothing."""
    steps = [at(n, guess(f"2001:db8:0:{n % 2}::{n}")) for n in range(9)]
    assert Player().play(*steps).bans == ["guess bans 2001:db8::/64 by sip after 5"]


def test_with_an_exempt_address_each_address_of_a_64_is_a_subject() -> None:
    """Near an exempt address each address is a subject, as a ban of the /64 would ban the exempt one too."""
    guard = Player(rules=("guess",))
    guard.play(at(0, Exempt(("2001:db8::1/128",))))
    assert guard.play(*(at(n, guess(f"2001:db8::{n + 2}")) for n in range(9))).bans == []
    assert guard.play(*(at(10 + n, guess("2001:db8::2")) for n in range(4))).bans == [
        "guess bans 2001:db8::2/128 by sip after 5"
    ]
    assert guard.play(at(20, guess("2001:db8::1"))).attempts == ["2001:db8::1 exempt, proven by handshake"]


def test_an_exempt_address_is_not_counted() -> None:
    """An attempt of an exempt address does not count later either, when the address is no longer exempt."""
    guard = Player()
    guard.play(at(0, Exempt(("192.0.2.0/24",))), *(at(n, guess()) for n in range(4)))
    guard.play(at(5, Exempt(())))
    assert guard.play(at(6, guess())).bans == []


def test_a_banned_address_is_late_and_counts_again_afterwards() -> None:
    """An attempt from before the ban that is read during it is late; afterwards attempts count again."""
    guard = Player()
    guard.play(at(0, guess()), at(0.5, Banned("192.0.2.7/32", 9.5)))
    assert guard.play(at(9.9, guess())).of("late") == [ATTACKER]
    assert guard.play(at(10, guess())).of("counted") == [ATTACKER]


def test_an_unban_begins_the_count_again() -> None:
    """After an unban, attempts that led to the ban, or nearly led to the next one, count no more."""
    guard = Player()
    guard.play(*(at(n, guess()) for n in range(4)), at(4, Banned("192.0.2.7/32", 600.0)))
    guard.play(at(5, Unbanned("192.0.2.7/32")))
    assert [*when(guard, *(at(6 + n, guess()) for n in range(5)))] == [10.0]


def test_an_unban_ends_a_narrow_ban() -> None:
    """After an unban, claims of an address with a narrow ban count again."""
    guard = Player()
    guard.play(at(0, Banned("192.0.2.7/32", 600.0, Scope.SIP_UDP)), at(1, Unbanned("192.0.2.7/32")))
    assert guard.play(*claimed([2.0])).of("counted") == [ATTACKER]


def test_a_renewed_ban_lasts_until_its_new_end() -> None:
    """An address stays banned when the first end of its renewed ban is over."""
    guard = Player()
    guard.play(at(0, Banned("192.0.2.7/32", 10.0)), at(5, Banned("192.0.2.7/32", 15.0)), *ticks(6, 12))
    assert guard.play(at(19.9, guess())).of("late") == [ATTACKER]


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.200", "192.0.3.1"),
        ("2001:db8:1::/48", "2001:db8:1:9::1", "2001:db8:2::1"),
    ],
)
def test_a_banned_prefix_holds_every_address_of_it(prefix: str, inside: str, outside: str) -> None:
    """Attempts from a banned prefix are late until the ban of the prefix ends."""
    guard = Player()
    guard.play(at(0, Banned(prefix, 100.0)))
    assert guard.play(at(1, guess(inside), guess(outside))).of("late") == [inside]
    assert guard.play(at(99.9, guess(inside))).of("late") == [inside]
    assert guard.play(at(100, guess(inside))).of("counted") == [inside]


@pytest.mark.parametrize("proven", [1, 3])
def test_a_sender_that_returns_a_nonce_does_not_compete_with_forged_ones(proven: int) -> None:
    """Eight hundred forged addresses use up the minute; a real one is still banned at its fifth guess."""
    guard = Player()
    forged = [f"198.51.{n // 200}.{n % 200}" for n in range(800)]
    happened = guard.play(*(at(0.01 * n, *(guess(one, proven=False) for one in forged)) for n in range(5)))
    assert len(happened.bans) == 600
    assert set(happened.alarms) == {"attack.spoofing"}
    refused = guard.play(at(1, *(guess("203.0.113.1", proven=False) for _ in range(5))))
    real = guard.play(*(at(2 + n, guess("203.0.113.2", proven=n < proven)) for n in range(5)))
    assert (refused.bans, real.bans) == ([], ["guess bans 203.0.113.2/32 by sip-udp for 600 s after 5"])


def test_an_earlier_full_ban_shows_a_real_sender() -> None:
    """Its claims need no room among the forged ones, although a ban has consumed its proven guesses."""
    guard = Player(claimed_per_minute=1)
    guard.play(*(at(n, guess()) for n in range(5)), at(5, Unbanned("192.0.2.7/32")))
    guard.play(*(at(10 + n, guess(BYSTANDER, proven=False)) for n in range(5)))
    assert len(guard.play(*claimed(20 + n for n in range(5))).bans) == 1


# -- prefixes --------------------------------------------------------------------------------------------


def rotated(
    addresses: list[str], number: int, *, proven: bool = True, every: float = 10.0, begin: float = 0.0
) -> list[Step]:
    """Return guesses that rotate over the addresses, four for each account."""
    return [
        at(begin + n * every, guess(addresses[n % len(addresses)], str(n // 4), proven=proven))
        for n in range(number)
    ]


@pytest.mark.parametrize(
    ("addresses", "prefix"),
    [
        ([f"192.0.2.{n}" for n in range(1, 6)], "192.0.2.0/24"),
        ([f"2001:db8:1:{n}::1" for n in range(1, 6)], "2001:db8:1::/60"),
        ([f"2001:db8:1:{n}0::1" for n in range(1, 6)], "2001:db8:1::/56"),
        ([f"2001:db8:1:{n}00::1" for n in range(1, 6)], "2001:db8:1::/52"),
        ([f"2001:db8:1:{n}000::1" for n in range(1, 6)], "2001:db8:1::/48"),
    ],
)
def test_twenty_proven_attempts_of_a_prefix_ban_it(addresses: list[str], prefix: str) -> None:
    """Five addresses with four attempts each, none of which is banned alone, have their prefix banned.

    Of an IPv6 /48 the network of one customer is banned: the narrowest that contains all of them.
    """
    assert when(Player(), *rotated(addresses, 20)) == {190.0: [f"prefix bans {prefix} by sip after 20"]}


@pytest.mark.parametrize("members", [3, 4])
def test_a_few_customers_of_a_48_do_not_ban_it(members: int) -> None:
    """Three or four /64s far apart are banned separately: a /48 has too many other customers."""
    addresses = [f"2001:db8:1:{n}000::1" for n in range(1, members + 1)]
    happened = Player(rules=("prefix",)).play(*rotated(addresses, 20 + members))
    banned = {ban.split()[2] for ban in happened.bans}
    assert banned == {f"2001:db8:1:{n}000::/64" for n in range(1, members + 1)}


def test_who_goes_on_from_another_part_of_a_48_has_all_of_it() -> None:
    """After the ban of one /56, twenty attempts from another /56 of the same /48 ban the /48."""
    guard = Player(rules=("prefix",))
    first = guard.play(*rotated([f"2001:db8:1:{n}0::1" for n in range(1, 6)], 20))
    second = guard.play(*rotated([f"2001:db8:1:5{n}0::1" for n in range(1, 6)], 20, begin=300))
    assert first.bans == ["prefix bans 2001:db8:1::/56 by sip after 20"]
    assert second.bans == ["prefix bans 2001:db8:1::/48 by sip after 20"]


def test_another_customer_of_a_48_on_another_day_is_banned_alone() -> None:
    """A day after the ban of one /56, guesses from another /56 ban only that one."""
    guard = Player(rules=("prefix",))
    guard.play(*rotated([f"2001:db8:2:{n}0::1" for n in range(1, 6)], 20))
    guard.play(*rotated([f"2001:db8:1:{n}0::1" for n in range(1, 6)], 20, begin=300))
    later = guard.play(*rotated([f"2001:db8:1:5{n}0::1" for n in range(1, 6)], 20, begin=90_000))
    assert later.bans == ["prefix bans 2001:db8:1:500::/56 by sip after 20"]


def test_attempts_that_led_to_the_ban_of_a_prefix_count_no_more() -> None:
    """After the ban of a prefix, an address that had made four guesses begins with its first again."""
    guard = Player()
    assert len(guard.play(*rotated([f"192.0.2.{n}" for n in range(1, 6)], 20)).bans) == 1
    assert guard.play(*(at(200 + n, guess("192.0.2.1", "9")) for n in range(4))).bans == []


def test_two_addresses_are_no_rotation() -> None:
    """Two addresses are no rotation: three subjects of a prefix must take part."""
    steps = rotated(["192.0.2.1", "192.0.2.2"], 30)
    assert Player(rules=("prefix",)).play(*steps).bans == []
    assert len(Player(rules=("prefix",)).play(*steps[:29], at(300, guess("192.0.2.3"))).bans) == 1


def test_a_prefix_that_late_proofs_fill_is_banned() -> None:
    """Of four attempts that are proven at once, the second one fills the prefix."""
    guard = Player(rules=("prefix",))
    guard.play(*rotated(["192.0.2.1", "192.0.2.2"], 18, every=1.0))
    guard.play(*(at(20 + n, failed("192.0.2.3", b"one", nonce=b"n")) for n in range(4)))
    proof = at(25, sent("192.0.2.3", b"one", nonce=b"n"))
    assert guard.play(proof).bans == ["prefix bans 192.0.2.0/24 by sip after 20"]


def test_the_attempts_of_a_prefix_leave_its_window_one_by_one() -> None:
    """When the first attempt of a prefix is over an hour old, the later ones still count."""
    addresses = [f"192.0.2.{n}" for n in range(1, 5)]
    guard = Player(rules=("prefix",))
    guard.play(at(0, guess("192.0.2.1")), *(at(1_800 + n, guess(addresses[n % 4])) for n in range(18)))
    guard.play(*ticks(3_601, 3_601))
    assert [*when(guard, *(at(3_602 + n, guess(addresses[n])) for n in range(3)))] == [3_603.0]


def test_claims_ban_no_prefix() -> None:
    """Claims ban no prefix, because a forger of sources could choose the prefix."""
    assert Player().play(*rotated([f"192.0.2.{n}" for n in range(50)], 100, proven=False)).bans == []


@pytest.mark.parametrize("spared", ["friend", "exempt"])
def test_a_prefix_with_a_friend_or_an_exempt_address_is_not_banned(spared: str) -> None:
    """In such a prefix each other address is banned with its second attempt, once there are enough in all."""
    guard = Player(rules=("prefix",))
    guard.play(at(0, friend("192.0.2.200") if spared == "friend" else Exempt(("192.0.2.200/32",))))
    addresses = [f"192.0.2.{n}" for n in range(1, 21)]
    assert guard.play(*rotated(addresses, 20)).bans == []
    assert guard.play(at(200, guess("192.0.2.1"))).bans == ["prefix bans 192.0.2.1/32 by sip after 2"]
    assert guard.play(at(201, guess("192.0.2.100"))).bans == []


# -- many addresses at one account -----------------------------------------------------------------------


def distributed_attack(account: str = "204") -> list[Step]:
    """Return failures of eight addresses on one account."""
    return [at(n, guess(f"198.51.{n}.1", account)) for n in range(8)]


def test_eight_addresses_at_one_account_raise_an_alarm() -> None:
    """The eighth address raises the alarm, and it clears an hour after the first attempts."""
    guard = Player()
    assert guard.play(*distributed_attack()[:7]).alarms == []
    assert guard.play(distributed_attack()[7]).alarms == ["attack.distributed of 204 of pbx"]
    assert guard.play(*ticks(3_599, 3_599)).alarms == []
    assert guard.play(*ticks(3_601, 3_601)).alarms == ["attack.distributed of 204 of pbx is over"]


@pytest.mark.parametrize("kind", [EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_RESPONSE_FAILED])
def test_a_line_hides_no_guess_of_a_distributed_attack(kind: EventKind) -> None:
    """Each attacker writes another account into the log, and AMI knows better."""
    guard = Player(connected=[(f"198.51.{n}.1", 5062) for n in range(8)])
    alarms: list[str] = []
    for number in range(8):
        one = guess(f"198.51.{number}.1")
        line = report(kind, by=NOTICE, account="x", method="INVITE")
        forged = evolve(line, remote=one.remote, session=one.session)
        alarms += guard.play(at(number, forged, one)).alarms
    assert alarms[-1:] == ["attack.distributed of 204 of pbx"]


def test_the_second_failure_of_a_stranger_during_a_distributed_attack_is_a_ban() -> None:
    """The ban follows failures at this account alone, and claims lead to a narrow ban.

    The first proven failure is a narrow ban already (``test_distributed``).
    """
    guard = Player()
    guard.play(*distributed_attack())
    steps = [
        at(10, guess("192.0.2.1")),
        at(11, guess("192.0.2.1")),
        at(12, guess("192.0.2.2", "205")),
        at(13, guess("192.0.2.2", "205")),
        at(14, guess("192.0.2.3", proven=False)),
        at(15, guess("192.0.2.3", proven=False)),
        at(16, guess("192.0.2.4", "2045")),
        at(17, guess("192.0.2.4")),
    ]
    assert when(guard, *steps) == {
        10.0: ["distributed bans 192.0.2.1/32 by sip-tcp for 600 s after 1"],
        11.0: ["distributed bans 192.0.2.1/32 by sip after 2"],
        15.0: ["distributed bans 192.0.2.3/32 by sip-udp for 600 s after 2"],
        17.0: ["distributed bans 192.0.2.0/24 by sip-tcp for 600 s after 2"],
    }


@pytest.mark.parametrize("account", ["<unknown>", ""])
def test_an_account_that_does_not_exist_is_not_under_distributed_attack(account: str) -> None:
    """A missing account is not under attack: every scanner tries 100, and PJSIP writes ``<unknown>``."""
    assert Player().play(*distributed_attack(account)).alarms == []
    steps = [at(n, *unknown(f"198.51.{n}.1")) for n in range(20)]
    assert Player().play(*steps).alarms == []


def test_claims_raise_no_alarm_of_a_distributed_attack() -> None:
    """Claims raise no alarm, because a forger could raise it for any account."""
    steps = [at(n, guess(f"198.51.{n}.1", proven=False)) for n in range(30)]
    assert Player().play(*steps).alarms == []


def test_claims_that_two_sources_report_raise_no_alarm_of_a_distributed_attack() -> None:
    """An event and a notice of chan_sip that agree are a claim, and the second of them proves nothing."""
    addresses = [f"198.51.{n}.1" for n in range(8)]
    reports = [one for address in addresses for one in (wrong(address), wrong_by_notice(address))]
    happened = Player(sources=("AMI", "log")).play(at(0, *reports), *ticks(1, 3))
    assert (happened.counted, happened.alarms) == (8, [])


def test_addresses_that_failed_over_an_hour_ago_attack_no_account() -> None:
    """One of seven fails again; when the eighth comes, the other six have left the window."""
    steps = [at(n, guess(f"198.51.{n}.1")) for n in range(7)]
    later = [at(3_500, guess("198.51.0.1")), at(3_700, guess("198.51.7.1"))]
    assert Player().play(*steps, *later).alarms == []


def test_the_phone_of_an_account_under_distributed_attack_is_no_stranger() -> None:
    """A friend that fails on its own account is a broken phone, even if others try the account."""
    guard = Player()
    guard.play(at(0, friend()), *distributed_attack())
    assert guard.play(*(at(10 + n, guess(PHONE)) for n in range(10))).bans == []


@pytest.mark.parametrize("late", [0.0, 30.0, 3_600.0], ids=["right", "no seconds", "another time zone"])
def test_a_call_to_nowhere_counts_whatever_time_its_line_has(late: float) -> None:
    """Only the log reports it, and the wire's 404 confirms it; the log of a container may be in UTC."""
    line = report(
        EventKind.FAILED_ACL, call=b"", by=NOTICE, acl="no_extension_match", account="anonymous", late=late
    )
    steps = []
    for number in range(3):
        call = b"nowhere-%d" % number
        steps.append(at(number, copied(call=call, sequence=1), sent(call=call, status=404, sequence=1), line))
    assert Player().play(*steps).bans == ["probe bans 192.0.2.7/32 by sip-udp for 600 s after 3"]


def test_a_copied_guess_puts_no_account_that_does_not_exist_under_attack() -> None:
    """The nonce comes from another Call-ID, so AMI names the missing account only after the copy."""
    guard = Player()
    alarms: list[str] = []
    for number in range(12):
        address, call, nonce = f"198.51.{number}.1", b"d%d" % number, b"1/%d" % number
        challenge = sent(address, b"q%d" % number, nonce=nonce)
        asked = copied(address, call, nonce=nonce, registers="100")
        refusal = sent(address, call, sequence=2)
        question = probed(address, call, account="100", method="")
        wrong_answer = failed(address, call, account="<unknown>", nonce=nonce, response=b"r")
        happened = guard.play(at(number, challenge, asked, refusal, question, wrong_answer))
        alarms += [*happened.alarms, *happened.bans]
    assert alarms == []


def test_user_names_of_phones_are_under_no_attack() -> None:
    """The copy names the user 204, and AMI then the endpoint, of twelve broken phones at twelve places."""
    guard, alarms = Player(), list[str]()
    for number in range(12):
        address, call, nonce = f"198.51.{number}.1", b"e%d" % number, b"1/%d" % number
        challenge, refusal = sent(address, call, nonce=nonce), sent(address, call, sequence=2)
        asked = copied(address, call, nonce=nonce, registers="204")
        told = failed(address, call, account=f"204@{number}.example", nonce=nonce, response=b"r")
        happened = guard.play(at(number, challenge, asked, refusal, told))
        alarms += [*happened.alarms, *happened.bans]
    assert alarms == []
