"""Logs as they are in the field: recorded cases, and one attack in every form that a log can have.

``CASES`` are small logs made after public ones, with invented names and addresses, and what each contains.
``attacked`` runs an Asterisk with its console on a terminal, attacks it, and returns its log in every form.
Docker, a syslog daemon and the journal are not needed: ``FORMS`` adds what they add to each line.
"""

import json
import re
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

from attrs import evolve, frozen
from tests.support import netns
from tests.support.asterisk import ConsoleAsterisk, tree_of
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.daemon import until
from tests.support.lab import RELEASES, Lab
from tests.support.network import PBX_IPV4, Network
from tests.support.open_pbx import GUESTS
from tests.support.sip_raw import Raw, calling, guesses

from ringfence.detect.rules import RULES
from ringfence.features.replay.files import ReplayInput, inspect
from ringfence.features.replay.run import replay
from ringfence.values.event import SourceId
from ringfence.values.network import NetworkSet

FOLDER = Path(__file__).parents[1] / "features/replay/field"


_EXEMPT = NetworkSet([ip_network("127.0.0.0/8")])


@frozen
class Outcome:
    """The findings of a replay in a log. ``bans`` are the banned addresses with their rules."""

    events: int
    attempts: int
    bans: Mapping[str, str]
    tampered: int = 0


CASES: Mapping[str, Outcome] = {
    "console-in-a-container": Outcome(4, 4, {"203.0.113.7": "probe"}),
    "shared-syslog": Outcome(5, 5, {"203.0.113.7": "probe"}),
    "journal-in-another-language": Outcome(5, 5, {"203.0.113.8": "guess"}),
    "plain": Outcome(25, 18, {"198.18.1.45": "probe", "198.18.1.46": "probe"}),
    "json": Outcome(25, 18, {"198.18.1.45": "probe", "198.18.1.46": "probe"}),
    # Two events are no attempt: a phone without a place to register, and a question about an account.
    "terminal": Outcome(12, 10, {}),
}


def outcome_of(path: Path) -> Outcome:
    """Replay a log in UTC with the default rules, and return what it contains."""
    files = (inspect(path, UTC),)
    past = replay([ReplayInput(SourceId("pbx", f"log:{path.name}"), files, UTC)], RULES, _EXEMPT)
    bans = {row.name: row.rule for row in past.outcomes if row.rule is not None}
    return Outcome(past.events, past.attempts, bans, past.tampered)


def wrong_cases() -> dict[str, Outcome]:
    """Return the cases with another outcome than the right one."""
    found = {name: outcome_of(FOLDER / f"{name}.log") for name in CASES}
    return {name: outcome for name, outcome in found.items() if outcome != CASES[name]}


GUESSER, PROBER, DIALLER, MANAGER = "198.19.61.1", "198.19.62.1", "198.19.63.1", "198.19.64.1"
"""The senders of the attack: each does one thing."""
_NUMBER = 6
_LOGGER = """\
[general]
dateformat = %F %T

[logfiles]
console => notice,warning,error,verbose,security
full => notice,warning,security
full.json => [json]notice,warning,security
full.plain => [plain]notice,warning,security
"""
_ADDRESS = {"16": "${CHANNEL(peerip)}", "22": "${CHANNEL(pjsip,remote_addr)}"}
_TRACE = {"16": "sip set debug on", "22": "pjsip set logger on"}
"""The commands by which the console also shows each packet."""
_STEP = 'exten => 200,1,Log(WARNING,"Rejecting unknown SIP connection from {}")\n same => n,Hangup()\n'
_GUEST = f"""
[anonymous@{GUESTS}]
type = endpoint
context = public
disallow = all
allow = ulaw
"""


def _configured(release: str) -> dict[str, str]:
    return {
        "logger.conf": "\n",
        "extensions.conf": "[public](+)\n" + _STEP.format(_ADDRESS[release]),
        "manager.conf": "[general](+)\nbindaddr = 0.0.0.0\n",
        "pjsip.conf": _GUEST,
    }


class _FieldAsterisk(ConsoleAsterisk):
    """An Asterisk that also writes its log in its other two forms."""

    def _configure(self) -> None:
        super()._configure()
        (self.folder / "etc/logger.conf").write_text(_LOGGER, "utf-8")


@contextmanager
def attacked(release: str, folder: Path) -> Iterator[Mapping[str, Path]]:
    """Attack an Asterisk, and yield its log in every form: ``file``, and those of ``FORMS``."""
    with (
        Network() as network,
        _FieldAsterisk(
            tree_of(release), network.pbx, RELEASES[release], extra=_configured(release)
        ) as asterisk,
    ):
        asterisk.cli(_TRACE[release])
        _attack(Lab(network, asterisk), b"bob" if release == "16" else b"alice")
        until(
            lambda: (asterisk.logs / "full").read_bytes().count(b"failed to authenticate as") >= _NUMBER,
            "the log",
        )
        asterisk.stop()
        written = {name: (asterisk.logs / name).read_bytes() for name in ("full", "full.json", "full.plain")}
        console = (asterisk.folder / "console").read_bytes()
    paths = {"file": folder / "file"}
    paths["file"].write_bytes(written["full"])
    for name, (kind, form) in FORMS.items():
        data = console if kind == "console" else written[kind]
        lines = data.removesuffix(b"\n").split(b"\n")
        paths[name] = folder / name.replace(" ", "-").replace("'", "")
        paths[name].write_bytes(b"".join(line + b"\n" for line in form(lines)))
    yield paths


def _attack(lab: Lab, account: bytes) -> None:
    call = Raw(method=b"INVITE", from_user=b"guest", from_host=GUESTS.encode())
    with calling(lab, GUESSER, "UDP") as caller:
        guesses(caller, Raw(from_user=account), _NUMBER)
    for sender, extension in ((PROBER, b"900972599"), (DIALLER, b"200")):
        for _ in range(_NUMBER):
            with calling(lab, sender, "UDP") as caller:
                caller.ask(evolve(call, extension=extension), 1.0)
    with netns.inside(lab.network.attacker):
        for number in range(_NUMBER):
            _log_in(b"cron%d" % number)


def _log_in(name: bytes) -> None:
    with socket.create_connection((PBX_IPV4, MANAGER_PORT), 5.0, (MANAGER, 0)) as connection:
        connection.sendall(b"Action: Login\r\nUsername: " + name + b"\r\nSecret: wrong\r\n\r\n")
        while connection.recv(4_096):
            pass


Form = Callable[[list[bytes]], Iterator[bytes]]
_DATED = re.compile(rb"\[([^\]]{5,48})\] ([A-Z]+\[\d+\](?:\[C-[0-9a-f]+\])?: [\w./ ]+:\d+) ")
_FIELDS = b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1795154722365000\nCONTAINER_NAME=pbx\nSYSLOG_IDENTIFIER=pbx\n"


def _unchanged(lines: list[bytes]) -> Iterator[bytes]:
    yield from lines


def _docker(lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        text = line.decode("utf-8", "replace") + "\n"
        yield json.dumps({"log": text, "stream": "stdout", "time": "2026-11-20T06:05:22.365Z"}).encode()


def _compose(lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield b"asterisk-1  | " + line


def _syslog(lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        dated = _DATED.match(line)
        if dated is None:
            continue
        stamp = datetime.fromisoformat(dated[1].decode()).strftime("%b %e %H:%M:%S").encode()
        yield stamp + b" host asterisk[812]: " + dated[2] + b" in " + line[dated.end() :] + b"#012"
        yield b"Nov 20 06:05:22 host CRON[2211]: (root) CMD (test -x /usr/sbin/anacron)"
        yield b"Nov 20 06:05:22 host sshd[2300]: Connection closed by 192.0.2.77 port 4242 [preauth]"


def _podman(lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield "12月 20 06:05:22 host pbx[99]: ".encode() + line


def _export(lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        text = line.removesuffix(b"\r")  # journald removes it
        plain = not any(byte < 0x20 for byte in text)
        message = b"MESSAGE=" + text if plain else b"MESSAGE\n" + struct.pack("<Q", len(text)) + text
        yield _FIELDS + message + b"\n_PID=99\n"


SYSLOG = "shared syslog"
FORMS: Mapping[str, tuple[str, Form]] = {
    "console": ("console", _unchanged),
    "json": ("full.json", _unchanged),
    "docker's json-file": ("console", _docker),
    "compose": ("console", _compose),
    SYSLOG: ("full.plain", _syslog),
    "podman's journal": ("console", _podman),
    "the journal's export": ("console", _export),
}
"""The text that is written (``console``, or a log's name), and what others add to its lines."""


def wrong_forms(paths: Mapping[str, Path]) -> dict[str, Outcome]:
    """Return the forms of a log with other attempts or bans than the file, or with false tampering.

    A syslog does not show where Asterisk cut a line. So the guesser, whose address stands after its own text
    in security lines, is not banned by a syslog alone.
    """
    right = outcome_of(paths["file"])
    wrong = {}
    for name in FORMS:
        outcome, bans = outcome_of(paths[name]), dict(right.bans)
        if name == SYSLOG:
            del bans[GUESSER]
        if (outcome.attempts, outcome.bans, outcome.tampered) != (right.attempts, bans, 0):
            wrong[name] = outcome
    return wrong
