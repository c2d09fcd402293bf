"""The country of an address, where commands show it."""

from collections.abc import Iterator

import pytest
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.mmdb import Number, write

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = "198.18.1.101"
RECORD = {
    "country": {"iso_code": "NL"},
    "autonomous_system_number": Number(6, 64_496),
    "autonomous_system_organization": "Example Hosting",
}


@pytest.fixture(name="guard", scope="module")
def _guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Return a daemon that knows countries and counted three guesses, the same for all tests."""
    folder = tmp_path_factory.mktemp("countries")
    database = write(folder / "geo.mmdb", [("198.18.0.0/15", RECORD)])
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(folder, ami={"port": pbx.port}, geo={"database": [str(database)]}) as guard,
    ):
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        yield guard


def test_the_country_of_a_watched_address(guard: Guard) -> None:
    """``status`` has a column of countries, unless no address has a known one."""
    head, row = guard.must("status").splitlines()[-2:]

    assert head.split() == ["WATCHED", "ATTEMPTS", "STATUS", "PROOF", "COUNTRY", "ACCOUNTS"]
    assert row.split() == [GUESSER, "3", "of", "5", "counted", "claimed", "NL", "alice"]


def test_the_countries_of_senders(guard: Guard) -> None:
    """``top`` and ``top addresses`` show the country of a sender."""
    assert f"{GUESSER}  alice  3x  NL  wrong password (counted)" in guard.must("top")
    head, row = guard.must("top", "addresses").splitlines()
    assert head.split() == ["ADDRESS", "ATTEMPTS", "LAST", "HOUR", "(UTC)", "COUNTRY", "NOTE"]
    assert row.split()[-1] == "NL"


def test_where_an_address_is(guard: Guard) -> None:
    """``why`` names the country and the operator, and nothing if no database has the address."""
    where = "where     NL, AS64496 Example Hosting"

    assert where in guard.must("why", GUESSER).splitlines()
    assert "where" not in guard.must("why", "203.0.113.7")


def test_the_country_of_a_failure(guard: Guard) -> None:
    """``why ACCOUNT`` has the country of each address where the account failed."""
    assert f"{GUESSER}  NL       wrong password" in guard.must("why", "alice")


def test_where_an_address_is_without_the_daemon(guard: Guard) -> None:
    """Without the daemon, ``why`` reads the databases itself."""
    guard.stop()
    try:
        assert "where     NL, AS64496 Example Hosting" in guard.command("why", GUESSER).stdout
    finally:
        guard.start()
