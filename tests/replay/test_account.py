"""What is known of everybody in the past, and what is forgotten of whom."""

from ipaddress import ip_address, ip_network

from tests.detect.events import attempt

from ringfence.detect.detector import Judgement, Standing
from ringfence.detect.judge import Decision
from ringfence.detect.rules import DAY, HOUR, RULES
from ringfence.model import Network
from ringfence.replay.account import Accounts, Row

NETWORK = ip_network("192.0.2.7/32")


def judged(
    address: str = "192.0.2.7",
    standing: Standing = Standing.COUNTED,
    *,
    network: Network = NETWORK,
    banned: bool = False,
) -> Judgement:
    """Give the judgement of an attempt."""
    made = attempt(address)
    return Judgement(made, network, standing, Decision(network, RULES[0], (made,)) if banned else None)


def row_of(accounts: Accounts, address: str = "192.0.2.7", network: Network = NETWORK) -> Row:
    """Give somebody's row."""
    return accounts.of(network, ip_address(address))


def test_attempts_are_counted_with_what_became_of_them() -> None:
    """Late ones too; what bans nobody is told apart."""
    accounts = Accounts()
    for standing in (Standing.COUNTED, Standing.WITHHELD, Standing.LATE, Standing.NO_RULE):
        assert accounts.judged(judged(standing=standing), 0.0) is None
    row = row_of(accounts)
    assert (row.attempts, row.withheld, row.allowed, row.bans) == (4, 1, False, ())
    accounts.judged(judged(standing=Standing.NEVER_BANNED), 0.0)
    assert row.allowed


def test_a_ban_and_those_on_return() -> None:
    """The first says after how many attempts; each return within 30 days takes the next length."""
    accounts = Accounts()
    accounts.judged(judged(), 0.0)
    assert accounts.judged(judged(banned=True), 10.0) == HOUR
    assert accounts.judged(judged(banned=True), 10.0 + DAY) == 6 * HOUR
    assert accounts.judged(judged(banned=True), 10.0 + 29 * DAY) == DAY
    assert accounts.judged(judged(banned=True), 10.0 + 33 * DAY) == 6 * HOUR
    row = row_of(accounts)
    assert (row.attempts, row.banned_at_attempt, row.rule) == (5, 2, "guess")
    assert row.bans == (10.0, 10.0 + DAY, 10.0 + 29 * DAY, 10.0 + 33 * DAY)


def test_who_logs_in_after_the_ban() -> None:
    """Before it, or without one, it is nothing special."""
    accounts = Accounts()
    row = row_of(accounts)
    row.succeed(5.0)
    accounts.judged(judged(banned=True), 10.0)
    row.succeed(9.0)
    assert not row.later_succeeded
    row.succeed(10.0)
    assert row.later_succeeded


def test_a_subject_is_named_by_its_addresses() -> None:
    """One address by itself, several of a /64 by the network."""
    accounts = Accounts()
    network = ip_network("2001:db8::/64")
    assert row_of(accounts, "2001:db8::1", network).name == "2001:db8::1"
    assert row_of(accounts, "2001:db8::1", network).name == "2001:db8::1"
    assert row_of(accounts, "2001:db8::2", network).name == "2001:db8::/64"
    assert row_of(accounts).name == "192.0.2.7"
    # The number of an IPv6 network may be that of an IPv4 address.
    assert row_of(accounts, "::c000:207", ip_network("::c000:207/128")).name == "::c000:207"
    assert len([*accounts]) == 3


def test_who_was_banned_stays_longest() -> None:
    """Beyond the bound the oldest goes who was never banned, and is counted."""
    let_go: list[Network] = []
    accounts = Accounts(most=3, let_go=let_go.append)
    networks = [ip_network(f"192.0.2.{n}/32") for n in range(6)]
    accounts.judged(judged("192.0.2.0", network=networks[0], banned=True), 0.0)
    for n in (1, 2, 3):
        accounts.judged(judged(f"192.0.2.{n}", network=networks[n]), 0.0)
    assert [row.name for row in accounts] == ["192.0.2.0", "192.0.2.2", "192.0.2.3"]
    assert accounts.evicted == 1
    for n in (2, 3):
        accounts.judged(judged(f"192.0.2.{n}", network=networks[n], banned=True), 0.0)
    row_of(accounts, "192.0.2.4", networks[4])
    assert [row.name for row in accounts] == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]
    assert let_go == networks[:1]
