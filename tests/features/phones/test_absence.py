"""Which phones are gone: a phone that moved, restarted or was new is not, and a line that is down is."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, NamedTuple

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from ringfence.features.phones import absence
from ringfence.features.phones.absence import (
    BREAK,
    DAY,
    FORGET,
    MOST_AWAY,
    MOST_CONTACTS,
    Absences,
    SavedPhone,
)
from ringfence.values.event import Service
from ringfence.values.friend import Contact
from ringfence.values.network import Address, prefix_of

AFTER = 1_800.0
HOME, OTHER, FAR = ip_address("203.0.113.7"), ip_address("203.0.113.8"), ip_address("198.51.100.9")
ADDRESSES = (HOME, OTHER, FAR, ip_address("2001:db8::1"), ip_address("2001:db8:0:1::1"))
ACCOUNTS = ("alice", "bob", "carol")


def contact(account: str, address: Address = HOME, asterisk: str = "pbx", **more: Any) -> Contact:  # noqa: ANN401 - of several types
    """Return a contact of an account."""
    return Contact(asterisk, Service.PJSIP, account, address, **more)


def appear(phones: Absences, account: str, address: Address, now: float, asterisk: str = "pbx") -> None:
    """Let Asterisk report a contact."""
    phones.on_contact(contact(account, address, asterisk), now)


def disappear(phones: Absences, account: str, address: Address, now: float) -> None:
    """Let Asterisk report that a contact is gone."""
    phones.on_contact(contact(account, address, gone=True), now)


def registered(*accounts: str, address: Address = HOME, since: float = -2 * DAY) -> Absences:
    """Return the phones of these accounts, which are registered for two days at the time 0."""
    found = Absences()
    for account in accounts:
        appear(found, account, address, since)
    return found


def listed(phones: Absences, now: float) -> list[tuple[str, tuple[str, ...], int]]:
    """Return the networks of phones that are gone, with the accounts, and the number of others there."""
    return [(str(one.network), one.accounts, one.left_there) for one in phones.list_gone(AFTER, now)]


def handle(phones: Absences, contacts: Iterable[tuple[str, Address]], now: float) -> None:
    """Handle a complete list of contacts that answer."""
    handle_list(phones, [contact(*one, reachable=True) for one in contacts], now)


def handle_list(phones: Absences, contacts: list[Contact], now: float) -> None:
    """Handle a complete list of contacts."""
    for _ in phones.replace("pbx", contacts, now):
        pass


def saved(phones: Absences, now: float) -> list[SavedPhone]:
    """Return the phones as the database gets them, with a wall clock that shows the same time."""
    return [phone for some in phones.save(now, now) for phone in some]


def away(phones: Absences, now: float) -> list[SavedPhone]:
    """Return the phones that were registered for a day, and are away."""
    return [one for one in saved(phones, now) if one.away and one.seen - one.since >= DAY]


def test_a_phone_is_gone_after_the_time() -> None:
    """A phone that was there for a day is listed after the time, until it comes back."""
    phones = registered("alice", "bob")
    disappear(phones, "alice", HOME, 0.0)
    assert listed(phones, AFTER - 1) == []
    assert listed(phones, AFTER) == [("203.0.113.0/24", ("alice",), 1)]
    appear(phones, "alice", HOME, AFTER + 1)
    assert listed(phones, AFTER + 1) == []


def test_phones_of_a_line_are_listed_together() -> None:
    """With the first phone of a network that is gone, those are listed that disappeared later."""
    phones = registered("alice", "bob", "carol")
    for late, account in enumerate(("alice", "bob", "carol")):
        disappear(phones, account, HOME, late * 600.0)
    appear(phones, "dave", FAR, -2 * DAY)
    disappear(phones, "dave", FAR, 1_000.0)

    assert listed(phones, AFTER) == [("203.0.113.0/24", ("alice", "bob", "carol"), 0)]
    assert phones.listed == 3
    later = AFTER + 1_000.0
    assert [row[1] for row in listed(phones, later)] == [("alice", "bob", "carol"), ("dave",)]
    assert phones.listed == 4


def test_a_restart_of_one_phone_is_not_listed_with_a_removed_one() -> None:
    """A phone that is listed for long does not list others of its network at once."""
    phones = registered("alice", "bob")
    disappear(phones, "alice", HOME, 0.0)
    assert listed(phones, AFTER) == [("203.0.113.0/24", ("alice",), 1)]
    disappear(phones, "bob", HOME, AFTER + 10)
    assert listed(phones, AFTER + 20) == [("203.0.113.0/24", ("alice",), 0)]


@pytest.mark.parametrize("old_first", [True, False])
def test_a_phone_that_moves_is_not_gone(*, old_first: bool) -> None:
    """The old contact may disappear before the new one appears, or an hour later."""
    phones = registered("alice")
    if old_first:
        disappear(phones, "alice", HOME, 0.0)
        appear(phones, "alice", FAR, 60.0)
    else:
        appear(phones, "alice", FAR, 0.0)
        disappear(phones, "alice", HOME, 3_600.0)
    assert listed(phones, DAY / 2) == []

    disappear(phones, "alice", FAR, DAY / 2)
    assert listed(phones, DAY / 2 + AFTER) == [("198.51.100.0/24", ("alice",), 0)]


def test_a_phone_that_moves_back_is_not_gone() -> None:
    """The second address may disappear before the first one appears again, however often that happens."""
    phones = registered("alice")
    appear(phones, "alice", FAR, 0.0)
    disappear(phones, "alice", HOME, 5.0)
    for now, (old, new) in ((30.0, (FAR, HOME)), (60.0, (HOME, FAR)), (90.0, (FAR, HOME))):
        disappear(phones, "alice", old, now)
        appear(phones, "alice", new, now + 1)
        assert away(phones, now + 1) == []
    assert listed(phones, DAY / 2) == []

    disappear(phones, "alice", HOME, DAY / 2)
    assert listed(phones, DAY / 2 + AFTER) == [("203.0.113.0/24", ("alice",), 0)]


def test_a_phone_that_moves_back_ends_the_alarm_about_it() -> None:
    """The phone was away for long enough to be listed at its second address."""
    phones = registered("alice")
    appear(phones, "alice", FAR, 0.0)
    disappear(phones, "alice", HOME, 5.0)
    disappear(phones, "alice", FAR, 30.0)
    assert listed(phones, 30.0 + AFTER) == [("198.51.100.0/24", ("alice",), 0)]
    appear(phones, "alice", HOME, 31.0 + AFTER)
    assert listed(phones, 31.0 + AFTER) == []


def test_a_new_phone_that_returns_hides_no_other() -> None:
    """Both phones of an account were away; the one that was registered for a day stays away."""
    phones = registered("alice")
    appear(phones, "alice", FAR, -3_600.0)
    disappear(phones, "alice", FAR, 0.0)
    disappear(phones, "alice", HOME, 10.0)
    appear(phones, "alice", FAR, 20.0)
    assert listed(phones, 10.0 + AFTER) == [("203.0.113.0/24", ("alice",), 0)]


def test_the_second_phone_of_an_account_may_be_gone() -> None:
    """An account has a desk phone and one at home: the one at home is missed."""
    phones = registered("alice")
    appear(phones, "alice", FAR, -2 * DAY + 5)
    disappear(phones, "alice", FAR, 0.0)
    assert listed(phones, AFTER) == [("198.51.100.0/24", ("alice",), 0)]


def test_a_new_phone_is_not_missed() -> None:
    """A phone that was tried for an hour, or is switched off each night, is never listed."""
    phones = registered("alice", since=-3_600.0)
    for day in range(5):
        disappear(phones, "alice", HOME, day * DAY)
        assert listed(phones, day * DAY + DAY / 2) == []
        appear(phones, "alice", HOME, day * DAY + DAY / 2)


def test_a_short_break_does_not_make_a_phone_new() -> None:
    """A phone that restarted is missed as before."""
    phones = registered("alice", since=-DAY)
    disappear(phones, "alice", HOME, -600.0)
    appear(phones, "alice", HOME, -500.0)
    disappear(phones, "alice", HOME, 0.0)
    assert listed(phones, AFTER) == [("203.0.113.0/24", ("alice",), 0)]


def test_an_address_of_the_same_ipv6_network_is_the_same_phone() -> None:
    """A phone changes its address within its /64 each day."""
    phones = registered("alice", address=ip_address("2001:db8::1"))
    handle(phones, [("alice", ip_address("2001:db8::2"))], 0.0)
    assert listed(phones, AFTER) == []
    handle(phones, [], 1.0)
    assert listed(phones, 1.0 + AFTER) == [("2001:db8::/48", ("alice",), 0)]


def test_a_phone_that_a_list_lacks_is_away() -> None:
    """A list of one Asterisk says nothing about another one, and a change between its steps counts."""
    phones = registered("alice", "bob")
    appear(phones, "alice", HOME, -2 * DAY, asterisk="other")
    steps = phones.replace("pbx", [contact("bob")], 0.0)
    next(steps)
    appear(phones, "carol", HOME, 0.0)
    list(steps)
    assert listed(phones, AFTER) == [("203.0.113.0/24", ("alice",), 3)]


def test_phones_that_disappear_at_once_keep_their_times() -> None:
    """If all contacts of an account are missing in a list, each phone has been there for its own time."""
    phones = registered("alice")
    appear(phones, "alice", FAR, -3_600.0)
    handle(phones, [], 0.0)
    assert listed(phones, AFTER) == [("203.0.113.0/24", ("alice",), 0)]


def test_an_absence_can_be_postponed() -> None:
    """What nobody could see does not count, but a phone that is listed stays so."""
    phones = registered("alice", "bob")
    disappear(phones, "alice", HOME, 0.0)
    phones.postpone("pbx", 5_000.0)
    assert listed(phones, 5_000.0 + AFTER - 1) == []
    assert listed(phones, 5_000.0 + AFTER) != []
    phones.postpone("pbx", 90_000.0)
    disappear(phones, "bob", HOME, 80_000.0)
    phones.postpone("pbx", 90_000.0)
    assert listed(phones, 85_000.0) == [("203.0.113.0/24", ("alice",), 0)]


def test_phones_are_forgotten_in_the_end() -> None:
    """A removed phone is listed for a week; the phones of a removed Asterisk no longer."""
    phones = registered("alice", "bob")
    disappear(phones, "alice", HOME, 0.0)
    phones.purge(FORGET - 1)
    assert listed(phones, FORGET - 1) != []
    phones.purge(FORGET)
    assert listed(phones, FORGET) == []
    disappear(phones, "bob", HOME, FORGET)
    phones.keep_only({"pbx"})
    assert len(away(phones, FORGET)) == 1
    phones.keep_only({"other"})
    assert phones.asterisks == set()


def test_a_phone_that_does_not_answer_is_away() -> None:
    """A phone that does not answer is away, until it answers or has renewed its registration.

    A list of Asterisk's database does not show whether it answers.
    """
    phones = registered("alice")
    silent = contact("alice", unreachable=True, until=600.0)
    phones.on_contact(silent, 0.0)
    unknown = contact("alice", until=600.0)
    handle_list(phones, [unknown], 1.0)
    phones.on_contact(contact("alice"), 2.0)
    assert listed(phones, AFTER) != []
    handle_list(phones, [contact("alice", unreachable=True, until=900.0)], 300.0)
    handle_list(phones, [contact("alice", until=900.0)], 301.0)
    assert listed(phones, AFTER) != []
    handle_list(phones, [contact("alice", until=1_200.0)], 302.0)
    assert listed(phones, AFTER) == []

    phones.on_contact(silent, 400.0)
    phones.on_contact(contact("alice", reachable=True, until=600.0), 401.0)
    assert listed(phones, 401.0 + AFTER) == []

    phones.on_contact(contact("alice", unreachable=True), 500.0)
    phones.on_contact(unknown, 501.0)
    assert listed(phones, 500.0 + AFTER) != []
    disappear(phones, "alice", HOME, 502.0)
    phones.on_contact(contact("alice"), 503.0)
    assert listed(phones, 503.0 + AFTER) == []


def test_a_silent_contact_is_none_beside_one_that_answers() -> None:
    """A phone that restarted has a new port, and Asterisk still lists the old one."""
    phones = registered("alice")
    old = contact("alice", unreachable=True)
    for contacts in ([old, contact("alice")], [contact("alice"), old]):
        handle_list(phones, contacts, 0.0)
        assert (len(phones), listed(phones, AFTER)) == (1, [])
    handle_list(phones, [old], 0.0)
    assert listed(phones, AFTER) != []


def test_phones_are_restored() -> None:
    """A restored contact that the next list lacks is away, and a silent one is not back.

    The wall clock is not the clock of the times.
    """
    before = registered("alice", "bob", since=-2 * DAY)
    appear(before, "carol", FAR, -DAY)
    before.on_contact(contact("alice", unreachable=True, until=600.0), 0.0)
    assert listed(before, AFTER) == [("203.0.113.0/24", ("alice",), 1)]
    rows = [phone for some in before.save(AFTER, 1_000_000.0) for phone in some]

    phones = Absences()
    phones.restore(rows, 50.0, 1_000_050.0)
    assert listed(phones, 50.0) == [("203.0.113.0/24", ("alice",), 1)]
    assert phones.listed == 0
    handle_list(phones, [contact("alice", until=600.0), contact("bob")], 60.0)
    assert listed(phones, 60.0 + AFTER) == [
        ("203.0.113.0/24", ("alice",), 1),
        ("198.51.100.0/24", ("carol",), 0),
    ]
    assert [(one.account, one.since) for one in away(phones, 60.0)] == [
        ("alice", -2 * DAY - AFTER),
        ("carol", -DAY - AFTER),
    ]


def test_phones_that_were_not_seen_for_long_are_new() -> None:
    """After a break of an hour nobody knows which phones were registered all the time."""
    rows = saved(registered("alice"), 0.0)
    phones = Absences()
    phones.restore(rows, BREAK, BREAK)
    assert len(phones) == 0
    phones.restore(rows, BREAK - 1, BREAK - 1)
    assert len(phones) == 1


def test_everything_is_bounded() -> None:
    """Accounts, contacts, and phones that are away have limits."""
    phones = Absences(most=2)
    many = [SavedPhone("pbx", account, HOME, 0.0, 0.0) for account in ACCOUNTS]
    phones.restore(many, 0.0, 0.0)
    for account in ACCOUNTS:
        appear(phones, account, HOME, 0.0)
        disappear(phones, "dave", HOME, 0.0)
        phones.on_contact(contact("dave", unreachable=True), 0.0)
    assert len(phones) == 2
    addresses = [ip_address(number + 1) for number in range(MOST_CONTACTS + 5)]
    for address in addresses:
        appear(phones, "alice", address, 0.0)
    phones.restore([SavedPhone("pbx", "alice", one, 0.0, 0.0) for one in addresses], 0.0, 0.0)
    assert len(phones) == MOST_CONTACTS + 1
    gone = [SavedPhone("pbx", "bob", ip_address(n), 0.0, DAY, away=True) for n in range(1, MOST_AWAY + 9)]
    phones.restore(gone, DAY, DAY)
    assert len(away(phones, DAY)) == MOST_AWAY
    disappear(phones, "bob", HOME, 2 * DAY)
    assert len(away(phones, 2 * DAY)) == MOST_AWAY


class Gone(NamedTuple):
    """A phone of the model that is away; ``moved``: a phone has moved from there to another address."""

    account: str
    address: Address
    since: float
    left: float
    moved: bool
    listed: bool = False

    @property
    def lasted(self) -> bool:
        """Whether the phone was registered for a day."""
        return self.left - self.since >= DAY


@define
class Model:
    """Phones that answer: each contact has the time since which its phone is registered."""

    contacts: dict[tuple[str, Address], float] = field(factory=dict)
    away: list[Gone] = field(factory=list)

    def appear(self, account: str, address: Address, now: float) -> None:
        """Bring a phone back, or make a new one."""
        if any(one == account and same(there, address) for one, there in self.contacts):
            return
        mine = [one for one in self.away if one.account == account]
        here = [one for one in mine if same(one.address, address)]
        self.contacts[account, address] = now
        for back in here[:1] or mine[-1:]:
            phone = back
            if back.moved and mine[-1].since < back.since:  # the phone that left last moved back
                phone = mine[-1]
                self.away[self.away.index(phone)] = phone._replace(since=back.since, moved=True)
            self.away.remove(back)
            if now - phone.left < BREAK:
                self.contacts[account, address] = phone.since

    def disappear(self, account: str, address: Address, now: float) -> None:
        """Let the youngest phone of the account be away."""
        for one in [one for one in self.contacts if one[0] == account and same(one[1], address)]:
            since = self.contacts.pop(one)
            others = [other for other in self.contacts if other[0] == account]
            youngest = max(others, key=self.contacts.__getitem__, default=one)
            moved = self.contacts.get(youngest, since) > since
            if moved:
                since, self.contacts[youngest] = self.contacts[youngest], since
            self.away.append(Gone(account, address, since, now, moved=moved))

    def list_gone(self, now: float) -> set[tuple[str, Address]]:
        """List the phones that are gone, with those of their networks."""
        due = {
            prefix_of(one.address)
            for one in self.away
            if one.lasted and not one.listed and now - one.left >= AFTER
        }
        self.away = [
            one._replace(listed=one.listed or (one.lasted and prefix_of(one.address) in due))
            for one in self.away
        ]
        return {(one.account, one.address) for one in self.away if one.listed and one.lasted}

    def purge(self, now: float) -> None:
        """Forget phones that are away for long."""
        self.away = [one for one in self.away if now - one.left < (FORGET if one.lasted else BREAK)]


def same(one: Address, other: Address) -> bool:
    """Whether two addresses are the same one, or of the same IPv6 /64."""
    return one == other or (one.version == other.version == 6 and int(one) >> 64 == int(other) >> 64)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["appear", "disappear", "list"]),
        st.sampled_from(ACCOUNTS[:2]),
        st.sampled_from(ADDRESSES),
        st.sampled_from([1.0, 600.0, BREAK, DAY, 2 * DAY]),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_agrees_with_a_model(steps: list[tuple[str, str, Address, float]]) -> None:
    """Whatever appears and disappears, the phones that are gone are those of the model."""
    phones, model, now = Absences(), Model(), 0.0
    for what, account, address, pause in steps:
        now += pause
        if what == "appear":
            appear(phones, account, address, now)
            model.appear(account, address, now)
        elif what == "disappear":
            disappear(phones, account, address, now)
            model.disappear(account, address, now)
        else:
            there = {one for one in model.contacts if one[0] != account or not same(one[1], address)}
            handle(phones, there, now)
            model.disappear(account, address, now)
        phones.purge(now)
        model.purge(now)
        gone = {name for network in phones.list_gone(AFTER, now) for name in network.accounts}
        assert gone == {account for account, _ in model.list_gone(now)}
        found = sorted((one.account, one.since, one.seen) for one in away(phones, now))
        assert found == sorted(
            (one.account, one.since, one.left) for one in model.away if one.left - one.since >= DAY
        )


@given(st.lists(st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ADDRESSES)), max_size=30))
def test_the_steps_of_a_list_make_no_difference(contacts: list[tuple[str, Address]]) -> None:
    """A list in parts of one contact has the result of a list in one part."""
    one, other = Absences(), Absences()
    for phones, size in ((one, 1), (other, 200)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(absence, "AT_ONCE", size)
            handle(phones, contacts, 0.0)
            handle(phones, contacts[::2], 2 * DAY)
    assert listed(one, 3 * DAY) == listed(other, 3 * DAY)


def test_a_slow_clock_makes_no_phone_new() -> None:
    """At a start the clock may be years behind: a phone was then seen after now, and keeps its age."""
    before = registered("alice", "bob")
    disappear(before, "alice", HOME, 0.0)
    assert listed(before, AFTER) == [("203.0.113.0/24", ("alice",), 1)]
    rows = [phone for some in before.save(AFTER, 1_000_000_000.0) for phone in some]

    phones = Absences()
    phones.restore(rows, 50.0, 900_000_000.0)
    assert listed(phones, 50.0) == [("203.0.113.0/24", ("alice",), 1)]
    [bob] = [one for one in saved(phones, 50.0) if not one.away]
    assert bob.since == pytest.approx(50.0 - AFTER - 2 * DAY)
