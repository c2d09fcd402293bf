"""Outcomes of a replay, and which of them are discarded."""

from ipaddress import ip_address, ip_network

from tests.detect.events import attempt

from ringfence.detect.judgement import Decision, Disposition, Judgement
from ringfence.detect.rules import DAY, HOUR, RULES
from ringfence.features.replay.run import AddressOutcome, Outcomes
from ringfence.values.network import Network

NETWORK = ip_network("192.0.2.7/32")


def judged(
    address: str = "192.0.2.7",
    disposition: Disposition = Disposition.COUNTED,
    *,
    network: Network = NETWORK,
    banned: bool = False,
) -> Judgement:
    """Return the judgement of an attempt."""
    made = attempt(address)
    return Judgement(
        made, network, disposition, Decision(network, RULES[0], (made,), 0.0) if banned else None
    )


def outcome_of(accounts: Outcomes, address: str = "192.0.2.7", network: Network = NETWORK) -> AddressOutcome:
    """Return the outcome of an address."""
    return accounts.outcome_of(network, ip_address(address))


def test_attempts_are_counted() -> None:
    """All attempts are counted, late ones too; unconfirmed ones are counted apart."""
    accounts = Outcomes()
    for disposition in (Disposition.COUNTED, Disposition.UNCONFIRMED, Disposition.LATE, Disposition.NO_RULE):
        assert accounts.record(judged(disposition=disposition), 0.0) is None
    row = outcome_of(accounts)
    assert (row.attempts, row.unconfirmed, row.exempt, row.bans) == (4, 1, False, ())
    accounts.record(judged(disposition=Disposition.EXEMPT), 0.0)
    assert row.exempt


def test_repeat_bans() -> None:
    """The first ban has its number of attempts; each repeat within 30 days is longer."""
    accounts = Outcomes()
    accounts.record(judged(), 0.0)
    assert accounts.record(judged(banned=True), 10.0) == HOUR
    assert accounts.record(judged(banned=True), 10.0 + DAY) == 6 * HOUR
    assert accounts.record(judged(banned=True), 10.0 + 29 * DAY) == DAY
    assert accounts.record(judged(banned=True), 10.0 + 33 * DAY) == 6 * HOUR
    row = outcome_of(accounts)
    assert (row.attempts, row.banned_at_attempt, row.rule) == (5, 2, "guess")
    assert row.bans == (10.0, 10.0 + DAY, 10.0 + 29 * DAY, 10.0 + 33 * DAY)


def test_a_login_after_the_ban() -> None:
    """A login counts only after a ban."""
    accounts = Outcomes()
    row = outcome_of(accounts)
    row.succeed(5.0)
    accounts.record(judged(banned=True), 10.0)
    row.succeed(9.0)
    assert not row.later_succeeded
    row.succeed(10.0)
    assert row.later_succeeded


def test_a_subject_is_named_by_its_addresses() -> None:
    """A single address is its own name, several of a /64 are named by the network."""
    accounts = Outcomes()
    network = ip_network("2001:db8::/64")
    assert outcome_of(accounts, "2001:db8::1", network).name == "2001:db8::1"
    assert outcome_of(accounts, "2001:db8::1", network).name == "2001:db8::1"
    assert outcome_of(accounts, "2001:db8::2", network).name == "2001:db8::/64"
    assert outcome_of(accounts).name == "192.0.2.7"
    # The integer of an IPv6 network may equal that of an IPv4 address.
    assert outcome_of(accounts, "::c000:207", ip_network("::c000:207/128")).name == "::c000:207"
    assert len([*accounts]) == 3


def test_banned_subjects_are_kept_longest() -> None:
    """If the table is full the oldest subject without a ban is discarded, and counted."""
    released: list[Network] = []
    accounts = Outcomes(most=3, released=released.append)
    networks = [ip_network(f"192.0.2.{n}/32") for n in range(6)]
    accounts.record(judged("192.0.2.0", network=networks[0], banned=True), 0.0)
    for n in (1, 2, 3):
        accounts.record(judged(f"192.0.2.{n}", network=networks[n]), 0.0)
    assert [row.name for row in accounts] == ["192.0.2.0", "192.0.2.2", "192.0.2.3"]
    assert accounts.evicted == 1
    for n in (2, 3):
        accounts.record(judged(f"192.0.2.{n}", network=networks[n], banned=True), 0.0)
    outcome_of(accounts, "192.0.2.4", networks[4])
    assert [row.name for row in accounts] == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]
    assert released == networks[:1]
