"""The places of accounts, and the grades of logins from new ones."""

from ipaddress import ip_address

import pytest

from ringfence.features.account import places as module
from ringfence.features.account.places import DAY, KEEP, LEARN_FOR, OWN_DAYS, Accounts, Grade, Place
from ringfence.values.location import Location

ALICE, BOB = ("pbx", "alice"), ("pbx", "bob")
NOW = 1_700_006_400.0
LATER = NOW + LEARN_FOR
HOME, OTHER_HOME = "192.0.2.1", "192.0.2.200"
DE: Location = {"country": "DE", "asn": "AS1"}
DE_OTHER: Location = {"country": "DE", "asn": "AS2"}
FR: Location = {"country": "FR", "asn": "AS3"}
NOWHERE: Location = {}


class Logins:
    """Accounts whose logins come from the addresses and at the times that a test names."""

    def __init__(self) -> None:
        self.accounts = Accounts()

    def __call__(
        self,
        address: str,
        location: Location = NOWHERE,
        now: float = LATER,
        *,
        key: tuple[str, str] = ALICE,
        guessed: bool = False,
    ) -> Place:
        """Log in; return the place."""
        place = self.accounts.visit(key, ip_address(address), now, guessed=guessed)
        if place is None:
            place = self.accounts.add(key, ip_address(address), location, now, guessed=guessed)
        return place


@pytest.fixture(name="logins")
def _logins() -> Logins:
    """Return the accounts alice and bob, who logged in a month ago, alice in Germany and bob nowhere."""
    logins = Logins()
    assert logins(HOME, DE, NOW).grade is Grade.LEARNED
    assert logins("198.51.100.1", NOWHERE, NOW, key=BOB).grade is Grade.LEARNED
    return logins


def test_a_new_account_is_only_learned(logins: Logins) -> None:
    """For 30 days from its first login, no place is elsewhere; each becomes a home."""
    place = logins("203.0.113.1", FR, LATER - 1)
    assert (place.grade, place.home) == (Grade.LEARNED, True)
    assert logins("203.0.114.1", {"country": "FR", "asn": "AS9"}).grade is Grade.NEW_NETWORK
    assert logins("203.0.115.1", {"country": "US", "asn": "AS9"}).grade is Grade.ELSEWHERE


def test_a_known_prefix_is_no_new_place(logins: Logins) -> None:
    """Another address of the /24 or /48 is the same place, with the number of logins and of days."""
    for _ in range(2):
        logins(OTHER_HOME, FR, LATER)
    place = logins(OTHER_HOME, FR, LATER + DAY)
    assert (str(place.network), str(place.address)) == ("192.0.2.0/24", OTHER_HOME)
    assert (place.grade, place.country, place.times, place.days) == (Grade.LEARNED, "DE", 4, 3)
    assert logins("2001:db8:1::1", DE) is logins("2001:db8:1:ff::2", FR)
    assert logins("2001:db8:2::1", DE) is not logins("2001:db8:1::1", DE)


@pytest.mark.parametrize(
    ("address", "location", "grade"),
    [
        ("203.0.113.1", DE, Grade.NEAR),
        ("203.0.113.1", DE_OTHER, Grade.NEW_NETWORK),
        ("203.0.113.1", FR, Grade.ELSEWHERE),
        ("203.0.113.1", {"country": "FR", "asn": "AS1"}, Grade.ELSEWHERE),
        ("203.0.113.1", {"country": "", "asn": "AS1"}, Grade.NEAR),
        ("203.0.113.1", NOWHERE, Grade.ELSEWHERE),
        ("192.0.3.1", NOWHERE, Grade.NEW_NETWORK),
        ("192.0.3.1", FR, Grade.ELSEWHERE),
        ("198.51.100.77", FR, Grade.NEW_NETWORK),
        ("198.51.101.77", NOWHERE, Grade.NEW_NETWORK),
        ("198.51.101.77", FR, Grade.ELSEWHERE),
        ("64:ff9b::c000:201", NOWHERE, Grade.ELSEWHERE),
        ("2001:db8::1", NOWHERE, Grade.ELSEWHERE),
    ],
)
def test_the_grade_of_a_new_place(logins: Logins, address: str, location: Location, grade: Grade) -> None:
    """The country is compared first, then the network; the homes of other accounts count too."""
    place = logins(address, location)
    assert (place.grade, place.home) == (grade, grade is not Grade.ELSEWHERE)


def test_guesses_before_a_login_are_the_strongest_grade(logins: Logins) -> None:
    """They count while an account is learned, and at its homes; only a confirmation makes a home."""
    new = logins("203.0.113.1", DE, NOW + 1, guessed=True)
    known = logins(HOME, DE, NOW + 1, guessed=True)
    assert [(one.grade, one.home) for one in (new, known)] == [
        (Grade.AFTER_GUESSES, False),
        (Grade.AFTER_GUESSES, True),
    ]
    for day in range(2 * OWN_DAYS):
        assert not logins("203.0.113.1", DE, LATER + day * DAY).home
    assert [place for _, place in logins.accounts.confirm("alice")] == [known, new]
    assert (new.grade, new.home) == (Grade.CONFIRMED, True)


def test_five_days_make_a_country_a_home(logins: Logins) -> None:
    """Days count, not logins or networks. Then all places of that country are homes, and new ones too."""
    for day in range(OWN_DAYS - 1):
        for network in (113, 114, 113):
            assert not logins(f"203.0.{network}.1", FR, LATER + day * DAY).home
    first = logins("203.0.113.1", FR, LATER + OWN_DAYS * DAY)
    assert first.home
    assert logins("203.0.114.1", FR, LATER + OWN_DAYS * DAY).home
    assert logins("203.0.115.1", {"country": "FR", "asn": "AS9"}, LATER).grade is Grade.NEW_NETWORK
    assert logins("203.0.116.1", {"country": "US", "asn": "AS9"}, LATER).grade is Grade.ELSEWHERE


def test_a_country_that_is_confirmed_is_a_home(logins: Logins) -> None:
    """A confirmation is for the account at each Asterisk, and for no other account."""
    places = [logins("203.0.113.1", FR, key=key) for key in (ALICE, BOB)]
    confirmed = logins.accounts.confirm("alice")
    assert confirmed == [(ALICE, places[0])]
    assert logins.accounts.confirm("alice") == []
    assert logins("203.0.114.1", {"country": "FR", "asn": "AS9"}).grade is Grade.NEW_NETWORK
    assert logins("203.0.115.1", FR, key=BOB).grade is Grade.ELSEWHERE


def test_a_place_that_becomes_the_home_of_another_is_none_to_be_afraid_of(logins: Logins) -> None:
    """An office moves, and one of its accounts is confirmed: the others are at home there too."""
    places = [logins("203.0.113.1", key=key) for key in (ALICE, BOB)]
    assert [place.home for place in places] == [False, False]
    assert logins.accounts.first_elsewhere(BOB, places[1]) == BOB
    assert logins.accounts.first_elsewhere(ALICE, places[0]) == BOB
    logins.accounts.confirm("alice")
    assert logins("203.0.113.9", key=BOB).home


def test_a_location_that_is_known_later_counts(logins: Logins) -> None:
    """With a new database, the homes get their countries, and these are the account's own."""
    assert [key for key, _ in logins.accounts.unlocated()] == [BOB]
    [(key, place)] = logins.accounts.unlocated()
    logins.accounts.locate(key, place, FR)
    logins.accounts.locate(("pbx", "nobody"), place, DE)
    assert (place.country, place.asn) == ("FR", "AS3")
    assert logins("203.0.113.1", {"country": "FR", "asn": "AS9"}, key=BOB).grade is Grade.NEW_NETWORK
    assert logins("203.0.114.1", DE, key=BOB).grade is Grade.ELSEWHERE


def test_old_places_are_forgotten(logins: Logins) -> None:
    """A year without a login ends a place; an account without a place is learned again."""
    logins("203.0.113.1", DE, LATER)
    assert logins("203.0.114.1", FR, NOW + KEEP).grade is Grade.ELSEWHERE
    [(_, account)] = logins.accounts.named("alice")
    assert [str(place.address) for place in account.places.values()] == ["203.0.113.1", "203.0.114.1"]
    assert logins("203.0.115.1", FR, NOW + 3 * KEEP).grade is Grade.LEARNED
    assert logins.accounts.places == 2


def test_everything_is_bounded(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody with a password displaces no home of its owner, and the oldest account falls out."""
    monkeypatch.setattr(module, "MOST_OF_ACCOUNT", 3)
    monkeypatch.setattr(module, "MOST_COUNTRIES", 3)
    for number in range(9):
        logins(f"203.0.{number}.1", {"country": f"X{number}", "asn": ""}, LATER + number)
    [(_, account)] = logins.accounts.named("alice")
    assert [place.country for place in account.places.values()] == ["DE", "X7", "X8"]
    assert [*account.countries] == ["DE", "X7", "X8"]
    for number in range(9):
        logins(f"192.1.{number}.1", DE, LATER + 10 + number)
    assert [str(place.address) for place in account.places.values()] == [f"192.1.{n}.1" for n in (6, 7, 8)]

    monkeypatch.setattr(module, "MOST_ACCOUNTS", 2)
    logins.accounts.take_changed()
    logins("203.0.113.1", DE, key=("pbx", "carol"))
    assert [(key, account is None) for key, account in logins.accounts.take_changed()] == [
        (("pbx", "carol"), False),
        (BOB, True),
    ]
    monkeypatch.setattr(module, "MOST_PLACES", 2)
    logins("203.0.114.1", DE, key=("pbx", "carol"))
    assert (len(logins.accounts), logins.accounts.places) == (1, 2)


def test_an_account_with_many_homes_can_be_confirmed_at_a_new_place(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line with a new network each night has all homes that are kept; a place abroad is kept all the same.

    Others abroad displace it, and no second home.
    """
    monkeypatch.setattr(module, "MOST_OF_ACCOUNT", 3)
    for number in range(9):
        logins(f"192.1.{number}.1", DE, LATER + number)
    abroad = logins("203.0.113.1", FR, LATER + 10)
    assert (abroad.grade, abroad.home) == (Grade.ELSEWHERE, False)
    other = logins("203.0.114.1", FR, LATER + 11)

    assert [place for _, place in logins.accounts.confirm("alice")] == [other]
    [(_, account)] = logins.accounts.named("alice")
    assert [str(place.address) for place in account.places.values()] == [
        "192.1.7.1",
        "192.1.8.1",
        "203.0.114.1",
    ]


def test_a_login_is_not_written_each_time(logins: Logins) -> None:
    """A login at a known place changes the database once an hour, and once on each day."""
    logins.accounts.take_changed()
    times = [LATER + 1, LATER + 2, LATER + 3_602, LATER + 3_603, LATER + DAY]
    changed = []
    for now in times:
        logins(HOME, DE, now)
        changed.append(bool(logins.accounts.take_changed()))
    assert changed == [True, False, True, False, True]


def test_guesses_before_a_login_are_written_at_once(logins: Logins) -> None:
    """A restart within the hour does not forget the grade; further such logins are written once an hour."""
    logins("203.0.113.1", FR)
    logins.accounts.take_changed()
    logins("203.0.113.1", FR, LATER + 1, guessed=True)
    assert [key for key, _ in logins.accounts.take_changed()] == [ALICE]
    logins("203.0.113.1", FR, LATER + 2, guessed=True)
    assert logins.accounts.take_changed() == []


def test_a_country_that_is_known_to_be_its_own_later_ends_elsewhere(logins: Logins) -> None:
    """A place was compared with homes whose country nobody knew; by now it is the account's own."""
    place = logins("203.0.113.1", DE, key=BOB)
    assert (place.grade, place.home) == (Grade.ELSEWHERE, False)
    [(key, home)] = logins.accounts.unlocated()
    logins.accounts.locate(key, home, DE)
    assert logins("203.0.113.1", DE, key=BOB).home
