"""The page of a link that admits the address that opens it, with a real daemon behind it."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

import pytest
from attrs import frozen
from tests.support.daemon import Completed, Guard
from tests.support.web import Answer, Browser, WebServer, web_server

from ringfence.features.fence.firewall import MOST_PLACES
from ringfence.features.fence.links import MOST_OPENINGS
from ringfence.features.web.admission import (
    MOST_LOGGED,
    MOST_OF_PREFIX,
    MOST_SENDERS,
    MOST_SHARED,
    MOST_TRIES,
    Tries,
)

SITE = "https://pbx.example.com"
HEADER = "X-Real-IP"


@frozen
class Road:
    """A daemon with a fence, its page behind a proxy that names its clients, and no user who is logged in."""

    guard: Guard
    web: WebServer

    def command(self, *options: str) -> Completed:
        """Run ``ringfence fence link``."""
        return self.guard.command("fence", "link", "--login-socket", str(self.web.logins), *options)

    def token(self) -> str:
        """Return the token of a new link, for an hour."""
        return str(self.guard.ask("fence_link", seconds=3_600.0, valid=3_600.0))

    def lasting(self, account: str) -> str:
        """Return the token of the new lasting link of an account, which admits for an hour each time."""
        return str(self.guard.ask("fence_link_lasting", account=account, seconds=3_600.0))

    def press(self, token: str, address: str, **headers: str) -> Answer:
        """Press the button of the page from an address."""
        return Browser(self.web.socket).post("/admit", {"token": token}, **{HEADER: address, **headers})

    def admitted(self) -> set[str]:
        """Return the admitted entries."""
        return {one["what"] for one in self.guard.ask("fence")["admitted"]}


@pytest.fixture(name="road", scope="module")
def _road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder = tmp_path_factory.mktemp("road")
    control = folder / "control.sock"
    with (
        Guard(folder, fence={"mode": "observe", "also": ["443/tcp"]}) as guard,
        web_server(folder / "web", control, site=SITE, client_header=HEADER) as web,
    ):
        yield Road(guard, web)


def test_a_link_admits_the_address_that_opens_it(road: Road) -> None:
    """Opening it shows the address and changes nothing; its button admits the address, once."""
    done = road.command("--for", "2h", "--valid", "10m")
    link = urlsplit(done.stdout.strip())
    token = link.fragment
    browser = Browser(road.web.socket)

    assert (done.returncode, f"{link.scheme}://{link.netloc}{link.path}{link.query}") == (0, f"{SITE}/admit")
    said = " ".join(done.stderr.split())
    assert "one address for 2h, once, within 10m" in said
    assert "the page is at 443/tcp, which is in `also` of [fence]: nobody outside can open the link" in said
    pages = [browser.get(link.path, **{HEADER: "198.51.100.9"}) for _ in range(2)]
    assert all("You come from 198.51.100.9." in page.words for page in pages)
    assert road.admitted() == set()
    assert pages[1].form("/admit?sent").fields == {"token": ""}  # the script of the page fills it in
    assert road.press(token, "198.51.100.9").status == 200
    assert road.admitted() == {"198.51.100.9"}
    again = road.press(token, "198.51.100.10")
    assert (again.status, "is not valid: it was used" in again.words) == (403, True)
    assert road.admitted() == {"198.51.100.9"}
    assert "event=web.admitted client=198.51.100.9" in road.web.log
    assert "do=fence_redeem" in road.guard.log
    for log in (road.web.log, road.guard.log):
        assert token not in log


def test_a_lasting_link_admits_again_and_again(road: Road) -> None:
    """It admits each address that opens it, and opening alone admits nobody; revoking it ends all of this."""
    done = road.command("--account", "alice", "--lasting", "--for", "2h")
    link = urlsplit(done.stdout.strip())
    said = " ".join(done.stderr.split())
    assert "an address for 2h, each time, until: ringfence fence unlink alice." in said
    assert Browser(road.web.socket).get(link.path, **{HEADER: "198.51.100.21"}).status == 200
    assert "198.51.100.21" not in road.admitted()

    for address in ("198.51.100.21", "2001:db8:21::9", "198.51.100.21"):
        assert road.press(link.fragment, address).status == 200
    assert {"198.51.100.21", "2001:db8:21::/64"} <= road.admitted()
    assert "event=fence.link_opened account=alice address=2001:db8:21::/64 until=20" in road.guard.log
    listed = road.guard.must("fence", "links")
    assert "alice" in listed
    assert "2001:db8:21::/64, 198.51.100.21" in listed
    assert "by the link of alice" in road.guard.must("fence", "status")

    ended = road.guard.must("fence", "unlink", "alice")
    assert "198.51.100.21 is not admitted by the link any more" in ended
    assert road.admitted().isdisjoint({"198.51.100.21", "2001:db8:21::/64"})
    again = road.press(link.fragment, "198.51.100.21")
    assert (again.status, "or revoked" in again.words) == (403, True)
    for log in (road.web.log, road.guard.log):
        assert link.fragment not in log


def test_a_lasting_link_is_that_of_one_account(road: Road) -> None:
    """The options belong together, an account has one link, and an unknown account has none to revoke."""
    for options in (["--lasting"], ["--account", "bob"]):
        refused = road.command(*options)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "--account and --lasting together" in " ".join(refused.stderr.split())
    assert "no lasting links" in road.guard.must("fence", "links")
    assert road.command("--lasting", "--account", "bob").returncode == 0
    refused = road.command("--lasting", "--account", "bob")
    assert (refused.returncode, "bob has a link" in refused.stderr) == (1, True)
    road.guard.must("fence", "unlink", "bob")
    gone = road.guard.command("fence", "unlink", "bob")
    assert (gone.returncode, "bob has no link" in gone.stderr) == (1, True)


def test_a_lasting_link_that_is_passed_on_is_limited(road: Road) -> None:
    """It admits ten times in an hour, and at most three addresses at once."""
    token = road.lasting("carol")
    statuses = [road.press(token, f"198.51.{number}.31").status for number in range(MOST_OPENINGS + 1)]

    assert statuses == [200] * MOST_OPENINGS + [403]
    assert {f"198.51.{number}.31" for number in range(MOST_OPENINGS)} & road.admitted() == {
        f"198.51.{number}.31" for number in range(MOST_OPENINGS - MOST_PLACES, MOST_OPENINGS)
    }
    assert "event=fence.link_limited account=carol" in road.guard.log


@pytest.mark.parametrize(
    "address",
    [
        "",
        "198.51.100.9, 192.0.2.1",
        "192.0.2.0/24",
        "127.0.0.1",
        "::1",
        "fe80::1%eth0",
        "0",
        "x" * 9_000,
        "\xe9",
    ],
)
def test_an_unknown_address_is_not_admitted(road: Road, address: str) -> None:
    """If the header does not name exactly one address, the page shows it, and uses nothing up."""
    token, before = road.token(), road.admitted()

    answer = road.press(token, address)
    assert (answer.status, "cannot know the address" in answer.words) == (403, True)
    assert road.admitted() == before
    assert road.press(token, "2001:db8::7").status == 200
    assert "2001:db8::/64" in road.admitted()


def test_other_headers_name_no_address(road: Road) -> None:
    """A client cannot name another address by a header that the page does not trust."""
    token = road.token()

    forged = {"X-Forwarded-For": "192.0.2.66", "Forwarded": "for=192.0.2.66"}
    assert road.press(token, "198.51.100.11", **forged).status == 200
    assert "198.51.100.11" in road.admitted()
    assert "192.0.2.66" not in road.admitted()


def test_another_site_presses_no_button(road: Road) -> None:
    """A form of another site, a wrong form and a wrong token are refused, and use nothing up."""
    token = road.token()

    assert road.press(token, "198.51.100.12", Origin="https://evil.example").status == 403
    for wrong in ("", "x" * 65, "é" * 9, "\x00"):
        assert road.press(wrong, "198.51.100.12").status == 403
    assert "198.51.100.12" not in road.admitted()
    assert road.press(token, "198.51.100.12").status == 200


def test_tries_are_limited_by_sender(road: Road) -> None:
    """Only a sender that guesses is stopped; the guesses use up no changes of the page."""
    answers = [road.press("y" * 43, "198.51.100.66").status for _ in range(MOST_TRIES + 1)]

    assert answers == [403] * MOST_TRIES + [429]
    assert road.press(road.token(), "198.51.100.66").status == 429
    assert road.press(road.token(), "198.51.100.67").status == 200


def test_tries_are_forgotten() -> None:
    """Tries end after a minute, IPv6 senders count by their /64, and the table of senders is bounded."""
    tries = Tries()
    for last in range(MOST_TRIES):
        assert tries.add(ip_address(f"2001:db8::{last}"), 0.0)
    assert not tries.add(ip_address("2001:db8::ffff"), 59.0)
    assert tries.add(ip_address("2001:db8::ffff"), 60.0)
    for number in range(2 * MOST_SENDERS):
        tries.add(ip_address(number << 8), 60.0)
    assert len(tries._tries) == MOST_SENDERS


def test_the_owner_of_many_networks_is_one_sender() -> None:
    """The tries from a /48 or a /24 have a limit of their own."""
    tries = Tries()

    assert sum(tries.add(ip_address(f"2001:db8:0:{n:x}::1"), 0.0) for n in range(500)) == MOST_OF_PREFIX
    assert sum(tries.add(ip_address(f"192.0.2.{n}"), 0.0) for n in range(250)) == MOST_OF_PREFIX
    assert tries.add(ip_address("2001:db8:1::1"), 0.0)


def test_no_sender_is_forgotten_because_of_others() -> None:
    """A sender that has made its tries cannot make more after thousands of other addresses have tried."""
    tries = Tries()
    sender = ip_address("192.0.2.1")
    assert [tries.add(sender, 0.0) for _ in range(MOST_TRIES + 1)] == [True] * MOST_TRIES + [False]
    others = sum(tries.add(ip_address(number << 10), 1.0) for number in range(5 * MOST_SENDERS))

    assert not tries.add(sender, 2.0)
    assert others == (MOST_SENDERS - 2) // 2 + MOST_SHARED  # an entry for the sender and one for its prefix
    assert tries.add(sender, 61.0)
    assert tries.add(ip_address(7 << 20), 62.0)


def test_refusals_fill_no_journal(road: Road) -> None:
    """Refusals of many addresses are a limited number of log lines, and a valid link still works."""
    before = road.web.log.count("event=web.admit_refused")
    for number in range(5 * MOST_LOGGED):
        road.press("z" * 43, f"198.19.{number}.1")

    assert road.web.log.count("event=web.admit_refused") - before <= MOST_LOGGED
    assert road.web.log.count("event=web.admit_limited") == 1
    assert road.press(road.token(), "198.19.200.1").status == 200


def test_a_ban_stays_and_a_longer_time_too(road: Road) -> None:
    """A link ends no ban, and shortens no time that an administrator has granted."""
    assert road.guard.ask("ban", networks=["198.51.100.13"], seconds=3_600)["problems"] == []
    until = road.guard.ask("fence_admit", what="198.51.100.13", seconds=86_400.0)

    assert road.press(road.token(), "198.51.100.13").status == 200
    assert "198.51.100.13" in road.guard.banned()
    assert {"what": "198.51.100.13", "until": until, "link": ""} in road.guard.ask("fence")["admitted"]


def test_a_page_without_addresses_makes_no_link(road: Road) -> None:
    """If the page does not run, or does not see people's addresses, the command fails and names the fix."""
    folder = road.guard.folder / "tunnel"
    with web_server(folder, road.guard.folder / "control.sock") as web:
        blind = Road(road.guard, web)
        done = blind.command()
        page = Browser(web.socket).get("/admit", **{HEADER: "198.51.100.9"})
    gone = blind.command()

    assert (done.returncode, done.stdout) == (1, "")
    assert "does not see where people come from; fix: serve it by a proxy" in " ".join(done.stderr.split())
    assert "cannot know the address" in page.words
    assert page.document.forms == []
    assert (gone.returncode, "start it: systemctl start ringfence-web" in gone.stderr) == (1, True)


def test_without_a_fence_there_is_no_link(tmp_path_factory: pytest.TempPathFactory) -> None:
    """If the fence is off, the command states that all senders are admitted."""
    folder = tmp_path_factory.mktemp("off")
    with (
        Guard(folder) as guard,
        web_server(folder / "web", folder / "control.sock", site=SITE, client_header=HEADER) as web,
    ):
        assert "the fence is off" in Road(guard, web).command().stderr
