"""The live page in a real Chromium: every view, every command, hostile names, and the end of a session."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from playwright.sync_api import Browser, Page, Route, expect
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.chromium import PHONE, Window, chromium, why_no_chromium
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.mmdb import write
from tests.support.web import WebServer, free_port, web_in_thread, web_server

from ringfence.features.web.entrance import IDLE_LIFE, SESSION_LIFE
from ringfence.firewall.ipset.sets import ban_set_name
from ringfence.values.ban import Scope

pytestmark = pytest.mark.skipif(bool(why_no_chromium()), reason=why_no_chromium())

GUESSER, FRIEND, BANNED = "198.18.1.101", "100.64.7.50", "100.64.7.60"
HOSTILE_GUESSER = "fd00:18::b"
GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script>\"'><svg/onload=alert(3)>{{7*7}}"
    "\u202e\u2066\u200b\x1b[2J\x7f"
)
"""An account without the bytes that end a line of AMI."""
HOSTILE_GUESSES = (
    capture("asterisk-22", "wrong-password-register-ipv6")
    .ami.read_bytes()
    .replace(b"AccountID: alice", b"AccountID: " + HOSTILE.encode() + b"x" * 5_000)
)
UPDATED = 90_000
"""Milliseconds within which an open page shows a change: the server shares a slow answer for a minute."""
VIEWS = {
    "/": "Overview",
    "/?period=year": "Overview",
    "/bans": "Bans",
    "/bans?q=nothing": "Bans",
    "/past": "Ended bans",
    "/log": "Log",
    "/alarms": "Alarms",
    "/lists": "Lists",
    "/fence": "Fence",
    "/fleet": "Fleet",
    f"/why?about={GUESSER}": f"{GUESSER} is banned from the SIP ports by UDP",
    f"/why?about={HOSTILE_GUESSER}": f"{HOSTILE_GUESSER} is banned from the SIP ports by UDP",
    f"/why?about={FRIEND}": f"{FRIEND} is a friend",
    "/why?about=alice": "account alice fails, and the address that tried it is banned",
    "/why?about=%3Csvg%3E": "account <svg> is not known to ringfence",
    f"/confirm?do=ban&what={FRIEND}": f"Ban {FRIEND}?",
    f"/confirm?do=unban&what={GUESSER}": f"Unban {GUESSER}?",
}
"""Each page with its heading."""
PLAIN = ("/", "/bans", "/lists", f"/why?about={GUESSER}")
"""Views with each kind of element: a chart, a table, forms, and text."""


@frozen
class Site:
    """A daemon, its live page at a port, and a browser."""

    guard: Guard
    web: WebServer
    browser: Browser
    url: str

    def window(self, *, read_only: bool = False, **options: Any) -> Window:  # noqa: ANN401 - as Playwright takes them
        """Open a window, and log in as ``alice``."""
        return Window.opened(self.browser, **options).log_in(self.web.link(read_only=read_only))


@frozen
class Person:
    """A person at a window of the site, who presses and follows."""

    window: Window
    url: str

    def open(self, target: str) -> Window:
        """Open a page."""
        self.window.page.goto(self.url + target)
        return self.window

    def confirm(self, button: str, **fields: str) -> None:
        """Fill in the page that confirms a command, and run it."""
        page = self.window.page
        for label, value in fields.items():
            field = page.get_by_label(label, exact=label == "For")
            if label == "For":
                field.select_option(value)
            else:
                field.fill(value)
        self.window.press(button)
        expect(page.locator("h1")).to_have_text(re.compile("^(Done|Not done): "))


@pytest.fixture(name="browser", scope="module")
def _browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(name="site", scope="module")
def _site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield a daemon that banned two guessers, with a friend, a ban by hand, an ended ban and an alarm.

    One guesser tries an account with a hostile name, which the views show. The deny list has one in a note. A
    feed has no list, and the countries of most addresses are known.
    """
    folder = tmp_path_factory.mktemp("site")
    country = {"country": {"iso_code": "NL"}}
    database = write(folder / "geo.mmdb", [("198.18.0.0/15", country), ("100.64.0.0/10", country)])
    feed = {"name": "lost", "file": str(folder / "none.txt")}
    with (
        ami_server(Script(play=[GRANTED, GUESSES, HOSTILE_GUESSES])) as pbx,
        Guard(
            folder,
            ami={"port": pbx.port},
            rules={"guess": {"attempts": 3}},
            claimed={"ban": ["2h"]},  # longer than all tests of this module take
            geo={"database": [str(database)]},
            feeds=[feed],
        ) as guard,
    ):
        until(lambda: GUESSER in guard.banned(), "the ban")
        until(lambda: guard.status()["attempts"] == 6, "the attempts")
        befriend(guard)
        ban(guard, BANNED, "100.64.7.61")
        guard.ask("unban", networks=["100.64.7.61"])
        guard.ask("allow_add", what=["203.0.113.0/24"], note="office <b>")
        guard.ask("deny_add", what=["100.64.7.80"], note=HOSTILE[:60])
        until(lambda: guard.ask("alarms"), "the alarm that nothing is dropped")
        port = free_port()
        with web_server(folder / "web", folder / "control.sock", port) as web:
            yield Site(guard, web, browser, f"http://127.0.0.1:{port}")


def ban(guard: Guard, *addresses: str) -> None:
    """Ban addresses by hand."""
    assert guard.ask("ban", networks=[*addresses], seconds=3_600)["problems"] == []


def befriend(guard: Guard) -> None:
    """Make an address a friend."""
    times = {"since": "2026-11-21T02:00:00Z", "seen": "2026-11-21T02:00:00Z", "until": "2099-01-01T00:00:00Z"}
    friend = {"address": FRIEND, "account": "204", "asterisk": "pbx", "reason": "registered"}
    guard.ask("friends_import", friends=[friend | times], transfer="x", more=False)


@pytest.fixture(name="alice", scope="module")
def _alice(site: Site) -> Iterator[Person]:
    """Yield a person with a window of a desktop."""
    person = Person(site.window(), site.url)
    yield person
    person.window.close()


# -- every view


SCREENS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": PHONE,
}


@pytest.mark.parametrize(
    "screen",
    ["light", pytest.param("dark", marks=pytest.mark.long), pytest.param("phone", marks=pytest.mark.long)],
)
def test_every_view_is_accessible(site: Site, screen: str) -> None:
    """Each view has its heading, breaks no rule of axe, has no error, fits, and asks no other site."""
    person = Person(site.window(**SCREENS[screen]), site.url)
    window, page = person.window, person.window.page
    for target, heading in VIEWS.items():
        page.set_viewport_size(SCREENS[screen]["viewport"])
        person.open(target)
        assert window.heading == heading
        assert window.violations() == []
        assert excess_width(page) <= 0, target
        page.set_viewport_size(PHONE["viewport"])
        assert excess_width(page) <= 0, f"{target} on a small screen"
    window.close()

    assert requests_elsewhere(window, site) == []
    assert window.errors == []


def excess_width(page: Page) -> int:
    """Return the width of a page that is beyond the screen."""
    too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(page.evaluate(too_wide))


def requests_elsewhere(window: Window, site: Site) -> list[str]:
    """Return the addresses of other sites that a window has asked for."""
    assert window.requests
    return [url for url in window.requests if not url.startswith(f"{site.url}/")]


@pytest.mark.parametrize(
    "targets",
    [pytest.param(PLAIN, id="some"), pytest.param(tuple(VIEWS), id="all", marks=pytest.mark.long)],
)
def test_every_view_can_be_read_without_javascript(site: Site, targets: Iterable[str]) -> None:
    """Without JavaScript each view has the same text, and a command can be run."""
    plain = Person(site.window(java_script_enabled=False), site.url)
    for target in targets:
        assert plain.open(target).heading == VIEWS[target]
    assert "Enforcing" in plain.open("/").words or "Nothing is dropped" in plain.window.words
    plain.open("/bans").page.get_by_label("Address or small network").fill("100.64.7.30")
    plain.window.press("Ban ...")
    plain.confirm("Ban 100.64.7.30")
    assert "100.64.7.30" in site.guard.banned()
    plain.window.close()


@pytest.mark.long  # test_pages.py has the same without a browser
def test_a_reader_has_no_commands(site: Site) -> None:
    """A person with the role to read finds no command in any view, and cannot confirm one."""
    reader = Person(site.window(read_only=True), site.url)
    for target in VIEWS:
        if not target.startswith("/confirm"):
            reader.open(target)
            assert reader.window.page.locator("a[href^='/confirm'], form[action='/confirm']").count() == 0
    reader.open(f"/confirm?do=unban&what={GUESSER}")
    assert "you are logged in to read only" in reader.window.words
    reader.window.close()


def test_the_page_updates_itself(site: Site, alice: Person) -> None:
    """A new ban appears in an open page, with the focus where it was; a pause ends that.

    The updates ask no other site.
    """
    page = alice.open("/bans").page
    link = page.get_by_role("link", name=BANNED, exact=True)
    link.focus()
    ban(site.guard, "100.64.7.71")
    expect(page.get_by_role("link", name="100.64.7.71", exact=True)).to_be_visible(timeout=UPDATED)
    expect(link).to_be_focused()

    page.get_by_role("button", name="Pause updates").click()
    expect(page.get_by_role("status")).to_contain_text("Updates are paused since")
    ban(site.guard, "100.64.7.72")
    page.wait_for_timeout(6_000)
    assert page.get_by_role("link", name="100.64.7.72", exact=True).count() == 0
    site.guard.ask("unban", networks=["100.64.7.71", "100.64.7.72"])
    assert requests_elsewhere(alice.window, site) == []


def test_a_pause_also_ends_the_update_under_way(alice: Person) -> None:
    """An answer that was requested before the pause neither changes the page nor ends the notice."""
    page, held = alice.open("/bans").page, list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    with page.expect_request("**/bans"):
        page.route("**/bans", hold)
    page.get_by_role("button", name="Pause updates").click()
    with page.expect_response("**/bans"):
        held[0].continue_()
    page.wait_for_timeout(1_000)
    expect(page.get_by_role("status")).to_contain_text("Updates are paused since")
    page.unroute("**/bans", hold)


def test_bans_are_searched_and_sorted(alice: Person) -> None:
    """The table is searched by a part of an address, and sorted by its heads."""
    page = alice.open("/bans").page
    page.get_by_label("Search bans").fill("198.18.")
    page.locator("main form[role=search]").get_by_role("button").click()
    expect(page.locator("#bans tr")).to_have_count(1)
    alice.window.follow("All bans")
    head = page.locator("thead a", has_text="Address")
    head.click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Address")
    ascending = page.locator("#bans th").all_inner_texts()
    head.click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text("Address")

    assert page.locator("#bans th").all_inner_texts() == ascending[::-1]


def test_an_answer_is_one_search_away(alice: Person) -> None:
    """From any page, the search field explains an address or an account, and names a mistyped address."""
    for about, heading in (
        ("alice", VIEWS["/why?about=alice"]),
        (GUESSER, VIEWS[f"/why?about={GUESSER}"]),
        ("198.18.1.300", "Not done"),
    ):
        page = alice.open("/lists").page
        page.get_by_label("Address or account").fill(about)
        alice.window.press("Why?")
        expect(page.locator("h1")).to_have_text(heading)


def test_everything_works_by_keyboard(site: Site, alice: Person) -> None:
    """The first key leads past the menu, and a command needs no mouse; the focus is always visible."""
    page = alice.open(f"/why?about={BANNED}").page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for name, heading in (("Unban", f"Unban {BANNED}?"), (f"Unban {BANNED}", f"Done: Unban {BANNED}")):
        tab_to(page, name)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text(heading)
    assert BANNED not in site.guard.banned()
    ban(site.guard, BANNED)


def tab_to(page: Page, name: str) -> None:
    """Move the focus, which must be visible, to the link or button of this name."""
    for _ in range(20):
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if page.evaluate("document.activeElement.innerText.trim()") == name:
            return
    raise AssertionError(f"the focus does not reach {name}")


# -- every command


def test_ban_and_unban(site: Site, alice: Person) -> None:
    """A ban by hand needs a confirmation, has the chosen length, and ends by the command of its row."""
    alice.open("/bans").page.get_by_label("Address or small network").fill("100.64.7.1")
    alice.window.press("Ban ...")
    assert "100.64.7.1" not in site.guard.banned()
    alice.confirm("Ban 100.64.7.1", For="7 days", Reason="too <loud>")
    [row] = site.guard.ask("bans", most=9, networks=["100.64.7.1"])
    assert (row["reason"], row["timeout"] > 6 * 86_400) == ("too <loud> (web: alice)", True)

    alice.open("/bans?q=100.64.7.1").page.get_by_role("link", name="Unban 100.64.7.1", exact=True).click()
    alice.window.follow("Cancel")
    assert "100.64.7.1" in site.guard.banned()
    alice.open("/bans?q=100.64.7.1").page.get_by_role("link", name="Unban 100.64.7.1", exact=True).click()
    alice.confirm("Unban 100.64.7.1")
    assert "100.64.7.1" not in site.guard.banned()
    lines = [
        line
        for line in site.web.log.split("\n")
        if re.search(r"event=web\.command_done .* what=100\.64\.7\.1 ", line)
    ]
    assert [re.findall(r"\b(?:user|command)=\w+", line) for line in lines] == [
        ["user=alice", "command=ban"],
        ["user=alice", "command=unban"],
    ]


def test_unban_and_allow(site: Site, alice: Person) -> None:
    """The answer about a banned address offers to end the ban and allow the address."""
    ban(site.guard, "100.64.7.2")
    alice.open("/why?about=100.64.7.2")
    alice.window.follow("Unban and allow")
    alice.confirm("Unban and allow 100.64.7.2")
    assert "100.64.7.2" not in site.guard.banned()
    assert "100.64.7.2" in {row["entry"] for row in site.guard.ask("lists", side="allow")}


@pytest.mark.parametrize("side", ["allow", "deny"])
def test_the_lists(site: Site, alice: Person, side: str) -> None:
    """An entry is added to each list and removed from it; a wrong one is refused before the question."""
    page = alice.open("/lists").page
    section = page.get_by_role("region", name=f"{side.capitalize()} list")
    section.get_by_role("textbox").fill("198.51.100.0/24")
    section.get_by_role("button").click()
    alice.confirm(f"{side.capitalize()} 198.51.100.0/24")
    assert "198.51.100.0/24" in {row["entry"] for row in site.guard.ask("lists", side=side)}
    alice.open("/lists")
    section.get_by_role("link", name="Remove 198.51.100.0/24").click()
    alice.confirm(f"Remove from the {side} list 198.51.100.0/24")
    assert "198.51.100.0/24" not in {row["entry"] for row in site.guard.ask("lists", side=side)}

    alice.open("/lists")
    section.get_by_role("textbox").fill("<nonsense>")
    section.get_by_role("button").click()
    assert "<nonsense> is not an address or a small network" in alice.window.words


def test_a_friend_is_named_and_stays_one(alice: Person) -> None:
    """A ban of a friend is confirmed with a warning; the page offers no way to forget the friend."""
    alice.open(f"/why?about={FRIEND}")
    assert "Forget" not in alice.open(f"/why?about={FRIEND}").words
    alice.window.follow("Ban")
    expect(alice.window.page.get_by_role("alert")).to_contain_text(f"{FRIEND} is a friend")


def test_an_alarm_is_dismissed(site: Site, alice: Person) -> None:
    """A dismissed alarm shows who dismissed it, and leaves the overview."""
    code, number = (site.guard.ask("alarms")[0][key] for key in ("code", "number"))
    alice.open("/alarms")
    alice.window.follow(f"Dismiss {code}")
    alice.confirm(f"Dismiss alarm {number}")
    [row] = [one for one in site.guard.ask("alarms") if one["number"] == number]
    assert row["dismissed_by"].startswith("alice")
    assert "by alice" in alice.open("/alarms").words
    assert code not in alice.open("/").words


# -- sessions


def test_a_link_works_once_and_logging_out_ends_the_session(site: Site) -> None:
    """A second browser cannot use a link again, and after logging out no page is shown."""
    link = site.web.link("bob")
    window, other = Window.opened(site.browser), Window.opened(site.browser)
    window.log_in(link)
    assert not any(link.partition("#")[2] in request for request in window.requests if "#" not in request)
    [cookie] = window.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert window.page.evaluate("document.cookie") == ""
    other.page.goto(link)
    other.press("Log in to ringfence")
    expect(other.page.get_by_role("alert")).to_contain_text("works once")
    window.press("Log out")
    window.page.goto(f"{site.url}/bans")

    assert window.heading == "Log in"
    for one in (window, other):
        assert one.violations() == []
        one.close()


def test_skipping_to_the_content_keeps_the_token(site: Site) -> None:
    """On the page of a link, the keyboard leads past the menu, and the token stays in the form."""
    window = Window.opened(site.browser)
    window.page.goto(site.web.link("bob"))
    window.page.keyboard.press("Tab")
    window.page.keyboard.press("Enter")
    expect(window.page.locator("main")).to_be_focused()
    window.press("Log in to ringfence")
    expect(window.page.locator("h1")).to_have_text("Overview")
    window.close()


@pytest.mark.parametrize("life", [IDLE_LIFE, pytest.param(SESSION_LIFE, marks=pytest.mark.long)])
def test_an_open_page_shows_that_its_session_has_ended(site: Site, life: float) -> None:
    """When the session ends, an open page asks for a login, and shows nothing else."""
    moment = 0.0
    with web_in_thread(site.guard.folder / "control.sock", lambda: moment) as link:
        window = Window.opened(site.browser).log_in(link())
        moment = life
        expect(window.page.locator("h1")).to_have_text("Log in", timeout=UPDATED)
        assert "bans" not in window.words
        window.close()


# -- a link that admits an address


def test_a_person_lets_themselves_in(site: Site) -> None:
    """The page of a link has one button, breaks no rule of axe, and admits the address of the browser.

    Without scripts, the person pastes the token. A lasting link can be opened again in the same window.
    """
    folder, port = site.guard.folder / "road", free_port()
    control = site.guard.folder / "control.sock"
    fence, url = {"mode": "observe"}, f"http://127.0.0.1:{port}"
    site.guard.configure(fence=fence)
    site.guard.reload()
    until(lambda: site.guard.ask("fence")["configured"] == "observe", "the fence")
    token = site.guard.ask("fence_link", seconds=3_600.0, valid=600.0)
    with web_server(folder, control, port, site=url, client_header="X-Real-IP"):
        for options in SCREENS.values():
            window = Window.opened(site.browser, extra_http_headers={"X-Real-IP": "198.51.100.9"}, **options)
            window.page.goto(f"{url}/admit#{token}")
            assert window.heading == "Let this address in"
            assert window.page.get_by_role("button").all_inner_texts() == ["Let in 198.51.100.9"]
            assert not window.page.get_by_label("The part of your link").is_visible()
            assert (window.violations(), window.errors) == ([], [])
            assert excess_width(window.page) <= 0
            assert not any(token in request for request in window.requests if "#" not in request)
            window.close()
        person = Window.opened(
            site.browser, extra_http_headers={"X-Real-IP": "198.51.100.9"}, java_script_enabled=False
        )
        person.page.goto(f"{url}/admit#{token}")
        person.page.get_by_label("The part of your link").fill(token)
        person.press("Let in 198.51.100.9")
        admitted = "198.51.100.9 is admitted until"
        expect(person.page.locator("main [role=status]")).to_contain_text(admitted)
        person.page.goto(f"{url}/bans")
        assert person.heading == "Log in"
        person.close()
        lasting = site.guard.ask("fence_link_lasting", account="alice", seconds=3_600.0)
        person = Window.opened(site.browser, extra_http_headers={"X-Real-IP": "198.51.100.9"})
        for _ in range(2):
            person.page.goto(f"{url}/admit#{lasting}")
            person.press("Let in 198.51.100.9")
            expect(person.page.locator("main [role=status]")).to_contain_text(admitted)
        assert person.errors == []
        person.close()
    assert {one["what"] for one in site.guard.ask("fence")["admitted"]} == {"198.51.100.9"}


# -- hostile names


def test_hostile_names_are_text(site: Site, alice: Person) -> None:
    """An account with markup, scripts, escape sequences and overrides is text in every view.

    The test of every view has the rest: such names start no script, and break neither axe's rules nor a
    screen.
    """
    window, page = alice.window, alice.window.page
    window.errors.clear()
    for target in ("/", "/bans", "/lists", f"/why?about={HOSTILE_GUESSER}", "/why?about=%3Csvg%3E", "/log"):
        alice.open(target)
        html = page.content()
        assert page.locator("main img, main script, main svg[onload]").count() == 0
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069]", html), target
    assert "<img src=x onerror=alert(1)>" in window.words
    ban(site.guard, "100.64.7.81")  # an update interprets nothing either
    expect(page.locator("main")).to_contain_text("100.64.7.81", timeout=UPDATED)
    page.wait_for_timeout(500)

    assert page.locator("main img, main script, main svg[onload]").count() == 0
    assert window.errors == []


# -- without the daemon: the last test of the site


def test_an_open_page_reports_that_the_daemon_is_gone(site: Site, alice: Person) -> None:
    """Without the daemon an open page keeps what it shows, and reports since when; then it goes on."""
    page = alice.open("/").page
    site.guard.stop()
    expect(page.locator("#stale")).to_contain_text("No update since", timeout=UPDATED)
    assert alice.window.heading == "Overview"
    site.guard.start()
    expect(page.locator("#stale")).to_be_empty(timeout=UPDATED)


# -- many bans


@pytest.mark.long
def test_ten_thousand_bans(browser: Browser, tmp_path: Path) -> None:
    """With 10,000 bans an update of the page is drawn; the benchmark has its times."""
    with (
        Guard(tmp_path) as guard,
        web_server(tmp_path / "web", tmp_path / "control.sock", free_port()) as web,
    ):
        networks = [f"10.0.{number // 256}.{number % 256}" for number in range(10_000)]
        assert guard.ask("ban", networks=networks, seconds=3_600)["problems"] == []
        window = Window.opened(browser).log_in(web.link())
        window.page.goto(f"{window.page.url}bans?sort=address")
        guard.ask("unban", networks=["10.0.0.0"])
        window.next_update("bans")
        shown = window.page.locator("#found").inner_text()
        window.close()

    assert "of 9999 bans" in shown


# -- a real Asterisk


@pytest.mark.asterisk
def test_a_guesser_at_a_real_asterisk(asterisk22: Lab, browser: Browser, tmp_path: Path) -> None:
    """The attack appears in an open page, and pressing Unban ends the ban in the kernel."""
    source = "198.19.50.1"
    with (
        guarded(asterisk22, tmp_path) as guard,
        web_server(tmp_path / "web", tmp_path / "control.sock", free_port()) as web,
    ):
        window = Window.opened(browser).log_in(web.link())
        page = window.page
        person = Person(window, page.url.rstrip("/"))
        asterisk22.attack("guess", "--number", "100", "--sources", source)
        expect(page.locator("#latest")).to_contain_text(source, timeout=UPDATED)
        person.open("/bans")
        expect(page.locator("#bans")).to_contain_text(source, timeout=UPDATED)
        assert source in kernel(asterisk22)
        page.get_by_role("link", name=f"Unban {source}").first.click()
        person.confirm(f"Unban {source}")
        assert source not in kernel(asterisk22)
        assert guard.running
        window.close()


def kernel(lab: Lab) -> str:
    """Return the kernel's sets of bans of IPv4, as the tool of ipset prints them."""
    return "".join(lab.run("ipset", "list", ban_set_name(4, scope)) for scope in Scope)
