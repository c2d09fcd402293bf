"""Every page, with a real daemon behind it."""

import re
import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attrs import evolve
from tests.explain.world import NOW, RULE, ban, count, friend, holder, known, proven, story
from tests.features.web.conftest import GUESSES, Served
from tests.support.amiserver import Script
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.web import Browser, daemon_in_thread, web_server

from ringfence.control import MOST_ENDED
from ringfence.explain.account import AccountFacts, account_document
from ringfence.explain.as_json import document
from ringfence.explain.facts import Admission
from ringfence.features.web.pages import MOST_BANS
from ringfence.firewall.limits import LimitMode
from ringfence.store.bans import RecordedBan
from ringfence.values.ban import UNRECORDED, BanEnd
from ringfence.values.entry import ListKind

GUESSER = "198.18.1.101"
HOSTILE = "<img src=x onerror=alert(1)>\"'\u202e\x1b[2J"
"""A name without the bytes that end a line of AMI."""


def test_the_overview(served: Served) -> None:
    """It shows health, numbers, graphs, attempts and sources."""
    answer = served.browser.get("/")
    words = answer.words

    assert answer.status == 200
    assert "memory" in words
    assert "bans 1 attempts since the start 3" in words
    assert re.search(
        rf"{GUESSER} 3 alice wrong password counted [\d-]+ [\d:]+ [\d-]+ [\d:]+ Sources", words
    ), words
    assert "pbx/ami listening" in words
    assert answer.text.count('<svg class="chart"') == answer.text.count('<svg class="ticks"') == 2
    until(
        lambda: "Attempts: 3 in the last day" in served.browser.get("/").words, "the records of the attempts"
    )
    assert served.browser.get("/?period=year").words.count("in the last year") == 2
    assert served.browser.get("/?period=nothing").status == 200


def test_addresses_under_observation_are_shown(served: Served) -> None:
    """An address with attempts that is not banned yet is under observation."""
    words = served.browser.get("/").words

    assert "Under observation" in words


def test_unconfirmed_attempts_are_near_no_ban(served: Served, tmp_path: Path) -> None:
    """An address with unconfirmed attempts only has their number, as in the terminal."""
    texts = {"address": "100.64.7.9", "rule": "", "standing": "unconfirmed", "proof": "claimed"}
    row = {
        **texts,
        "attempts": 3,
        "have": 0,
        "of": 1,
        "accounts": [],
        "last": "2026-11-21T02:41:00Z",
        "country": "",
    }
    guard = served.guard
    handlers = {
        "status": lambda _: guard.status() | {"watched": [row]},
        "top": lambda _: guard.ask("top"),
        "history": lambda _: guard.ask("history", seconds=86_400),
    }
    with (
        daemon_in_thread(tmp_path / "control.sock", handlers),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        words = web.browser().get("/").words

    assert re.search(r"100\.64\.7\.9 3 unconfirmed unconfirmed claimed", words), words


def test_the_bans(served: Served) -> None:
    """The table has the kernel's bans, with time left, and a command for each."""
    answer = served.browser.get("/bans")

    assert "1 of 1 ban" in answer.words
    cells = r"guess \(sip-udp\) alice 0 of 3 1\. [\d-]+ [\d:]+ [\dms ]+ 0"
    assert re.search(rf"{GUESSER} {cells} Unban {GUESSER}", answer.words), answer.words
    assert f"/confirm?do=unban&what={GUESSER}" in answer.links()
    assert "No ban matches." in served.browser.get("/bans?q=10.0.0.1").words
    assert 'aria-sort="descending"' in answer.text
    assert 'aria-sort="ascending"' in served.browser.get("/bans?sort=address").text
    assert {"/bans?sort=address&order=up", "/bans?sort=packets&order=down"} <= {*answer.links()}


def test_what_nobody_recorded_about_a_ban_is_unknown(tmp_path: Path) -> None:
    """The table shows it as `ringfence bans` does. A ban that ended after the daemon's answer is left out."""
    known: dict[str, object] = {**UNRECORDED, "scope": "full", "timeout": 60, "packets": 7, "bytes": 1}
    lasting, ended = known | {"address": "100.64.7.203"}, known | {"address": "100.64.7.204"}
    rows = [lasting, ended | {"expires": "2020-01-01T00:00:00Z"}]
    with (
        daemon_in_thread(tmp_path / "control.sock", {"bans": lambda _: rows}),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        words = web.browser().get("/bans").words

    assert "1 of 1 ban" in words
    assert "100.64.7.203 ? ? ? " in words
    assert "100.64.7.204" not in words


def test_alarms_that_the_overview_leaves_out_are_counted(served: Served, tmp_path: Path) -> None:
    """It has the most important ones, and a link to all."""
    alarm = {"number": 1, "code": "evidence.forged", "subject": "192.0.2.1", "text": "x", "times": 1}
    guard = served.guard
    handlers = {
        "status": lambda _: guard.status(),
        "top": lambda _: guard.ask("top") | {"alarms": [alarm] * 50, "alarm_count": 60},
        "history": lambda _: guard.ask("history", seconds=86_400),
    }
    with (
        daemon_in_thread(tmp_path / "control.sock", handlers),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        words = web.browser().get("/").words

    assert "and 10 more: all alarms" in words
    assert "all alarms" not in served.browser.get("/").words


def test_a_long_ban_has_its_own_end(tmp_path: Path) -> None:
    """The time left is that of the ban; its entry in the kernel lasts for 24 days, and is renewed."""
    with Guard(tmp_path) as guard, web_server(tmp_path / "web", tmp_path / "control.sock") as web:
        guard.ask("ban", networks=["100.64.7.202"], seconds=60 * 86_400 + 5_400)
        words = web.browser().get("/bans").words

    assert re.search(r"100\.64\.7\.202 admin .* 60d 1h 0 ", words), words


def test_ended_bans(served: Served) -> None:
    """The page of ended bans has a ban that a command ended, and how."""
    served.guard.ask("ban", networks=["100.64.7.200"], seconds=3_600)
    served.guard.ask("unban", networks=["100.64.7.200"])

    assert re.search(r"100\.64\.7\.200 admin - .* removed", served.browser.get("/past").words)


def test_lists_of_the_past_that_are_cut_say_so(served: Served, tmp_path: Path) -> None:
    """A page has the latest rows; the daemon's answer may lack bans beyond its maximum, too."""
    served.guard.ask("ban", networks=["100.64.7.201"], seconds=3_600)
    served.guard.ask("unban", networks=["100.64.7.201"])
    row = served.guard.ask("past_bans")[0]
    alarm = {"code": "phone.broken", "subject": "204", "text": "fails", "dismissed_by": ""}
    alarm |= {"since": row["since"], "cleared": row["ended"]}
    handlers = {
        "past_bans": lambda _: [row] * MOST_ENDED,
        "alarms": lambda request: [alarm] * 201 if request.get("past") else [],
    }
    with (
        daemon_in_thread(tmp_path / "control.sock", handlers),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        browser = web.browser()

        assert f"The latest 200 of at least {MOST_ENDED} bans that ended" in browser.get("/past").words
        assert "Only the latest 200 are listed." in browser.get("/alarms").words
    assert "at least" not in served.browser.get("/past").words
    assert "Only the latest" not in served.browser.get("/alarms").words


def test_a_flood_of_alarms_hides_no_critical_one(tmp_path: Path) -> None:
    """Senders can cause any number of alarms that only inform; critical ones stand before them."""
    flood = {"number": 1, "code": "evidence.forged", "subject": "192.0.2.1", "text": "x", "times": 1}
    flood |= {"since": "2026-01-01T00:00:00Z", "last": "2026-01-01T00:00:00Z", "dismissed": None}
    damaged = flood | {"code": "firewall.damaged", "subject": "rules", "text": "they are gone"}
    handlers = {"alarms": lambda request: [] if request.get("past") else [*[flood] * 250, damaged]}
    with (
        daemon_in_thread(tmp_path / "control.sock", handlers),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        assert "they are gone" in web.browser().get("/alarms").words


def test_the_log(served: Served) -> None:
    """It has attempts and bans, the latest first, and only one kind if that is chosen."""
    words = served.browser.get("/log").words
    attempts = served.browser.get("/log?kind=attempt").words

    assert words.index(f"ban {GUESSER} placed") < words.index(f"attempt {GUESSER} wrong password")
    assert "wrong password" in attempts
    assert "placed" not in attempts
    assert served.browser.get("/log?kind=nothing").status == 200


def test_why_an_address(served: Served) -> None:
    """It shows the sentence, the ban, the attempts and the commands."""
    answer = served.browser.get(f"/why?about={GUESSER}")

    assert f"{GUESSER} is banned" in answer.words
    assert answer.words.count("wrong password") == 1
    assert re.search(r"3 [\d-]+ [\d:]+ [\d-]+ [\d:]+ 198\.18\.1\.101 wrong password alice", answer.words)
    assert f"/confirm?do=unban-allow&what={GUESSER}" in answer.links()
    assert "It is not a friend." in answer.words


def test_the_rules_and_lists_of_an_address_are_those_of_the_command(tmp_path: Path) -> None:
    """A rule by network is left out if a friend is in the network; what a list leaves out is counted."""
    made = tuple(evolve(proven(1)[0], time=NOW + n, address=ip_network("192.0.2.0/24")[n]) for n in range(51))
    past = tuple(RecordedBan(ban(since=NOW - 9_000), NOW - 8_000, BanEnd.REMOVED) for _ in range(21))
    counts = story(count(RULE["prefix"], 19, 19), count(RULE["slow"], 3, 3), made=made)
    found = document(known(story=counts, past=past, contains_exempt=True))
    with (
        daemon_in_thread(tmp_path / "control.sock", {"why": lambda _: found}),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        words = web.browser().get("/why?about=192.0.2.1").words

    assert "slow 3 of 20 3 1d" in words
    assert "prefix" not in words
    assert words.count("and 1 more") == 2


def test_list_entries_and_friends_have_their_end(tmp_path: Path) -> None:
    """An entry of the lists shows its network and whether it was forced, as in the command."""
    entry = holder(ListKind.DENY, "pbx.example", "192.0.2.0/24", until=NOW + 7_200.0, forced=True)
    found = document(known(friends=(friend(),), holders=(entry,)))
    with (
        daemon_in_thread(tmp_path / "control.sock", {"why": lambda _: found}),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        words = web.browser().get("/why?about=192.0.2.1").words

    assert "deny: pbx.example (192.0.2.0/24), from command, forced, until 2023-11-15 00:15:00" in words
    assert ", until 2023-11-14 23:15:00" in words


def test_the_lines_of_features_are_those_of_the_command(tmp_path: Path) -> None:
    """Whether the fence admits an address is shown in the words of `ringfence why`."""
    found = document(known(admission=Admission(LimitMode.ENFORCE, inside=False, packets=3)))
    with (
        daemon_in_thread(tmp_path / "control.sock", {"why": lambda _: found}),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        words = web.browser().get("/why?about=192.0.2.1").words

    assert "fence: it is outside: the kernel drops what comes from outside; 3 packets counted" in words


def test_why_an_account(served: Served) -> None:
    """It shows the sentence, what to do, and the failures."""
    answer = served.browser.get("/why?about=alice")

    assert "account alice fails, and the address that tried it is banned" in answer.words
    assert f"ringfence unban {GUESSER}" in answer.words
    assert "wrong password 3" in answer.words


def test_the_lines_of_features_about_an_account_are_those_of_the_command(tmp_path: Path) -> None:
    """Where an account logs in, and what it asks for, is shown in the words of `ringfence why`."""
    last = "2026-11-28T08:00:00Z"
    place = {
        "network": "192.0.2.0/24",
        "country": "DE",
        "asn": "<b>",
        "grade": "elsewhere",
        "home": False,
        "last": last,
        "days": 1,
        "logins": 2,
    }
    phone = {"address": "192.0.2.1", "accounts": ["alice"], "host": "198.51.100.9", "last": last}
    handlers = {
        "why_account": lambda _: account_document(AccountFacts("alice", NOW)),
        "account": lambda request: {"places": [place] if request["account"] == "alice" else []},
        "status": lambda _: {"bare_address": {"friends": [phone], "without_name": 1}},
    }
    with (
        daemon_in_thread(tmp_path / "control.sock", handlers),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        words = web.browser().get("/why?about=alice").words

    assert "place: 192.0.2.0/24 (DE, <b>): elsewhere; 2 logins on 1 day, last 2026-11-28 08:00" in words
    assert "domain: 192.0.2.1 asks for 198.51.100.9, last 2026-11-28 08:00: no name of this PBX" in words


@pytest.mark.parametrize("about", ["198.18.1.300", "::1::2", "10.0.0.1/8", "1.2.3.4/99"])
def test_a_mistyped_address_is_an_error(served: Served, about: str) -> None:
    """The page names the text that is not an address."""
    answer = served.browser.get(f"/why?about={quote(about)}")

    assert answer.status == 400
    assert "is not an address or a network" in answer.words
    assert served.browser.get("/why?about=").status == 303


def test_the_lists_and_alarms(served: Served) -> None:
    """Both lists, and the active and past alarms, have their pages; the page removes small networks only."""
    served.guard.ask("allow_add", what=["name.example"])
    served.guard.ask("allow_add", what=["203.0.113.0/24"], note="office <b>")
    lists = served.browser.get("/lists")
    if "203.0.113.0/24" not in lists.words:  # the page before the command may be kept for a moment
        until(lambda: "203.0.113.0/24" in served.browser.get("/lists").words, "the entry")
        lists = served.browser.get("/lists")

    assert "office <b>" in lists.words
    assert not any("name.example" in link for link in lists.links())
    assert "/confirm?do=allow-remove&what=203.0.113.0%2F24" in lists.links()
    assert "The list is empty." in lists.words
    assert served.browser.get("/alarms").status == 200


def test_a_reader_gets_no_commands(served: Served) -> None:
    """A person with the role to read sees every page without commands, and cannot confirm one."""
    for target in (
        "/",
        "/bans",
        "/past",
        "/log",
        "/alarms",
        "/lists",
        f"/why?about={GUESSER}",
        "/why?about=alice",
    ):
        answer = served.reader.get(target)
        assert answer.status == 200
        assert not any("/confirm" in link for link in answer.links())
        assert not any(form.action == "/confirm" for form in answer.document.forms)
    assert served.reader.get(f"/confirm?do=unban&what={GUESSER}").status == 403
    csrf = served.reader.get("/").form("/logout").fields["csrf"]
    run = {"csrf": csrf, "do": "unban", "what": GUESSER}
    assert served.reader.post("/run", run).status == 403
    assert "event=web.command_refused" in served.web.log
    assert served.guard.banned() == {GUESSER}


@pytest.mark.parametrize(
    "target", ["/", "/bans", "/past", "/log", "/alarms", "/lists", f"/why?about={GUESSER}"]
)
def test_the_elements_are_named(served: Served, target: str) -> None:
    """Each page has a language, one heading, labels for its fields, heads for its columns, unique ids."""
    elements = served.browser.get(target).document.elements
    ids = [values["id"] for _, values in elements if "id" in values]
    labelled = {values.get("for") for tag, values in elements if tag == "label"}

    assert ("html", {"lang": "en"}) in elements
    assert [tag for tag, _ in elements].count("h1") == 1
    assert len(ids) == len(set(ids))
    for tag, values in elements:
        if tag in {"input", "select"} and values.get("type") != "hidden":
            assert values.get("id") in labelled, values
        if tag == "th":
            assert values.get("scope") in {"col", "row"}, values
        for name in ("aria-labelledby", "aria-describedby"):
            assert name not in values or values[name] in ids, values


@pytest.fixture(name="hostile", scope="module")
def _hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser at the page of a daemon that banned a guesser with a hostile account name."""
    folder = tmp_path_factory.mktemp("hostile")
    named = GUESSES.replace(b"AccountID: alice", b"AccountID: " + HOSTILE.encode() + b"x" * 5_000)
    with (
        ami_server(Script(play=[GRANTED, named])) as pbx,
        Guard(folder, ami={"port": pbx.port}, rules={"guess": {"attempts": 3}}) as guard,
    ):
        until(lambda: guard.status()["attempts"] >= 1, "an attempt")
        with web_server(folder / "web", folder / "control.sock") as web:
            yield web.browser()


@pytest.mark.parametrize("target", ["/", "/bans", "/log", "/alarms", f"/why?about={GUESSER}"])
def test_a_hostile_name_is_text(hostile: Browser, target: str) -> None:
    """Markup in an account is shown and not interpreted, in every page that shows it."""
    answer = hostile.get(target)

    assert answer.status == 200
    assert not any(tag == "img" for tag, _ in answer.document.elements)
    assert "\x1b" not in answer.text
    assert "\u202e" not in answer.text
    assert len(answer.text) < 200_000
    if target != "/alarms":
        assert "<img src=x" in answer.words


@pytest.mark.parametrize("about", [HOSTILE, "x" * 10_000, "\u202e", "%00", "../../etc", "'\"><script>"])
def test_a_hostile_question_is_text(served: Served, about: str) -> None:
    """The text of the search is shown and not interpreted."""
    for target in (f"/why?about={quote(about)}", f"/bans?q={quote(about)}"):
        answer = served.browser.get(target)
        assert answer.status in {200, 400}
        tags = [tag for tag, _ in answer.document.elements]
        assert (tags.count("script"), tags.count("img")) == (1, 0)
        assert "\u202e" not in answer.text


def test_an_update_without_the_daemon_is_no_defect(tmp_path: Path) -> None:
    """While the daemon is gone, an open page shows the last list for some seconds, and logs no defect."""
    with web_server(tmp_path / "web", tmp_path / "control.sock") as web:
        browser = web.browser()
        with daemon_in_thread(tmp_path / "control.sock", {"bans": lambda _: []}):
            assert browser.get("/bans").status == 200
        time.sleep(5.5)  # the answer is no longer shared, but still shown
        assert browser.get("/bans").status == 200
        time.sleep(0.2)
        assert "Traceback" not in web.log


def test_more_bans_than_the_table_has(tmp_path: Path) -> None:
    """The page requests a limited number of bans, and shows that there may be more."""
    texts = {"rule": "guess", "account": "204", "accounts": 1, "reason": "", "scope": "full"}
    numbers = {"attempts": 5, "proven": 5, "packets": 1, "timeout": 60, "offence": 1}
    ban = {"since": "2026-11-21T02:41:00Z", "expires": None, **texts, **numbers}
    asked: list[object] = []

    def bans(request: Mapping[str, Any]) -> list[dict[str, object]]:
        asked.append(request["most"])
        number = MOST_BANS if len(asked) == 1 else MOST_BANS - 1
        return [{"address": f"10.0.{one // 256}.{one % 256}", **ban} for one in range(number)]

    with (
        daemon_in_thread(tmp_path / "control.sock", {"bans": bans, "unban": lambda _: None}),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        browser = web.browser()
        assert f"only the {MOST_BANS} that end last" in browser.get("/bans").words
        browser.run("unban", "10.0.0.1")  # kept answers are forgotten
        assert "that end last" not in browser.get("/bans").words
    assert {*asked} == {MOST_BANS}


@pytest.mark.parametrize("number", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_bans(tmp_path: Path, number: int) -> None:
    """With thousands of bans each page of the table has a hundred."""
    with Guard(tmp_path) as guard, web_server(tmp_path / "web", tmp_path / "control.sock") as web:
        networks = [f"10.0.{one // 256}.{one % 256}" for one in range(number)]
        assert guard.ask("ban", networks=networks, seconds=3_600)["problems"] == []
        browser = web.browser()
        first, last = (
            browser.get("/bans?sort=address"),
            browser.get(f"/bans?sort=address&page={number // 100}"),
        )

    assert f"{number} of {number} bans" in first.words
    assert first.text.count("<tr>") == last.text.count("<tr>") == 101
