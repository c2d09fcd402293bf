"""The live page in a real Chromium: every view, every command, hostile names, and the end of a session."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from playwright.sync_api import Browser, Page, expect
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.chromium import PHONE, Window, chromium, why_no_chromium
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.web import WebServer, free_port, web_in_thread, web_server

from ringfence.web.sessions import IDLE_LIFE, SESSION_LIFE

pytestmark = pytest.mark.skipif(bool(why_no_chromium()), reason=why_no_chromium())

GUESSER, FRIEND, BANNED = "198.18.1.101", "100.64.7.50", "100.64.7.60"
GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script>\"'><svg/onload=alert(3)>{{7*7}}"
    "\u202e\u2066\u200b\x1b[2J\x7f"
)
"""An account without the bytes that end a line of AMI."""
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
    f"/why?about={GUESSER}": f"{GUESSER} is banned from the SIP ports by UDP",
    f"/why?about={FRIEND}": f"{FRIEND} is a friend",
    "/why?about=alice": "account alice fails, and the address that tried it is banned",
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

    def window(self, *role: str, **options: Any) -> Window:  # noqa: ANN401 - as Playwright takes them
        """Open a window, and log in as ``alice``."""
        return Window.opened(self.browser, **options).log_in(self.web.link("--name", "alice", *role))


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
    """Yield a daemon that banned a guesser, with a friend, a ban by hand, an ended ban and an alarm."""
    folder = tmp_path_factory.mktemp("site")
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(
            folder,
            ami={"port": pbx.port},
            rules={"guess": {"attempts": 3}},
            claimed={"ban": ["2h"]},  # longer than all tests of this module take
        ) as guard,
    ):
        until(lambda: guard.banned() == {GUESSER}, "the ban")
        befriend(guard)
        guard.must("ban", BANNED, "100.64.7.61")
        guard.must("unban", "100.64.7.61")
        guard.must("allow", "add", "203.0.113.0/24", "--note", "office <b>")
        until(lambda: guard.ask("alarms"), "the alarm that nothing is dropped")
        port = free_port()
        with web_server(folder / "web", folder / "control.sock", port) as web:
            yield Site(guard, web, browser, f"http://127.0.0.1:{port}")


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
    ("screen", "targets"),
    [
        pytest.param("light", VIEWS, id="light"),
        pytest.param("dark", PLAIN, id="dark"),
        pytest.param("phone", PLAIN, id="phone"),
        pytest.param("dark", VIEWS, id="dark-all", marks=pytest.mark.long),
        pytest.param("phone", VIEWS, id="phone-all", marks=pytest.mark.long),
    ],
)
def test_every_view_is_accessible(site: Site, screen: str, targets: Iterable[str]) -> None:
    """On each screen each view has its heading, breaks no rule of axe, has no error, and fits the screen."""
    person = Person(site.window(**SCREENS[screen]), site.url)
    page = person.window.page
    for target in targets:
        person.open(target)
        assert person.window.heading == VIEWS[target]
        assert person.window.violations() == []
        too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(too_wide) <= 0, target
    person.window.close()

    assert person.window.errors == []


def test_nothing_is_asked_of_other_sites(site: Site) -> None:
    """In every view all requests go to the page itself, also those of its updates."""
    person = Person(site.window(), site.url)
    for target in VIEWS:
        person.open(target)
    person.open("/")
    person.window.page.wait_for_event("request", timeout=UPDATED)  # an update
    person.window.close()

    assert [url for url in person.window.requests if not url.startswith(f"{site.url}/")] == []
    assert person.window.errors == []


def test_every_view_can_be_read_without_javascript(site: Site) -> None:
    """Without JavaScript each view has the same text, and a command can be run."""
    plain = Person(site.window(java_script_enabled=False), site.url)
    for target, heading in VIEWS.items():
        assert plain.open(target).heading == heading
    assert "Enforcing" in plain.open("/").words or "Nothing is dropped" in plain.window.words
    plain.open("/bans").page.get_by_label("Address or network").fill("100.64.7.30")
    plain.window.press("Ban ...")
    plain.confirm("Ban 100.64.7.30")
    assert "100.64.7.30" in site.guard.banned()
    plain.window.close()


def test_a_reader_has_no_commands(site: Site) -> None:
    """A person with the role to read finds no command in any view, and cannot confirm one."""
    reader = Person(site.window("--read-only"), site.url)
    for target in VIEWS:
        if not target.startswith("/confirm"):
            reader.open(target)
            assert reader.window.page.locator("a[href^='/confirm'], form[action='/confirm']").count() == 0
    reader.open(f"/confirm?do=unban&what={GUESSER}")
    assert "you are logged in to read only" in reader.window.words
    reader.window.close()


def test_the_page_updates_itself(site: Site, alice: Person) -> None:
    """A new ban appears in an open page, with the focus where it was; a pause ends that."""
    page = alice.open("/bans").page
    link = page.get_by_role("link", name=BANNED, exact=True)
    link.focus()
    site.guard.must("ban", "100.64.7.71")
    expect(page.get_by_role("link", name="100.64.7.71", exact=True)).to_be_visible(timeout=UPDATED)
    expect(link).to_be_focused()

    page.get_by_role("button", name="Pause updates").click()
    expect(page.get_by_role("status")).to_contain_text("Updates are paused since")
    site.guard.must("ban", "100.64.7.72")
    page.wait_for_timeout(6_000)
    assert page.get_by_role("link", name="100.64.7.72", exact=True).count() == 0
    site.guard.must("unban", "100.64.7.71", "100.64.7.72")


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
    site.guard.must("ban", BANNED)


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
    alice.open("/bans").page.get_by_label("Address or network").fill("100.64.7.1")
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
    site.guard.must("ban", "100.64.7.2")
    alice.open("/why?about=100.64.7.2")
    alice.window.follow("Unban and allow")
    alice.confirm("Unban and allow 100.64.7.2")
    assert "100.64.7.2" not in site.guard.banned()
    assert "100.64.7.2" in {row["entry"] for row in site.guard.ask("lists", side="allow")}


@pytest.mark.parametrize("side", ["allow", "deny"])
def test_the_lists(site: Site, alice: Person, side: str) -> None:
    """An entry is added to each list and removed from it; a wrong one is shown as not done."""
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
    alice.confirm(f"{side.capitalize()} <nonsense>")
    assert alice.window.heading.startswith("Not done")


def test_a_friend_is_named_and_stays_one(alice: Person) -> None:
    """A ban of a friend is confirmed with a warning; the page offers no way to forget the friend."""
    alice.open(f"/why?about={FRIEND}")
    assert "Forget" not in alice.open(f"/why?about={FRIEND}").words
    alice.window.follow("Ban")
    expect(alice.window.page.get_by_role("alert")).to_contain_text(f"{FRIEND} is a friend")


def test_alarms_are_acknowledged_and_dismissed(site: Site, alice: Person) -> None:
    """The alarm shows who acknowledged it, and a dismissed one leaves the overview."""
    code = str(site.guard.ask("alarms")[0]["code"])
    for command in ("Acknowledge", "Dismiss"):
        alice.open("/alarms")
        alice.window.follow(f"{command} {code}")
        number = site.guard.ask("alarms")[0]["number"]
        alice.confirm(f"{command} alarm {number}")
        [row] = [one for one in site.guard.ask("alarms") if one["number"] == number]
        assert row["acknowledged_by" if command == "Acknowledge" else "dismissed_by"].startswith("alice")
    assert "acknowledged by alice" in alice.open("/alarms").words
    assert code not in alice.open("/").words


# -- sessions


def test_a_link_works_once_and_logging_out_ends_the_session(site: Site) -> None:
    """A second browser cannot use a link again, and after logging out no page is shown."""
    link = site.web.link("--name", "bob")
    window, other = Window.opened(site.browser), Window.opened(site.browser)
    window.log_in(link)
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


@pytest.mark.parametrize("life", [IDLE_LIFE, SESSION_LIFE])
def test_an_open_page_shows_that_its_session_has_ended(browser: Browser, tmp_path: Path, life: float) -> None:
    """When the session ends, an open page asks for a login, and shows nothing else."""
    moment = 0.0
    with Guard(tmp_path) as guard, web_in_thread(tmp_path / "control.sock", lambda: moment) as link:
        window = Window.opened(browser).log_in(link())
        assert guard.running
        moment = life
        expect(window.page.locator("h1")).to_have_text("Log in", timeout=UPDATED)
        assert "bans" not in window.words
        window.close()


def test_an_open_page_reports_that_the_daemon_is_gone(browser: Browser, tmp_path: Path) -> None:
    """Without the daemon an open page keeps what it shows, and reports since when; then it goes on."""
    with (
        Guard(tmp_path) as guard,
        web_server(tmp_path / "web", tmp_path / "control.sock", free_port()) as web,
    ):
        window = Window.opened(browser).log_in(web.link())
        guard.stop()
        expect(window.page.locator("#stale")).to_contain_text("No update since", timeout=UPDATED)
        assert window.heading == "Overview"
        guard.start()
        expect(window.page.locator("#stale")).to_be_empty(timeout=UPDATED)
        window.close()


# -- hostile names


def test_hostile_names_are_text(browser: Browser, tmp_path: Path) -> None:
    """An account with markup, scripts, escape sequences and overrides is text in every view."""
    named = GUESSES.replace(b"AccountID: alice", b"AccountID: " + HOSTILE.encode() + b"x" * 5_000)
    with (
        ami_server(Script(play=[GRANTED, named])) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}) as guard,
    ):
        until(lambda: guard.status()["attempts"] >= 1, "an attempt")
        guard.must("deny", "add", "100.64.7.80", "--note", HOSTILE[:60])
        with web_server(tmp_path / "web", tmp_path / "control.sock", free_port()) as web:
            window = Window.opened(browser, viewport=PHONE["viewport"]).log_in(web.link())
            url = window.page.url.rstrip("/")
            for target in ("/", "/bans", "/log", "/lists", f"/why?about={GUESSER}", "/why?about=%3Csvg%3E"):
                window.page.goto(url + target)
                html = window.page.content()
                assert window.page.locator("main img, main script, main svg[onload]").count() == 0
                assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069]", html), target
                assert window.page.evaluate("document.documentElement.scrollWidth") <= 360, target
                assert window.violations() == []
            window.page.goto(f"{url}/log")
            assert "<img src=x onerror=alert(1)>" in window.words
            window.page.wait_for_timeout(6_000)  # an update interprets nothing either
            window.close()

    assert window.errors == []


# -- many bans


def test_ten_thousand_bans(browser: Browser, tmp_path: Path) -> None:
    """With 10,000 bans an update of the page is drawn; the benchmark has its times."""
    with (
        Guard(tmp_path) as guard,
        web_server(tmp_path / "web", tmp_path / "control.sock", free_port()) as web,
    ):
        networks = [f"10.0.{number // 256}.{number % 256}" for number in range(10_000)]
        assert guard.ask("ban", networks=networks, seconds=3_600) == []
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
        window = Window.opened(browser).log_in(web.link("--name", "alice"))
        page = window.page
        person = Person(window, page.url.rstrip("/"))
        asterisk22.attack("guess", "--number", "2000", "--sources", source)
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
    """Return the kernel's sets, as the tool of ipset prints them."""
    done = subprocess.run(
        [*lab.network.in_pbx(), "ipset", "list"], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout
