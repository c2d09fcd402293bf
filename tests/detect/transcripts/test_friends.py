"""Transcripts: friends, their broken phones, attackers at their addresses, and outage mode."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import evolve
from tests.detect.transcripts.reports import (
    AMI,
    ATTACKER,
    BYSTANDER,
    NOTICE,
    PHONE,
    SECURITY,
    challenged,
    copied,
    failed,
    friend,
    login,
    probed,
    report,
    sent,
    wrong,
)
from tests.support.transcript import PBX, Banned, Exempt, Player, Sources, Step, Tick, Unbanned, at, ticks

from ringfence.parse.requests import parse_request
from ringfence.values.ban import Scope
from ringfence.values.event import EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.friend import Contact, FriendReason
from ringfence.values.packet import CopiedAnswer, CopiedRequest

HOUR, DAY = 3_600.0, 86_400.0
_CALLS = iter(range(1_000_000))


def fails(account: str = "204", address: str = PHONE, *, proven: bool = True) -> SecurityEvent:
    """Return a wrong password under a Call-ID of its own: by TLS, or by UDP if it is only claimed."""
    transport = Transport.TLS if proven else Transport.UDP
    return failed(address, b"f%d" % next(_CALLS), account=account, transport=transport)


def unknown(account: str, address: str = PHONE, *, proven: bool = True) -> SecurityEvent:
    """Return a guess at an account that Asterisk does not have."""
    transport = Transport.TLS if proven else Transport.UDP
    return probed(address, b"u%d" % next(_CALLS), account=account, transport=transport)


def with_friend(
    *accounts: str, tie: FriendReason = FriendReason.REACHABLE, until: float | None = None, **more: object
) -> Player:
    """Return a guard that knows these accounts at PHONE as friends, ``until`` when."""
    guard = Player(**more)  # type: ignore[arg-type]
    known = [friend(PHONE, account, tie) for account in accounts or ("204",)]
    guard.play(at(0, *(one if until is None else evolve(one, until=until) for one in known)))
    return guard


def banned_after(guard: Player, steps: Iterable[Step]) -> tuple[int, list[str]] | None:
    """Return the number of the step that leads to a ban, and its bans, or None."""
    for number, step in enumerate(steps, 1):
        bans = guard.play(step).bans
        if bans:
            return number, bans
    return None


# -- who is a friend -------------------------------------------------------------------------------------


def test_a_right_password_makes_a_friend_for_two_hours() -> None:
    """A friend stays one for two hours, because phones register at least once an hour."""
    guard = Player()
    guard.play(at(0, login()))
    guard.play(*ticks(7_199, 7_199))
    assert guard.is_friend(PHONE)
    guard.play(*ticks(7_200, 7_200))
    assert not guard.is_friend(PHONE)


def test_a_later_right_password_prolongs_friendship() -> None:
    """The two hours of friendship run from the last right password."""
    guard = Player()
    guard.play(at(0, login()), at(HOUR, login()), *ticks(3 * HOUR - 1, 3 * HOUR - 1))
    assert guard.is_friend(PHONE)


def test_a_friendship_ends_in_time_whenever_others_end() -> None:
    """A login makes a friend for two hours, also if other friends were known for longer before."""
    guard = with_friend()
    guard.play(*ticks(0, 0), at(1, login(BYSTANDER, account="300")))
    guard.play(*ticks(2 * HOUR + 1, 2 * HOUR + 1))
    assert not guard.is_friend(BYSTANDER)
    assert guard.is_friend(PHONE)


def test_a_renewal_shortens_no_friendship() -> None:
    """A contact may be reported again with less time left, and its address stays a friend."""
    guard = with_friend()
    guard.play(at(1, evolve(friend(), until=10.0)), *ticks(100, 100))
    assert guard.is_friend(PHONE)


@pytest.mark.parametrize(
    "event",
    [login(tampered=True), login(forgeable=True), login(service=Service.SIP), login(service=Service.AMI)],
    ids=["tampered", "forgeable", "chan_sip", "manager"],
)
def test_no_other_success_makes_a_friend(event: SecurityEvent) -> None:
    """A success whose address may be forged, or that is no phone's, makes no friend."""
    guard = Player()
    guard.play(at(0, event))
    assert not guard.is_friend(PHONE)


def test_a_success_without_a_password_makes_no_friend() -> None:
    """A success without ``UsingPassword`` makes no friend: Asterisk reports guests so too."""
    guard = Player()
    guard.play(at(0, report(EventKind.SUCCESSFUL_AUTH, PHONE)))
    assert not guard.is_friend(PHONE)


def test_a_forgeable_line_of_a_login_makes_no_friend() -> None:
    """A cut line may name any address: its login makes no friend, also if the log is the only source."""
    guard = Player(sources=("log",))
    guard.play(at(0, evolve(login(by=SECURITY), forgeable=True)))
    assert not guard.is_friend(PHONE)
    guard.play(at(1, login(by=SECURITY)))
    assert guard.is_friend(PHONE)


def test_a_line_of_a_login_makes_no_friend_unless_something_confirms_it() -> None:
    """A challenge to that address and Call-ID, or a connection of that address and port, confirms the line.

    Without AMI and the wire the line makes a friend too.
    """
    line = login(by=SECURITY)
    alone = Player()
    alone.play(at(0, line))
    assert not alone.is_friend(PHONE)
    alone.play(at(1, sent(PHONE), line))
    assert alone.is_friend(PHONE)
    connected = Player(connected=[(PHONE, 5062)])
    connected.play(at(0, login(by=SECURITY, transport=Transport.TLS)))
    assert connected.is_friend(PHONE)
    nothing_better = Player()
    nothing_better.play(at(0, Sources(ami=False, wire=False)), *ticks(0, 0), at(1, line))
    assert nothing_better.is_friend(PHONE)


@pytest.mark.parametrize(("later", "is_friend"), [(63.9, False), (64.0, True)])
def test_a_success_in_another_name_makes_no_friend(later: float, *, is_friend: bool) -> None:
    """A success makes no friend if a challenge for its address went elsewhere less than 64 s ago."""
    guard = Player()
    guard.play(at(0, sent(ATTACKER, sender=PHONE)), at(later, login()))
    assert guard.is_friend(PHONE) is is_friend


def test_one_account_makes_eight_new_friends_an_hour() -> None:
    """The ninth address becomes no friend, and an alarm names the account; addresses of one /64 are one."""
    guard = Player()
    addresses = [f"203.0.113.{number}" for number in range(1, 12)]
    happened = guard.play(*(at(n, login(one), Tick()) for n, one in enumerate(addresses)))
    assert [guard.is_friend(one) for one in addresses] == [True] * 8 + [False] * 3
    assert f"friend.too_many of 204 of {PBX}" in happened.alarms
    guard = Player()
    guard.play(*(at(n, login(f"2001:db8::{n:x}")) for n in range(1, 20)))
    assert guard.is_friend("2001:db8::13")


# -- broken phones ---------------------------------------------------------------------------------------


def test_a_phone_that_fails_on_its_own_account_is_one_alarm_and_no_ban() -> None:
    """A failing phone raises one alarm at any speed, and the alarm clears when the password is right."""
    guard = with_friend()
    happened = guard.play(*(at(n * 0.01, fails()) for n in range(1_000)))
    assert (happened.bans, set(happened.alarms)) == ([], {f"phone.broken of 204 at {PHONE}"})
    assert happened.of("counted as a friend's") == [PHONE] * 1_000
    assert guard.play(at(20, login())).alarms == [f"phone.broken of 204 at {PHONE} is over"]


@pytest.mark.parametrize(("later", "alarms"), [(29, 1), (31, 0)])
def test_an_account_that_worked_within_a_month_is_a_broken_phones(later: int, alarms: int) -> None:
    """A phone is a broken one for a month, because a wrong password cannot renew its friendship."""
    guard = Player()
    guard.play(at(0, login(), login()), *ticks(2 * HOUR, 2 * HOUR), *ticks(later * DAY, later * DAY))
    start = 2 * HOUR + later * DAY - 10
    happened = guard.play(*(at(start + n, fails()) for n in range(5)))
    assert len(set(happened.alarms)) == alarms
    assert len(happened.bans) == 1 - alarms


def test_a_new_phone_with_a_wrong_password_is_an_alarm_after_ten_failures() -> None:
    """A new phone that fails every few seconds for hours raises an alarm and is not banned.

    Its account never worked at this address.
    """
    guard = with_friend()
    steps = [at(n * 5.0, fails("777")) for n in range(1_000)]
    assert guard.play(*steps[:9]).alarms == []
    happened = guard.play(*steps[9:])
    assert (happened.bans, set(happened.alarms)) == ([], {f"phone.failing of 777 at {PHONE}"})


@pytest.mark.parametrize(("last", "alarms"), [(DAY - 1, 1), (DAY, 0)])
def test_failures_of_different_days_do_not_add_up(last: float, alarms: int) -> None:
    """A phone that fails nine times and again a day later raises no alarm."""
    guard = with_friend()
    guard.play(*(at(n, fails("777")) for n in range(9)))
    assert len(guard.play(at(last, fails("777"))).alarms) == alarms


def test_a_phone_that_fails_again_after_a_day_is_no_broken_phone_yet() -> None:
    """The alarm of a broken phone lasts a day; a later failure waits, as it may begin an outage."""
    broken = [f"phone.broken of 200 at {PHONE}"]
    guard = with_friend(*(str(200 + n) for n in range(5)))
    assert guard.play(at(1, fails("200")), *ticks(300, 301)).alarms == broken
    assert guard.play(*ticks(DAY + 300, DAY + 300), at(DAY + 300, fails("200"))).alarms == broken
    assert guard.play(*ticks(2 * DAY + 300, 2 * DAY + 300), at(2 * DAY + 300, fails("200"))).alarms == []


def test_a_success_at_one_asterisk_shows_nothing_of_another() -> None:
    """The alarm waits for a success at the same Asterisk, because the failure may begin its outage."""
    guard = with_friend(*(str(200 + n) for n in range(5)), others=("branch",))
    failure, success = (
        evolve(one, source=SourceId("branch", AMI)) for one in (fails("200"), login(account="201"))
    )
    assert guard.play(at(1, failure), at(2, login(account="201"))).alarms == []
    assert guard.play(at(3, success)).alarms == [f"phone.broken of 200 at {PHONE}"]


def test_a_friend_is_not_suspected_where_a_stranger_would_be_banned() -> None:
    """Wrong passwords on twenty accounts that work at the address are no attack."""
    accounts = [str(200 + n) for n in range(20)]
    steps = [at(1 + n, fails(account)) for n, account in enumerate(accounts)]
    assert with_friend(*accounts).play(*steps).bans == []


# -- attackers beside a friend ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "every", "at_most"),
    [(22, 1.42, True), (22, 1.43, False), (180, 3.35, True), (180, 3.353, False)],
)
def test_a_friend_that_guesses_elsewhere_at_full_speed_is_banned(
    number: int, every: float, *, at_most: bool
) -> None:
    """22 guesses in 30 s, or 180 in ten minutes, at an account that never worked there, are a ban of TCP."""
    steps = (at(n * every, fails("205")) for n in range(number))
    ban = f"guess bans {PHONE}/32 by sip-tcp for 3600 s after {min(number, 64)}"
    assert banned_after(with_friend(), steps) == ((number, [ban]) if at_most else None)


@pytest.mark.parametrize(("every", "number"), [(1.5, None), (1.42, 22)], ids=["a phone", "a program"])
def test_guesses_that_are_read_late_count_from_when_they_were_made(every: float, number: int | None) -> None:
    """AMI stalls for twelve seconds, and then delivers at once: a phone that retries is no program."""
    steps = (
        at(max(12.0, every * n), evolve(fails("777"), time=min(0.0, every * n - 12.0))) for n in range(40)
    )
    banned = banned_after(with_friend(), steps)
    assert (banned[0] if banned is not None else None) == number


def test_the_time_in_a_line_of_the_log_slows_no_guess_down() -> None:
    """A sender can write that time, so 21 lines in ten seconds are a program's pace whatever they say."""
    guard = with_friend(sources=("log",))
    lines = [failed(PHONE, b"%d" % n, by=SECURITY, account="x", late=45.0 - 1.5 * n) for n in range(21)]
    assert guard.play(*(at(1.0 + 0.5 * n, line) for n, line in enumerate(lines))).bans == []
    assert len(guard.play(at(12, fails("x"))).bans) == 1


def test_a_friend_that_tries_twenty_other_accounts_is_banned() -> None:
    """Twenty unknown accounts within ten minutes are a ban, and a repeated account counts once.

    Accounts that work there do not count.
    """
    accounts = [*[f"x{n}" for n in range(19)], "x3", "x19"]
    steps = [at(n * 10.0, unknown(account)) for n, account in enumerate(accounts)]
    ban = f"enumeration bans {PHONE}/32 by sip-tcp for 3600 s after 22"
    assert banned_after(with_friend(), [at(0, fails("204")), *steps]) == (22, [ban])
    slowly = (at(n * 31.6, unknown(f"x{n}")) for n in range(40))
    assert banned_after(with_friend(), slowly) is None


@pytest.mark.parametrize(("accounts", "number"), [(1, None), (9, None), (10, 20), (20, 20)])
def test_guesses_at_many_accounts_are_no_new_phones(accounts: int, number: int | None) -> None:
    """Ten accounts twice within ten minutes are a ban, or twenty once; fewer phones only repeat theirs."""
    steps = [at(n * 30.0, fails(f"x{n % accounts}")) for n in range(100)]
    banned = banned_after(with_friend(), steps)
    assert (banned[0] if banned is not None else None) == number


def test_offices_behind_one_address_with_old_passwords_are_not_banned() -> None:
    """Six phones try an old password four times in eight seconds, and then each half minute for two hours."""
    guard = with_friend(until=1e9)
    soon = [at(8.0 * n / 24, fails(f"old{n % 6}")) for n in range(24)]
    later = [at(30.0 + 5.0 * n, fails(f"old{n % 6}")) for n in range(1_440)]
    assert banned_after(guard, [*soon, *later]) is None


@pytest.mark.parametrize(("accounts", "number"), [(1, 22), (3, 26), (9, 38)])
def test_each_account_adds_two_guesses_to_a_programs_pace(accounts: int, number: int) -> None:
    """A program at a friend's address gains two guesses by each account that it tries, up to nine."""
    banned = banned_after(with_friend(), (at(n / 28, fails(f"x{n % accounts}")) for n in range(60)))
    assert banned == (number, [f"guess bans {PHONE}/32 by sip-tcp for 3600 s after {number}"])


def test_slow_guesses_at_many_accounts_are_a_ban() -> None:
    """Thirty accounts within a day, twice each, are a ban of a friend by ``slow``."""
    few = (at(n * 600.0, fails(f"x{n % 29}")) for n in range(140))
    assert banned_after(with_friend(until=1e9), few) is None
    steps = [at(n * 600.0, fails(f"x{n % 30}")) for n in range(100)]
    ban = f"slow bans {PHONE}/32 by sip-tcp for 86400 s after 60"
    assert banned_after(with_friend(until=1e9), steps) == (60, [ban])


def test_a_banned_friend_that_goes_on_by_the_other_transport_is_banned_there_at_once() -> None:
    """A friend's ban covers the transport of its guesses, and its failures count for both."""
    guard = with_friend()
    assert banned_after(guard, (at(n * 0.9, fails("205")) for n in range(22))) is not None
    guard.play(at(20, Banned(f"{PHONE}/32", HOUR, Scope.SIP_TCP)))
    assert guard.play(at(21, fails("205"))).of("late") == [PHONE]
    guess = failed(PHONE, b"by-udp", nonce=b"1/udp", account="205")
    happened = guard.play(at(22, sent(PHONE, b"by-udp", nonce=b"1/udp")), at(23, guess))
    assert happened.bans == [f"guess bans {PHONE}/32 by sip-udp for 3600 s after 24"]


def test_a_friends_guesses_are_no_part_of_a_distributed_attack() -> None:
    """Seven strangers and a friend try an account; the eighth stranger begins the attack, for strangers."""
    guard = with_friend()
    happened = guard.play(*(at(n, fails("300", f"192.0.2.{n}")) for n in range(7)), at(8, fails("300")))
    assert (happened.bans, happened.alarms) == ([], [])
    eighth = guard.play(at(9, fails("300", BYSTANDER)))
    assert eighth.alarms == [f"attack.distributed of 300 of {PBX}"]
    assert guard.play(at(10, fails("300")), at(11, fails("300"))).bans == []
    bans = guard.play(at(12, fails("300", "192.0.2.1"))).bans
    assert [ban.split()[2] for ban in bans] == ["192.0.2.0/24", "192.0.2.1/32"]


def test_one_wrong_account_in_the_phones_of_many_homes_is_no_distributed_attack() -> None:
    """A home with a new address fails there too, before its own account logs in."""
    guard, homes = Player(), [f"198.51.{number}.4" for number in range(10)]
    known = [friend(home, str(number)) for number, home in enumerate(homes)]
    steps = [at(1 + number, fails("900", home)) for number, home in enumerate(homes)]
    happened = guard.play(at(0, *known), *steps, at(60, fails("900", BYSTANDER)))
    assert (happened.bans, happened.alarms) == ([], [])


def test_a_friends_guesses_count_for_its_prefix_and_ban_only_others() -> None:
    """Strangers of a /24 in which a friend guesses too reach the limit of ``prefix`` earlier."""
    guard = with_friend()
    guard.play(*(at(n * 30.0, fails("300")) for n in range(18)))
    neighbour = PHONE.rpartition(".")[0]
    assert guard.play(at(600, fails("301", f"{neighbour}.90"))).bans == []
    happened = guard.play(at(601, fails("301", f"{neighbour}.91")), at(602, fails("301", f"{neighbour}.91")))
    assert [ban.split()[2] for ban in happened.bans] == [f"{neighbour}.91/32"]


def test_one_guess_where_a_guilty_account_logs_in_is_a_ban() -> None:
    """A stranger's other attempts there, and claims, are judged as those of any stranger."""
    guard = Player()
    guard.play(at(0, login(transport=Transport.TLS)))
    assert banned_after(guard, (at(n * 0.9, fails("205")) for n in range(22))) is not None
    assert not guard.is_friend(PHONE)
    guard.play(at(21, login(ATTACKER, transport=Transport.TLS)))
    assert guard.play(at(22, unknown("x", ATTACKER), fails("205", ATTACKER, proven=False))).bans == []
    happened = guard.play(at(23, fails("205", ATTACKER)))
    assert happened.bans == [f"guess bans {ATTACKER}/32 by sip-tcp for 3600 s after 2"]
    assert (
        guard.play(at(24, Banned(f"{ATTACKER}/32", 60.0, Scope.SIP_TCP), fails("206", ATTACKER))).bans == []
    )
    without = Player(rules=["probe"])
    without.play(at(0, login(transport=Transport.TLS)))
    assert without.play(*(at(n, fails("205")) for n in range(20))).bans == []


@pytest.mark.parametrize("second", [ATTACKER, "2001:db8::7"], ids=["two uplinks", "both families"])
def test_one_phone_with_a_wrong_password_makes_no_account_of_a_new_site_guilty(second: str) -> None:
    """It changes between two addresses of its site for three hours; another phone fails there sometimes."""
    guard, site = Player(), [PHONE, second]
    happened = []
    for minute in range(180):
        now, address = minute * 60.0, site[minute % 2]
        logins = [login(one, account="204", transport=Transport.TLS) for one in site if minute % 30 == 0]
        happened.append(
            guard.play(at(now, *logins, fails("205", address)), at(now + 9.0, fails("205", address)))
        )
        happened.append(guard.play(at(now + 20.0, *[fails("206", second)] * (minute % 30 == 7))))
    assert [ban for one in happened for ban in one.bans] == []
    assert all(map(guard.is_friend, site))
    assert not any(alarm.startswith("friend.guessing") for one in happened for alarm in one.alarms)


@pytest.mark.parametrize(("accounts", "every"), [(3, 60.0), (1, 3.3)])
def test_guesses_from_two_addresses_of_an_account_are_an_attack(accounts: int, every: float) -> None:
    """Twenty of them are one, at three accounts within an hour, or at one account faster than a phone."""
    guard, addresses = Player(), [PHONE, ATTACKER]
    guard.play(at(0, *[login(one, transport=Transport.TLS) for one in addresses]))
    tries = (at(1 + n * every, fails(f"x{n % accounts}", addresses[n % 2])) for n in range(20))
    alarms = [guard.play(step).alarms for step in tries]
    assert f"friend.guessing of 204 of {PBX}" in alarms[-1]
    assert not any(map(guard.is_friend, addresses))


def test_a_young_office_that_changes_its_uplink_makes_no_account_guilty() -> None:
    """Three of its phones have wrong passwords; its others log in at the new address one after the other."""
    accounts = [str(200 + number) for number in range(10)]
    steps = [at(0, *(login(account=one, transport=Transport.TLS) for one in accounts))]
    for minute in range(90):
        now, address = 60.0 * minute, PHONE if minute < 60 else ATTACKER
        due = accounts[minute - 60 : minute - 59] if minute >= 60 else []
        steps += [at(now, login(address, account=one, transport=Transport.TLS)) for one in due]
        steps += [at(now + 1.0 + number, fails(f"90{number}", address)) for number in range(3)]
    guard = Player()
    happened = guard.play(*steps)
    assert happened.bans == []
    assert not any(alarm.startswith("friend.guessing") for alarm in happened.alarms)
    assert all(map(guard.is_friend, [PHONE, ATTACKER]))


@pytest.mark.parametrize(("passwords", "guilty"), [(3, True), (4, False)])
def test_a_person_with_some_stolen_passwords_is_found(passwords: int, *, guilty: bool) -> None:
    """Guesses from two new addresses make the accounts guilty. More accounts than three are an office's."""
    guard, addresses = Player(), [PHONE, ATTACKER]
    accounts = [str(200 + number) for number in range(passwords)]
    logins = [login(one, account=each, transport=Transport.TLS) for one in addresses for each in accounts]
    tries = [at(1 + 60.0 * n, fails(f"x{n % 3}", addresses[n % 2])) for n in range(20)]
    alarms = guard.play(at(0, *logins), *tries).alarms
    assert [f"friend.guessing of {one} of {PBX}" in alarms for one in accounts] == [guilty] * passwords
    assert any(map(guard.is_friend, addresses)) != guilty


def test_a_proof_that_comes_after_a_friends_ban_bans_no_more() -> None:
    """The guesses were under way when the ban of their transport began."""
    guard = with_friend()
    claims = [failed(PHONE, b"one", nonce=b"late", account=f"x{n}") for n in range(30)]
    guard.play(at(0, *claims), at(0.05, Banned(f"{PHONE}/32", HOUR, Scope.SIP_UDP)))
    assert guard.play(at(0.1, sent(PHONE, b"one", nonce=b"late")), *ticks(1, 3)).bans == []


def test_the_addresses_of_a_64_share_what_they_may_guess() -> None:
    """A second address of a /64 that has logged in is banned at its first guess after the other one's ban."""
    phones = ["2001:db8::7", "2001:db8::8"]
    guard = Player()
    guard.play(at(0, *map(friend, phones)))
    assert banned_after(guard, (at(n * 0.9, fails("205", phones[0])) for n in range(22))) is not None
    assert len(guard.play(at(21, fails("205", phones[1]))).bans) == 1


@pytest.mark.parametrize("accounts", [["204"], ["204", "206"]])
@pytest.mark.parametrize("age", [0.0, 8 * DAY])
def test_one_password_gives_no_guess_for_each_address_of_a_64(age: float, accounts: list[str]) -> None:
    """Logins make each new address a friend; after the second ban their accounts are guilty, however old."""
    guard = Player()

    def logins(address: str) -> list[SecurityEvent]:
        return [login(address, account=one, transport=Transport.TLS) for one in accounts]

    guard.play(at(0, *logins("2001:db8::1")), at(age, *logins("2001:db8::1")))
    bans: list[str] = []
    for number in range(40):
        address, now = f"2001:db8::{number + 2:x}", age + 1.0 + number
        bans += guard.play(at(now, *logins(address)), at(now + 0.2, fails("205", address))).bans
        if bans and " 2001:db8::/64 " in bans[-1]:
            break

    assert number < 25
    assert not guard.is_friend("2001:db8::1")


def test_an_office_stays_when_an_old_account_of_its_64_becomes_guilty() -> None:
    """Accounts of their own keep their addresses, and a ban of one address alone makes nobody guilty."""
    guard = Player()
    office = [login("2001:db8::f", account="300", transport=Transport.TLS)]
    guard.play(at(0, login("2001:db8::1", transport=Transport.TLS), *office))
    guard.play(at(8 * DAY, login("2001:db8::1", transport=Transport.TLS), *office))
    late = 8 * DAY + 1.0
    guesses = (at(late + n * 0.9, fails("205", "2001:db8::1")) for n in range(22))
    assert banned_after(guard, guesses) is not None
    assert guard.is_friend("2001:db8::1")
    guard.play(at(late + 30.0, login("2001:db8::2", transport=Transport.TLS)))
    assert len(guard.play(at(late + 31.0, fails("205", "2001:db8::2"))).bans) == 1

    assert not guard.is_friend("2001:db8::1")
    assert guard.is_friend("2001:db8::f")


def test_accounts_leave_a_friends_window_one_by_one() -> None:
    """An account that is tried again keeps no other account in the window."""
    tried = [at(n, unknown(f"x{n}")) for n in range(19)]
    again = [at(599, unknown("x0")), at(650, unknown("x19"))]
    assert banned_after(with_friend(), [*tried, *again]) is None


def test_a_friend_may_fail_on_one_unknown_account_for_ever() -> None:
    """A phone that was deleted may fail on, because an unknown account has no password to find."""
    steps = [at(n * 0.01, unknown("x")) for n in range(1_000)]
    assert with_friend().play(*steps).bans == []


def test_after_a_friends_ban_its_attempts_count_from_nothing() -> None:
    """After a friend's ban, the next ban of the same transport needs twenty guesses again."""
    guard = with_friend()
    assert banned_after(guard, (at(n * 0.1, fails("205")) for n in range(50))) is not None
    assert banned_after(guard, (at(6 + n * 0.1, fails("205")) for n in range(19))) is None
    guard.play(at(9, Unbanned(f"{PHONE}/32")))
    assert banned_after(guard, (at(10 + n * 0.1, fails("205")) for n in range(19))) is None


def test_a_claimed_attempt_in_a_friends_name_leads_to_nothing() -> None:
    """A claim in a friend's name leads to nothing, because any sender can forge a friend's datagram."""
    steps = [at(n * 0.01, unknown(f"x{n}", proven=False)) for n in range(1_000)]
    happened = with_friend().play(*steps)
    assert (happened.bans, happened.of("counted as a friend's")) == ([], [PHONE] * 1_000)


def test_claims_do_not_add_to_what_a_friend_is_banned_for() -> None:
    """Nineteen proven attempts and many claims are no ban, and the twentieth proven attempt is one."""
    guard = with_friend()
    guard.play(*(at(n, fails(f"x{n}")) for n in range(19)))
    assert guard.play(*(at(20 + n, fails(f"y{n}", proven=False)) for n in range(50))).bans == []
    assert len(guard.play(at(100, fails("x19"))).bans) == 1


def test_without_the_wire_claims_count_and_a_proven_attempt_decides() -> None:
    """Without the wire claims of a friend count, as they cannot be proven, and a proven attempt decides."""
    guard = with_friend(sources=("AMI", "log"))
    assert guard.play(*(at(n, fails(f"x{n}", proven=False)) for n in range(25))).bans == []
    assert len(guard.play(at(30, fails("x25"))).bans) == 1


def test_a_trunk_is_never_banned() -> None:
    """A trunk is never banned, whatever fails there, and however fast."""
    steps = [at(n * 0.01, fails(f"x{n}")) for n in range(1_000)]
    assert with_friend(tie=FriendReason.TRUNK).play(*steps).bans == []


def test_a_contact_has_the_limits_of_a_friend() -> None:
    """Asterisk shows only that a phone is registered: a colleague's wrong passwords do not ban its office.

    Whoever registers an address could also log in from it, and be a friend with a proven address.
    """
    guard = with_friend(tie=FriendReason.REGISTERED)
    assert guard.play(*(at(n, fails("x", proven=False)) for n in range(20))).bans == []
    assert banned_after(guard, (at(20 + n * 0.1, fails("x")) for n in range(40))) == (
        22,
        [f"guess bans {PHONE}/32 by sip-tcp for 3600 s after 22"],
    )
    assert banned_after(guard, (at(30 + n, fails("204")) for n in range(9))) is None


def test_a_late_proof_bans_no_contact() -> None:
    """Five claimed guesses at the address of a contact become proven, and stay those of a friend."""
    guard = with_friend(tie=FriendReason.REGISTERED)
    claims = [failed(PHONE, b"one", nonce=b"late", account="x") for _ in range(5)]
    shown = sent(PHONE, b"one", nonce=b"late")
    assert guard.play(at(0, *claims), at(0.1, shown), *ticks(1, 3)).bans == []


def test_a_phone_with_a_new_temporary_address_stays_a_phone() -> None:
    """A phone takes a new address of its /64, and fails with its old password: that causes no ban."""
    guard = Player()
    guard.play(at(0, friend("2001:db8::7")))
    assert guard.play(*(at(n, fails("204", f"2001:db8::a{n:x}")) for n in range(1, 10))).bans == []
    elsewhere = [at(20 + n, fails("204", "2001:db8:0:1::7")) for n in range(5)]
    assert banned_after(guard, elsewhere) == (5, ["guess bans 2001:db8:0:1::/64 by sip after 5"])


def test_the_rest_of_a_friends_64_is_one_subject() -> None:
    """The rest of a friend's /64 is banned as one, and the friend in it is not.

    A sender has all of its /64.
    """
    guard = Player()
    guard.play(at(0, friend("2001:db8::7")))
    steps = [at(n, fails("205", f"2001:db8::{100 + n}")) for n in range(5)]
    assert banned_after(guard, steps) == (5, ["guess bans 2001:db8::/64 by sip after 5"])
    guard.play(at(6, Banned("2001:db8::/64", 600.0)))
    spared = guard.play(at(7, fails("204", "2001:db8::7"), fails("204", "2001:db8::8")))
    assert (spared.of("counted as a friend's"), spared.of("late")) == (["2001:db8::7"], ["2001:db8::8"])


@pytest.mark.parametrize(
    ("rule", "entry"),
    [
        ("manager", report(EventKind.INVALID_PASSWORD, PHONE, service=Service.AMI, transport=Transport.TLS)),
        (
            "probe",
            report(
                EventKind.FAILED_ACL, PHONE, acl="no_extension_match", transport=Transport.TLS, account=""
            ),
        ),
    ],
)
def test_a_friend_may_misdial_or_fail_at_the_manager_300_times(rule: str, entry: SecurityEvent) -> None:
    """A friend may misdial or fail at the manager 299 times, and the 300th time is a ban.

    Such friends are phones with a wrong number in memory, and programs with an old password.
    """
    guard = with_friend(rules=(rule,))
    number, _ = banned_after(guard, (at(n, entry) for n in range(400))) or (0, [])
    assert number == 300


# -- guesses that nothing proves -------------------------------------------------------------------------


def test_a_friends_nonce_sent_elsewhere_ends_its_exemption_from_the_limiter() -> None:
    """A friend whose nonce was sent elsewhere loses its exemption for ten minutes, with an alarm."""
    guard = with_friend()
    asked = [sent(PHONE, b"c", nonce=b"n"), sent(BYSTANDER, b"c", nonce=b"n", sender=PHONE)]
    happened = guard.play(at(1, *asked, failed(PHONE, b"c", nonce=b"n")))
    assert happened.alarms == [f"evidence.unprovable of {PHONE}"]
    assert guard.not_passed() == {PHONE}
    guard.play(*ticks(600, 600))
    assert guard.not_passed() == {PHONE}
    guard.play(*ticks(601, 601))
    assert guard.not_passed() == set()


@pytest.mark.parametrize(("number", "alarms"), [(3, 0), (4, 1)])
def test_four_unproven_guesses_of_a_friend_in_an_hour_are_an_alarm(number: int, alarms: int) -> None:
    """Four unproven guesses in an hour raise an alarm; a phone with an old nonce makes one such failure."""
    guard = with_friend()
    for start in range(1, 10 * number, 10):
        assert guard.not_passed() == set()
        guess = at(start, fails("x", proven=False))
        happened = guard.play(guess, *ticks(start + 1, start + 8))
        assert happened.alarms == [f"evidence.unprovable of {PHONE}"] * (start == 31)
    assert len(guard.not_passed()) == alarms


def test_unproven_requests_without_an_answer_are_no_alarm() -> None:
    """Unproven requests without an answer raise no alarm, because Asterisk checked no password in them."""
    guard = with_friend()
    happened = guard.play(*(at(1 + n, unknown(f"x{n}", proven=False)) for n in range(9)), *ticks(10, 15))
    assert happened.alarms == []


def test_a_friend_that_goes_on_guessing_is_an_alarm_all_the_same() -> None:
    """Each guess has two seconds for its proof, even if other guesses follow."""
    guard = with_friend()
    steps = [at(1 + n, Tick(), fails("x", proven=False)) for n in range(9)]
    assert f"evidence.unprovable of {PHONE}" in guard.play(*steps).alarms


def test_a_friends_guess_has_two_seconds_for_its_proof() -> None:
    """A proof within two seconds prevents the alarm, as the wire may be slower than AMI."""
    for proven in (False, True):
        guard = with_friend()
        calls = [b"%d" % n for n in range(4)]
        guard.play(at(1, *(failed(PHONE, call, nonce=call) for call in calls)), *ticks(2, 2))
        late = [sent(PHONE, call, nonce=call) for call in calls] if proven else []
        happened = guard.play(at(2.5, *late), *ticks(3, 5))
        assert happened.alarms.count(f"evidence.unprovable of {PHONE}") == (not proven)


def test_a_friend_in_a_banned_64_keeps_its_exemption() -> None:
    """A friend in a banned /64 stays on the kernel's list of friends, which exempts it from that ban."""
    phone = "2001:db8::7"
    guard = Player(firewall=True)
    guard.play(at(0, friend(phone)))
    asked = [sent(phone, b"c", nonce=b"n"), sent(BYSTANDER, b"c", nonce=b"n", sender=phone)]
    guard.play(at(1, *asked, failed(phone, b"c", nonce=b"n")))
    assert guard.not_passed() == {phone}
    guard.play(at(2, Banned("2001:db8::/64", 10.0, Scope.SIP_UDP)))
    assert guard.not_passed() == set()
    guard.play(*ticks(12, 12))
    assert guard.not_passed() == {phone}


def test_what_the_firewall_bans_is_late() -> None:
    """Attempts are late while the firewall enforces a ban, in full or of UDP alone."""
    guard = Player(firewall=True)
    guard.play(at(0, Banned("192.0.2.7/32", 10.0), Banned("192.0.2.8/32", 10.0, Scope.SIP_UDP)))
    senders = [(ATTACKER, True), ("192.0.2.8", True), (ATTACKER, False), ("192.0.2.8", False)]
    during = guard.play(at(9, *(fails(address=one, proven=proven) for one, proven in senders)))
    assert during.of("late") == [ATTACKER, ATTACKER, "192.0.2.8"]
    after = guard.play(at(10, *(fails(address=one, proven=proven) for one, proven in senders)))
    assert after.of("late") == []


# -- passwords that somebody may know --------------------------------------------------------------------


@pytest.mark.parametrize(("failures", "alarms"), [(2, []), (3, [f"password.guessed of 300 at {ATTACKER}"])])
def test_a_login_after_three_failures_of_its_address_is_an_alarm(failures: int, alarms: list[str]) -> None:
    """One or two failures before a login are typing errors, and three raise an alarm."""
    steps = [at(n, fails("300", ATTACKER)) for n in range(failures)]
    assert Player().play(*steps, at(10, login(ATTACKER, account="300"))).alarms == alarms


@pytest.mark.parametrize(("later", "alarms"), [(HOUR - 1, 1), (HOUR + 3, 0)])
def test_failures_count_against_a_login_for_an_hour(later: float, alarms: int) -> None:
    """Failures count against a login for an hour, as a guesser may wait."""
    steps = [at(n, fails("300", ATTACKER)) for n in range(3)]
    happened = Player().play(*steps, at(later, login(ATTACKER, account="300")))
    assert len(happened.alarms) == alarms


@pytest.mark.parametrize(
    "guesses",
    [
        [fails("300", "192.0.2.8") for _ in range(4)],
        [fails("300", ATTACKER, proven=False) for _ in range(4)],
    ],
    ids=["a neighbour's", "claimed"],
)
def test_other_failures_make_no_login_suspicious(guesses: list[SecurityEvent]) -> None:
    """Neither a neighbour's guesses nor claims that the wire could prove make a login suspicious."""
    assert Player().play(at(0, *guesses), at(1, login(ATTACKER, account="300"))).alarms == []


def test_failures_elsewhere_in_its_64_make_no_login_suspicious() -> None:
    """Only guesses of the login's own address count against it, although its /64 is one subject."""
    for guesser, alarms in (("2001:db8::8", 0), ("2001:db8::7", 1)):
        guesses = [fails("300", guesser) for _ in range(4)]
        happened = Player().play(at(0, *guesses), at(1, login("2001:db8::7", account="300")))
        assert len(happened.alarms) == alarms


def test_failures_from_before_an_address_became_a_friend_make_its_login_suspicious() -> None:
    """An IPv6 address becomes a subject of its own as a friend, and its earlier guesses still count."""
    phone = "2001:db8::7"
    guard = Player()
    guard.play(*(at(n, fails("300", phone)) for n in range(3)), at(4, friend(phone)))
    assert guard.play(at(5, login(phone, account="300"))).alarms == [f"password.guessed of 300 at {phone}"]


def test_a_suspicious_login_in_another_name_is_an_alarm_too() -> None:
    """A login after failures raises an alarm, also if its challenge went elsewhere and it makes no friend."""
    guard = Player()
    guard.play(*(at(n, fails("300", ATTACKER)) for n in range(3)), at(4, sent(BYSTANDER, sender=ATTACKER)))
    happened = guard.play(at(5, login(ATTACKER, account="300")))
    assert happened.alarms == [f"password.guessed of 300 at {ATTACKER}"]
    assert not guard.is_friend(ATTACKER)


def test_unconfirmed_failures_make_no_login_suspicious() -> None:
    """Lines that an attacker writes with an address do not make a later login there suspicious."""
    lines = [failed(ATTACKER, b"%d" % n, by=SECURITY) for n in range(4)]
    guard = Player(sources=("AMI", "log"))
    assert guard.play(at(0, *lines), *ticks(1, 3)).of("unconfirmed") == [ATTACKER] * 4
    assert guard.play(at(4, login(ATTACKER, account="300"))).alarms == []


@pytest.mark.parametrize(("failures", "alarms"), [(2, 0), (3, 1)])
def test_a_contact_where_three_guesses_failed_is_an_alarm(failures: int, alarms: int) -> None:
    """A contact raises an alarm too, because Asterisk's events may not show the login that made it."""
    guard = Player()
    guard.play(*(at(n, fails("300", ATTACKER)) for n in range(failures)))
    contact = Contact(PBX, Service.PJSIP, "300", ip_address(ATTACKER))
    gone = Contact(PBX, Service.PJSIP, "300", ip_address(ATTACKER), gone=True)
    assert guard.play(at(10, gone)).alarms == []
    assert len(guard.play(at(11, contact)).alarms) == alarms


def test_a_contact_of_a_phone_that_worked_at_its_address_is_no_alarm() -> None:
    """A phone whose account worked there before may register again after guesses of its neighbours."""
    guard = with_friend("300")
    guard.play(*(at(n, fails("301", PHONE)) for n in range(3)))
    contact = Contact(PBX, Service.PJSIP, "300", ip_address(PHONE))
    assert guard.play(at(10, contact)).alarms == []
    stranger = Contact(PBX, Service.PJSIP, "302", ip_address(PHONE))
    assert len(guard.play(at(11, stranger)).alarms) == 1


# -- outage mode -----------------------------------------------------------------------------------------

ALL_FAIL = f"phones.all_failing of {PBX}"


def outage(number: int, known: int, start: float = 100.0) -> tuple[Player, list[str]]:
    """Return a guard that knows ``known`` accounts, and the alarms when ``number`` of them fail."""
    accounts = [str(200 + n) for n in range(known)]
    guard = with_friend(*accounts)
    happened = guard.play(*(at(start + n, fails(account)) for n, account in enumerate(accounts[:number])))
    return guard, happened.alarms


@pytest.mark.parametrize(
    ("number", "known", "mode"), [(4, 4, False), (5, 5, True), (5, 10, True), (5, 11, False), (6, 12, True)]
)
def test_five_accounts_and_half_of_all_that_fail_are_an_outage(
    number: int, known: int, *, mode: bool
) -> None:
    """At least five failing accounts, and half of all, are an outage: then Asterisk itself is broken."""
    assert (ALL_FAIL in outage(number, known)[1]) is mode


def test_a_success_within_half_a_minute_is_no_outage() -> None:
    """A success within half a minute shows that Asterisk checks passwords, so there is no outage."""
    for success, mode in ((75.0, False), (73.0, True)):
        accounts = [str(200 + n) for n in range(5)]
        guard = with_friend(*accounts)
        guard.play(at(success, login(PHONE)))
        happened = guard.play(*(at(100 + n, fails(account)) for n, account in enumerate(accounts)))
        assert (ALL_FAIL in happened.alarms) is mode


def test_failures_more_than_five_minutes_apart_are_no_outage() -> None:
    """Five phones that break one after the other are no outage."""
    accounts = [str(200 + n) for n in range(5)]
    guard = with_friend(*accounts)
    steps = [at(n * 75.0, fails(account)) for n, account in enumerate(accounts)]
    assert ALL_FAIL not in guard.play(*steps[:4], at(300, fails(accounts[4]))).alarms


def test_an_outage_exempts_only_accounts_that_worked() -> None:
    """An outage exempts only accounts that worked, so an attacker at a friend's address gains nothing."""
    guard, _ = outage(6, 6)
    assert guard.play(*(at(110 + n * 0.01, fails("200")) for n in range(1_000))).bans == []
    assert banned_after(guard, (at(130, fails(f"x{n}")) for n in range(20))) == (
        20,
        [f"guess bans {PHONE}/32 by sip-tcp for 3600 s after 64"],
    )


def test_an_outage_exempts_accounts_that_asterisk_does_not_know() -> None:
    """An outage exempts unknown accounts, because with a lost database all accounts are unknown."""
    guard, _ = outage(6, 6)
    assert banned_after(guard, (at(130 + n * 0.01, unknown(f"x{n}")) for n in range(200))) is None


def test_an_outage_bans_strangers_as_ever() -> None:
    """An outage exempts no stranger, as strangers fail for their own reasons."""
    guard, _ = outage(6, 6)
    steps = (at(130 + n, fails("300", ATTACKER)) for n in range(5))
    assert banned_after(guard, steps) == (5, ["guess bans 192.0.2.7/32 by sip after 5"])


def test_an_outage_is_over_when_few_fail() -> None:
    """An outage ends five minutes after the last failures, or when three of four phones work again."""
    guard, _ = outage(8, 8)
    assert guard.play(*ticks(400, 402)).alarms == []
    assert guard.play(*ticks(404, 406)).alarms == [f"{ALL_FAIL} is over"]
    guard, _ = outage(20, 20)
    assert (
        ALL_FAIL
        not in guard.play(
            *(at(130 + n, login(PHONE, account=str(200 + n))) for n in range(14)), *ticks(150, 150)
        ).alarms
    )
    assert f"{ALL_FAIL} is over" in guard.play(at(151, login(PHONE, account="214")), *ticks(152, 152)).alarms


def test_an_outage_is_over_when_phones_that_retry_stop() -> None:
    """An outage ends five minutes after the last failure, also if each phone failed several times."""
    guard, _ = outage(8, 8)
    guard.play(at(110, *(fails(str(200 + n)) for n in range(8))))
    assert guard.play(*ticks(409, 411)).alarms == [f"{ALL_FAIL} is over"]


def test_an_outage_ends_by_its_own_failures_and_not_by_earlier_ones() -> None:
    """Forty phones that failed before, while another succeeded, do not end an outage of five."""
    former = [str(300 + n) for n in range(40)]
    guard = Player()
    guard.play(at(0, *(evolve(friend(account=one), until=1_000.0) for one in former)), at(90, login()))
    happened = guard.play(at(100, *(fails(one) for one in former)), *ticks(1_001, 1_001))
    assert ALL_FAIL not in happened.alarms
    accounts = [str(200 + n) for n in range(5)]
    guard.play(at(2_000, *(friend(account=one) for one in accounts)))
    assert ALL_FAIL in guard.play(at(2_100, *(fails(one) for one in accounts))).alarms
    assert guard.play(*ticks(2_101, 2_103)).alarms == []


def test_an_outage_makes_former_friends_friends() -> None:
    """A former friend is a friend in an outage, because its phone could not renew its friendship."""
    guard = Player()
    guard.play(at(0, login(PHONE)), at(0, login(BYSTANDER, account="300")), *ticks(2 * HOUR, 2 * HOUR))
    assert not guard.is_friend(BYSTANDER)
    accounts = [str(200 + n) for n in range(5)]
    guard.play(at(8_000, *(friend(PHONE, account) for account in accounts)))
    guard.play(*(at(8_100 + n, fails(account)) for n, account in enumerate(accounts)))
    assert guard.is_friend(BYSTANDER)
    failures = [at(8_110 + n, unknown(f"x{n}", BYSTANDER)) for n in range(5)]
    assert guard.play(*failures).of("counted as a friend's") == [BYSTANDER] * 5


def test_phones_under_other_names_are_an_outage_too() -> None:
    """Unknown accounts at three friends' addresses, and at half of all friends', are an outage.

    Phones there use other names than Asterisk's endpoints.
    """
    offices = ["198.51.100.1", "198.51.100.2", "198.51.100.3"]
    for others, mode in ((3, True), (4, False)):
        guard = Player()
        guard.play(
            at(0, *(friend(office, "endpoint") for office in offices)),
            at(0, *(friend(f"203.0.113.{n}", "endpoint") for n in range(others))),
        )
        happened = guard.play(*(at(100 + n, unknown("phone", office)) for n, office in enumerate(offices)))
        assert (ALL_FAIL in happened.alarms) is mode


def test_a_narrow_ban_of_a_friend_is_no_reason_to_be_late() -> None:
    """Proven attempts of a friend with a narrow ban are judged as a friend's."""
    guard = with_friend()
    guard.play(at(1, Banned(f"{PHONE}/32", 600.0, Scope.SIP_UDP)))
    assert guard.play(at(2, fails())).of("counted as a friend's") == [PHONE]


def test_a_challenge_of_a_friend_is_no_attempt() -> None:
    """A challenge of a friend is no attempt, since each of its registrations begins with one."""
    guard = with_friend()
    assert guard.play(at(1, sent(PHONE), challenged(PHONE)), *ticks(2, 8)).attempts == []


# -- other addresses of a friend's /64, and lines of the log -------------------------------------------------


def test_a_broken_phone_leads_to_no_ban_of_another_phone_in_its_network() -> None:
    """The failures of an account that works in a /64 do not count for its strangers; their own do."""
    guard = Player(rules=["guess"])
    guard.play(at(0, login("2001:db8::1")))
    broken = [at(1 + number, fails(address="2001:db8::2")) for number in range(20)]
    assert banned_after(guard, broken) is None
    strange = [at(30 + number, fails("300", "2001:db8::3")) for number in range(20)]
    assert banned_after(guard, strange) == banned_after(Player(rules=["guess"]), strange)


def broken_phones(address: str, *accounts: str) -> list[Step]:
    """Return failures of known phones, now at ``address``, each at its own account."""
    known = [friend("2001:db8::1", account) for account in accounts]
    return [at(0, *known), *(at(1, fails(account, address)) for account in accounts for _ in range(9))]


def test_broken_phones_are_no_office_that_a_ban_of_their_network_hits() -> None:
    """The wire reports five guesses beside them, and AMI then names the account of one."""
    guard = Player()
    guard.play(*broken_phones("2001:db8::2", "204", "205", "206"))
    banned: list[str] = []
    for number in range(5):
        call, nonce = b"o%d" % number, b"1/%d" % number
        one = copied("2001:db8::3", call, nonce=nonce, transport=Transport.TCP)
        refusal = sent("2001:db8::3", call, sequence=2, transport=Transport.TCP)
        banned = guard.play(at(2 + number, evolve(one, account="300"), refusal)).bans
    assert banned == ["guess bans 2001:db8::/64 by sip after 5"]
    named = failed("2001:db8::3", b"o0", nonce=b"1/0", account="301", transport=Transport.TCP)
    assert guard.play(at(7, named)).alarms == []


def test_failures_of_a_known_phone_count_for_no_prefix() -> None:
    """An address where an account worked is banned with its second guess at another one."""
    guard = Player(rules=["prefix"])
    guard.play(at(0, friend("192.0.2.200"), evolve(friend("192.0.2.1"), until=1.0)), *ticks(2, 2))
    guard.play(*(at(3, fails(address="192.0.2.1")) for _ in range(5)))
    guard.play(*(at(4, fails("300", f"192.0.2.{2 + number}")) for number in range(20)))
    bans = [guard.play(at(5, fails("300", "192.0.2.1"))).bans for _ in range(2)]
    assert bans == [[], ["prefix bans 192.0.2.1/32 by sip after 2"]]


def test_failures_of_a_known_phone_are_no_distributed_attack() -> None:
    """They do not add to those of two strangers at its account, also at a new address of its network."""
    guard = Player()
    retries = [at(60.0 * number, fails(address="2001:db8::2")) for number in range(30)]
    guard.play(at(0, friend("2001:db8::1")), *retries)
    assert guard.play(*(at(HOUR / 2, fails(address=one)) for one in (ATTACKER, BYSTANDER))).alarms == []


def test_failures_of_a_known_phone_hide_no_carrier_in_its_network() -> None:
    """The ban of its network was for calls without credentials alone."""
    guard = Player(firewall=True)
    guard.play(*broken_phones("2001:db8::2", "204"))
    call = [probed("2001:db8::3", b"c%d" % n, account="100", transport=Transport.TCP) for n in range(5)]
    guard.play(at(2, *call), at(3, Banned("2001:db8::/64", 600.0, Scope.SIP_TCP)))
    assert guard.unidentified() == ["2001:db8::/64 sip-tcp"]


def test_each_address_of_a_new_friends_network_is_observed() -> None:
    """An attacker with one password has a whole /64, and may log in from one address of it after another."""
    guard = Player()
    guard.play(at(0, login("2001:db8::1")), at(1, login("2001:db8::2")))
    assert guard.observed() == {"2001:db8::1", "2001:db8::2"}
    stays = [friend(f"2001:db8::{number}") for number in (1, 2)]
    guard.play(at(2, *stays, friend("2001:db8::3", "300")), at(3, login("2001:db8::3", account="300")))
    assert guard.observed() == {"2001:db8::1", "2001:db8::2"}
    guard.play(*ticks(DAY + 0.5, DAY + 0.5))
    assert guard.observed() == set()


def test_failures_of_a_known_account_hide_no_guesses_beside_them() -> None:
    """They take few of the places in which a sender's attempts are kept."""
    guard = Player(rules=["guess"])
    guard.play(at(0, login()), *ticks(7_200, 7_200))
    steps = [at(7_201 + number, *(fails() for _ in range(15)), fails("300")) for number in range(20)]
    assert banned_after(guard, steps) == (5, [f"guess bans {PHONE}/32 by sip after 5"])


@pytest.mark.parametrize("challenges", [0, 1])
def test_a_call_of_an_unknown_account_hides_no_guess_of_its_call_id(challenges: int) -> None:
    """PJSIP reports such a call as an attempt, and then a wrong password for any account."""
    steps, plain = [], []
    for number in range(200):
        call = b"h%d" % number
        guess = failed(PHONE, call, account="300", transport=Transport.TLS)
        stranger = probed(PHONE, call, account="nobody", transport=Transport.TLS)
        asked = [challenged(PHONE, call, transport=Transport.TLS)] * challenges
        steps.append(at(number, stranger, *asked, guess))
        plain.append(at(number, guess))
    found = [banned_after(with_friend(), some) for some in (plain, steps)]
    assert [one and one[0] for one in found] == [22, 22]


@pytest.mark.parametrize("method", ["", "OPTIONS", "REGISTER"])
def test_a_line_of_the_log_excuses_no_guess_at_a_friends_address(method: str) -> None:
    """Its sender can write that the account does not exist, which is no guess of a friend."""
    steps, plain = [], []
    for number in range(200):
        call = b"g%d" % number
        guess = failed(PHONE, call, account="300", transport=Transport.TLS)
        line = probed(PHONE, call, by=NOTICE, account="300", method=method)
        steps.append(at(number, line, guess))
        plain.append(at(number, guess))
    expected = banned_after(with_friend(), plain)
    assert expected is not None
    assert banned_after(with_friend(), steps) == expected


BRANCH = SourceId("branch", AMI)


@pytest.mark.parametrize("asked_by", [BRANCH, SourceId(PBX, AMI)], ids=["branch", "its own Asterisk"])
def test_a_question_excuses_no_guess_at_an_account_that_exists(asked_by: SourceId) -> None:
    """The account may be unknown at another Asterisk, or to one that then finds it by its credentials.

    Asterisk's report of the wrong answer names an account that exists, so it is a guess.
    """
    found = []
    for questions in (0, 1):
        guard = with_friend(others=("branch",))
        steps = []
        for number in range(100):
            guess = failed(PHONE, b"call", account="300", transport=Transport.TLS)
            question = probed(PHONE, b"call", account="300", transport=Transport.TLS, method="REGISTER")
            steps.append(at(number, *[evolve(question, source=asked_by)] * questions, guess))
        found.append(banned_after(guard, steps))
    assert found[0] is not None
    assert found[1] == found[0]


def test_a_question_at_another_asterisk_excuses_no_guess_that_only_the_log_shows() -> None:
    """The log names the account that the sender wrote, whether or not it exists: it may, at this Asterisk."""
    found = []
    for questions in (0, 1):
        guard = with_friend(others=("branch",), connected=[(PHONE, 5062)])
        steps = []
        for number in range(100):
            call = b"n%d" % number
            guess = failed(PHONE, call, account="300", transport=Transport.TLS, by=NOTICE)
            question = probed(PHONE, call, account="300", transport=Transport.TLS, method="REGISTER")
            steps.append(at(number, *[evolve(question, source=BRANCH)] * questions, guess))
        found.append(banned_after(guard, steps))
    assert found[0] is not None
    assert found[1] == found[0]


def test_a_question_excuses_no_hidden_guess() -> None:
    """The account of a hidden guess is text of its sender: Asterisk may have checked another one."""
    found = []
    for questions in (0, 1):
        guard = Player(rules=["guess"])
        guard.play(at(0, login()))
        steps = []
        for number in range(100):
            call, nonce = b"h%d" % number, b"1/%d" % number
            question = probed(PHONE, call, account="x", method="REGISTER")
            asked = copied(PHONE, call, nonce=nonce, registers="x", sequence=2)
            challenge = sent(PHONE, call, nonce=nonce, sequence=1)
            refusal = evolve(sent(PHONE, call, sequence=2), evasive=True)
            steps.append(at(1 + number, challenge, *[question] * questions, asked, refusal))
        found.append(banned_after(guard, steps))
    assert found[0] is not None
    assert found[1] == found[0]


LINES = [
    {"kind": EventKind.INVALID_ACCOUNT_ID, "account": "300"},
    {"kind": EventKind.CHALLENGE_RESPONSE_FAILED, "account": "204"},
]


def lines_and_guesses(
    line: dict[str, Any] | None, transport: Transport, address: str = PHONE
) -> Iterable[Step]:
    """Yield guesses of ``address`` at the account 300, each behind a line of the log under its Call-ID."""
    for number in range(100):
        call, nonce = b"l%d" % number, b"1/%d" % number
        guess = failed(address, call, nonce=nonce, response=b"r", account="300", transport=transport)
        asked = [sent(address, call, nonce=nonce)] if transport is Transport.UDP else []
        forged = [report(call=call, by=NOTICE, method="INVITE", **line)] if line else []
        yield at(1 + number, *asked, *(evolve(one, remote=guess.remote) for one in forged), guess)


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TLS])
@pytest.mark.parametrize("line", LINES, ids=["an unknown account", "the account of the phone"])
@pytest.mark.parametrize("address", ["2001:db8::1", "2001:db8::2"], ids=["a friend", "its neighbour"])
def test_what_ami_reports_of_a_guess_decides_and_not_a_line_before_it(
    line: dict[str, Any], transport: Transport, address: str
) -> None:
    """The wire or the connection confirms the line's address, and its sender has written the rest."""
    found = []
    for before in (None, line):
        guard = Player(connected=[(address, 5062)], rules=["guess"])
        guard.play(at(0, friend("2001:db8::1")))
        found.append(banned_after(guard, lines_and_guesses(before, transport, address)))
    assert found[0] is not None
    assert found[1] == found[0]


def test_a_line_between_the_copied_guess_and_amis_report_adds_no_guess() -> None:
    """The line calls the account unknown, so the guess seems to be none until AMI reports it."""
    found = []
    for lines in (0, 1):
        guard = Player(rules=["guess"])
        guard.play(at(0, friend()))
        steps = []
        for number in range(100):
            call, nonce = b"w%d" % number, b"1/%d" % number
            asked = copied(PHONE, call, nonce=nonce, registers="300")
            challenge, refusal = sent(PHONE, call, nonce=nonce), sent(PHONE, call, sequence=2)
            line = probed(PHONE, call, by=NOTICE, account="300")
            guess = failed(PHONE, call, nonce=nonce, response=b"r", account="300")
            steps.append(at(1 + number, challenge, asked, refusal, *[line] * lines, guess))
        found.append(banned_after(guard, steps))
    assert found[0] is not None
    assert found[1] == found[0]


def test_what_ami_reports_of_a_broken_phone_decides_too() -> None:
    """The phone has a new address in its /64, and a line of the log names another account than its own."""
    guard = Player(connected=[("2001:db8::2", 5062)], rules=["guess"])
    guard.play(at(0, friend("2001:db8::1")))
    for number in range(20):
        failure = failed("2001:db8::2", b"b%d" % number, account="204", transport=Transport.TLS)
        line = probed(call=failure.session, by=NOTICE, account="300")
        assert guard.play(at(1 + number, evolve(line, remote=failure.remote), failure)).bans == []


def test_what_ami_reports_of_a_guess_bans_no_exempt_friend() -> None:
    """It became exempt after the line: an exempt address is never banned."""
    guard = Player(connected=[(PHONE, 5062)])
    guard.play(at(0, friend()))
    for step in lines_and_guesses(LINES[0], Transport.TLS):
        line, guess = step.entries
        exempt = Exempt((f"{PHONE}/32",))
        happened = guard.play(evolve(step, entries=(Exempt(()), line, exempt, guess)))
        assert (len(happened.attempts), happened.bans) == (1, [])


def failed_calls(dialled: Iterable[str], every: float, start: float = 1.0) -> Iterable[Step]:
    """Yield calls of PHONE at chan_sip with a wrong password: InvalidPassword names the dialled number."""
    for number, account in enumerate(dialled):
        call, nonce = b"0x7f%d" % number, b"n%d" % number
        asked = challenged(PHONE, call, service=Service.SIP, account="sip:204@198.18.0.1", nonce=nonce)
        guess = wrong(PHONE, call, account=account, nonce=nonce, response=b"r")
        yield at(start + every * number, sent(PHONE, nonce=nonce, service=Service.SIP), asked, guess)


def test_the_numbers_that_a_broken_phone_of_chan_sip_dials_are_no_accounts() -> None:
    """An office whose phone has an old password calls thirty numbers in ten minutes."""
    calls = failed_calls((f"0301{number}" for number in range(30)), 20.0)
    assert banned_after(with_friend(), calls) is None


def test_an_outage_exempts_calls_at_chan_sip() -> None:
    """Their events do not name the phone's account, and during an outage its caller's URI is enough."""
    guard, _ = outage(6, 6)
    assert banned_after(guard, failed_calls((f"0301{number}" for number in range(60)), 0.5, 110.0)) is None


def test_a_dialled_number_excuses_no_guess_at_chan_sip() -> None:
    """A guesser behind a friend's address dials the friend's number: nothing shows that it is the friend."""
    assert banned_after(with_friend(), failed_calls(["204"] * 100, 1.0)) == (
        22,
        [f"guess bans {PHONE}/32 by sip-udp for 3600 s after 22"],
    )


def copied_failures(endpoint: str, user: str, number: int, now: float, *, ami_first: bool = False) -> Step:
    """Return a wrong password of PHONE: the copy names the user of its credentials, AMI the endpoint."""
    call, nonce = b"n%d" % number, b"1/%d" % number
    asked = copied(PHONE, call, nonce=nonce, registers=user, response=b"R")
    challenge, refusal = sent(PHONE, call, nonce=nonce), sent(PHONE, call, sequence=2)
    reported = failed(PHONE, call, nonce=nonce, response=b"r", account=endpoint)
    if ami_first:
        return at(now, challenge, asked, reported, refusal)
    return at(now, challenge, asked, refusal, reported)


@pytest.mark.parametrize("ami_first", [False, True])
def test_a_broken_phone_with_another_user_name_bans_no_office(*, ami_first: bool) -> None:
    """AMI names the endpoint, which works there; the copy names the user alone, whichever comes first."""
    guard = with_friend("204@pbx.example")
    steps = [
        copied_failures("204@pbx.example", "204", number, 1.0 + number, ami_first=ami_first)
        for number in range(60)
    ]
    assert banned_after(guard, steps) is None


def test_a_broken_phone_that_sends_each_request_twice_bans_no_office() -> None:
    """AMI alone reports both, so each copy matches AMI's report of an earlier request."""
    guard = with_friend("204@pbx.example")
    guard.play(at(0.5, sent(PHONE, b"c", nonce=b"1/n", sequence=1)))
    steps = []
    for number in range(2, 32):
        asked = copied(PHONE, b"c", nonce=b"1/n", sequence=number, registers="204", response=b"%d" % number)
        refusal = sent(PHONE, b"c", sequence=number)
        reported = failed(PHONE, b"c", nonce=b"1/n", response=b"%d" % number, account="204@pbx.example")
        steps.append(at(number, asked, refusal, reported))
        steps.append(at(number + 0.5, asked, refusal, reported))
    assert banned_after(guard, steps) is None


def test_ten_broken_phones_with_other_user_names_ban_no_office() -> None:
    """An office has ten phones with old passwords, which try again each minute, and twenty that work."""
    accounts = [str(200 + number) for number in range(30)]
    guard = with_friend(*(f"{account}@pbx.example" for account in accounts))
    steps = [
        copied_failures(f"{account}@pbx.example", account, 10 * turn + index, 60.0 * turn + index)
        for turn in range(5)
        for index, account in enumerate(accounts[:10])
    ]
    assert banned_after(guard, steps) is None


# -- guesses behind failures of an account that works there ----------------------------------------------


def silent_guess(number: int, transport: Transport = Transport.UDP) -> tuple[CopiedRequest, CopiedAnswer]:
    """Return a guess of PHONE at the account 300 that AMI does not report, and its refusal.

    Its first header with credentials has a nonce that is not UTF-8.
    """
    asked = copied(
        PHONE, b"c", nonce=b"1/n", sequence=number, transport=transport, registers="300", response=None
    )
    return asked, sent(PHONE, b"c", sequence=number, transport=transport)


@pytest.mark.parametrize("guess_first", [True, False])
def test_a_repeated_failure_excuses_no_silent_guess_of_its_call_id(*, guess_first: bool) -> None:
    """PJSIP answers the same datagram again, and AMI reports it again. For the wire it is a repeat."""
    guard = with_friend()
    asked = copied(PHONE, b"c", nonce=b"1/n", registers="204", response=b"own")
    failure = asked, sent(PHONE, b"c", sequence=2), failed(PHONE, b"c", nonce=b"1/n", response=b"own")
    challenge = sent(PHONE, b"c", nonce=b"1/n", sequence=1)
    guard.play(at(1, challenge, *failure), at(2, *failure))  # AMI's first repeat is forgiven
    steps = []
    for number in range(3, 33):
        guess = silent_guess(number)
        steps.append(at(number, *guess, *failure) if guess_first else at(number, *failure, *guess))
    banned = banned_after(guard, steps)
    assert banned is not None
    assert banned[0] == 22


def test_a_failure_by_tls_excuses_no_silent_guess_by_tcp() -> None:
    """They have one Call-ID. The wire cannot read the failure, and AMI reports nothing else."""
    guard = with_friend()
    guard.play(at(1, sent(PHONE, b"c", nonce=b"1/n", sequence=1, transport=Transport.TCP)))
    steps = []
    for number in range(2, 32):
        failure = failed(PHONE, b"c", nonce=b"1/n", response=b"%d" % number, transport=Transport.TLS)
        steps.append(at(number, failure, *silent_guess(number, Transport.TCP)))
    banned = banned_after(guard, steps)
    assert banned is not None
    assert banned[0] == 22


def silent_subscription(
    number: int, response: bytes, transport: Transport = Transport.UDP
) -> tuple[CopiedRequest, CopiedAnswer]:
    """Return a guess of PHONE at the account 300 by a SUBSCRIBE, and its refusal.

    chan_sip checks the password of a SUBSCRIBE, and reports none.
    """
    asked = copied(
        PHONE, b"c", nonce=b"1f", sequence=number, registers="300", response=response, transport=transport
    )
    refusal = sent(PHONE, b"c", service=Service.SIP, status=403, sequence=number, transport=transport)
    return evolve(asked, method="SUBSCRIBE"), refusal


def test_a_failure_at_chan_sip_excuses_no_guess_that_ami_does_not_report() -> None:
    """AMI reports the failure at the own account again and again, and never the guess."""
    guard = with_friend()
    failure = wrong(PHONE, b"0x7f", nonce=b"1f", response=b"own")
    challenge = sent(PHONE, b"c", nonce=b"1f", service=Service.SIP, sequence=1)
    guard.play(at(1, challenge, failure), at(2, failure))
    steps = (at(number, failure, *silent_subscription(number, b"guess")) for number in range(3, 33))
    banned = banned_after(guard, steps)
    assert banned is not None
    assert banned[0] == 22


def test_a_failure_at_chan_sip_by_tls_excuses_no_guess_by_tcp_with_its_response() -> None:
    """A sender can put one nonce and one response into both."""
    guard = with_friend(connected=[(PHONE, 5062)])
    steps = []
    for number in range(2, 32):
        response = b"%d" % number
        failure = wrong(PHONE, b"0x7f", nonce=b"1f", response=response, transport=Transport.TLS)
        steps.append(at(number, failure, *silent_subscription(number, response, Transport.TCP)))
    banned = banned_after(guard, steps)
    assert banned is not None
    assert banned[0] == 22


def test_a_guess_at_one_account_excuses_no_silent_guesses_at_others() -> None:
    """Of an account, two count within ten minutes. AMI names always the same one, fifteen times a minute."""
    guard = with_friend()
    guard.play(at(1, sent(PHONE, b"c", nonce=b"1/n", sequence=1, transport=Transport.TCP)))
    steps = []
    for number in range(2, 102):
        reported = failed(
            PHONE, b"c", nonce=b"1/n", response=b"%d" % number, account="777", transport=Transport.TLS
        )
        asked, refusal = silent_guess(number, Transport.TCP)
        steps.append(at(4 * number, reported, evolve(asked, account=f"3{number}"), refusal))
    banned = banned_after(guard, steps)
    assert banned is not None
    assert banned[0] == 20


def test_a_call_of_an_unknown_account_excuses_no_silent_guess_of_its_call_id() -> None:
    """AMI reports the call as an attempt, and no guess of a friend."""
    guard = with_friend()
    guard.play(at(1, sent(PHONE, b"c", nonce=b"1/n", sequence=1)))
    steps = [
        at(number, probed(PHONE, b"c", account="nobody"), *silent_guess(number)) for number in range(2, 32)
    ]
    banned = banned_after(guard, steps)
    assert banned is not None
    assert banned[0] == 22


def test_a_call_of_an_account_that_worked_there_excuses_no_silent_guess_of_its_call_id() -> None:
    """The friendship has ended, and the account no longer exists. So the call alone counts for nothing."""
    guard = with_friend(until=0.5)
    guard.play(*ticks(1, 1))
    steps = []
    for number in range(2, 32):
        call, nonce = b"w%d" % number, b"1/%d" % number
        guess = copied(PHONE, call, nonce=nonce, registers="300", response=None)
        challenge, refusal = sent(PHONE, call, nonce=nonce, sequence=1), sent(PHONE, call, sequence=2)
        steps.append(at(number, challenge, probed(PHONE, call), guess, refusal))
    banned = banned_after(guard, steps)
    assert banned is not None
    assert banned[0] == 5


# -- guesses beside a user name that works there -------------------------------------------------------


BESIDE_CHAN_SIP = (
    b'X: username="204"\r\nAuthorization: Digest username=300, nonce="%b", response="%032d"\r\n\r\n'
)
BESIDE_PJSIP = (
    b'Authorization: Digest username="204", realm="another", nonce="\xff"\r\n'
    b'Authorization: Digest username\r\n ="300", nonce="%b", response="%032d"\r\n\r\n'
)


@pytest.mark.parametrize(
    ("service", "nonce", "headers"),
    [(Service.SIP, b"1f", BESIDE_CHAN_SIP), (Service.PJSIP, b"1/n", BESIDE_PJSIP)],
)
def test_a_user_name_beside_that_of_the_credentials_excuses_no_guess(
    service: Service, nonce: bytes, headers: bytes
) -> None:
    """The account 204 works there, and Asterisk checks 300. AMI reports nothing."""
    guard = with_friend()
    guard.play(at(1, sent(PHONE, b"c", nonce=nonce, service=service, sequence=1)))
    steps = []
    for number in range(2, 32):
        head = b"SUBSCRIBE sip:100@pbx SIP/2.0\r\nCall-ID: c\r\nCSeq: %d SUBSCRIBE\r\n" % number
        asked = parse_request(ip_address(PHONE), 5062, head + headers % (nonce, number))
        steps.append(at(number, asked, sent(PHONE, b"c", service=service, sequence=number)))
    banned = banned_after(guard, steps)
    assert banned is not None
    assert banned[0] == 20


def test_what_ami_reports_of_a_claimed_failure_decides_too() -> None:
    """Without the wire, a line names another account first. AMI names the phone's own, so none is a guess."""
    guard = Player(connected=[(PHONE, 5062)], rules=["guess"])
    guard.play(at(0, friend()))
    for number in range(30):
        failure = failed(PHONE, b"b%d" % number, account="204")
        line = probed(call=failure.session, by=NOTICE, account="300")
        assert guard.play(at(1 + 0.1 * number, evolve(line, remote=failure.remote), failure)).bans == []
    guess = failed(PHONE, b"guess", account="300", transport=Transport.TLS)
    assert guard.play(at(5, guess)).bans == []
