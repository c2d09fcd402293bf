"""Real programs attack, unchanged (SIPVicious, sippts, nmap's SIP scripts, SIPp), and the daemon is judged.

Each works from an address of its own until its end, or for ``SECONDS``. Its requests and Asterisk's answers
are read on the attacker's side, so the programs use UDP and TCP only: there TLS cannot be read. A guess is a
request with credentials that Asterisk refused. If a request without credentials for the same account is
challenged, it is no attempt.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from attrs import define, field, frozen
from tests.live.play import CHALLENGES, CHECKED, QUIET, Fate, Game, Record
from tests.live.truth import TCP, UDP, Answer, Packet, captured, passed
from tests.support.hostile_run import PORTS
from tests.support.hostile_text import ACCOUNTS
from tests.support.network import PBX_IPV4
from tests.support.scanners import of_sipvicious, run_from
from tests.support.sip_wire import status_of

SECONDS = 8
"""Seconds after which a program is stopped."""
_LATE = 0.5
"""Seconds after its end in which answers may come."""
_CALL_ID = re.compile(rb"\r\n(?:call-id|i) *: *([^\r]*)", re.IGNORECASE)
_SEQUENCE = re.compile(rb"\r\ncseq *: *([^\r]*)", re.IGNORECASE)
_BRANCH = re.compile(rb"branch=([^;,\s]+)")
_CREDENTIALS = re.compile(rb"\r\n(?:proxy-)?authorization *:", re.IGNORECASE)
_FROM = re.compile(rb"\r\n(?:from|f) *:[^\r]*?sips?:([^@\r]*)@", re.IGNORECASE)
_MESSAGE = re.compile(rb"(?:[A-Z]+ sips?:[^\r\n]* SIP/2\.0|SIP/2\.0 [0-9]{3} [^\r\n]*)\r\n")
_SCANS = {"UDP": "-sU", "TCP": "-sT"}
_SOCKETS = {"UDP": "u1", "TCP": "t1"}
"""By transport: the option by which nmap scans a port, and that of SIPp with one socket for all calls."""
_REGISTERS = """<?xml version="1.0" encoding="ISO-8859-1"?>
<scenario name="guesses">
<send><![CDATA[{register}Content-Length: 0

]]></send>
<recv response="401" auth="true"></recv>
<send><![CDATA[{register}[authentication username={account} password=wrong]
Content-Length: 0

]]></send>
<recv response="403" optional="true" next="1"></recv>
<recv response="401"></recv>
<label id="1"/>
</scenario>
"""
_REGISTER = """
REGISTER sip:[remote_ip] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
Max-Forwards: 70
From: <sip:{account}@[remote_ip]>;tag=[call_number]
To: <sip:{account}@[remote_ip]>
Call-ID: [call_id]
CSeq: [cseq] REGISTER
Contact: <sip:{account}@[local_ip]:[local_port]>
Expires: 60
"""


@frozen
class Target:
    """What a program attacks, by which transport, from which address, and a folder for its files."""

    port: int
    transport: str
    account: str
    source: str
    folder: Path

    def nmap(self, script: str, *arguments: str) -> list[str]:
        """Return the command line that runs a script of nmap."""
        return [
            *("nmap", "-n", "-Pn", _SCANS[self.transport], "-p", str(self.port)),
            *("-e", "lan", "-S", self.source),
            *("--script", f"+{script}", "--script-args", ",".join(arguments), PBX_IPV4),
        ]

    def sipvicious(self, name: str, *arguments: str) -> list[str]:
        """Return the command line that runs a scanner of SIPVicious, which uses UDP only."""
        return [of_sipvicious(name) or name, *arguments, "-p", str(self.port), PBX_IPV4]

    def sippts(self, module: str, *arguments: str) -> list[str]:
        """Return the command line that runs a module of sippts, which sends one request after the other."""
        return [
            *("sippts", module, "-i", PBX_IPV4, "-r", str(self.port), "-p", self.transport.lower()),
            *("-th", "1", *arguments),
        ]

    def sipp(self, *arguments: str) -> list[str]:
        """Return the command line that runs SIPp."""
        return [
            *("sipp", f"{PBX_IPV4}:{self.port}", "-i", self.source, "-t", _SOCKETS[self.transport]),
            *("-s", self.account, "-m", "30", "-l", "1", "-r", "20", "-nostdin"),
            *("-timeout", str(SECONDS), *arguments),
        ]

    def words(self, name: str, *words: str) -> str:
        """Write words into a file; return its path."""
        path = self.folder / name
        path.write_text("".join(f"{word}\n" for word in words), "utf-8")
        return str(path)

    def passwords(self) -> str:
        """Write wrong passwords into a file; return its path."""
        return self.words("passwords", *(f"wrong-{number}" for number in range(30)))

    def registering(self) -> str:
        """Write a scenario of SIPp that guesses at the account; return the path."""
        register = _REGISTER.format(account=self.account)
        return self.words("register.xml", _REGISTERS.format(register=register, account=self.account))


@frozen
class Program:
    """A program, its transport, whether it guesses at the account, and whether it must be banned.

    One that only asks, and goes away when it is asked for a password, need not be banned.
    """

    command: Callable[[Target], list[str]]
    transport: str = "UDP"
    guesses: bool = False
    banned: bool = True


def _enum_users(target: Target) -> list[str]:
    return target.nmap("sip-enum-users", "sip-enum-users.minext=100", "sip-enum-users.maxext=199")


def _brute(target: Target) -> list[str]:
    users = target.words("users", target.account)
    return target.nmap("sip-brute", f"userdb={users}", f"passdb={target.passwords()}", "brute.threads=1")


def _rcrack(target: Target) -> list[str]:
    return target.sippts("rcrack", "-e", target.account, "-w", target.passwords())


PROGRAMS: Mapping[str, Program] = {
    "svmap": Program(lambda to: to.sipvicious("svmap", "--method", "OPTIONS"), banned=False),
    "svwar by REGISTER": Program(
        lambda to: to.sipvicious("svwar", "--method", "REGISTER", "--force", "--extensions", "100-199"),
        banned=False,
    ),
    "svwar by INVITE": Program(
        lambda to: to.sipvicious("svwar", "--method", "INVITE", "--force", "--extensions", "100-199"),
        banned=False,
    ),
    "svcrack": Program(
        lambda to: to.sipvicious("svcrack", "--username", to.account, "--range", "1-100"), guesses=True
    ),
    "nmap sip-methods": Program(lambda to: to.nmap("sip-methods"), banned=False),
    "nmap sip-methods by TCP": Program(lambda to: to.nmap("sip-methods"), "TCP", banned=False),
    "nmap sip-enum-users": Program(_enum_users, banned=False),
    "nmap sip-enum-users by TCP": Program(_enum_users, "TCP", banned=False),
    "nmap sip-call-spoof": Program(
        lambda to: to.nmap("sip-call-spoof", f"sip-call-spoof.ua={to.account}"), banned=False
    ),
    "nmap sip-brute": Program(_brute, guesses=True),
    "nmap sip-brute by TCP": Program(_brute, "TCP", guesses=True),
    "sippts exten": Program(lambda to: to.sippts("exten", "-e", "100-199"), banned=False),
    "sippts rcrack": Program(_rcrack, guesses=True),
    "sippts rcrack by TCP": Program(_rcrack, "TCP", guesses=True),
    "sipp that calls": Program(lambda to: to.sipp("-sn", "uac")),
    "sipp that registers": Program(lambda to: to.sipp("-sf", to.registering()), guesses=True),
    "sipp that registers by TCP": Program(lambda to: to.sipp("-sf", to.registering()), "TCP", guesses=True),
}


@frozen
class Attack:
    """What a program did: the number of its requests, of their final answers, and of its refused guesses.

    ``last`` is how many seconds after the guess that reaches the threshold the last of these was sent.
    """

    name: str
    requests: int
    answers: int
    guesses: int
    last: float
    banned: bool

    def __str__(self) -> str:
        banned = "banned" if self.banned else "not banned"
        done = f"{self.requests} requests, {self.answers} answers, {self.guesses} guesses refused"
        return f"{self.name}: {done}, the last {self.last:.3f} s after the threshold, {banned}"


_Key = tuple[bytes, bytes, bytes]
"""The Call-ID, the CSeq and the branch of a request, which its answers repeat."""


@define
class Capture:
    """What one address of the attacker's side has sent and received.

    ``sent`` maps each request to the time of its first packet. ``requests`` maps it to its fate if it is
    refused. MUST is one with credentials. NONE is a whole
    one without credentials for ``account``, the account that programs guess at. MAY is any other.
    ``answers`` maps a request to its final answer.
    """

    source: str
    account: bytes
    requests: dict[_Key, Fate] = field(factory=dict)
    sent: dict[_Key, float] = field(factory=dict)
    answers: dict[_Key, Answer] = field(factory=dict)

    def add(self, packet: Packet) -> None:
        """Add the messages in a packet."""
        if self.source not in (packet.source, packet.target):
            return
        for message in _messages(packet):
            head, end, _ = message.partition(b"\r\n\r\n")
            head += b"\r\n"
            key = _first(_CALL_ID, head), _first(_SEQUENCE, head), _first(_BRANCH, head)
            answer = Answer.read(message)
            if packet.source == self.source and not status_of(message):
                self.sent.setdefault(key, packet.time)
                self._ask(key, head, whole=bool(end))
            elif packet.target == self.source and answer is not None:
                self.answers[key] = answer

    def fate(self, key: _Key, checked: frozenset[int]) -> Fate:
        """Return MUST for a guess that was refused with one of the statuses ``checked``.

        Return NONE for a challenged question for the account, and MAY for any other request.
        """
        answer, fate = self.answers.get(key), self.requests[key]
        if answer is None:
            return Fate.MAY
        settled = answer.status in CHALLENGES if fate is Fate.NONE else answer.refuses(checked)
        return fate if settled else Fate.MAY

    def _ask(self, key: _Key, head: bytes, *, whole: bool) -> None:
        """Add a request. A guess remains one if TCP sends only a part of it again."""
        if _CREDENTIALS.search(head):
            self.requests[key] = Fate.MUST
        elif self.requests.get(key) is not Fate.MUST:
            asks = whole and _first(_FROM, head) == self.account
            self.requests[key] = Fate.NONE if asks else Fate.MAY


def _first(pattern: re.Pattern[bytes], head: bytes) -> bytes:
    found = pattern.search(head)
    return found[1] if found is not None else b""


def _messages(packet: Packet) -> Iterator[bytes]:
    """Yield the SIP messages that begin in a datagram or a segment."""
    if packet.protocol == UDP:
        yield packet.data[8:]
    elif packet.protocol == TCP:
        data = packet.data[4 * (packet.data[12] >> 4) :]
        starts = [one.start() for one in _MESSAGE.finditer(data)]
        for start, end in pairwise([*starts, len(data)]):
            yield data[start:end]


def left_out(names: Iterable[str], folder: Path) -> Mapping[str, str]:
    """Return the attacks that cannot be made, each with the program that is not installed."""
    nowhere = Target(0, "UDP", "", "", folder)
    programs = {name: PROGRAMS[name].command(nowhere)[0] for name in names}
    return {name: program for name, program in programs.items() if shutil.which(program) is None}


def attacks(
    played: Game, pbx: str, folder: Path, names: Iterable[str]
) -> tuple[Sequence[Attack], Sequence[str]]:
    """Let programs attack a PBX, one after the other.

    Return what they did, and what is wrong: what the judge objects to, what :func:`objections` yields, and
    which program sent nothing, with what it printed.
    """
    found: list[tuple[str, Capture]] = []
    wrong: list[str] = []
    for name in names:
        capture, printed = _attack(played, PROGRAMS[name], pbx, folder)
        found.append((name, capture))
        if not capture.requests:
            wrong.append(f"{name} sent no request: {printed}")
    time.sleep(QUIET)
    records = {
        name: Record(
            one.source,
            PROGRAMS[name].transport,
            [(one.fate(key, CHECKED[pbx]), one.sent[key]) for key in one.requests],
        )
        for name, one in found
    }
    verdict = played.judged([*records.values()])
    done = [
        Attack(
            name,
            len(one.requests),
            len(one.answers),
            records[name].least,
            max(records[name].beyond, default=0.0),
            one.source in verdict.banned,
        )
        for name, one in found
    ]
    return done, [*wrong, *map(str, verdict.violations), *objections(done)]


def objections(done: Iterable[Attack]) -> Iterator[str]:
    """Yield the attacks that must be banned and are not, and those that guess and had no guess refused."""
    for one in done:
        program = PROGRAMS[one.name]
        if program.banned and not one.banned:
            yield f"{one.name} is not banned"
        if program.guesses and not one.guesses:
            yield f"{one.name}: no guess was refused, so nothing was judged"


def _attack(played: Game, chosen: Program, pbx: str, folder: Path) -> tuple[Capture, str]:
    """Let a program attack a PBX; return what passed, and the end of what the program printed."""
    source, account = played.address(), ACCOUNTS[pbx]
    port = PORTS[f"{pbx} {chosen.transport}"]
    command = chosen.command(Target(port, chosen.transport, account.decode(), source, folder))
    capture = Capture(source, account)
    with captured(played.lab.network.attacker) as packets:
        printed = run_from(played.lab.network, source, command, SECONDS)
        time.sleep(_LATE)
        for packet in passed(packets):
            capture.add(packet)
    return capture, printed
