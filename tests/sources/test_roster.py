"""Queries about phones and trunks of an Asterisk: their results, and what these lack."""

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

import pytest
from attrs import define, evolve, field
from structlog.testing import capture_logs
from tests.parse import rosters
from tests.parse.rosters import packet
from tests.support.amiserver import BOOTED, HOST, AmiServer, Fault, Script
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER, Kind
from tests.support.daemon import GRANTED
from tests.support.lab import RELEASES, Lab
from tests.support.netns import inside
from tests.support.network import socket_in
from tests.support.sources import Phones

from ringfence.clock import Backoff
from ringfence.sources import ami
from ringfence.sources import roster as rosters_of
from ringfence.sources.ami import AmiSource, AmiTarget
from ringfence.sources.roster import AmiListener
from ringfence.sources.state import State
from ringfence.values.event import SecurityEvent, Service, Transport
from ringfence.values.friend import Contact, Roster, TrunkHost
from ringfence.values.secret import Secret

ALICE = Contact("pbx", Service.PJSIP, "alice", ip_address("198.18.1.10"), until=1795193107.0)
CAROL = Contact("pbx", Service.PJSIP, "carol", ip_address("198.18.1.13"), reachable=True)
DAVE = Contact("pbx", Service.SIP, "dave", ip_address("198.18.1.21"), reachable=True)
CARRIER = TrunkHost("pbx", Service.PJSIP, "named", "sip.carrier.example", None, Transport.TLS)


def entry(recorded: bytes, **changes: str) -> bytes:
    """Return an entry of a list, without its recorded ActionID."""
    return packet(recorded, **changes).replace(b"\r\nActionID: abc123", b"")


AUTH_DETAIL = b"Event: AuthDetail\r\nObjectType: auth\r\nUsername: me\r\nPassword: trunk-secret"
LISTS = {
    "DBGetTree": [entry(rosters.TREE)],
    "SIPpeers": [entry(rosters.SIP_PEER)],
    "PJSIPShowRegistrationsOutbound": [entry(rosters.REGISTRATION), AUTH_DETAIL],
}


@define
class Reports(Phones):
    """A running source, and its reports about phones and trunks."""

    events: list[SecurityEvent] = field(factory=list)
    logs: list[Mapping[str, Any]] = field(factory=list)
    source: AmiSource = field(init=False)

    def sink(self, events: Sequence[SecurityEvent], _now: float) -> None:
        """Record events, as the source's sink."""
        self.events += events


@contextlib.contextmanager
def quick(monkeypatch: pytest.MonkeyPatch, every: float = 60.0, within: float = 10.0) -> Iterator[None]:
    """Wait less than for a real Asterisk."""
    with monkeypatch.context() as patch:
        patch.setattr(rosters_of, "EVERY", every)
        patch.setattr(rosters_of, "LOOK_AGAIN", 0.0)
        patch.setattr(rosters_of, "ANSWER_WITHIN", within)
        yield


async def until(true: Callable[[], object]) -> None:
    """Wait until ``true`` returns a true value."""
    while not true():  # noqa: ASYNC110 - what is waited for knows of no event
        await asyncio.sleep(0.005)


async def listen(port: int, reports: Reports, then: Callable[[], Awaitable[object]]) -> Reports:
    """Run a source while ``then`` runs."""
    with capture_logs() as logs:
        target = AmiTarget("pbx", HOST, port, "ringfence", Secret(SECRET))
        reports.source = AmiSource(
            target,
            reports.sink,
            Backoff(0.01, 0.02),
            listener=reports,
        )
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(reports.source.run())
            await then()
            task.cancel()
    reports.logs += logs
    return reports


def reports_of(script: Script, rounds: int = 1) -> tuple[Reports, AmiServer]:
    """Return the reports of a source after so many rosters from a test server."""

    async def main() -> tuple[Reports, AmiServer]:
        reports = Reports()
        async with AmiServer(script) as server:

            async def then() -> None:
                await until(lambda: len(reports.rosters) >= rounds)
                assert reports.source.roster_ready.is_set()

            return await listen(server.port, reports, then), server

    return asyncio.run(main())


def asked(server: AmiServer) -> list[str]:
    """Return the actions that a server was sent for the roster, without those of every connection."""
    always = ("Challenge", "Login", "Ping", "CoreSettings")
    actions = [action for action in server.actions if action not in always]
    actions.remove("ListCommands")  # one of the two asks for CoreSettings
    return actions


def test_phones_and_trunks_are_asked_for_at_once() -> None:
    """After the login, before the first ping: first the allowed actions, then each list once."""
    reports, server = reports_of(Script(play=[GRANTED], lists=LISTS))

    assert reports.rosters == [Roster("pbx", contacts=(ALICE, DAVE), trunks=(CARRIER,))]
    assert reports.source.refused == ()
    assert asked(server) == ["ListCommands", "DBGetTree", "SIPpeers", "PJSIPShowRegistrationsOutbound"]


def test_phones_and_trunks_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round lists the allowed actions too, because modules come and go."""
    with quick(monkeypatch, every=0.01):
        reports, server = reports_of(Script(play=[GRANTED], lists=LISTS), rounds=3)

    assert reports.rosters[1:3] == [reports.rosters[0]] * 2
    assert asked(server).count("ListCommands") >= 3
    assert rosters_of.EVERY == 60.0


@pytest.mark.parametrize(
    ("events", "looks"), [([0, 49], 1), ([0, 50, 50, 120, 130, 131], 3), ([*range(0, 90_000, 300)], 120)]
)
def test_a_round_waits_during_an_attack(
    monkeypatch: pytest.MonkeyPatch, events: list[int], looks: int
) -> None:
    """During a flood of events the round waits, but not without end."""
    monkeypatch.setattr(rosters_of, "LOOK_AGAIN", 0.0)
    left = iter(events)
    asked: list[int] = []

    class Counts:
        @property
        def events(self) -> int:
            asked.append(next(left))
            return asked[-1]

    counts: Any = Counts()
    asyncio.run(rosters_of.wait_for_quiet(counts))

    assert len(asked) == 2 * looks


def test_a_trunks_password_is_never_kept() -> None:
    """The password of a registration is in no roster, log or event, and in no object."""
    reports, _ = reports_of(Script(play=[GRANTED], lists=LISTS))

    assert "trunk-secret" not in repr((reports.rosters, reports.contacts, reports.events, reports.logs))
    headers = [one for one in gc.get_objects() if isinstance(one, dict) and one.get("Event") == "AuthDetail"]
    assert headers == []


def test_an_empty_roster_differs_from_an_unknown_one() -> None:
    """An Asterisk without phones has an empty roster; without the right there is none, with the reason."""
    empty, _ = reports_of(Script(play=[GRANTED]))
    refused, server = reports_of(Script(play=[GRANTED], lists={}))

    assert empty.rosters == [Roster("pbx", contacts=(), trunks=())]
    lack = (
        "phones and trunks cannot be listed; fix: add reporting to `write =` of [ringfence] in manager.conf"
    )
    assert refused.rosters == [Roster("pbx", contacts=None, trunks=None, refused=(lack,))]
    assert refused.source.refused == (lack,)
    assert asked(server) == ["ListCommands"]


def test_missing_rights_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listening source reports what it does not know in its condition, where `status` shows it."""
    monkeypatch.setattr(ami, "PING_EVERY", 0.05)

    async def main() -> Reports:
        reports = Reports()
        async with AmiServer(Script(play=[GRANTED], lists={})) as server:

            async def then() -> None:
                await until(lambda: "write" in reports.source.condition.detail)

            return await listen(server.port, reports, then)

    condition = asyncio.run(main()).source.condition

    assert condition.state is State.LISTENING
    assert "; phones and trunks cannot be listed; fix: add " in condition.detail


def test_an_empty_list_may_be_an_error() -> None:
    """PJSIPShowContacts replies with an error, with a newline of its own, if no phone is registered."""
    none = b"Response: Error\r\nActionID: {ActionID}\r\nMessage: No Contacts found\n\r\n\r\n"
    lists: dict[str, list[bytes]] = {"PJSIPShowContacts": []}
    reports, _ = reports_of(Script(play=[GRANTED], lists=lists, answers={"PJSIPShowContacts": none}))

    assert reports.rosters == [Roster("pbx", contacts=(), trunks=())]


@pytest.mark.parametrize(
    ("answer", "lack"),
    [
        (
            b"Response: Error\r\nActionID: {ActionID}\r\nMessage: No\x1b luck\r\n\r\n",
            r"SIPpeers is refused (No\x1b luck)",
        ),
        (
            b"Response: Error\r\nActionID: {ActionID}\r\nMessage: No luck\n\r\n\r\n",
            "SIPpeers is refused (No luck)",
        ),
        (b"Response: Success\r\nActionID: {ActionID}\r\n\r\n", "SIPpeers was not answered in 0 s"),
        (b"Response: Success\r\nActionID: another\r\n\r\n", "SIPpeers was not answered in 0 s"),
    ],
)
def test_a_missing_list_is_not_empty(monkeypatch: pytest.MonkeyPatch, answer: bytes, lack: str) -> None:
    """Then no phone counts as away: known phones are reported one by one, and the reason once."""
    script = Script(play=[GRANTED], lists=LISTS, answers={"SIPpeers": answer})
    with quick(monkeypatch, every=0.01, within=0.3):
        reports, _ = reports_of(script, rounds=2)

    assert reports.rosters[:2] == [Roster("pbx", contacts=None, trunks=(CARRIER,), refused=(lack,))] * 2
    assert reports.contacts[0] == ALICE
    logged = [entry for entry in reports.logs if entry["event"] == "source.roster"]
    assert [entry["lacks"] for entry in logged] == [lack]


def test_a_missing_list_of_trunks_removes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing list of trunks leaves the known ones, and the phones are reported."""
    answers = {"PJSIPShowRegistrationsOutbound": b"Response: Error\r\nActionID: {ActionID}\r\n\r\n"}
    reports, _ = reports_of(Script(play=[GRANTED], lists=LISTS, answers=answers))

    lack = "PJSIPShowRegistrationsOutbound is refused (no reason given)"
    assert reports.rosters == [Roster("pbx", contacts=(ALICE, DAVE), trunks=None, refused=(lack,))]


def test_an_asterisk_that_lists_no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reply to the first question no other is sent, and the source continues."""
    answers = {"ListCommands": b"Event: x\r\n\r\n"}
    with quick(monkeypatch, within=0.1):
        reports, server = reports_of(Script(play=[GRANTED], lists=LISTS, answers=answers))

    lack = "ListCommands was not answered in 0 s"
    assert reports.rosters == [Roster("pbx", contacts=None, trunks=None, refused=(lack,))]
    assert asked(server) == ["ListCommands"]


def test_an_endless_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries than a PBX has are not kept: the list counts as unknown, which is reported."""
    monkeypatch.setattr(rosters_of, "MOST_ENTRIES", 10)
    many = [entry(rosters.SIP_PEER, ObjectName=str(number)) for number in range(11)]
    reports, _ = reports_of(Script(play=[GRANTED], lists=LISTS | {"SIPpeers": many}))

    assert reports.source.refused == ("SIPpeers lists more than 10 entries",)
    assert reports.rosters[0].contacts is None


def test_a_list_of_long_entries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More text than the lists of a PBX hold is not kept either."""
    monkeypatch.setattr(rosters_of, "MOST_CHARACTERS", 10_000)
    many = [entry(rosters.SIP_PEER, ObjectName="x" * 5_000)] * 3
    reports, _ = reports_of(Script(play=[GRANTED], lists=LISTS | {"SIPpeers": many}))

    assert reports.source.refused == ("SIPpeers lists more than 10000 characters",)
    assert reports.rosters[0].contacts is None


def test_an_old_asterisk_lists_no_contacts_of_pjsip() -> None:
    """Listed phones are reported one by one, with the fact that phones of PJSIP are unknown."""
    lists = {name: LISTS[name] for name in ("SIPpeers", "PJSIPShowRegistrationsOutbound")}
    reports, _ = reports_of(Script(play=[GRANTED], lists=lists))

    (roster,) = reports.rosters
    assert (roster.contacts, roster.trunks) == (None, (CARRIER,))
    assert roster.refused[0].startswith("this Asterisk does not list PJSIP's contacts")
    assert reports.contacts == [DAVE]


def test_an_entry_without_our_token_is_ignored() -> None:
    """Entries without our ActionID, as a sender could write them, are in no roster."""
    stranger = entry(rosters.TREE).replace(b"198.18.1.10", b"203.0.113.9")
    forged = stranger + b"\r\nActionID: action/1\r\n\r\n" + stranger + b"\r\n\r\n"
    reports, _ = reports_of(Script(play=[GRANTED, forged], lists=LISTS), rounds=1)

    assert reports.rosters == [Roster("pbx", contacts=(ALICE, DAVE), trunks=(CARRIER,))]


def test_changes_are_reported_at_once() -> None:
    """A phone that answers is reported at once, and is in the next roster though no list has it."""

    async def main() -> Reports:
        reports = Reports()
        async with AmiServer(Script(play=[GRANTED])) as server:

            async def then() -> None:
                await until(lambda: reports.rosters)
                await server.send(packet(rosters.CONTACT_STATUS) + b"\r\n\r\n")
                await until(lambda: reports.contacts)
                await server.send(BOOTED)
                await until(lambda: len(reports.rosters) == 2)

            return await listen(server.port, reports, then)

    reports = asyncio.run(main())

    assert reports.contacts == [CAROL]
    assert [roster.contacts for roster in reports.rosters] == [(), (CAROL,)]


@pytest.mark.parametrize("action", ["DBGetTree", "PJSIPShowRegistrationsOutbound"])
def test_a_phone_that_goes_during_a_round_is_not_in_its_roster(action: str) -> None:
    """The list was requested before the phone went, so it still has the phone."""
    mine = b"\r\nActionID: {ActionID}\r\n"
    alice = {"AOR": "alice", "EndpointName": "alice", "URI": "sip:alice@198.18.1.10:53733"}
    removed = packet(rosters.CONTACT_STATUS, ContactStatus="Removed", **alice) + b"\r\n\r\n"
    answer = b"".join(
        [
            b"Response: Success" + mine + b"EventList: start\r\nMessage: Result will follow\r\n\r\n",
            *(one + mine + b"\r\n" for one in LISTS[action]),
            removed,
            b"Event: ListComplete" + mine + b"EventList: Complete\r\n\r\n",
        ]
    )
    reports, _ = reports_of(Script(play=[GRANTED], lists=LISTS, answers={action: answer}))

    assert reports.rosters == [Roster("pbx", contacts=(DAVE,), trunks=(CARRIER,))]
    assert reports.contacts == [evolve(ALICE, until=None, gone=True)]


RELOAD = b"Event: Reload\r\nPrivilege: system,all\r\nModule: %b\r\nStatus: %d\r\n\r\n"


def test_a_reload_of_accounts_is_reported_and_asks_again() -> None:
    """A reload that failed, and one of another module, changes no account and no trunk."""

    async def main() -> Reports:
        reports = Reports()
        async with AmiServer(Script(play=[GRANTED])) as server:

            async def then() -> None:
                await until(lambda: reports.rosters)
                await server.send(RELOAD % (b"res_pjsip.so", 1) + RELOAD % (b"app_queue.so", 0))
                await server.send(RELOAD % (b"res_pjsip_endpoint_identifier_ip.so", 0))
                await until(lambda: len(reports.rosters) == 2)

            return await listen(server.port, reports, then)

    assert asyncio.run(main()).reloads == 1


def test_reports_are_forgotten_with_their_connection() -> None:
    """Changes between two connections are unknown: the second starts without phones."""

    async def main() -> Reports:
        reports = Reports()
        async with AmiServer(Script(play=[GRANTED, packet(rosters.CONTACT_STATUS) + b"\r\n\r\n"])) as server:

            async def then() -> None:
                await until(lambda: reports.contacts and reports.rosters)
                server.script = Script(play=[GRANTED])
                before = len(reports.rosters)
                await server.hang_up()
                await until(lambda: len(reports.rosters) > before)

            return await listen(server.port, reports, then)

    assert asyncio.run(main()).rosters[-1] == Roster("pbx", contacts=(), trunks=())


def test_without_the_class_system_changes_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that reads no events of that class misses changes, and the fix is reported."""
    with quick(monkeypatch, every=0.01):
        reports, _ = reports_of(Script(play=[GRANTED], lists=LISTS, booted=False), rounds=2)

    lack = "changes of phones are not reported; fix: add system to `read =` of [ringfence] in manager.conf"
    assert reports.source.refused == (lack,)
    assert reports.rosters[:2] == [
        Roster("pbx", contacts=None, trunks=(CARRIER,)),
        Roster("pbx", contacts=None, trunks=(CARRIER,), refused=(lack,)),
    ]
    assert reports.contacts[:2] == [ALICE, DAVE]


def test_before_asterisk_has_booted_no_phone_is_away() -> None:
    """A module that is not loaded yet lists no phone; once it is, the phones are requested at once."""

    async def main() -> Reports:
        reports = Reports()
        async with AmiServer(Script(play=[GRANTED], booted=False)) as server:

            async def then() -> None:
                await until(lambda: reports.rosters)
                server.script = Script(lists=LISTS)
                await server.send(BOOTED)
                await until(lambda: len(reports.rosters) == 2)

            return await listen(server.port, reports, then)

    reports = asyncio.run(main())

    assert reports.rosters == [
        Roster("pbx", contacts=None, trunks=None),
        Roster("pbx", contacts=(ALICE, DAVE), trunks=(CARRIER,)),
    ]
    assert [entry for entry in reports.logs if entry["event"] == "source.roster"] == []


def test_without_a_connection_there_is_no_roster() -> None:
    """If an Asterisk refuses the login, waiting for its roster ends."""

    async def main() -> Reports:
        reports = Reports()
        async with AmiServer(Script(fault=Fault.REFUSES)) as server:

            async def then() -> None:
                await reports.source.roster_ready.wait()

            return await listen(server.port, reports, then)

    reports = asyncio.run(main())

    assert reports.source.condition.state is State.LOGIN_REFUSED
    assert reports.rosters == []


def test_a_connection_that_ends_in_the_middle_of_a_list() -> None:
    """The round ends with it, and the next connection begins its own."""
    half = b"Response: Success\r\nActionID: {ActionID}\r\n\r\n" + entry(rosters.TREE)[:-9]

    async def main() -> Reports:
        reports = Reports()
        async with AmiServer(Script(play=[GRANTED], lists=LISTS, answers={"DBGetTree": half})) as server:

            async def then() -> None:
                await until(lambda: "DBGetTree" in server.actions)
                server.script = Script(play=[GRANTED], lists=LISTS)
                await server.hang_up()
                await until(lambda: reports.rosters)

            return await listen(server.port, reports, then)

    assert asyncio.run(main()).rosters == [Roster("pbx", contacts=(ALICE, DAVE), trunks=(CARRIER,))]


def test_each_source_has_a_token_of_its_own() -> None:
    """It is long enough that a sender cannot guess it."""
    tokens = {rosters_of.RosterQueries("pbx", "ringfence", AmiListener()).token for _ in range(100)}

    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {16}


# -- a real Asterisk --------------------------------------------------------------------------------------

_PJSIP = """
[carrier]
type = registration
outbound_auth = carrier
server_uri = sip:198.18.1.77:5070
client_uri = sip:me@198.18.1.77
retry_interval = 60

[carrier]
type = auth
auth_type = userpass
username = me
password = trunk-secret

[desk]
type = endpoint
context = internal
disallow = all
allow = ulaw
aors = desk

[desk]
type = aor
contact = sip:desk@198.18.1.13:5062
qualify_frequency = 1
"""
_SIP = """
[general](+)
register => me:trunk-secret@198.18.1.66:5061/100

[desk2]
type = peer
host = 198.18.1.13
port = 5063
qualify = yes
qualifyfreq = 1
"""
_WEAK = "\n[weak]\nsecret = weak\nread = security\nwrite =\n"


def _answer_options(phone: socket.socket, ends: threading.Event) -> None:
    """Answer OPTIONS, as phones do."""
    phone.settimeout(0.1)
    while not ends.is_set():
        with contextlib.suppress(TimeoutError):
            asked, sender = phone.recvfrom(65536)
            copied = [
                line
                for line in asked.split(b"\r\n")
                if line.partition(b":")[0] in (b"Via", b"From", b"To", b"Call-ID", b"CSeq")
            ]
            phone.sendto(b"\r\n".join([b"SIP/2.0 200 OK", *copied, b"Content-Length: 0\r\n\r\n"]), sender)


@contextlib.contextmanager
def _phones(lab: Lab) -> Iterator[None]:
    """Run a phone at 198.18.1.13, on the ports of both drivers."""
    ends = threading.Event()
    with contextlib.ExitStack() as stack:
        for port in (5062, 5063):
            phone = stack.enter_context(socket_in(lab.network.attacker, kind=socket.SOCK_DGRAM))
            phone.bind(("198.18.1.13", port))
            thread = threading.Thread(target=_answer_options, args=(phone, ends))
            thread.start()
            stack.callback(thread.join)
        stack.callback(ends.set)
        yield


@contextlib.asynccontextmanager
async def _listening(username: str, secret: str) -> AsyncIterator[Reports]:
    """Run a source on a real Asterisk meanwhile."""
    reports = Reports()
    target = AmiTarget("pbx", HOST, MANAGER_PORT, username, Secret(secret))
    reports.source = AmiSource(target, reports.sink, listener=reports)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(reports.source.run())
        yield reports
        task.cancel()


async def _listen_twice(lab: Lab) -> tuple[Reports, Reports]:
    """Run a source with the rights and one without, while phones begin to answer."""
    async with _listening("weak", "weak") as weak, _listening(MANAGER_USER, SECRET) as reports:
        await until(lambda: reports.rosters and weak.rosters)
        with _phones(lab):
            await until(lambda: any(contact.reachable for contact in reports.contacts))
            answering = {contact.account for contact in reports.contacts if contact.reachable}
            await until(
                lambda: (
                    answering <= {one.account for one in reports.rosters[-1].contacts or () if one.reachable}
                )
            )
    return reports, weak


@pytest.mark.asterisk
@pytest.mark.parametrize("release", sorted(RELEASES))
def test_a_real_asterisk_reports_its_phones_and_trunks(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered phones, answering phones and registrations are all found, and no question is refused."""
    chan_sip = RELEASES[release] is Kind.CHAN_SIP
    extra = {"pjsip.conf": _PJSIP, "manager.conf": _WEAK} | ({"sip.conf": _SIP} if chan_sip else {})
    monkeypatch.setattr(rosters_of, "EVERY", 0.5)
    monkeypatch.setattr(rosters_of, "LOOK_AGAIN", 0.0)
    with Lab.made(release, extra) as lab:
        port = 5080 if chan_sip else 5060
        lab.attack("register", "--target", f"198.18.0.1:{port}", "--sources", "198.18.1.10")
        with inside(lab.network.pbx):
            reports, weak = asyncio.run(_listen_twice(lab))
        log = (lab.asterisk.logs / "ringfence").read_text("utf-8", "replace")

    first, last = reports.rosters[0], reports.rosters[-1]
    assert first.contacts is not None
    alice = next(contact for contact in first.contacts if contact.account == "alice")
    assert (alice.address, alice.reachable) == (ip_address("198.18.1.10"), False)
    assert alice.until is not None
    answering = [contact for contact in last.contacts or () if contact.reachable]
    assert {contact.address for contact in answering} == {ip_address("198.18.1.13")}
    hosts = {(trunk.host, trunk.service) for trunk in last.trunks or ()}
    wanted = {("198.18.1.77", Service.PJSIP), *([("198.18.1.66", Service.SIP)] if chan_sip else [])}
    assert hosts == wanted
    assert reports.source.refused == ()
    assert [lack for lack in weak.source.refused if "reporting" in lack] != []
    assert (weak.rosters[0].contacts, weak.rosters[0].trunks) == (None, None)
    assert 'SecurityEvent="SuccessfulAuth"' in log
    assert 'SecurityEvent="Request' not in log
    assert "trunk-secret" not in repr((reports.rosters, reports.contacts, reports.events))


_EMPTY = {
    "modules.conf": "[modules]\nautoload = yes\n",
    "pjsip.conf": "",
    "sip.conf": "",
    "iax.conf": "",
    "extensions.conf": "",
}
"""The files of an Asterisk without any phone, trunk or transport, with every module that can be loaded."""


@pytest.mark.asterisk
@pytest.mark.parametrize("release", sorted(RELEASES))
def test_an_asterisk_with_nothing_configured_refuses_no_list(release: str) -> None:
    """Each list of a real Asterisk without phones is empty, and not refused, whatever the user may ask."""
    with Lab.made(release) as lab:
        lab.asterisk.stop()
        for name, text in _EMPTY.items():
            (lab.asterisk.folder / "etc" / name).write_text(text, "utf-8")
        lab.asterisk.start()

        async def ask() -> Reports:
            async with _listening(MANAGER_USER, SECRET) as reports:
                await until(lambda: reports.rosters)
            return reports

        for rights in ("reporting", "system,reporting"):
            granted = f"\n[{MANAGER_USER}](+)\nwrite = {rights}\n"
            with lab.manager_conf(granted), inside(lab.network.pbx):
                reports = asyncio.run(ask())
            assert reports.source.refused == (), rights
            assert reports.rosters[0] == Roster("pbx", contacts=(), trunks=()), rights


_FORGED = (
    "Event: ContactStatus",
    "Privilege: system,all",
    "URI: sip:a@203.0.113.9",
    "ContactStatus: Reachable",
    "AOR: a",
)
_EMPTY_TAIL = ("", "SessionID: ", "LocalAddress: ", "RemoteAddress: ", "")
_TAIL = ("", "SessionID: ", "LocalAddress: ", "RemoteAddress: IPV4/9.9.9.9/5", "")


def _name(*lines: str) -> str:
    """Return lines as the user of a SIP URI, percent-encoded."""
    return quote("\r\n".join(lines), safe="/,.")


async def _reports_on_names(lab: Lab, names: Sequence[str], ports: Sequence[int]) -> Reports:
    """Run a source while guesses with those names are made."""
    async with _listening(MANAGER_USER, SECRET) as reports:
        await until(lambda: reports.rosters)
        for name in names:
            for port in ports:
                target = f"198.18.0.1:{port}"
                await asyncio.to_thread(lab.attack, "guess", "--account", name, "--target", target)
        wanted = len(names) * len(ports)
        await until(lambda: sum(event.tampered for event in reports.events) >= 2 * wanted)
        before = len(reports.rosters)
        await until(lambda: len(reports.rosters) > before)
    return reports


@pytest.fixture(scope="module", params=sorted(RELEASES))
def fresh(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A real Asterisk on which no phone is registered at first."""
    with Lab.made(request.param) as lab:
        yield lab


@pytest.mark.asterisk
def test_no_name_sent_to_a_real_asterisk_invents_a_phone(fresh: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events within a name, after a forged end of its own event or none, are its sender's text."""
    monkeypatch.setattr(rosters_of, "EVERY", 0.5)
    monkeypatch.setattr(rosters_of, "LOOK_AGAIN", 0.0)
    names = [_name("x", "", *_FORGED), _name(*_EMPTY_TAIL, *_FORGED), _name(*_TAIL, *_FORGED[:4])]
    ports = [5060, 5080] if fresh.asterisk.kind is Kind.CHAN_SIP else [5060]
    with inside(fresh.network.pbx):
        reports = asyncio.run(_reports_on_names(fresh, names, ports))

    assert reports.contacts == []
    assert {roster.contacts for roster in reports.rosters} == {()}
    assert {event.remote.address for event in reports.events} == {ip_address("198.18.1.1")}


async def _restart(lab: Lab) -> tuple[Reports, int]:
    """Run a source while Asterisk is stopped and started; return how many rosters there were before."""
    async with _listening(MANAGER_USER, SECRET) as reports:
        await until(lambda: reports.rosters)
        before = len(reports.rosters)
        await asyncio.to_thread(lab.asterisk.stop)
        await asyncio.to_thread(lab.asterisk.start)
        await until(lambda: reports.rosters[before:] and reports.rosters[-1].contacts is not None)
    return reports, before


@pytest.mark.asterisk
def test_a_restart_of_a_real_asterisk_removes_no_phone(fresh: Lab) -> None:
    """Incomplete lists during its boot remove no phone; then the phones are there again."""
    port = 5080 if fresh.asterisk.kind is Kind.CHAN_SIP else 5060
    fresh.attack("register", "--target", f"198.18.0.1:{port}", "--sources", "198.18.1.10")
    with inside(fresh.network.pbx):
        reports, before = asyncio.run(_restart(fresh))

    assert not any(contact.gone for contact in reports.contacts)
    assert () not in {roster.contacts for roster in reports.rosters}
    assert reports.rosters[-1].contacts == reports.rosters[before - 1].contacts
