"""Notifications of a real daemon to real receivers: an SMTP server, Apprise with a web server, and a hook."""

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from tests.bench.crowd import packet
from tests.bench.testbed import only
from tests.support.daemon import Guard, ServedAmi, ami_server, until
from tests.support.peers import Mailbox, mail_server, raw_server, web_server
from tests.support.programs import program_service

from ringfence.features.notify.delivery import GRACE

APPRISE = str(Path(sys.executable).with_name("apprise"))
KINDS = ("mail", "apprise", "hook")


def texts(mails: list[EmailMessage]) -> str:
    """Return the titles and bodies of mails."""
    return "\n".join(f"{mail['Subject']}\n{mail.get_content()}" for mail in mails)


@frozen
class Office:
    """A daemon with its PBX, and what its channels have received."""

    guard: Guard
    pbx: ServedAmi
    mails: list[EmailMessage]
    posted: list[dict[str, Any]]
    file: Path

    def hooked(self) -> list[dict[str, Any]]:
        """Return the documents that the hook received."""
        # The last line may be incomplete.
        *lines, _ = self.file.read_text("ascii").split("\n") if self.file.exists() else [""]
        return [json.loads(line) for line in lines]

    def events(self) -> list[tuple[str, str, str]]:
        """Return event, name and subject of everything that the hook received."""
        found = (event for document in self.hooked() for event in document["events"])
        return [(event["event"], event["name"], event["subject"]) for event in found]


@contextmanager
def office(folder: Path, kinds: Sequence[str] = KINDS, **filters: object) -> Iterator[Office]:
    """Yield a daemon with a channel of each of these kinds."""
    filters = {"digest": "1s", **filters}
    hook = folder / "hook"
    hook.write_text(f"#!/bin/sh\ncat >> {folder}/hooked\n", "utf-8")
    hook.chmod(0o755)
    with (
        mail_server(Mailbox()) as box,
        web_server() as (port, posted),
        ami_server() as pbx,
        program_service(folder) as service,
    ):
        (folder / "apprise.yml").write_text(f"urls:\n  - json://127.0.0.1:{port}/\n", "utf-8")
        notify = {
            "mail": [{"to": ["root"], "port": box.port, **filters}],
            "apprise": [
                {"config": str(folder / "apprise.yml"), "command": APPRISE, "socket": service, **filters}
            ],
            "hook": [{"command": [str(hook)], "socket": service, **filters}],
        }
        notify = {kind: notify[kind] for kind in kinds}
        with Guard(folder, ami={"port": pbx.port}, rules=only(guess={"attempts": 3}), notify=notify) as guard:
            until(lambda: guard.source_is("listening"), "the source listens")
            until(lambda: pbx.server._listeners, "the PBX is listened to")
            yield Office(guard, pbx, box.mails, posted, folder / "hooked")


def guesses(address: str, number: int) -> bytes:
    """Return AMI's events about guesses by TCP."""
    host = ip_address(address)
    return b"".join(packet(host, at, b"TCP") for at in range(number))


def test_each_kind_of_event_arrives_by_each_channel(tmp_path: Path) -> None:
    """A start, a ban by a rule, an unban, a silent source, a refused reload, its end, and a stop."""
    # One digest has most events: each message is several processes for each channel.
    with office(tmp_path, digest="3s") as made:
        made.pbx.send(guesses("198.18.7.7", 3))
        until(made.guard.banned, "the ban")
        made.guard.ask("unban", networks=["198.18.7.7"])

        file = str(made.guard.config)
        made.guard.configure(rules={"guess": {"attempts": 0}})
        assert made.guard.command("reload").returncode == 2
        until(lambda: "configuration.refused" in str(made.guard.ask("alarms")), "the alarm")
        made.guard.configure(rules={})
        made.guard.must("reload")
        until(lambda: ("ban", "guess", "198.18.7.7") in made.events(), "the ban by the hook")
        until(lambda: ("unban", "", "198.18.7.7") in made.events(), "the unban")
        until(lambda: ("alarm", "configuration.refused", file) in made.events(), "the refusal")
        until(lambda: ("cleared", "configuration.refused", file) in made.events(), "the end of the refusal")

        made.pbx._loop.call_soon_threadsafe(made.pbx.server._server.close)  # type: ignore[union-attr]
        made.pbx.hang_up()
        silent = "source.silent pbx/ami"
        until(lambda: ("alarm", *silent.split()) in made.events(), "the silent source")
        # Messages are sent with a low priority: on a busy machine, Apprise takes long to start.
        until(lambda: silent in texts(made.mails), "the alarm by mail", seconds=120)
        until(lambda: silent in json.dumps(made.posted), "the alarm by Apprise", seconds=120)
        assert made.guard.stop() == 0
        assert ("start", "", "") in made.events()
        mailed, posted = texts(made.mails), json.dumps(made.posted)
        hooked, log = str(made.events()), made.guard.log

    for text in ("198.18.7.7", "guess", "configuration.refused", silent):
        assert text in mailed
        assert text in posted
    # The daemon waits some seconds for the last message; it drops and logs one that takes longer.
    for channel, sent in (("mail", mailed), ("apprise", posted), ("hook", hooked)):
        assert "stop" in sent or f"event=notify.dropped channel={channel} " in log


def test_the_filters_of_a_channel(tmp_path: Path) -> None:
    """A channel for alarms of one severity and for one rule gets nothing else."""
    with office(tmp_path, ["hook"], events=["ban", "alarm"], rules=["admin"], severity="info") as made:
        made.pbx.send(guesses("198.18.7.7", 3))
        until(made.guard.bans, "the ban")
        made.guard.ask("ban", networks=["198.18.7.8"], seconds=3_600)
        until(lambda: ("ban", "admin", "198.18.7.8") in made.events(), "the ban by hand")
        made.guard.stop()

        assert {event for event, _, _ in made.events()} <= {"ban", "alarm"}
        assert [name for event, name, _ in made.events() if event == "ban"] == ["admin"]


def test_a_thousand_bans_in_a_minute_are_one_message(tmp_path: Path) -> None:
    """The message counts all of them by rule and lists the first."""
    with office(tmp_path, events=["ban"], digest="5s") as made:
        networks = [f"198.18.{at // 250}.{at % 250 + 1}" for at in range(1_000)]
        for start in range(0, 1_000, 100):
            answer = made.guard.ask("ban", networks=networks[start : start + 100], seconds=600)
            assert answer["problems"] == []
        until(lambda: made.mails and made.posted and made.hooked(), "the message", seconds=60)
        made.guard.stop()

        assert len(made.mails) == len(made.posted) == len(made.hooked()) == 1
        assert made.mails[0]["Subject"].endswith("] 1000 bans")
        assert "1000 bans: 1000 admin" in made.mails[0].get_content()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("storm", [500, pytest.param(3_000, marks=pytest.mark.long)])
def test_a_storm_with_channels_that_hang_is_three_messages_at_most(tmp_path: Path, storm: int) -> None:
    """A storm of bans is placed while every channel hangs; nothing is lost but counted."""
    apprise = tmp_path / "apprise"
    for name in ("apprise", "hook"):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\necho >> {tmp_path}/{name}.started\nsleep 3600\n", "utf-8")
        script.chmod(0o755)
    connections: list[object] = []
    filters: dict[str, object] = {"events": ["ban"], "digest": "2s", "timeout": "2s"}
    (tmp_path / "apprise.yml").write_text("urls: []\n", "utf-8")
    with ami_server() as pbx, raw_server(connections.append) as port, program_service(tmp_path) as service:
        notify: Mapping[str, object] = {
            "mail": [{"to": ["root"], "port": port, **filters}],
            "apprise": [
                {"config": f"{tmp_path}/apprise.yml", "command": str(apprise), "socket": service, **filters}
            ],
            "hook": [{"command": [str(tmp_path / "hook")], "socket": service, **filters}],
        }
        tables: dict[str, Any] = {
            "rules": only(guess={"attempts": 1}),
            "firewall": {"backend": "nftables", "limit": {"mode": "off"}},
        }
        with Guard(tmp_path, ami={"port": pbx.port}, notify=notify, **tables) as guard:
            until(lambda: guard.source_is("listening"), "the source listens")
            for start in range(0, storm, 100):
                addresses = (f"198.18.{at // 250}.{at % 250 + 1}" for at in range(start, start + 100))
                pbx.send(b"".join(guesses(address, 1) for address in addresses))
            until(lambda: guard.status()["placed"] == storm, "the bans", seconds=120, pause=0.2)
            until(lambda: all(one["failed"] for one in guard.status()["notify"]), "failures", 30, pause=0.2)
            state = guard.status()["notify"]
            assert [(one["sent"], one["waiting"]) for one in state] == [(0, storm)] * 3
            until(lambda: "notify.failing" in str(guard.status()["alarms"]), "the alarm", 40, pause=0.2)
            began = time.monotonic()
            guard.stop()
            assert time.monotonic() - began < 3 * GRACE  # a busy machine is slow

        started = [len((tmp_path / f"{name}.started").read_text("ascii")) for name in ("apprise", "hook")]
    assert max(*started, len(connections)) <= 4  # tries of at most three messages
    assert guard.log.count("event=ban.placed") == storm
    assert guard.log.count("event=notify.dropped") == 3


def test_attempts_are_judged_until_the_last_message_is_sent(tmp_path: Path) -> None:
    """While the stop waits for a channel that hangs, an attacker is banned."""
    script = tmp_path / "hook"
    script.write_text("#!/bin/sh\nsleep 60\n", "utf-8")
    script.chmod(0o755)
    hook = {"command": [str(script)], "timeout": "60s", "socket": str(tmp_path / "notify.socket")}
    rules = only(guess={"attempts": 3})
    with (
        program_service(tmp_path),
        ami_server() as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, notify={"hook": [hook]}, rules=rules) as guard,
    ):
        until(lambda: guard.source_is("listening"), "the source listens")
        guard.process.send_signal(signal.SIGTERM)
        until(lambda: guard.has_notified("STOPPING=1"), "the stop begins")
        pbx.send(guesses("198.18.7.7", 3))
        until(lambda: "event=ban.placed" in guard.log, "the ban")
        assert guard.wait() == 0


def test_hostile_accounts_arrive_escaped(tmp_path: Path) -> None:
    """An account with markup, control characters and line ends changes neither mail nor chat nor document."""
    name = b"<b>@all</b>\x1b[2J\xe2\x80\xae"
    with office(tmp_path, ["mail", "apprise"], events=["ban"]) as made:
        event = guesses("198.18.7.7", 3)
        for account in (b"1000", b"1001", b"1002"):
            event = event.replace(b"AccountID: " + account, b"AccountID: " + name)
        made.pbx.send(event)
        until(lambda: made.mails and made.posted, "the message", seconds=60)
        made.guard.stop()
        [mail], [chat] = made.mails, made.posted

    assert "accounts: <b>\\x40all</b>\\x1b[2J\\u202e" in mail.get_content().replace("\r\n", "\n")
    assert "accounts: \\x3cb\\x3e\\x40all\\x3c/b\\x3e\\x1b\\x5b2J\\u202e" in chat["message"]
