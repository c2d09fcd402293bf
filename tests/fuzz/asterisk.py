"""Readers of what Asterisk writes: AMI, logs, the journal, its console and its configuration files."""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from structlog.testing import capture_logs
from tests.fuzz import scratch
from tests.fuzz.promises import Target, require
from tests.parse import rosters
from tests.parse.corpus import FILES, samples
from tests.parse.packets import SPEAKING, packet
from tests.support.captures import captures
from tests.support.hostile_text import LINES, Victim, named, sample

from ringfence.features.audit.accounts import read_accounts
from ringfence.features.audit.dialplan import Dialplan
from ringfence.features.audit.services import read_services
from ringfence.features.fail2ban.jails import _Dump, _errors
from ringfence.host.asterisk_conf import AsteriskFiles, every_option
from ringfence.host.asterisk_logging import read_asterisk
from ringfence.host.conf_lines import RefusedLineError, conf_lines
from ringfence.host.console import _output
from ringfence.host.console_tables import identifies_from, peers_from, settings_from
from ringfence.parse.ami import HOLD, MAX_PACKET, AmiDecoder
from ringfence.parse.ami_http import HOLD_WITHIN, MOST_HELD, AmiItem, Reply
from ringfence.parse.custom import Custom
from ringfence.parse.dates import DateReader
from ringfence.parse.formats import FORMATS
from ringfence.parse.line_result import LineResult
from ringfence.parse.log import MAX_LINE, LogReader
from ringfence.parse.roster import (
    MOST_EVENT,
    ContactTracker,
    RosterEvent,
    address_of,
    means_empty,
    parse_roster_event,
    plan_questions,
    target_of,
)
from ringfence.parse.security import is_whole, parse_strict, parse_tampered, time_of
from ringfence.sources.ami import _Protocol
from ringfence.sources.journal import JournalSource
from ringfence.sources.state import EndError
from ringfence.values.event import MOST_ACCOUNT, MOST_KEPT, MOST_SESSION, SecurityEvent, SourceId

if TYPE_CHECKING:
    from ringfence.sources.log_ingest import LogIngest

SOURCE = SourceId("pbx", "log:messages")
NOW = 1_795_154_722.0
TOKEN = "rf-0123456789"
VICTIM = Victim("203.0.113.9")
CUSTOMS = (
    Custom.compile("guess of {any} from {address} again"),
    Custom.compile("{address} {any} failed", level="", file=""),
)
_PIECES = (1, 7, 300, 5_000)
_ROSTER = tuple(
    rosters.packet(one) for name, one in vars(rosters).items() if name.isupper() and isinstance(one, bytes)
)


def require_short(event: SecurityEvent) -> None:
    """Require that what an event keeps of a sender's text is bounded."""
    require(len(event.account) <= MOST_ACCOUNT, "the account of an event")
    require(len(event.session) <= MOST_SESSION, "the session of an event")
    require(len(event.challenge) <= MOST_KEPT >= len(event.response), "the digest of an event")


def hostile_requests() -> Iterator[bytes]:
    """Yield requests with hostile text in each field."""
    for pbx in ("22", "16"):
        for case in sample(pbx, 60, seed=1):
            if case.transport in {"UDP", "TCP"}:
                yield case.request(VICTIM).encode("192.0.2.7", "UDP", "1")[:20_000]


def pieces(data: bytes) -> Iterator[bytes]:
    """Yield an input in pieces of several sizes, as a socket or a file delivers it."""
    at = 0
    for size in itertools.cycle((*_PIECES, max(1, len(data) // 3))):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


# -- AMI


def read_ami(data: bytes) -> None:
    """Read a connection of AMI: at once, in pieces, and as a recording. Pieces change nothing."""
    whole, cut = AmiDecoder(SOURCE), AmiDecoder(SOURCE)
    items = [*whole.receive(data, 0.0), *whole.tick(HOLD)]
    parts = [item for piece in pieces(data) for item in cut.receive(piece, 0.0)]
    require(items == [*parts, *cut.tick(HOLD)], "pieces of AMI have the items of the whole")
    for decoder, given in (
        (AmiDecoder(SOURCE, TOKEN), [data]),
        (AmiDecoder(SOURCE, TOKEN), pieces(data)),
        (AmiDecoder(SOURCE, recorded=True), [data]),
    ):
        now = 0.0
        for piece in given:
            _take(decoder, decoder.receive(piece, now))
            now += 0.001
        for later in (now + HOLD, now + HOLD_WITHIN + 1):
            _take(decoder, decoder.tick(later))
        require(decoder.deadline is None or decoder.deadline > now, "items that are held for ever")
        require(len(decoder._packets._buffer) <= MAX_PACKET + 4, "the buffer of AMI")
        require(decoder.http._size <= MOST_HELD + len(data), "the items that are held")


def _take(decoder: AmiDecoder, items: list[AmiItem]) -> None:
    waiting: Any = SimpleNamespace(responses={})
    for item in items:
        if isinstance(item, SecurityEvent):
            require_short(item)
        elif isinstance(item, Reply):
            means_empty(item.text)
            with suppress(EndError):
                _Protocol.answer(waiting, item.text)
    if decoder.http.wanted:
        decoder.http.ask()


def ami_streams() -> Iterator[bytes]:
    """Yield recordings, packets of each service with hostile accounts, and answers."""
    yield from (one.ami.read_bytes()[:20_000] for one in captures())
    texts = [named(line, VICTIM) for line in LINES]
    for service, text in itertools.product(SPEAKING, texts):
        yield packet(service=service.encode(), account=text) + packet()
    answer = b"Response: Success\r\nActionID: %b-http-1\r\nCoreHTTPenabled: %b\r\n\r\n"
    for value in (b"Yes", b"No"):
        yield packet(service=b"AMI") + answer % (TOKEN.encode(), value) + packet(service=b"AMI")
    yield b"".join(one + b"\r\n\r\n" for one in _ROSTER)


def read_packet(data: bytes) -> None:
    """Read one packet of AMI by each parser of security events."""
    for parse in (parse_strict, parse_tampered):
        event = parse(data, SOURCE)
        if event is not None:
            require_short(event)


def ami_packets() -> Iterator[bytes]:
    """Yield the packets of :func:`ami_streams`."""
    return (one for stream in ami_streams() for one in stream.split(b"\r\n\r\n")[:4] if one)


_PLAN = plan_questions(
    [
        "corestatus",
        "pjsipshowcontacts",
        "sippeers",
        "iaxpeerlist",
        "pjsipshowregistrationsoutbound",
        "sipshowregistry",
        "iaxregistry",
    ]
)
_TREE = plan_questions(["corestatus", "dbgettree"])
_QUESTIONS = (*_PLAN.contacts, *_PLAN.trunks, *_TREE.contacts)


def read_roster(data: bytes) -> None:
    """Read an event about phones and trunks as the entry of each list, and as a change."""
    text = data.decode("utf-8", "replace")
    for given in {text, text.partition("\r\n")[0]}:
        target_of(given), address_of(given)
    event = parse_roster_event(data)
    if event is None:
        return
    require(len(data) <= MOST_EVENT, "the length of an event about phones")
    for question in _QUESTIONS:
        question.parse(event.headers, "pbx")
    tracker = ContactTracker("pbx")
    for name in {event.name, "ContactStatus", "PeerStatus"}:
        tracker.on_event(RosterEvent(name, "", event.headers))


def roster_events() -> Iterator[bytes]:
    """Yield recorded events, and URIs of contacts."""
    yield from _ROSTER
    yield b"sip:alice@192.0.2.7:5060;transport=tls;%6daddr=1"
    yield b"sips:a@[2001:db8::7]:5061;x-ast-orig-host=10.0.0.5:5060"


# -- logs


def read_log(data: bytes) -> None:
    """Read a log: at once, in pieces, while AMI delivers SECURITY lines, and after a rotation."""
    for skips, given in ((False, [data]), (False, pieces(data)), (True, pieces(data))):
        reader = LogReader(SOURCE, timezone=UTC, customs=CUSTOMS)
        reader.skips_security = skips
        for piece in given:
            _take_lines(reader.receive(piece, NOW))
            require(len(reader._buffer) <= MAX_LINE, "the buffer of a log")
        _take_lines(reader.receive(b"", NOW + 1))
        require(reader.deadline is None, "lines that wait for ever")
        _take_lines(reader.end(NOW + 1))
        _take_lines(reader.fresh(reader.open_streams).receive(data[len(data) // 2 :], NOW + 1))
    for line in filter(is_whole, data.split(b"\n")):
        time_of(line)


def _take_lines(results: list[LineResult]) -> None:
    for result in results:
        if result.event is not None:
            require_short(result.event)


def logs() -> Iterator[bytes]:
    """Yield recordings, the corpus of lines, past logs of other programs, and hostile lines."""
    for one in captures():
        yield one.security_log.read_bytes()[:20_000]
        yield one.messages_log.read_bytes()[:20_000]
    yield from (sample.data for path in FILES for sample in samples(path))
    yield from (path.read_bytes()[:20_000] for path in sorted(_FIELD.glob("*.log")))
    yield from (b"[2026-11-20 06:05:22] " + named(line, VICTIM) + b"\n" for line in LINES)


_FIELD = Path(__file__).parents[1] / "features" / "replay" / "field"
_LEVELS = (b"NOTICE", b"SECURITY", b"WARNING", b"ERROR")


def read_message(data: bytes) -> None:
    """Read the text of a log message as one of each of Asterisk's source files."""
    reader = LogReader(SOURCE, timezone=UTC, customs=CUSTOMS)
    DateReader(UTC).seconds(data, NOW)
    for file, form in FORMATS.items():
        for level in form.levels:
            parsed = reader.parse(level, file, data, None, NOW, lambda: False)
            if isinstance(parsed, SecurityEvent):
                require_short(parsed)
    for custom in CUSTOMS:
        for level, file in itertools.product(_LEVELS, (b"Ext. 100", b"Ext.", b"a.c")):
            custom.parse(level, file, data, SOURCE, NOW)


def messages() -> Iterator[bytes]:
    """Yield the texts of messages, and dates."""
    for log in logs():
        line = log.partition(b"\n")[0]
        yield line.partition(b": ")[2] or line
    yield b"100@public:1: guess of x from 192.0.2.7 again"
    yield b"[2001:db8::7] a, b failed"
    yield b"2026-11-20 06:05:22.090"
    yield b"Nov 20 06:05:22"


class _Ingest:
    """Reads the lines that the source of the journal passes on."""

    standing_by = False

    def __init__(self) -> None:
        self._log = LogReader(SOURCE, timezone=UTC)
        self.counts = self._log.counts

    def lines(self, data: bytes, *, live: bool) -> None:
        """Read lines."""
        _take_lines(self._log.receive(data, NOW))

    def alarm(self, what: object, wall: float) -> None:
        """Count nothing."""


def read_journal(data: bytes) -> None:
    """Read entries of the journal as JSON."""
    source = JournalSource(SOURCE, cast("LogIngest", _Ingest()))
    source._users = frozenset({"1000"})
    with capture_logs():
        source._pass_on(data.split(b"\n"))
        source._end(1, bytearray(data))
    require(source._cursor is None or len(source._cursor) <= 512, "the cursor of the journal")


def journals() -> Iterator[bytes]:
    """Yield entries of a unit, of a container, of a user, and lost ones."""
    line = b"[2026-11-20 06:05:22] NOTICE[1] manager.c: 203.0.113.9 failed to authenticate as 'a'"
    cursor = b'"__CURSOR":"s=0123456789abcdef0123456789abcdef;i=1","__REALTIME_TIMESTAMP":"1795154722090000",'
    for who in (
        b'"_SYSTEMD_UNIT":"asterisk.service"',
        b'"_SYSTEMD_UNIT":"docker.service","_UID":"0","CONTAINER_NAME":"my-asterisk-1"',
        b'"_SYSTEMD_UNIT":"a.service","_UID":"0","CONTAINER_NAME":"asterisk","_SYSTEMD_CGROUP":"/a.service"',
        b'"_SYSTEMD_USER_UNIT":"asterisk.service","_UID":"1000"',
        b'"_TRANSPORT":"driver","MESSAGE_ID":"a596d6fe7bfa4994828e72309e95d61e"',
    ):
        yield b"{" + cursor + who + b',"SYSLOG_IDENTIFIER":"asterisk","MESSAGE":"' + line + b'"}'
        numbers = b",".join(b"%d" % byte for byte in line)
        yield b"{" + cursor + who + b',"MESSAGE":[' + numbers + b"]}"


# -- files and tables of Asterisk, and of fail2ban


def read_asterisk_file(data: bytes) -> None:
    """Read a configuration file of Asterisk that includes no file of this host."""
    with suppress(RefusedLineError):
        for _ in conf_lines(data):
            pass
    folder = Path("/nowhere")
    planned = {folder / "pjsip.conf": data, folder / "a/x.conf": b"[a]\nb=c\n"}
    found = AsteriskFiles(folder, planned=planned).read("pjsip.conf", every_option)
    require(found is not None, "a planned file is read")


def asterisk_files() -> Iterator[bytes]:
    """Yield files with templates, conditions, comments and includes."""
    yield b"[general]\nbindaddr=0.0.0.0\n[phones](!)\ntype = endpoint\nauth=>x ; a comment\n"
    yield b"[phones](!)\na = b\n[a](phones)\nb=1\n"
    yield b"[a]\nx=1\n[a](+x=1&TEMPLATES=include)\ny+=2\n;-- a\n ;-- b --; --;\n[b](a,!)\n"
    yield b'\xef\xbb\xbf#include "a/{x,y{1,2}}.conf"\n#tryinclude <*.d/[^a]*.conf>\n#exec ls\n'


_FILES = (
    *("asterisk", "modules", "logger", "sip", "pjsip", "iax", "users", "pjsip_wizard"),
    *("manager", "http", "ari"),
)


def read_settings(data: bytes) -> None:
    """Read accounts, services and logs from a folder whose files are all the same."""
    for name in _FILES:
        scratch.file(f"{name}.conf", data)
    files = AsteriskFiles(scratch.folder())
    read_accounts(files, chan_sip=True, iax2=True, pjsip=True)
    read_services(files)
    read_asterisk(files)


def settings() -> Iterator[bytes]:
    """Yield files with accounts of each driver, managers and logs."""
    yield from asterisk_files()
    yield (
        b"[general]\nenabled=yes\nbindaddr=::\ncontext=public\nallowguest=yes\ntlsenable=yes\n"
        b"[directories]\nastlogdir => /var/log/asterisk\n[logfiles]\nmessages => [json]notice,security\n"
        b"[modules]\nnoload => chan_sip.so\n[admin]\nsecret=admin\nread=all\npermit=10.0.0.0/255.0.0.0\n"
    )
    yield (
        b"[204]\ntype=endpoint\nauth=204\naors=204\ncontext=internal\n[204]\ntype=auth\npassword=204\n"
        b"username=204\n[t]\ntype=identify\nmatch=192.0.2.7\nendpoint=204\n[205]\ntype=friend\nsecret=x\n"
    )


class _SameAnswer:
    """A console that answers each command alike."""

    problem = ""

    def __init__(self, text: str) -> None:
        self._text = text

    def show(self, _: str) -> str:
        """Return the answer."""
        return self._text


def read_dialplan(data: bytes) -> None:
    """Follow the calls through a dialplan whose contexts are all the same."""
    reach = Dialplan(_SameAnswer(data.decode("utf-8", "replace"))).reach("public")
    require(len(reach.dials) + len(reach.unclear) <= 2 * data.count(b"\n") + 3, "the patterns that dial out")


def dialplans() -> Iterator[bytes]:
    """Yield a context with patterns, jumps, variables and includes."""
    yield (
        b"[ Context 'public' created by 'pbx_config' ]\n"
        b"  '_X.' =>          1. Set(a=${FILTER(0-9,${EXTEN:1})})              [extensions.conf:3]\n"
        b"     [out]          2. Dial(PJSIP/${ARG1}@${TRUNK}&Local/1@b,20)     [extensions.conf:4]\n"
        b"                    3. Gosub(sub-x,s,1(${EXTEN},a))                  [extensions.conf:5]\n"
        b"  '100' (CID match '1') => 1. Goto(other,${EXTEN},1)                 [extensions.conf:6]\n"
        b"  Include =>        'internal'                                       [extensions.conf:7]\n"
        b"  Alt. Switch =>    'Realtime/@' [pbx_config]\n    TRUNK=PJSIP/t\n"
    )


def read_console(data: bytes) -> None:
    """Read the answers of Asterisk's console to each command."""
    text = _output(data)
    identifies_from(text), peers_from(text), settings_from(text)


def consoles() -> Iterator[bytes]:
    """Yield answers to three commands."""
    yield b"greeting\n Identify:  trunk/trunk\n      Match: 192.0.2.0/24\n\x7fa line of the log\n"
    yield (
        b"greeting\n"
        b"Name/username             Host                                    Dyn Forcerport Comedia\n"
        b"trunk                     192.0.2.7                                    No         No\n"
    )
    yield b"greeting\n  UDP Bindaddress:        0.0.0.0:5060\n  Allow guests:           Yes\n"


def read_fail2ban(data: bytes) -> None:
    """Read the settings that fail2ban's client prints."""
    dump = _Dump()
    for line in data.decode("utf-8", "replace").split("\n"):
        dump.add(line)
    for draft in dump.jails.values():
        draft.complete()
    _errors(data)


def fail2ban_dumps() -> Iterator[bytes]:
    """Yield the settings of one jail."""
    yield (
        b"['set', 'dbfile', '/a']\n['add', 'asterisk', 'auto']\n['set', 'asterisk', 'maxretry', 5]\n"
        b"['set', 'asterisk', 'addlogpath', '/var/log/a', 'head']\n"
        b"['multi-set', 'asterisk', 'addfailregex', ['a', 'b']]\n['config-error', 'x']\n"
    )


_PARSE = ("ami", "ami_http", "security", "roster", "address", "line_result")
_LOG = (
    *("log", "log_messages", "line_result", "wrappers", "dump", "prefix", "formats"),
    *("notices", "security", "chan_sip", "dates", "custom", "address"),
)


def _of(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names)


TARGETS = (
    Target("ami", read_ami, ami_streams, ("sources/ami.py", *_of("parse", *_PARSE)), tries=300),
    Target(
        "ami-packet", read_packet, ami_packets, _of("parse", "security", "address"), per_byte=200, tries=2_000
    ),
    Target("roster", read_roster, roster_events, _of("parse", "roster"), tries=1_000),
    Target("log", read_log, logs, _of("parse", *_LOG), per_byte=300, tries=300),
    Target("notices", read_message, messages, _of("parse", *_LOG), tries=300),
    Target("journal", read_journal, journals, ("sources/journal.py", *_of("parse", "wrappers"))),
    Target(
        "asterisk-conf",
        read_asterisk_file,
        asterisk_files,
        ("host/conf_lines.py", "host/conf_reader.py", "host/asterisk_conf.py"),
        per_byte=200,
    ),
    Target(
        "settings",
        read_settings,
        settings,
        (
            *("features/audit/accounts.py", "features/audit/services.py"),
            *("host/asterisk_logging.py", "host/conf_reader.py", "host/asterisk_conf.py"),
        ),
        fixed=9 << 20,  # Python reserves, but does not use, the room for the longest file
        per_byte=500,
        tries=50,
        longest=10_000,
    ),
    # A call visits each of at most 100 contexts, and here each has all steps.
    Target(
        "dialplan",
        read_dialplan,
        dialplans,
        ("features/audit/dialplan.py",),
        per_byte=1_000,
        slowest=400e-6,
        tries=100,
        longest=10_000,
    ),
    Target("console", read_console, consoles, ("host/console.py", "host/console_tables.py"), per_byte=300),
    Target("fail2ban", read_fail2ban, fail2ban_dumps, ("features/fail2ban/jails.py",), per_byte=1_000),
)
