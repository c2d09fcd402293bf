"""Every command with hostile text wherever outside text can appear: none of it reaches a terminal raw.

The commands are taken from the command line itself, so a new one fails here until it has arguments below.
"""

import json
import logging
import socketserver
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from attrs import evolve
from tests.support.amiserver import Script
from tests.support.asterisk import SECRET
from tests.support.captures import capture
from tests.support.console import ScriptedConsole
from tests.support.daemon import GRANTED, Guard, ami_server, until
from typer.testing import CliRunner

from ringfence.cli.app import app
from ringfence.host import console
from ringfence.store.database import Store
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Ban, Origin
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.event import EventKind, Service, Transport
from ringfence.values.friend import Friend, FriendReason

EVIL = "EVIL"
HOSTILE = (
    f"\r{EVIL}\x1b[31m\x1b]0;title\x07[bold red]m[/bold red]:boom:\r\n{EVIL}\n{EVIL}\x00\t\x7f\x85{EVIL}"
    f"\x9b1m\u202e\u2066\u200b\ufeff\u2028{EVIL}\u2029{EVIL}\u3164\ufe0f"
)
LONG = f"{HOSTILE}{'x' * 8_192}"
IN_A_LINE = HOSTILE.replace("\r", "").replace("\n", "")  # possible in one line of AMI or of a log
GUESSER, FRIEND, NAME = "198.18.1.101", "198.51.100.7", "allowed.invalid"
SHOWN = f" Identify:  i/{EVIL}\x1b[31m[red]m[/red]\n      Match: 203.0.114.9/32\n{HOSTILE}\n"
GUESSES = capture("asterisk-22", "wrong-password-register")

ARGUMENTS: dict[str, list[list[str]]] = {
    "account": [[EVIL], [EVIL, "confirm"]],
    "alarms": [[], ["--past"]],
    "alarms dismiss": [["999"], [HOSTILE]],
    "allow add": [["192.0.2.77", "--note", HOSTILE], [HOSTILE], ["192.0.2.78"]],
    "allow country": [["DE"], [HOSTILE]],
    "allow list": [[]],
    "allow remove": [["192.0.2.78"], [HOSTILE]],
    "ban": [["192.0.2.9", "--reason", HOSTILE], [FRIEND]],
    "bans": [[], [GUESSER], ["203.0.113.9"], ["--past"]],
    "check": [["--asterisk-files", "{etc}"], ["--hardening", "--asterisk-files", "{etc}"]],
    "config check": [["{hostile}"], ["{list}"], []],
    "config show": [[]],
    "confirm": [[]],
    "deny add": [[FRIEND, "--note", HOSTILE], [HOSTILE]],
    "deny country": [["DE"], [HOSTILE]],
    "deny list": [[]],
    "deny remove": [[HOSTILE]],
    "events": [[]],
    "feeds add": [
        [],
        [HOSTILE],
        ["one", "--file", "{list}"],
        [HOSTILE, "--file", "{list}"],
        ["two", "--file", "{hostile}"],
        ["two", "--file", "{page}", "--format", HOSTILE],
        ["two", "--file", "{log}", "--format", "csv", "--key", "EVIL[red]"],
    ],
    "feeds fetch": [],  # the service that fetches; tests/features/feeds has hostile servers
    "feeds list": [[]],
    "feeds plan": [],  # what systemd runs before that service
    "feeds refresh": [[], [HOSTILE]],
    "feeds remove": [[HOSTILE]],
    "fence admit": [["192.0.2.79", "--for", "1h"], [HOSTILE]],
    "fence confirm": [[]],
    "fence enforce": [[], ["--for", HOSTILE]],
    "fence link": [
        ["--login-socket", "/nowhere"],
        ["--valid", HOSTILE],
        ["--lasting", "--account", HOSTILE, "--login-socket", "/nowhere"],
    ],
    "fence links": [[]],
    "fence status": [[]],
    "fence unlink": [[HOSTILE]],
    "fleet status": [[]],
    "fleet test": [[]],
    "friends": [[]],
    "friends export": [[]],
    "friends forget": [["203.0.113.1"], [HOSTILE]],
    "friends import": [["{list}"], ["{friends}"]],
    "history": [[], ["--since", HOSTILE]],
    "import-fail2ban": [
        ["{fail2ban}"],
        ["{fail2ban}", "--jail", HOSTILE],
        ["{fail2ban}", "--bans", "--dry-run", "--jail", "asterisk", "--database", "{bans}"],
        ["{fail2ban}", "--bans", "--jail", "asterisk", "--database", "{bans}"],
    ],
    "notify run": [],  # runs programs; tests/features/notify/test_programs.py has hostile output
    "notify test": [[], [HOSTILE]],
    "off": [[]],
    "on": [[]],
    "parse": [["{log}"], ["{log}", "--unparsed"], ["{log}", "--summary"], ["{hostile}"]],
    "reload": [[]],
    "replay": [["{log}"], ["{hostile}"]],
    "report": [[], ["--html", "{page}"]],
    "restore": [[]],
    "run": [],  # the daemon; its log is checked below
    "setup": [["--dry-run"], ["--undo"]],
    "status": [[]],
    "top": [[]],
    "top accounts": [[]],
    "top addresses": [[]],
    "unban": [["192.0.2.9"], ["all"]],
    "web": [],  # the live page; test_web.py shows hostile text with it
    "web login": [],
    "why": [[EVIL], [GUESSER], [FRIEND], ["192.0.2.9"], ["203.0.113.200"]],
}
LAST = ("off", "on", "restore", "unban", "reload")
"""Commands that change the most run last."""


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as typer's click has it
    """Yield every command with its name: a group that runs alone is one too."""
    inner = hasattr(command, "list_commands")
    if not inner or (name and getattr(command, "invoke_without_command", False)):
        yield name, command
    for word in command.list_commands(None) if inner else ():
        yield from leaves(command.get_command(None, word), f"{name} {word}".strip())


COMMANDS = dict(leaves(typer.main.get_command(app)))


def is_plain(text: str) -> bool:
    """Whether a text has only visible lines, none of which begins with a line of the hostile text.

    A long cell of a table continues in its own column, and so does not begin a line.
    """
    lines = text.removesuffix("\n").split("\n")
    return all(line.isprintable() and not line.startswith(EVIL) for line in lines)


class _Refuses(socketserver.StreamRequestHandler):
    """A peer on the manager port that offers the challenge and answers every login with hostile text."""

    def handle(self) -> None:
        """Answer one client."""
        self.wfile.write(b"Asterisk Call Manager/11.0.0\r\n")
        request = b""
        while line := self.rfile.readline(65_536):
            request += line
            if line != b"\r\n":
                continue
            answer = b"Response: Error\r\nMessage: " + IN_A_LINE.encode()
            if b"Challenge" in request:
                answer = b"Response: Success\r\nChallenge: 1"
            number = [part for part in request.split(b"\r\n") if part.startswith(b"ActionID")]
            self.wfile.write(b"\r\n".join([answer, *number, b"", b""]))
            request = b""


@contextmanager
def hostile_peer() -> Iterator[int]:
    """Play an Asterisk that refuses every login with hostile text; yield its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Refuses) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def attempt(account: str, now: float) -> Attempt:
    """Return an attempt with hostile text in each field that is a text."""
    return Attempt(
        HOSTILE,
        ip_address(GUESSER),
        AttemptKind.GUESS,
        Proof.HANDSHAKE,
        Service.PJSIP,
        Transport.TCP,
        account,
        EventKind.INVALID_PASSWORD,
        now - 60,
        trusted=True,
        tampered=True,
        sources=("ami", f"log:{IN_A_LINE}"),
    )


def fill(store: Store, now: float) -> None:
    """Write hostile bans, list entries, friends and facts into a database."""
    made = tuple(attempt(account, now) for account in (HOSTILE, LONG, IN_A_LINE))
    ban = Ban(
        ip_network(GUESSER),
        since=now - 60,
        expires=now + 3_600,
        rule=HOSTILE,
        reason=LONG,
        origin=Origin.RULE,
        attempts=made,
    )
    store.bans.record([ban, evolve(ban, network=ip_network("192.0.2.0/24"), reason=HOSTILE)])
    store.bans.record([evolve(ban, network=ip_network(FRIEND), since=now - 9_000, expires=now - 8_000)])
    store.entries.add(
        ListEntry(side, what, text, now, now + 3_600)
        for side in ListKind
        for what, text in (("203.0.113.200", HOSTILE), ("2001:db8::/48", LONG), (NAME, IN_A_LINE))
    )
    store.friends.add(
        Friend(HOSTILE, ip_address(address), account, tie, now - 60, now, until)
        for address in (FRIEND, "2001:db8:9::9")
        for account, tie, until in (
            (HOSTILE, FriendReason.REGISTERED, now + 3_600),
            (LONG, FriendReason.TRUNK, now + 3_600),
            (f"{EVIL}\x1b", FriendReason.AUTHENTICATED, now - 1),
        )
    )


def files(folder: Path, now: float) -> dict[str, str]:
    """Write hostile files of every kind that a command reads; return their paths by name."""
    fail2ban, etc = folder / "fail2ban", folder / "etc"
    fail2ban.mkdir()
    etc.mkdir()
    line = IN_A_LINE.replace("\x00", "")
    (fail2ban / "jail.local").write_text(
        f"[asterisk]\nenabled = true\nlogpath = /var/log/{line}\nmaxretry = {line}\nbantime = {line}\n"
        f"ignoreip = {line} 192.0.2.1\n[{line}]\nenabled = true\nfilter = asterisk\nport = {line}\n",
        "utf-8",
    )
    with closing(sqlite3.connect(folder / "bans.sqlite3")) as connection:
        connection.execute("CREATE TABLE bips(ip, jail, timeofban, bantime, bancount DEFAULT 1, data)")
        rows = [("198.18.0.9", "asterisk", now, 3_600), (HOSTILE, "asterisk", HOSTILE, HOSTILE)]
        connection.executemany("INSERT INTO bips (ip, jail, timeofban, bantime) VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    for name in ("pjsip", "sip", "iax", "manager", "extensions", "logger", "http", "ari", "asterisk"):
        (etc / f"{name}.conf").write_text(
            f"[general]\nenabled = yes\nallowguest = {line}\ncontext = {line}\ntlsbindaddr = {line}\n"
            f"[{line}]\ntype = friend\nsecret = {line}\npassword = 1234\ncontext = {line}\nhost = {line}\n"
            f"[ringfence]\nsecret = x\nread = {line}\n[logfiles]\n{line} => {line}\nfull => notice,{line}\n"
            f"exten => _X.,1,Dial({line})\n",
            "utf-8",
        )
    event = GUESSES.security_log.read_bytes().replace(b"alice", line.encode())
    log = folder / "full"
    log.write_bytes(
        event
        + f"[2026-11-20 06:05:01] NOTICE[1] chan_sip.c: Registration from '{line}' failed for "
        f"'198.18.1.101:5060' - Wrong password\n"
        f'[2026-11-20 06:05:01] SECURITY[1] res_security_log.c: SecurityEvent="{line}\n'
        f"[2026-11-20 06:05:02] {line}\n".encode()
    )
    named = folder / f"{line.replace('/', '')}.log"
    named.write_bytes(HOSTILE.encode() * 20)
    listed = folder / "list.txt"
    listed.write_text(f"198.51.100.0/24\n{HOSTILE}\n{LONG}\n10.0.0.1 # {HOSTILE}\n", "utf-8")
    friend = {"address": HOSTILE, "account": HOSTILE, HOSTILE: HOSTILE}
    head = {"format": "ringfence-friends", "version": HOSTILE}
    friends = folder / "friends.jsonl"
    friends.write_text(json.dumps(head) + "\n" + json.dumps(friend) + "\n", "utf-8")
    return {
        "etc": str(etc),
        "fail2ban": str(fail2ban),
        "bans": str(folder / "bans.sqlite3"),
        "log": str(log),
        "hostile": str(named),
        "list": str(listed),
        "friends": str(friends),
        "page": str(folder / "page.html"),
    }


def run_everything(config: Path, paths: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Run every command in each of its forms; yield its name and its output."""
    for name in sorted(COMMANDS, key=lambda name: name in LAST):
        has_json = any("--json" in option.opts for option in COMMANDS[name].params)
        for given in ARGUMENTS[name]:
            words = [word.format(**paths) if word.startswith("{") else word for word in given]
            for form in ([], ["--json"]) if has_json else ([],):
                typed = [*name.split(), *form, *words, "--config", str(config)]
                done = CliRunner().invoke(app, typed, env={"COLUMNS": "80"})
                assert done.exception is None or isinstance(done.exception, SystemExit), (
                    name,
                    done.exception,
                )
                yield f"{name} {form} {given}"[:200], done.stdout
                yield f"{name} {form} {given} (standard error)"[:200], done.stderr
                if form and done.exit_code == 0 and name not in {"events", "parse"}:  # one object a line
                    json.loads(done.stdout)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Restore the logging: commands that run in this process configure it."""
    yield
    structlog.reset_defaults()
    logging.getLogger("panoramisk").setLevel(logging.NOTSET)


def test_every_command_has_arguments_here() -> None:
    """Every command has arguments in this file, and no other name has."""
    assert set(ARGUMENTS) == set(COMMANDS)


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("up", [True, False], ids=["daemon up", "daemon down"])
def test_no_hostile_text_reaches_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, up: bool
) -> None:
    """Commands, their JSON, their errors and the daemon's log contain only visible text in separate lines."""
    now = time.time()
    paths = files(tmp_path, now)
    monkeypatch.setattr(console, "local_console", lambda *_, **__: ScriptedConsole(lambda _: SHOWN))
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        fill(store, now)
    # Some lists begin with the account, which must not look like a line of its own.
    events = GUESSES.ami.read_bytes().replace(b"alice", b"a" + IN_A_LINE.encode())
    with ami_server(Script(play=[GRANTED, events])) as pbx, hostile_peer() as port:
        wire = {"wire": {"enabled": False}}
        guard = Guard(tmp_path)
        logs = {"paths": [str(tmp_path / "full")]}
        guard.configure(
            asterisk=[
                {"name": "pbx", "ami": {"port": pbx.port, "secret": SECRET}, "logs": logs, **wire},
                {"name": "peer", "ami": {"port": port, "secret": SECRET}, "logs": {"paths": []}, **wire},
            ],
            rules={"decoy": {"enabled": True, "accounts": ["EVIL", "[red]decoy[/red]"]}},
            allow={"networks": ["203.0.113.0/24"], "hosts": [NAME]},
        )
        if up:
            guard.start()
        try:
            if up:
                until(lambda: guard.ask("status")["attempts"] >= 3, "the attempts")
                until(lambda: "refuses" in json.dumps(guard.ask("status")["sources"]), "the refusal")
            wrote = [*run_everything(guard.config, paths)]
            escaped = [text for text in wrote if "\\x1b" in text[1]]
        finally:
            guard.__exit__()
    wrote.append(("the daemon's log", guard.log))

    assert [(what, text) for what, text in wrote if not is_plain(text)] == []
    assert len(escaped) > 20  # hostile text was shown at all
    assert [what for what, text in escaped if what.startswith("check ") and "refuses" in text]
