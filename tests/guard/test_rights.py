"""The rights of this host's users at the control socket of a real daemon: real sockets, real user ids."""

import mmap
import os
import re
import resource
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from tests.contrib import unit
from tests.support.daemon import PATIENCE, Guard, until
from tests.support.guests import UNKNOWN, Attack, attacked, noticed
from tests.support.programs import program_service
from tests.support.users import ALICE, PAGE, READER, VALID, as_user, guard_with_users

from ringfence import control, control_server
from ringfence.errors import ControlError
from ringfence.features.web.rights import PAGE_USER
from ringfence.guard.request_fields import PeerRole
from ringfence.guard.request_table import PAGE_CHANGES, REQUESTS, Rights

pytestmark = pytest.mark.kernel

FRIEND = {
    "address": "100.64.7.50",
    "account": "204",
    "asterisk": "pbx",
    "reason": "registered",
    "since": "2026-11-21T02:00:00Z",
    "seen": "2026-11-21T02:00:00Z",
    "until": "2099-01-01T00:00:00Z",
}


@pytest.fixture(name="guard", scope="module")
def _guard() -> Iterator[Guard]:
    """Yield a daemon on a host with several users."""
    with guard_with_users() as guard:
        guard.ask("friends_import", friends=[FRIEND], transfer="x", more=False)
        yield guard


def refusal(guard: Guard, user: int, do: str, **fields: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Send a request as a user, and return why the daemon refuses it; "" if it does not."""
    path = guard.folder / "control.sock"

    def ask() -> str:
        try:
            control.ask(path, do, **fields)
        except ControlError as error:
            return str(error)
        return ""

    return as_user(user, ask)


def codes(guard: Guard) -> set[str]:
    """Return the codes of the active alarms."""
    return {alarm["code"] for alarm in guard.ask("status")["alarms"]}


def is_off(guard: Guard) -> bool:
    """Whether the daemon answers that ringfence is switched off."""
    return "firewall.off" in codes(guard)


@pytest.mark.parametrize(("user", "role"), [(PAGE, PeerRole.PAGE), (READER, PeerRole.READER)])
def test_a_user_may_send_what_its_role_has(guard: Guard, user: int, role: PeerRole) -> None:
    """The page and other users get the answers of their requests; every other request is refused."""
    for do, request in REQUESTS.items():
        if do == "follow":  # its answer has no end
            continue
        why = refusal(guard, user, do, **VALID.get(do, {}))
        if do == "fence_redeem" and role in request.fields:  # there is no link to use
            assert "may not send" not in why
            continue
        assert bool(why) is (role not in request.fields), (do, why)

    refused = "may not send" in refusal(guard, user, "follow")
    assert refused is (role not in REQUESTS["follow"].fields)
    assert not is_off(guard)


def test_what_readers_may_send_changes_nothing() -> None:
    """Readers may send no request that changes something, and the daemon's own user may only reload."""
    for do, request in REQUESTS.items():
        assert request.changes is (PeerRole.READER not in request.fields)
        assert (PeerRole.DAEMON in request.fields) is (do == "reload")
        assert PeerRole.ADMINISTRATOR in request.fields


def test_every_request_of_the_daemon_is_in_the_table(guard: Guard) -> None:
    """Root gets an answer to each request of the table; the daemon has no other request."""
    for do in REQUESTS:
        if do not in {"follow", "off", "notify_test"}:
            assert "does not know this request" not in refusal(guard, 0, do, **VALID.get(do, {})), do
    assert "does not know this request" in refusal(guard, 0, "handlers")


def test_named_administrators_may_do_everything(guard: Guard) -> None:
    """A user that the configuration names switches off and on; the log names the user and the process."""
    assert refusal(guard, ALICE, "off") == refusal(guard, ALICE, "on") == ""

    assert re.search(rf'control\.changed do=off by="user {ALICE} \(alice\), process [0-9]+"', guard.log)


def test_the_roles_of_users() -> None:
    """Root and named users have all rights, the page its own row, the daemon's user may reload."""
    rights = Rights(999, frozenset({"alice", "1000"}))
    users = [
        (0, "root"),
        (5, "alice"),
        (1_000, "bob"),
        (7, PAGE_USER),
        (999, "ringfence"),
        (8, "eve"),
        (9, ""),
    ]

    assert [rights.role_of(*user) for user in users] == [
        *[PeerRole.ADMINISTRATOR] * 3,
        PeerRole.PAGE,
        PeerRole.DAEMON,
        *[PeerRole.READER] * 2,
    ]
    assert Rights(999, frozenset({PAGE_USER})).role_of(7, PAGE_USER) is PeerRole.PAGE
    assert Rights(0).role_of(0, "root") is PeerRole.ADMINISTRATOR


def test_the_user_of_the_page_is_that_of_its_unit() -> None:
    """The daemon limits the user with which the unit of the page runs."""
    assert unit.read(unit.FILE.with_name("ringfence-web.service"))["User"] == [PAGE_USER]


def test_the_page_cannot_switch_off(guard: Guard) -> None:
    """The page cannot allow, unban or deny large networks, several at once, or by another kind of entry.

    It unbans every network that a rule can ban; these are larger than those that it bans, allows or denies.
    """
    widest = ("0.0.0.0/1", "128.0.0.0/1", "198.18.0.0/15", "2000::/3", "2001:d00::/31", "::ffff:0:0/97")
    wide = (*widest, "198.18.0.0/23", "2001:db8::/47")
    for do in ("allow_add", "deny_add"):
        for what in (*wide, "DE", "AS64496", "name.example"):
            assert "must be a list of 1 to 1 addresses or networks" in refusal(guard, PAGE, do, what=[what])
        assert refusal(guard, PAGE, do, what=["198.18.1.1", "198.18.1.2"])
        assert refusal(guard, PAGE, do, what=["198.18.1.1"], force=True)
        assert refusal(guard, PAGE, do, what=["198.18.1.1"], seconds=1)
    for network in widest:
        assert refusal(guard, PAGE, "unban", networks=[network])
    for network in wide:
        assert refusal(guard, PAGE, "ban", networks=[network], seconds=60)
    assert refusal(guard, PAGE, "unban", all=True)
    for do in ("allow_remove", "deny_remove"):
        for what in (*wide, "DE", "AS64496", "name.example"):
            assert "must be a list of 1 to 1 addresses or networks" in refusal(guard, PAGE, do, what=[what])
        assert refusal(guard, PAGE, do, what=["198.18.1.1", "198.18.1.2"])
    assert refusal(guard, PAGE, "alarms_dismiss", all=True)
    assert refusal(guard, PAGE, "bans", most=20_001)
    assert refusal(guard, PAGE, "ban", networks=["198.18.1.1"], seconds=31 * 86_400)
    assert guard.ask("lists", side="allow") == []


def test_the_page_cannot_cut_off_a_phone(guard: Guard) -> None:
    """The page bans and denies no network in which a friend lives, and cannot forget the friend."""
    for network in (FRIEND["address"], "100.64.7.0/24"):
        for do, fields in (
            ("ban", {"networks": [network], "seconds": 60}),
            ("deny_add", {"what": [network]}),
        ):
            assert "a friend, a phone or trunk of this PBX, is there" in refusal(guard, PAGE, do, **fields)
    assert "may not send the request" in refusal(guard, PAGE, "friends_forget", address=FRIEND["address"])
    assert guard.ask("lists", side="deny") == []


def test_a_wide_network_is_not_allowed_by_accident(guard: Guard) -> None:
    """The allow list refuses what the deny list refuses; with --force, an alarm names it until it is gone."""
    refused = guard.command("allow", "add", "0.0.0.0/1")
    assert "is a large part of the internet, so it is not allowed; --force allows it" in refused.stderr
    guard.must("allow", "add", "--force", "0.0.0.0/5")
    assert "list.allows_much" in codes(guard)
    guard.must("allow", "remove", "0.0.0.0/5")
    until(lambda: "list.allows_much" not in codes(guard), "the alarm clears")


def test_changes_of_the_page_are_limited_and_logged() -> None:
    """The page may make a limited number of changes; each is logged and notified with user and process."""
    with TemporaryNotes() as (notes, settings), guard_with_users(notify=settings) as guard:
        path = guard.folder / "control.sock"

        def change() -> tuple[int, int, str]:
            for number in range(PAGE_CHANGES + 1):
                try:
                    control.ask(path, "allow_add", what=[f"198.18.{number % 250}.0/24"])
                except ControlError as error:
                    return os.getpid(), number, str(error)
            return os.getpid(), -1, ""

        process, done, why = as_user(PAGE, change)
        who = f"user {PAGE} (ringfence-web), process {process}"
        assert (done, why.partition(",")[0]) == (
            PAGE_CHANGES,
            f"a page may make {PAGE_CHANGES} changes an hour",
        )
        assert guard.log.count(f'event=control.changed do=allow_add by="{who}"') == PAGE_CHANGES
        assert guard.log.count("event=control.refused") == 1
        until(lambda: notes.exists() and who in notes.read_text("utf-8"), "the notification", seconds=30)


class TemporaryNotes:
    """A folder into which a command of ``[[notify.hook]]`` writes what it gets."""

    def __enter__(self) -> tuple[Path, dict[str, Any]]:
        self._folder = Path(mkdtemp(prefix="notes-"))
        self._folder.chmod(0o777)
        self._service = ExitStack()
        path = self._service.enter_context(program_service(self._folder))
        script = self._folder / "note"
        script.write_text(f"#!/bin/sh\ncat >> {self._folder}/notes\n", "utf-8")
        script.chmod(0o755)
        settings = {"hook": [{"name": "note", "command": [str(script)], "socket": path, "events": ["list"]}]}
        return self._folder / "notes", settings

    def __exit__(self, *_: object) -> None:
        self._service.close()
        for file in self._folder.iterdir():
            file.unlink()
        self._folder.rmdir()


# -- what a taken-over process can try ------------------------------------------------------------------


def memory(guard: Guard) -> int:
    """Return the daemon's resident memory in bytes."""
    return int(Path(f"/proc/{daemon_of(guard)}/statm").read_text("ascii").split()[1]) * 4_096


def files(guard: Guard) -> int:
    """Return how many files the daemon has open."""
    return len([*Path(f"/proc/{daemon_of(guard)}/fd").iterdir()])


def daemon_of(guard: Guard) -> int:
    """Return the process id of the daemon: ``sh`` and ``unshare`` have become it."""
    return guard.pid


@contextmanager
def in_background(action: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Run ``action`` in a thread; yield a function that waits for its end and returns its result."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(action).result


def idle(path: Path, number: int) -> list[socket.socket]:
    """Open connections, and leave them idle."""
    found = []
    for _ in range(number):
        one = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            one.connect(str(path))
        found.append(one)
    return found


def test_idle_connections_stop_nobody(guard: Guard) -> None:
    """1,100 idle connections of the page leave room for root and for other users, and the daemon goes on."""
    path = guard.folder / "control.sock"

    def attack() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2_000, 2_000))
        kept = idle(path, 1_100)
        try:
            control.ask(path, "status")
        except ControlError as error:
            return f"{len(kept)}: {error}"
        finally:
            time.sleep(2)
        return ""

    before = files(guard)
    with in_background(lambda: as_user(PAGE, attack)) as results:
        time.sleep(1.5)
        most = files(guard)
        answers = [is_off(guard), refusal(guard, READER, "status")]

    assert results() == "1100: too many connections to the daemon are open; close some of them"
    assert answers == [False, ""]
    assert most - before <= control_server.MOST_OF_USER + 5
    assert guard.running
    until(lambda: files(guard) <= before + 5, "the connections are closed")
    assert refusal(guard, PAGE, "status") == ""
    assert guard.log.count(f"event=control.limited user={PAGE} what=connections") == 1


def test_a_flood_of_connections_delays_nobody(guard: Guard) -> None:
    """While the page connects as fast as it can, root is answered at once."""
    path, shared = guard.folder / "control.sock", mmap.mmap(-1, 1)

    def attack() -> int:
        number, end = 0, time.monotonic() + 30
        while not shared[0] and time.monotonic() < end:
            idle(path, 1)[0].close()
            number += 1
        return number

    took = []
    with in_background(lambda: as_user(PAGE, attack)) as results:
        time.sleep(0.3)
        try:
            for _ in range(20):
                began = time.monotonic()
                assert not is_off(guard)
                took.append(time.monotonic() - began)
        finally:
            shared[0] = 1  # the end of the attack

    assert results() > 100
    assert sorted(took)[len(took) // 2] < 0.5


def test_unread_answers_take_little_memory(guard: Guard) -> None:
    """Lists of 20,000 bans that the page asks for and does not read take a limited share of memory."""
    path = guard.folder / "control.sock"
    for part in range(4):
        hosts = [f"198.19.{part * 20 + number // 250}.{number % 250}" for number in range(5_000)]
        assert guard.ask("ban", networks=hosts, seconds=600)["problems"] == []
    guard.ask("bans", most=20_000)
    before = memory(guard)

    def attack() -> list[str]:
        connections = idle(path, control_server.MOST_OF_USER)
        for one in connections:
            with suppress(OSError):
                one.sendall(b'{"do": "bans", "most": 20000}\n' * 4)
        time.sleep(6)
        answers: list[str] = []
        end = time.monotonic() + PATIENCE
        while not answers and time.monotonic() < end:
            for one in connections:
                one.settimeout(0.05)
                with suppress(OSError):
                    while (answer := one.recv(200).decode()).isspace():  # the daemon still works on it
                        pass
                    answers.append(answer.lstrip())
        return answers

    peaks = []
    with in_background(lambda: as_user(PAGE, attack)) as results:
        for _ in range(5):
            time.sleep(1)
            peaks.append(memory(guard))
            assert not is_off(guard)
    answers = results()
    guard.ask("unban", all=True)

    assert max(peaks) - before < 40_000_000
    assert len(answers) == control_server.MOST_LISTS_OF_USER
    assert all(answer.startswith('{"ok": ') for answer in answers)
    assert refusal(guard, PAGE, "status") == ""


def test_half_and_giant_requests_stop_nobody(guard: Guard) -> None:
    """Half lines, long lines and garbage take little memory, and end only their own connections."""
    path = guard.folder / "control.sock"
    before = memory(guard)

    def attack() -> None:
        connections = idle(path, control_server.MOST_OF_USER)
        for number, one in enumerate(connections):
            one.settimeout(0.5)
            with suppress(OSError):
                one.sendall(
                    (b"[" * 1_000_000, b"x" * 3_000_000, b'{"do": "st', b"\0\n" * 200_000)[number % 4]
                )
        time.sleep(1)

    as_user(PAGE, attack)

    assert memory(guard) - before < 80_000_000
    assert not is_off(guard)
    assert refusal(guard, PAGE, "status") == ""


@pytest.mark.parametrize("one", UNKNOWN, ids=[one.name for one in UNKNOWN])
def test_unknown_requests_take_little_memory(guard: Guard, one: Attack) -> None:
    """Requests that would become millions of objects take little memory, and root is answered meanwhile."""
    before = memory(guard)
    found = noticed(guard, attacked(guard.folder / "control.sock", one, [READER, PAGE]), 1.0)

    assert not found.ended
    assert found.memory - before < 40_000_000
    assert len(found.answers) >= 4


def test_the_daemon_survives_without_file_descriptors(guard: Guard) -> None:
    """If the daemon can open no file for some seconds, it goes on, and answers afterwards."""
    pid = daemon_of(guard)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files(guard), before[1]))
    try:
        with suppress(ControlError):  # no answer, or one that names the error
            control.ask(guard.folder / "control.sock", "status", timeout=1)
        time.sleep(6)
        assert guard.running, guard.log[-3_000:]
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    time.sleep(1.5)

    assert not is_off(guard)


def test_a_change_that_fails_is_logged(tmp_path: Path) -> None:
    """It may have changed a part before it failed, so its line has the user and the process too."""
    with Guard(tmp_path) as guard:
        guard.ask("off")
        with pytest.raises(ControlError, match="switched off"):
            guard.ask("unban", networks=["203.0.113.9"])
        line = f'event=control.failed do=unban by="user 0 (root), process {os.getpid()}"'
        until(lambda: guard.log.count(line) == 1, "the line")


def test_what_strangers_make_a_page_send_fills_no_log(guard: Guard) -> None:
    """A link with a wrong token fails as often as strangers like, and only the page logs some of that."""
    assert "not valid" in refusal(guard, PAGE, "fence_redeem", token="x", address="198.18.9.9")
    assert "event=control.failed do=fence_redeem" not in guard.log
