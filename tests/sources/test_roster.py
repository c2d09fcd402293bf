"""What is asked of an Asterisk about its phones and trunks: what comes of it, and what it lacks."""

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
from attrs import define, field
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

from ringfence.model import Contact, Roster, Secret, SecurityEvent, Service, Transport, TrunkHost
from ringfence.sources import ami
from ringfence.sources import roster as rosters_of
from ringfence.sources.ami import AmiSource, AmiTarget
from ringfence.sources.backoff import Backoff
from ringfence.sources.state import State

ALICE = Contact("pbx", Service.PJSIP, "alice", ip_address("198.18.1.10"), until=1795193107.0)
CAROL = Contact("pbx", Service.PJSIP, "carol", ip_address("198.18.1.13"), reachable=True)
DAVE = Contact("pbx", Service.SIP, "dave", ip_address("198.18.1.21"), reachable=True)
CARRIER = TrunkHost("pbx", Service.PJSIP, "named", "sip.carrier.example", None, Transport.TLS)


def entry(recorded: bytes, **changes: str) -> bytes:
    """Give an entry of a list, without the ActionID of when it was recorded."""
    return packet(recorded, **changes).replace(b"\r\nActionID: abc123", b"")


AUTH_DETAIL = b"Event: AuthDetail\r\nObjectType: auth\r\nUsername: me\r\nPassword: trunk-secret"
LISTS = {
    "DBGetTree": [entry(rosters.TREE)],
    "SIPpeers": [entry(rosters.SIP_PEER)],
    "PJSIPShowRegistrationsOutbound": [entry(rosters.REGISTRATION), AUTH_DETAIL],
}


@define
class Told:
    """A source at work, and what it told of phones and trunks."""

    rosters: list[Roster] = field(factory=list)
    contacts: list[Contact] = field(factory=list)
    events: list[SecurityEvent] = field(factory=list)
    logs: list[Mapping[str, Any]] = field(factory=list)
    source: AmiSource = field(init=False)

    def take(self, events: Sequence[SecurityEvent], _now: float) -> None:
        """Be the source's sink."""
        self.events += events


@contextlib.contextmanager
def quick(monkeypatch: pytest.MonkeyPatch, every: float = 60.0, within: float = 10.0) -> Iterator[None]:
    """Wait less than is waited for a real Asterisk."""
    with monkeypatch.context() as patch:
        patch.setattr(rosters_of, "EVERY", every)
        patch.setattr(rosters_of, "LOOK_AGAIN", 0.0)
        patch.setattr(rosters_of, "ANSWER_WITHIN", within)
        yield


async def until(true: Callable[[], object]) -> None:
    """Wait for something to become true."""
    while not true():  # noqa: ASYNC110 - what is waited for knows of no event
        await asyncio.sleep(0.005)


async def listen(port: int, told: Told, then: Callable[[], Awaitable[object]]) -> Told:
    """Have a source listen while ``then`` runs."""
    with capture_logs() as logs:
        target = AmiTarget("pbx", HOST, port, "ringfence", Secret(SECRET))
        told.source = AmiSource(
            target,
            told.take,
            Backoff(0.01, 0.02),
            roster=told.rosters.append,
            contact=told.contacts.append,
        )
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(told.source.run())
            await then()
            task.cancel()
    told.logs += logs
    return told


def told_by(script: Script, rounds: int = 1) -> tuple[Told, AmiServer]:
    """Give what a source told after so many rosters from a server of ours."""

    async def main() -> tuple[Told, AmiServer]:
        told = Told()
        async with AmiServer(script) as server:

            async def then() -> None:
                await until(lambda: len(told.rosters) >= rounds)
                assert told.source.rostered.is_set()

            return await listen(server.port, told, then), server

    return asyncio.run(main())


def asked(server: AmiServer) -> list[str]:
    """Give the actions that a server was sent, but for those of every connection."""
    return [action for action in server.actions if action not in ("Challenge", "Login", "Ping")]


def test_phones_and_trunks_are_asked_for_at_once() -> None:
    """After the login, before the first ping, in few words: what may be asked, and then each list once."""
    told, server = told_by(Script(play=[GRANTED], lists=LISTS))

    assert told.rosters == [Roster("pbx", contacts=(ALICE, DAVE), trunks=(CARRIER,))]
    assert told.source.lacks == ()
    assert asked(server) == ["ListCommands", "DBGetTree", "SIPpeers", "PJSIPShowRegistrationsOutbound"]


def test_phones_and_trunks_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round asks what may be asked too: modules come and go."""
    with quick(monkeypatch, every=0.01):
        told, server = told_by(Script(play=[GRANTED], lists=LISTS), rounds=3)

    assert told.rosters[1:3] == [told.rosters[0]] * 2
    assert asked(server).count("ListCommands") >= 3
    assert rosters_of.EVERY == 60.0


@pytest.mark.parametrize(
    ("events", "looks"), [([0, 49], 1), ([0, 50, 50, 120, 130, 131], 3), ([*range(0, 90_000, 300)], 120)]
)
def test_a_round_waits_while_an_attack_is_told(
    monkeypatch: pytest.MonkeyPatch, events: list[int], looks: int
) -> None:
    """Where many events come there is no time for lists, but for ever the round does not wait."""
    monkeypatch.setattr(rosters_of, "LOOK_AGAIN", 0.0)
    left = iter(events)
    asked: list[int] = []

    def so_far() -> int:
        asked.append(next(left))
        return asked[-1]

    asyncio.run(rosters_of.calm(so_far))

    assert len(asked) == 2 * looks


def test_a_trunks_password_is_nowhere() -> None:
    """What Asterisk tells of a registration's password is in no roster, log or event, and in no object."""
    told, _ = told_by(Script(play=[GRANTED], lists=LISTS))

    assert "trunk-secret" not in repr((told.rosters, told.contacts, told.events, told.logs))
    headers = [one for one in gc.get_objects() if isinstance(one, dict) and one.get("Event") == "AuthDetail"]
    assert headers == []


def test_nobody_is_not_the_same_as_not_known() -> None:
    """An Asterisk without phones has an empty roster; one that may not be asked has none, and says why."""
    empty, _ = told_by(Script(play=[GRANTED]))
    refused, server = told_by(Script(play=[GRANTED], lists={}))

    assert empty.rosters == [Roster("pbx", contacts=(), trunks=())]
    lack = "phones and trunks cannot be asked for: add reporting to `write =` of [ringfence] in manager.conf"
    assert refused.rosters == [Roster("pbx", contacts=None, trunks=None, lacks=(lack,))]
    assert refused.source.lacks == (lack,)
    assert asked(server) == ["ListCommands"]


def test_what_is_lacking_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that listens says what it does not know beside its state, where `status` shows it."""
    monkeypatch.setattr(ami, "PING_EVERY", 0.05)

    async def main() -> Told:
        told = Told()
        async with AmiServer(Script(play=[GRANTED], lists={})) as server:

            async def then() -> None:
                await until(lambda: "write" in told.source.condition.detail)

            return await listen(server.port, told, then)

    condition = asyncio.run(main()).source.condition

    assert condition.state is State.LISTENING
    assert condition.detail.startswith(
        "manager interface 11.0.0; phones and trunks cannot be asked for: add "
    )


def test_a_list_of_nobody_may_be_an_error() -> None:
    """PJSIPShowContacts answers so where no phone is registered."""
    none = b"Response: Error\r\nActionID: {ActionID}\r\nMessage: No Contacts found\r\n\r\n"
    lists: dict[str, list[bytes]] = {"PJSIPShowContacts": []}
    told, _ = told_by(Script(play=[GRANTED], lists=lists, answers={"PJSIPShowContacts": none}))

    assert told.rosters == [Roster("pbx", contacts=(), trunks=())]


@pytest.mark.parametrize(
    ("answer", "lack"),
    [
        (
            b"Response: Error\r\nActionID: {ActionID}\r\nMessage: No\x1b luck\r\n\r\n",
            r"SIPpeers is refused (No\x1b luck)",
        ),
        (b"Response: Success\r\nActionID: {ActionID}\r\n\r\n", "SIPpeers was not answered in 0 s"),
        (b"Response: Success\r\nActionID: another\r\n\r\n", "SIPpeers was not answered in 0 s"),
    ],
)
def test_a_list_that_does_not_come_is_not_empty(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, lack: str
) -> None:
    """Then nobody is said to be away: the phones that are known are told one by one, and why is said once."""
    script = Script(play=[GRANTED], lists=LISTS, answers={"SIPpeers": answer})
    with quick(monkeypatch, every=0.01, within=0.3):
        told, _ = told_by(script, rounds=2)

    assert told.rosters[:2] == [Roster("pbx", contacts=None, trunks=(CARRIER,), lacks=(lack,))] * 2
    assert told.contacts[0] == ALICE
    logged = [entry for entry in told.logs if entry["event"] == "source.roster"]
    assert [entry["lacks"] for entry in logged] == [lack]


def test_trunks_that_are_not_told_are_not_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of trunks that does not come leaves those that are known, and the phones are told."""
    answers = {"PJSIPShowRegistrationsOutbound": b"Response: Error\r\nActionID: {ActionID}\r\n\r\n"}
    told, _ = told_by(Script(play=[GRANTED], lists=LISTS, answers=answers))

    lack = "PJSIPShowRegistrationsOutbound is refused (no reason given)"
    assert told.rosters == [Roster("pbx", contacts=(ALICE, DAVE), trunks=None, lacks=(lack,))]


def test_an_asterisk_that_does_not_say_what_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer to the first question nothing else is asked, and the source goes on."""
    answers = {"ListCommands": b"Event: x\r\n\r\n"}
    with quick(monkeypatch, within=0.1):
        told, server = told_by(Script(play=[GRANTED], lists=LISTS, answers=answers))

    lack = "ListCommands was not answered in 0 s"
    assert told.rosters == [Roster("pbx", contacts=None, trunks=None, lacks=(lack,))]
    assert asked(server) == ["ListCommands"]


def test_a_list_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries than a PBX has are not kept: the list counts as not known, and that is said."""
    monkeypatch.setattr(rosters_of, "MOST_ENTRIES", 10)
    many = [entry(rosters.SIP_PEER, ObjectName=str(number)) for number in range(11)]
    told, _ = told_by(Script(play=[GRANTED], lists=LISTS | {"SIPpeers": many}))

    assert told.source.lacks == ("SIPpeers lists more than 10 entries",)
    assert told.rosters[0].contacts is None


def test_an_old_asterisk_lists_no_contacts_of_pjsip() -> None:
    """What it lists is told one by one, and that phones of PJSIP are not known is said."""
    lists = {name: LISTS[name] for name in ("SIPpeers", "PJSIPShowRegistrationsOutbound")}
    told, _ = told_by(Script(play=[GRANTED], lists=lists))

    (roster,) = told.rosters
    assert (roster.contacts, roster.trunks) == (None, (CARRIER,))
    assert roster.lacks[0].startswith("this Asterisk does not list PJSIP's contacts")
    assert told.contacts == [DAVE]


def test_an_entry_for_somebody_else_is_not_ours() -> None:
    """Entries without our ActionID, as a sender could write them, are in no roster."""
    stranger = entry(rosters.TREE).replace(b"198.18.1.10", b"203.0.113.9")
    forged = stranger + b"\r\nActionID: action/1\r\n\r\n" + stranger + b"\r\n\r\n"
    told, _ = told_by(Script(play=[GRANTED, forged], lists=LISTS), rounds=1)

    assert told.rosters == [Roster("pbx", contacts=(ALICE, DAVE), trunks=(CARRIER,))]


def test_changes_are_told_as_they_come() -> None:
    """A phone that answers is told at once, and is in the next roster though no list has it."""

    async def main() -> Told:
        told = Told()
        async with AmiServer(Script(play=[GRANTED])) as server:

            async def then() -> None:
                await until(lambda: told.rosters)
                await server.say(packet(rosters.CONTACT_STATUS) + b"\r\n\r\n")
                await until(lambda: told.contacts)
                await server.say(BOOTED)
                await until(lambda: len(told.rosters) == 2)

            return await listen(server.port, told, then)

    told = asyncio.run(main())

    assert told.contacts == [CAROL]
    assert [roster.contacts for roster in told.rosters] == [(), (CAROL,)]


def test_what_was_told_before_is_forgotten_with_its_connection() -> None:
    """Nobody knows what changed between two connections: the second begins anew."""

    async def main() -> Told:
        told = Told()
        async with AmiServer(Script(play=[GRANTED, packet(rosters.CONTACT_STATUS) + b"\r\n\r\n"])) as server:

            async def then() -> None:
                await until(lambda: told.contacts and told.rosters)
                server.script = Script(play=[GRANTED])
                before = len(told.rosters)
                await server.hang_up()
                await until(lambda: len(told.rosters) > before)

            return await listen(server.port, told, then)

    assert asyncio.run(main()).rosters[-1] == Roster("pbx", contacts=(), trunks=())


def test_without_the_class_system_changes_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that reads no events of that class does not know who has gone, and is told the mend."""
    with quick(monkeypatch, every=0.01):
        told, _ = told_by(Script(play=[GRANTED], lists=LISTS, booted=False), rounds=2)

    lack = "phones that come and go are not told: add system to `read =` of [ringfence] in manager.conf"
    assert told.source.lacks == (lack,)
    assert told.rosters[:2] == [
        Roster("pbx", contacts=None, trunks=(CARRIER,)),
        Roster("pbx", contacts=None, trunks=(CARRIER,), lacks=(lack,)),
    ]
    assert told.contacts[:2] == [ALICE, DAVE]


def test_before_asterisk_has_booted_nobody_is_away() -> None:
    """What is not loaded yet lists nobody; once it is, the phones are asked for at once."""

    async def main() -> Told:
        told = Told()
        async with AmiServer(Script(play=[GRANTED], booted=False)) as server:

            async def then() -> None:
                await until(lambda: told.rosters)
                server.script = Script(lists=LISTS)
                await server.say(BOOTED)
                await until(lambda: len(told.rosters) == 2)

            return await listen(server.port, told, then)

    told = asyncio.run(main())

    assert told.rosters == [
        Roster("pbx", contacts=None, trunks=None),
        Roster("pbx", contacts=(ALICE, DAVE), trunks=(CARRIER,)),
    ]
    assert [entry for entry in told.logs if entry["event"] == "source.roster"] == []


def test_where_there_is_no_connection_there_will_be_no_roster() -> None:
    """Who waits for a roster does not wait for an Asterisk that refuses."""

    async def main() -> Told:
        told = Told()
        async with AmiServer(Script(fault=Fault.REFUSES)) as server:

            async def then() -> None:
                await told.source.rostered.wait()

            return await listen(server.port, told, then)

    told = asyncio.run(main())

    assert told.source.condition.state is State.LOGIN_REFUSED
    assert told.rosters == []


def test_a_connection_that_ends_in_the_middle_of_a_list() -> None:
    """The round ends with it, and the next connection begins its own."""
    half = b"Response: Success\r\nActionID: {ActionID}\r\n\r\n" + entry(rosters.TREE)[:-9]

    async def main() -> Told:
        told = Told()
        async with AmiServer(Script(play=[GRANTED], lists=LISTS, answers={"DBGetTree": half})) as server:

            async def then() -> None:
                await until(lambda: "DBGetTree" in server.actions)
                server.script = Script(play=[GRANTED], lists=LISTS)
                await server.hang_up()
                await until(lambda: told.rosters)

            return await listen(server.port, told, then)

    assert asyncio.run(main()).rosters == [Roster("pbx", contacts=(ALICE, DAVE), trunks=(CARRIER,))]


def test_each_source_has_a_token_of_its_own() -> None:
    """Nobody can guess it, and it is long enough that nobody will."""
    tokens = {rosters_of.RosterTalk("pbx", "ringfence").token for _ in range(100)}

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
    """Be a phone that answers OPTIONS, as phones do."""
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
    """Have a phone answer at 198.18.1.13, on the ports of both drivers."""
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
async def _listening(username: str, secret: str) -> AsyncIterator[Told]:
    """Listen to a real Asterisk meanwhile."""
    told = Told()
    target = AmiTarget("pbx", HOST, MANAGER_PORT, username, Secret(secret))
    told.source = AmiSource(target, told.take, roster=told.rosters.append, contact=told.contacts.append)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(told.source.run())
        yield told
        task.cancel()


async def _tell(lab: Lab) -> tuple[Told, Told]:
    """Listen as a user with the rights and as one without, while phones begin to answer."""
    async with _listening("weak", "weak") as weak, _listening(MANAGER_USER, SECRET) as told:
        await until(lambda: told.rosters and weak.rosters)
        with _phones(lab):
            await until(lambda: any(contact.reachable for contact in told.contacts))
            answering = {contact.account for contact in told.contacts if contact.reachable}
            await until(lambda: answering <= {one.account for one in told.rosters[-1].contacts or ()})
    return told, weak


@pytest.mark.asterisk
@pytest.mark.parametrize("release", sorted(RELEASES))
def test_a_real_asterisk_tells_of_its_phones_and_trunks(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who registers, who answers, where this PBX registers: all is known, and no question is refused."""
    chan_sip = RELEASES[release] is Kind.CHAN_SIP
    extra = {"pjsip.conf": _PJSIP, "manager.conf": _WEAK} | ({"sip.conf": _SIP} if chan_sip else {})
    monkeypatch.setattr(rosters_of, "EVERY", 0.5)
    monkeypatch.setattr(rosters_of, "LOOK_AGAIN", 0.0)
    with Lab.made(release, extra) as lab:
        port = 5080 if chan_sip else 5060
        lab.attack("register", "--target", f"198.18.0.1:{port}", "--sources", "198.18.1.10")
        with inside(lab.network.pbx):
            told, weak = asyncio.run(_tell(lab))
        log = (lab.asterisk.logs / "ringfence").read_text("utf-8", "replace")

    first, last = told.rosters[0], told.rosters[-1]
    assert first.contacts is not None
    alice = next(contact for contact in first.contacts if contact.account == "alice")
    assert (alice.address, alice.reachable) == (ip_address("198.18.1.10"), False)
    assert alice.until is not None
    answering = [contact for contact in last.contacts or () if contact.reachable]
    assert {contact.address for contact in answering} == {ip_address("198.18.1.13")}
    hosts = {(trunk.host, trunk.service) for trunk in last.trunks or ()}
    wanted = {("198.18.1.77", Service.PJSIP), *([("198.18.1.66", Service.SIP)] if chan_sip else [])}
    assert hosts == wanted
    assert told.source.lacks == ()
    assert [lack for lack in weak.source.lacks if "reporting" in lack] != []
    assert (weak.rosters[0].contacts, weak.rosters[0].trunks) == (None, None)
    assert 'SecurityEvent="SuccessfulAuth"' in log
    assert 'SecurityEvent="Request' not in log
    assert "trunk-secret" not in repr((told.rosters, told.contacts, told.events))


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
    """Give lines as the user of a SIP URI, percent-encoded."""
    return quote("\r\n".join(lines), safe="/,.")


async def _told_of_names(lab: Lab, names: Sequence[str], ports: Sequence[int]) -> Told:
    """Listen while guesses with those names are made."""
    async with _listening(MANAGER_USER, SECRET) as told:
        await until(lambda: told.rosters)
        for name in names:
            for port in ports:
                target = f"198.18.0.1:{port}"
                await asyncio.to_thread(lab.attack, "guess", "--account", name, "--target", target)
        wanted = len(names) * len(ports)
        await until(lambda: sum(event.tampered for event in told.events) >= 2 * wanted)
        before = len(told.rosters)
        await until(lambda: len(told.rosters) > before)
    return told


@pytest.mark.asterisk
@pytest.mark.parametrize("release", sorted(RELEASES))
def test_no_name_that_is_sent_to_a_real_asterisk_invents_a_phone(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events within a name, behind a forged end of its own event or none, are its sender's text."""
    monkeypatch.setattr(rosters_of, "EVERY", 0.5)
    monkeypatch.setattr(rosters_of, "LOOK_AGAIN", 0.0)
    names = [_name("x", "", *_FORGED), _name(*_EMPTY_TAIL, *_FORGED), _name(*_TAIL, *_FORGED[:4])]
    ports = [5060, 5080] if RELEASES[release] is Kind.CHAN_SIP else [5060]
    with Lab.made(release) as lab, inside(lab.network.pbx):
        told = asyncio.run(_told_of_names(lab, names, ports))

    assert told.contacts == []
    assert {roster.contacts for roster in told.rosters} == {()}
    assert {event.remote.address for event in told.events} == {ip_address("198.18.1.1")}


async def _restart(lab: Lab) -> tuple[Told, int]:
    """Listen while Asterisk is stopped and started; give how many rosters there were before that."""
    async with _listening(MANAGER_USER, SECRET) as told:
        await until(lambda: told.rosters)
        before = len(told.rosters)
        await asyncio.to_thread(lab.asterisk.stop)
        await asyncio.to_thread(lab.asterisk.start)
        await until(lambda: told.rosters[before:] and told.rosters[-1].contacts is not None)
    return told, before


@pytest.mark.asterisk
@pytest.mark.parametrize("release", sorted(RELEASES))
def test_a_restart_of_a_real_asterisk_takes_no_phone_away(release: str) -> None:
    """While it boots its lists are not whole, and are not taken for it; then the phones are there again."""
    port = 5080 if RELEASES[release] is Kind.CHAN_SIP else 5060
    with Lab.made(release) as lab:
        lab.attack("register", "--target", f"198.18.0.1:{port}", "--sources", "198.18.1.10")
        with inside(lab.network.pbx):
            told, before = asyncio.run(_restart(lab))

    assert not any(contact.gone for contact in told.contacts)
    assert () not in {roster.contacts for roster in told.rosters}
    assert told.rosters[-1].contacts == told.rosters[before - 1].contacts
