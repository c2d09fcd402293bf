"""Readers of documents: feeds, answers of servers, databases of addresses, settings, and exported friends."""

import bz2
import gzip
import hashlib
import http.client
import io
import json
import lzma
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.features.feeds.test_formats import LISTS
from tests.features.fleet.test_lapi import ROW, page
from tests.features.geo.test_mmdb import database_of
from tests.fuzz.promises import Target, joined, parts_of, require
from tests.fuzz.scratch import file, folder
from tests.support.captures import capture
from tests.support.mmdb import endless, write

from ringfence.bounded_http import DATE, date_from
from ringfence.config.loader import load, load_what_is_right
from ringfence.errors import ConfigError, RingfenceError, SourceError
from ringfence.features.audit.freepbx import _parts, _version_in
from ringfence.features.audit.provisioning import _Apache, _folders_of, _parsed, _read_apache
from ringfence.features.feeds import https
from ringfence.features.feeds.denied import _read_kept, read_state
from ringfence.features.feeds.fetcher import (
    MAX_RETRY_AFTER,
    MAX_VALIDATOR,
    _seconds_of,
    _validator,
    load_state,
)
from ringfence.features.feeds.formats import (
    MAX_LINE,
    NAMED,
    STATE_SUFFIX,
    FeedFormat,
    FeedLayout,
    FeedParser,
    parse_apiban,
    parse_apiban_refusal,
)
from ringfence.features.feeds.plan import FetchError, read_plan
from ringfence.features.fleet import api
from ringfence.features.fleet.lapi import (
    MAX_TEXT,
    MAX_TOKEN,
    parse_decisions,
    parse_duration,
    parse_login,
    parse_page,
)
from ringfence.features.geo.mmdb import MAX_TEXT as MAX_NAME
from ringfence.features.geo.mmdb import Database
from ringfence.features.notify.delivery import MAX_REASON, _delivery
from ringfence.features.notify.mail import _answer, _Smtp
from ringfence.features.notify.programs import _check
from ringfence.features.replay.files import ReplayInput, inspect, read_batches
from ringfence.friends.exchange import LONGEST, parse_document
from ringfence.lists.entries import parse_entry
from ringfence.lists.kept import read as read_kept
from ringfence.lists.texts import networks_in
from ringfence.values.event import SourceId
from ringfence.values.text import rfc3339

NOW = 1_795_154_722.0
EXAMPLES = Path(__file__).parents[2] / "examples"


# -- block lists

LAYOUTS = (
    FeedLayout(),
    FeedLayout(FeedFormat.JSON, "cidr"),
    FeedLayout(FeedFormat.CSV, "2"),
    FeedLayout(FeedFormat.CSV, "dst_ip"),
    FeedLayout(FeedFormat.APIBAN),
)
_MOST_LINES = 20_000


def read_feed(data: bytes) -> None:
    """Read a list in each format; a part of it more than once makes no difference."""
    for layout in LAYOUTS:
        parser, cut = FeedParser(layout, _MOST_LINES), FeedParser(layout, _MOST_LINES)
        entries = [*parser.receive(data), *parser.end()]
        require(len(entries) <= parser.lines <= _MOST_LINES + 1, "the number of entries")
        require(len(parser.bad.first) <= NAMED, "the bad lines that are kept")
        require(parser.bad.number <= parser.lines, "the number of bad lines")
        half = len(data) // 2
        pieces = [*cut.receive(data[:half]), *cut.receive(data[half:]), *cut.end()]
        require(pieces == entries or parser.lines > _MOST_LINES, "pieces of a list have its entries")
        for _, text in entries:
            require(len(text) <= MAX_LINE, "the length of an entry")
            for parse in (networks_in, parse_entry):
                with suppress(ValueError):
                    parse(text)


def feeds() -> Iterator[bytes]:
    """Yield lists of each format."""
    yield from (data for _, data, _ in LISTS.values())
    yield b"0.0.0.0-255.255.255.255\n::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n"
    yield b"country DE\nAS64496\na.example\n"


def read_apiban(data: bytes) -> None:
    """Read an answer of APIBAN, as a page and as a refusal."""
    require(len(parse_apiban_refusal(data)) <= MAX_LINE, "the reason of a refusal")
    parse_apiban(data)


def apiban_answers() -> Iterator[bytes]:
    """Yield a page and refusals."""
    yield b'{"ipaddress":["192.0.2.1","2001:db8::7"],"ID":"1700000000"}'
    yield b'{"ipaddress":["no new bans"],"ID":"none"}'
    yield b'{"ipaddress":"rate limit exceeded","ID":"unauthorized"}'


# -- CrowdSec


def read_decisions(data: bytes) -> None:
    """Read an answer of CrowdSec as each kind."""
    with suppress(ValueError):
        require(len(parse_login(data).token) <= MAX_TOKEN, "the token of a login")
    with suppress(ValueError):
        parse_duration(data.decode())
    with suppress(ValueError):
        found = parse_page(data)
        for one in (*found.new, *found.deleted):
            require(len(one.scenario) <= MAX_TEXT >= len(one.origin), "the texts of a decision")
            require(one.network is not None, "the network of a decision")
    parse_decisions(data)


def decisions() -> Iterator[bytes]:
    """Yield answers of the stream, of a query, of a login, and a duration."""
    yield page(ROW, {**ROW, "id": 2, "scope": "Ip", "value": "2001:db8::7"}, deleted=[ROW])
    yield json.dumps([ROW, {**ROW, "duration": "-1h2m3.5s"}]).encode()
    yield b'{"deleted":null,"new":null,"links":{"a":[1,{"b":"\\"}"}]}}'
    yield page({**ROW, "scenario": "x" * 300})
    yield b'{"code":200,"expire":"2026-11-20T06:05:22Z","token":"a.b.c"}'
    yield b'{"code":200,"expire":"2026-11-20T06:05:22Z","token":"%b"}' % (b"a" * 20_000)
    yield b"1h2m3.5s"


# -- answers by HTTP: their heads, and bodies of any framing

_MOST_BODY = 1_000
_ENDLESS = b"a" * (1 << 19)
_PART = 1 << 16


class _Counted(io.BytesIO):
    """What a server sends, and how much of it was read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes."""
        found = super().read(size)
        self.taken += len(found)
        return found


class _Server:
    """Stands for the socket of a server that sends ``data``, and then text without an end."""

    def __init__(self, data: bytes) -> None:
        self.sent = _Counted(data + _ENDLESS)

    def makefile(self, _: str) -> _Counted:
        """Return what the server sends."""
        return self.sent


def read_http(data: bytes) -> None:
    """Read an answer by HTTP as the fetcher of feeds, and as the fleet does."""
    for body_of in (lambda one: https._body(one, dict(one.getheaders()), _MOST_BODY), api._body_of):
        server: Any = _Server(data)
        with http.client.HTTPResponse(server, method="GET") as response:
            try:
                response.begin()
                date_from(response.getheader("Date") or "", DATE)
                require(api._pause_of(response) < 100_000, "the pause that a server wants")
                https._target("https://a.example/list", response.getheader("Location") or "")
                answer = https.HttpAnswer(response.status, dict(response.getheaders()), b"")
                for name in answer.headers:
                    require(len(_validator(answer, name)) <= MAX_VALIDATOR, "the validator of a list")
                    wait = _seconds_of(answer.headers[name], NOW)
                    require(0 <= wait <= MAX_RETRY_AFTER, "the pause that a server wants")
                body_of(response)
            except (OSError, ValueError, RingfenceError, http.client.HTTPException):
                pass
        if body_of is not api._body_of:
            most = len(data) + _MOST_BODY + 2 * _PART
            require(server.sent.taken <= most, "the bytes that are read of an answer")


def http_answers() -> Iterator[bytes]:
    """Yield answers with a length, in chunks, without an end, and redirects."""
    head = b"HTTP/1.1 200 OK\r\nDate: Fri, 20 Nov 2026 06:05:22 GMT\r\nETag: x\r\n"
    yield head + b"Content-Length: 12\r\n\r\n192.0.2.1\r\n\r\n"
    yield head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n192.0\r\n4;x=y\r\n.2.1\r\n0\r\nX: y\r\n\r\n"
    yield head + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n"
    yield head + b"\r\n192.0.2.1\n"
    yield b"HTTP/1.1 302 Found\r\nLocation: //b.example/x\r\nRetry-After: 12\r\nContent-Length: 0\r\n\r\n"
    yield (
        b"HTTP/1.1 429 Slow\r\nRetry-After: 99999999\r\nETag: "
        + b"x" * 600
        + b"\r\nContent-Length: 0\r\n\r\n"
    )
    yield b"HTTP/1.0 100 Continue\r\n\r\nHTTP/1.1 429 Slow\r\nContent-Encoding: gzip\r\n\r\n"


# -- databases of addresses

_REGIONS = frozenset({"country DE", "AS64496"})
_ADDRESSES = tuple(map(ip_address, ("192.0.2.7", "0.0.0.0", "255.255.255.255", "2001:db8::7", "::")))


def read_mmdb(data: bytes) -> None:
    """Look up addresses in a database, and list the networks of regions."""
    database: Database = database_of(data)
    for address in _ADDRESSES:
        found = database.location_of(int(address), address.version)
        require(len(found.country) <= MAX_NAME >= len(found.organisation), "the texts of a location")
    for regions, first, length in database.networks(_REGIONS):
        require(regions <= _REGIONS, "the regions of a network")
        require(0 <= first < 1 << 128 and 0 <= length <= 128, "a network")


def databases() -> Iterator[bytes]:
    """Yield databases of both versions, with each size of records, and a hostile one."""
    nested = {"country": {"iso_code": "DE", "names": {"en": "x" * 300}}, "x": ["a", {"b": ["c"] * 40}]}
    flat = {"country": "Germany", "country_code": "DE", "asn": "AS64496", "as_name": "Example" * 50}
    path = folder() / "x.mmdb"
    for version, size in ((4, 24), (6, 28), (6, 32)):
        rows: list[tuple[str, Any]] = [("192.0.2.0/24", nested), ("198.51.100.0/25", flat)]
        if version == 6:
            rows.append(("2001:db8::/32", flat))
        yield write(path, rows, version=version, size=size).read_bytes()
    yield endless(path, 64).read_bytes()


# -- settings


def read_toml(data: bytes) -> None:
    """Load a configuration: all of it, and what is right in it."""
    path = file("ringfence.toml", data)
    load_what_is_right(path, {})
    load(path, {}, secrets=False)


def configurations() -> Iterator[bytes]:
    """Yield the examples, and a small configuration with values of each type."""
    for path in sorted(EXAMPLES.glob("*.toml")):
        yield path.read_bytes()
    yield b'[[asterisk]]\nname = "pbx"\n[asterisk.ami]\nsecret = "x"\nport = 5038\n'
    yield b'[rules.guess]\nattempts = 3\nban = "10m"\n'
    yield b'[allow]\nnetworks = ["192.0.2.0/24"]\nhosts = ["a.example"]\n[geo]\nallow_countries = ["DE"]\n'
    yield b"a.b.'c'.\"d\" = [1, 1.5, inf, 2026-11-20T06:05:22Z, 06:05:22, true, {x = '''y'''}]\n"


# -- files that ringfence itself, or another program of it, has written


def read_friends(data: bytes) -> None:
    """Read an exported list of friends."""
    found = parse_document(data.split(b"\n"), NOW)
    for friend in found.friends:
        require(friend.until <= NOW + LONGEST, "the time of a friend")


def friend_lists() -> Iterator[bytes]:
    """Yield a list with two friends."""
    row = {
        "address": "203.0.113.7",
        "account": "204",
        "asterisk": "pbx",
        "reason": "authenticated",
        "since": "2026-11-20T05:14:03Z",
        "seen": "2026-11-20T05:14:03Z",
        "until": "2026-12-20T05:14:03Z",
    }
    lines = [{"format": "ringfence friends", "version": 1}, row, {**row, "reason": "registered"}]
    yield b"\n".join(json.dumps(one).encode() for one in lines)


def read_kept_files(data: bytes) -> None:
    """Read a file as each kind of state: of a list, of a feed, and the plan of the fetcher."""
    path = file("list", data)
    read_kept(path)
    found = [part for _, part in parts_of(data)]
    with suppress(ValueError, RecursionError):
        head = json.loads(found[0]) if found else {}
        if isinstance(head, dict):
            content = b"".join(found[1:])
            whole = {**head, "digest": hashlib.sha256(content).hexdigest()}
            path.write_bytes(json.dumps(whole).encode() + b"\n" + content)
            read_kept(path)
            _read_kept(path, str(head.get("source")))
    file("list" + STATE_SUFFIX, data)
    load_state(path)
    read_state(path, NOW)
    with suppress(FetchError):
        read_plan(path.with_name("list" + STATE_SUFFIX))


def kept_files() -> Iterator[bytes]:
    """Yield a kept list, the state of a feed, and a plan."""
    head = {"source": "x", "left_out": 0, "named": ["a"], "taken": 1.0, "checked": 2.0, "sizes": [8, 0]}
    yield joined((0, json.dumps(head).encode()), (0, (0xC0000207 << 8 | 32).to_bytes(8, "little")))
    yield joined((0, json.dumps({**head, "sizes": [-1, 4, 10**30], "taken": "nan"}).encode()), (0, bytes(12)))
    names = ("checked", "tried", "due", "wait", "failures")
    state = dict.fromkeys(names, 1.0) | dict.fromkeys(
        ("error", "etag", "modified", "cursor", "identity"), "x"
    )
    yield json.dumps(state).encode()
    plan = {"name": "a", "url": "https://a", "path": "/a", "every": 60, "format": "plain", "key": ""}
    yield json.dumps([plan]).encode()


class _MailServer(_Smtp):
    """A connection to a mail server that sends its answers without waiting for commands."""

    answers = b""

    def _get_socket(self, *_: object) -> Any:  # noqa: ANN401 - stands for a socket
        return self

    def makefile(self, _: str) -> io.BytesIO:
        """Return what the server sends."""
        return io.BytesIO(self.answers + _ENDLESS)

    def sendall(self, data: bytes) -> None:
        """Take a command."""


def read_mail_answers(data: bytes) -> None:
    """Send a mail to a server that answers so, with a login."""
    _answer(550, data)
    server = _MailServer(local_hostname="localhost")
    server.answers = data
    try:
        server.connect("mail.example", 25)
        server.login("ann", "secret")
        server.sendmail("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\ny")
        server.quit()
    finally:
        server.file = None
        server.sock = None


def mail_answers() -> Iterator[bytes]:
    """Yield the answers of servers with each kind of login, and refusals."""
    greeting, accepted = b"220 h ESMTP\r\n", b"235 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n221 bye\r\n"
    for method, challenge in (
        (b"PLAIN", b""),
        (b"LOGIN", b"334 VXNlcg==\r\n"),
        (b"CRAM-MD5", b"334 PGE+\r\n"),
    ):
        yield (
            greeting
            + b"250-h\r\n250-SIZE 1000\r\n250-SMTPUTF8\r\n250 AUTH %b\r\n" % method
            + challenge
            + accepted
        )
    yield b"554 no\r\n"
    yield greeting + b"250-a\r\n" * 400


def read_program_answer(data: bytes) -> None:
    """Read what the process that sends a message answers, and the service that runs programs."""
    require(len(_delivery(data).text) <= 4 * (MAX_REASON + 40), "the text of a delivery")
    _check("/bin/x", data)


def program_answers() -> Iterator[bytes]:
    """Yield a success, a failure and an error."""
    yield b'{"code": 0, "output": ""}'
    yield b'{"code": 1, "output": "no"}'
    yield b'{"error": "cannot be run"}'
    yield b'{"ok": true, "text": "sent"}'
    yield b"[" * 100_000


def read_web_server(data: bytes) -> None:
    """Read a configuration file of a web server, as Apache's and as nginx's."""
    text = data.decode("utf-8", "replace")
    for _ in _folders_of(_parsed(text), frozenset()):
        pass
    _read_apache(Path("/etc/apache2/a.conf"), text, _Apache())


def web_servers() -> Iterator[bytes]:
    """Yield a site of each server."""
    yield b"server { listen 127.0.0.1:80; root /srv; location /a/ { alias '/tftpboot/'; deny all; } # x\n}"
    yield b'<VirtualHost *:84>\nAlias "/a" \\\n "/tftpboot"\n</VirtualHost>\n'
    yield b"<Directory /tftpboot>\nRequire all granted\n</Directory>\n"


_FLEET = ("features/fleet/lapi.py",)
# -- FreePBX's modules, and files to replay

_MOST_REPEATED = 100


def read_module(data: bytes) -> None:
    """Read the file of a module, which FreePBX's user writes, and root reads."""
    version = _version_in(file("module.xml", data))
    require(len(version) <= 2 * len(data), "the length of a version")
    _parts(version)


def modules() -> Iterator[bytes]:
    """Yield files of modules."""
    yield b"<module>\n <rawname>endpoint</rawname>\n <version>16.0.92</version>\n</module>\n"
    yield b"<module><depends><version>1</version></depends><version>17.0.3beta1</version></module>"
    yield b'<?xml version="1.0" encoding="utf-16"?><module><version>1</version></module>'
    yield b'<!DOCTYPE m [<!ENTITY a "b">]><module><version>&a;&#65;</version></module>'


def read_replayed(data: bytes) -> None:
    """Replay a file as the command does: find out what it is, unpack it, and write the time of each event."""
    found = inspect(file("messages", data), UTC)
    number = 0
    for batch in read_batches(ReplayInput(SourceId("pbx", "log"), (found,), UTC)):
        number += len(batch.events)
        for event in batch.events:
            rfc3339(event.time)
    require(number <= _MOST_REPEATED * (1 + 1_000 * len(data)), "the number of events")


def replayed() -> Iterator[bytes]:
    """Yield a log, a recording with each line end, and both compressed."""
    line = (
        b"NOTICE[901]: chan_sip.c:29060 in handle_request_register: Registration from "
        b"'\"201\" <sip:201@pbx>' failed for '203.0.113.8:5071' - Wrong password"
    )
    log = b"[2026-11-20 06:05:22] " + line + b"\n[9999-12-31 23:59:59 -2359] " + line + b"\n"
    log += b"Nov 20 06:05:22 pbx asterisk[812]: message repeated 4 times: [ " + line + b"]\n"
    recording = capture("asterisk-22", "wrong-password-register").ami.read_bytes()[:8_000]
    yield log
    yield recording
    yield recording.replace(b"\r\n", b"\n")
    yield from (gzip.compress(log, mtime=0), bz2.compress(log), lzma.compress(log))
    yield gzip.compress(recording, mtime=0)


TARGETS = (
    Target(
        "feed",
        read_feed,
        feeds,
        ("features/feeds/formats.py", "lists/texts.py", "lists/entries.py", "lists/prefixes.py"),
        per_byte=200,
        tries=300,
        longest=20_000,
    ),
    Target("apiban", read_apiban, apiban_answers, ("features/feeds/formats.py",), (ValueError,), tries=1_000),
    Target("crowdsec", read_decisions, decisions, _FLEET, (ValueError,), per_byte=128, tries=1_000),
    Target(
        "http-answer",
        read_http,
        http_answers,
        ("bounded_http.py", "features/feeds/https.py", "features/fleet/api.py"),
        fixed=2 << 20,
        per_byte=400,
        tries=300,
    ),
    # Records may overlap, so that each three bytes of the tree may have 500 values (``mmdb.MOST_VALUES``).
    Target(
        "mmdb",
        read_mmdb,
        databases,
        ("features/geo/mmdb.py",),
        (ValueError,),
        slowest=1e-3,
        tries=150,
        longest=15_000,
    ),
    Target(
        "toml",
        read_toml,
        configurations,
        ("config/loader.py", "config/environment.py", "config/converters.py"),
        (ConfigError,),
        per_byte=400,
        tries=50,
        longest=20_000,
    ),
    Target("friends", read_friends, friend_lists, ("friends/exchange.py",), per_byte=128, tries=500),
    Target(
        "kept-files",
        read_kept_files,
        kept_files,
        (
            *("lists/kept.py", "lists/prefixes.py"),
            *(f"features/feeds/{name}.py" for name in ("denied", "fetcher", "plan")),
        ),
        fixed=130 << 20,  # Python reserves, but does not use, the room for the longest list (``lists.kept``)
        tries=200,
    ),
    Target(
        "mail-answer",
        read_mail_answers,
        mail_answers,
        ("features/notify/mail.py",),
        (OSError, ValueError),
        fixed=4 << 20,
    ),
    Target(
        "program-answer",
        read_program_answer,
        program_answers,
        ("features/notify/programs.py", "features/notify/delivery.py"),
        (ValueError,),
    ),
    Target("module", read_module, modules, ("features/audit/freepbx.py",), fixed=2 << 20),
    Target(
        "replay",
        read_replayed,
        replayed,
        ("features/replay/files.py",),
        (SourceError,),
        fixed=64 << 20,  # a block of a compressed file, and the window of xz
        per_byte=2_000,
        tries=200,
    ),
    Target("web-server", read_web_server, web_servers, ("features/audit/provisioning.py",), per_byte=300),
)
