"""The tables of accounts, of their countries, and of their places."""

from ipaddress import ip_address

import pytest

from ringfence.features.account.places import DAY, KEEP, LEARN_FOR, Account, Accounts, Key
from ringfence.features.account.table import AccountTable, row_of
from ringfence.store.database import Store

NOW = 1_700_006_400.0
ALICE, BOB = ("pbx", "alice"), ("pbx", "b\x1bob")


@pytest.fixture(name="table")
def _table(store: Store) -> AccountTable:
    """Return an empty table."""
    return AccountTable(store.connection)


def accounts() -> Accounts:
    """Return alice with three places, one of them elsewhere, and bob with one."""
    made = Accounts()
    made.add(ALICE, ip_address("192.0.2.1"), {"country": "DE", "asn": "AS1"}, NOW)
    made.add(BOB, ip_address("2001:db8::1"), {}, NOW + 1)
    made.add(ALICE, ip_address("198.51.100.1"), {"country": "FR", "asn": "AS2"}, NOW + LEARN_FOR)
    made.add(ALICE, ip_address("203.0.113.1"), {"country": "DE", "asn": "AS1"}, NOW + LEARN_FOR + DAY)
    return made


def saved(made: Accounts, table: AccountTable) -> None:
    """Save what has changed."""
    changed = made.take_changed()
    rows = [row_of(key, account) for key, account in changed if account is not None]
    table.save(rows, [key for key, account in changed if account is None])


def shown(found: list[tuple[Key, Account]]) -> list[object]:
    """Return accounts as rows, without the order of the places."""
    return [(*row[:3], sorted(row[3]), sorted(row[4])) for row in (row_of(*one) for one in found)]


def test_accounts_are_as_they_were(table: AccountTable) -> None:
    """A restart changes nothing; the account that logged in last is the last one."""
    made = accounts()
    saved(made, table)
    found = table.load(NOW + LEARN_FOR + DAY)
    assert [key for key, _ in found] == [BOB, ALICE]
    assert shown(found) == shown([*made.named(BOB[1]), *made.named("alice")])

    made.confirm("alice")
    saved(made, table)
    again = table.load(NOW + LEARN_FOR + DAY)
    assert shown(again) == shown([*made.named(BOB[1]), *made.named("alice")])
    assert shown(again) != shown(found)


def test_old_rows_are_removed(table: AccountTable, store: Store) -> None:
    """A year after its last login, a place is neither read nor kept; nor is an account without a place."""
    saved(accounts(), table)
    late = NOW + KEEP + 2
    assert [(key, len(account.places)) for key, account in table.load(late)] == [(ALICE, 2)]
    store.purge(late)
    assert [(key, len(account.places)) for key, account in table.load(NOW)] == [(ALICE, 2)]


def test_dropped_accounts_and_invalid_rows(table: AccountTable, store: Store) -> None:
    """A dropped account leaves no row. A place that somebody has made invalid is left out."""
    saved(accounts(), table)
    table.save([], [BOB])
    with store.connection.transaction() as execute:
        execute("UPDATE account_places SET grade = 'odd' WHERE country = 'FR'")
        execute("UPDATE account_places SET address = 'odd' WHERE address = '203.0.113.1'")
    [(key, account)] = table.load(NOW)
    assert key == ALICE
    assert [str(place.address) for place in account.places.values()] == ["192.0.2.1"]


def test_an_account_of_the_future_keeps_its_age(table: AccountTable) -> None:
    """The host boots years behind: accounts count as logged in now, and are as old as they were."""
    saved(accounts(), table)
    (_, bob), (_, alice) = table.load(0.0)

    assert (bob.since, alice.since) == (0.0, -LEARN_FOR - DAY)
    assert [place.last for place in alice.places.values()] == [-LEARN_FOR - DAY, -DAY, 0.0]
