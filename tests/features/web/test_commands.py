"""Every command of the pages: what it changes in the daemon, and what the log has of it."""

import asyncio
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.features.web.conftest import Served
from tests.support.daemon import until
from tests.support.web import daemon_in_thread, web_server

from ringfence import control_server
from ringfence.clock import Clock
from ringfence.errors import ControlError
from ringfence.features.web.commands import COMMANDS, LENGTHS, CommandResult, Order
from ringfence.features.web.daemon_client import DaemonClient


def entries(served: Served, side: str) -> dict[str, str]:
    """Return the entries of a list with their notes."""
    return {row["entry"]: row["note"] for row in served.guard.ask("lists", side=side)}


def test_ban_and_unban(served: Served) -> None:
    """A ban has the chosen length and the name of the person; unbanning ends it; both are logged."""
    answer = served.browser.run("ban", "100.64.7.1", length="7 days", note="too <loud>")
    until(lambda: served.guard.ask("bans", most=9, networks=["100.64.7.1"]), "the ban")
    [row] = served.guard.ask("bans", most=9, networks=["100.64.7.1"])

    assert "Done: Ban 100.64.7.1" in answer.words
    assert (row["reason"], row["rule"]) == ("too <loud> (web: alice)", "admin")
    assert 7 * 86_400 - 60 < row["timeout"] <= 7 * 86_400
    assert "100.64.7.1" in served.browser.get("/bans").words
    assert "Done" in served.browser.run("unban", "100.64.7.1").words
    assert served.guard.ask("bans", most=9, networks=["100.64.7.1"]) == []
    for name in ("ban", "unban"):
        lines = [line for line in served.web.log.split("\n") if f"command={name} " in line]
        assert any("event=web.command " in line and "user=alice" in line for line in lines)


def test_a_problem_is_shown(served: Served) -> None:
    """A command that the daemon refuses is shown as not done, with the reason."""
    answer = served.browser.run("unban", "100.64.7.77")

    assert "Not done: Unban 100.64.7.77" in answer.words
    assert "100.64.7.77: is not banned" in answer.words


def test_an_address_without_a_ban_is_allowed_too(served: Served) -> None:
    """The command that unbans and allows adds an address that nothing bans any more."""
    assert "Done" in served.browser.run("unban-allow", "100.64.7.3").words
    assert "100.64.7.3" in entries(served, "allow")
    assert "Done" in served.browser.run("allow-remove", "100.64.7.3").words


def test_unban_and_allow(served: Served) -> None:
    """The ban ends, and the allow list has the address with the name of the person."""
    served.guard.ask("ban", networks=["100.64.7.2"], seconds=3_600)
    answer = served.browser.run("unban-allow", "100.64.7.2", note="phone of Bob")

    assert "Done" in answer.words
    assert served.guard.ask("bans", most=9, networks=["100.64.7.2"]) == []
    assert entries(served, "allow")["100.64.7.2"] == "phone of Bob (web: alice)"
    assert "Done" in served.browser.run("allow-remove", "100.64.7.2").words
    assert "100.64.7.2" not in entries(served, "allow")


@pytest.mark.parametrize("side", ["allow", "deny"])
def test_the_lists(served: Served, side: str) -> None:
    """An entry is added to a list and removed from it."""
    assert "Done" in served.browser.run(side, "198.51.100.0/24").words
    assert entries(served, side)["198.51.100.0/24"] == "(web: alice)"
    assert "Done" in served.browser.run(f"{side}-remove", "198.51.100.0/24").words
    assert "198.51.100.0/24" not in entries(served, side)


def test_a_friend_is_named_before_a_ban(served: Served) -> None:
    """The page that confirms a ban or a denial names friends in the network."""
    times = {"since": "2026-11-21T02:00:00Z", "seen": "2026-11-21T02:00:00Z", "until": "2099-01-01T00:00:00Z"}
    friend = {"address": "100.64.7.50", "account": "204", "asterisk": "pbx", "reason": "registered"}
    served.guard.ask("friends_import", friends=[friend | times], transfer="x", more=False)
    for name in ("ban", "deny"):
        words = served.browser.get(f"/confirm?do={name}&what=100.64.7.0/24").words
        assert "100.64.7.50 is a friend, a phone or trunk of this PBX: 204" in words


@pytest.mark.parametrize(
    ("do", "what", "smallest"),
    [
        ("allow", "sip.carrier.example", "IPv4 /24, IPv6 /48"),
        ("deny", "DE", "IPv4 /24, IPv6 /48"),
        ("ban", "8.0.0.0/7", "IPv4 /24, IPv6 /48"),
        ("unban-allow", "198.51.0.0/16", "IPv4 /24, IPv6 /48"),
        ("deny-remove", "2001:db8::/47", "IPv4 /24, IPv6 /48"),
        ("unban", "198.50.0.0/15", "IPv4 /16, IPv6 /32"),
    ],
)
def test_what_the_daemon_refuses_to_pages_is_not_confirmed(
    served: Served, do: str, what: str, smallest: str
) -> None:
    """A command for a host name, a country or a wide network names the command line, and asks nothing."""
    answer = served.browser.get(f"/confirm?do={do}&what={what}")

    assert answer.status == 400
    assert f"{what} is not an address or a small network ({smallest}); for others, use the" in answer.words


def test_no_command_is_offered_that_the_daemon_refuses_to_pages(served: Served) -> None:
    """A network has only the commands that the page may use for it."""
    offered = [one for one in served.browser.get("/why?about=198.18.0.0/16").links() if "confirm" in one]

    assert [one for one in offered if "do=unban&" not in one] == []


def test_alarms_are_dismissed(served: Served) -> None:
    """Dismissing an alarm records the person; an unknown number is a problem."""
    for row in served.guard.ask("alarms")[:1]:
        assert "Done" in served.browser.run("dismiss", str(row["number"])).words
        [marked] = [one for one in served.guard.ask("alarms") if one["number"] == row["number"]]
        assert marked["dismissed_by"].startswith("alice")
    assert "this alarm is not active" in served.browser.run("dismiss", "999999").words


@pytest.mark.parametrize(
    ("do", "what"),
    [
        ("ban", "nonsense"),
        ("unban", ""),
        ("forget", "100.64.7.50"),
        ("dismiss", "one"),
        ("dismiss", "1" * 100),
        ("allow", ""),
        ("allow", "<nonsense>"),
        ("off", "x"),
        ("", ""),
    ],
)
def test_a_wrong_command_is_an_error(served: Served, do: str, what: str) -> None:
    """An unknown command, or one about something else, is refused before and after the confirmation."""
    csrf = served.browser.get("/").form("/logout").fields["csrf"]

    assert served.browser.get(f"/confirm?do={do}&what={what}").status == 400
    assert served.browser.post("/run", {"csrf": csrf, "do": do, "what": what}).status == 400


def test_a_ban_has_a_length_of_the_choice(served: Served) -> None:
    """Another length is refused."""
    csrf = served.browser.get("/").form("/logout").fields["csrf"]
    order = {"csrf": csrf, "do": "ban", "what": "100.64.7.90", "length": "forever"}

    assert served.browser.post("/run", order).status == 400
    assert served.guard.ask("bans", most=9, networks=["100.64.7.90"]) == []


def test_the_default_length_is_one_of_the_choice() -> None:
    """The length that a form proposes exists."""
    assert Order("100.64.7.1", "alice").length in LENGTHS


def test_a_reason_is_one_line() -> None:
    """A reason has no invisible characters, and is cut."""
    assert Order("x", "alice", note="a\nb").signed == "a\\nb (web: alice)"
    assert len(Order("x", "alice", note="y" * 500).signed) == 200


@pytest.mark.parametrize("note", ["y" * 500, "x (web: bob)" + " " * 180 + ".", "y" * 186 + " z"])
def test_a_reason_ends_with_the_name_of_the_person(note: str) -> None:
    """A long reason is cut, and its blanks are one, so that it cannot hide the name."""
    signed = Order("x", "alice", note=note).signed

    assert signed.endswith(" (web: alice)")
    assert len(signed) <= 200
    assert "  " not in signed


def test_the_log_has_a_command_before_the_daemon(tmp_path: Path) -> None:
    """If the page is stopped while the daemon carries out a command, the log has who gave it, and what."""
    asked = threading.Event()

    async def ban(_: Mapping[str, Any]) -> dict[str, list[str]]:
        asked.set()
        await asyncio.sleep(8)
        return {"problems": [], "notes": []}

    handlers = {"ban": ban, "friends": lambda _: []}
    with (
        daemon_in_thread(tmp_path / "control.sock", handlers),
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
        ThreadPoolExecutor() as pool,
    ):
        browser = web.browser()
        answer = pool.submit(browser.run, "ban", "100.64.7.1", length="7 days", note="loud")
        assert asked.wait(10)
        web.process.terminate()
        web.process.wait(20)
        assert answer.result().status == 500
        log = web.log

    assert 'command=ban what=100.64.7.1 length="7 days" reason="loud (web: alice)"' in log
    assert "event=web.command user=alice " in log
    assert "event=web.command_unknown user=alice " in log


def test_a_slow_command_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command waits longer than a page."""
    monkeypatch.setattr("ringfence.features.web.daemon_client.PATIENCE", 0.1)

    async def ban(_: Mapping[str, Any]) -> dict[str, list[str]]:
        await asyncio.sleep(0.5)
        return {"problems": [], "notes": ["a longer ban ended"]}

    async def scenario() -> CommandResult:
        async with control_server.serve(tmp_path / "socket", {"ban": ban}):
            client = DaemonClient(tmp_path / "socket", Clock())
            return await COMMANDS["ban"].run(client, Order("100.64.7.1", "alice"))

    assert asyncio.run(scenario()) == CommandResult(notes=("a longer ban ended",))


def test_a_command_without_an_answer_may_have_been_done(tmp_path: Path) -> None:
    """The page and the log state that the result is unknown, and not that the command failed."""
    path = tmp_path / "control.sock"
    daemon = socket.socket(socket.AF_UNIX)
    daemon.bind(str(path))
    daemon.listen()

    def hang_up() -> None:
        with daemon.accept()[0] as connection:
            connection.recv(1_000)

    with daemon, web_server(tmp_path / "web", path) as web, ThreadPoolExecutor() as pool:
        browser = web.browser()
        pool.submit(hang_up)
        answer = browser.run("unban", "100.64.7.1")

        assert answer.status == 503
        assert "It may have been done." in answer.words
        assert "event=web.command_unknown user=alice command=unban what=100.64.7.1 " in web.log
        assert "web.command_failed" not in web.log


def test_an_address_is_allowed_although_its_ban_does_not_end(tmp_path: Path) -> None:
    """If the second half of a command fails, the page shows that the first half was done."""

    def refuse(_: Mapping[str, Any]) -> None:
        raise ControlError("enforcement is switched off")

    handlers = {"allow_add": lambda _: {"problems": [], "notes": ["a note"]}, "unban": refuse}

    async def scenario() -> CommandResult:
        async with control_server.serve(tmp_path / "socket", handlers):
            client = DaemonClient(tmp_path / "socket", Clock())
            return await COMMANDS["unban-allow"].run(client, Order("100.64.7.1", "alice"))

    problem = "100.64.7.1 is on the allow list now; unban: enforcement is switched off"
    assert asyncio.run(scenario()) == CommandResult((problem,), ("a note",))


def test_an_address_that_is_neither_allowed_nor_banned(tmp_path: Path) -> None:
    """If the allow list is full and nothing was banned, both are problems, and the unban is no news."""
    asked = list[object]()

    def unban(request: Mapping[str, Any]) -> dict[str, list[str]]:
        asked.append(request["allowed"])
        return {"problems": [], "notes": [], "not_banned": ["100.64.7.1"]}

    full = "100.64.7.1: the allow list is full"
    handlers = {"allow_add": lambda _: {"problems": [full], "notes": []}, "unban": unban}

    async def scenario() -> CommandResult:
        async with control_server.serve(tmp_path / "socket", handlers):
            client = DaemonClient(tmp_path / "socket", Clock())
            return await COMMANDS["unban-allow"].run(client, Order("100.64.7.1", "alice"))

    assert asyncio.run(scenario()) == CommandResult((full, "100.64.7.1: is not banned"))
    assert asked == [False]


def test_addresses_have_one_form() -> None:
    """An address is shown as the daemon writes it."""
    assert COMMANDS["ban"].check(" ::ffff:100.64.7.1 ") == "100.64.7.1"
    with pytest.raises(ControlError, match="is not an address"):
        COMMANDS["ban"].check("\x1b[2J")
