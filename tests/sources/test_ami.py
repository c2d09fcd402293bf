"""One Asterisk's manager interface, well-behaved or not: the events and states of the source."""

import asyncio
import gc
import logging
import os
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from hashlib import md5
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, evolve, field
from structlog.testing import capture_logs
from tests.parse.packets import packet
from tests.support import amiserver
from tests.support.amiserver import BANNER, HOST, AmiServer, Fault, Script
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, Kind
from tests.support.captures import Capture, capture
from tests.support.certificate import certificate_in
from tests.support.daemon import GRANTED
from tests.support.lab import Lab
from tests.support.netns import inside
from tests.support.network import PBX_IPV4

from ringfence.clock import Backoff
from ringfence.detect.sessions import Senders
from ringfence.parse import ami as parse_ami
from ringfence.parse import ami_http
from ringfence.sources import ami
from ringfence.sources.ami import AmiSource, AmiTarget, AmiTls
from ringfence.sources.state import Condition, EndError, State
from ringfence.values.event import EventKind, SecurityEvent, Service
from ringfence.values.secret import Secret

if TYPE_CHECKING:
    from ringfence.sources.standby import Period

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


LONG_LINE = 24 * 2**20


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a hundredth of the time for a real Asterisk, and send a line of less than a hundred megabytes."""
    monkeypatch.setattr(ami, "PING_EVERY", 0.05)
    monkeypatch.setattr(ami, "PROVE_WITHIN", 2.0)
    monkeypatch.setattr(amiserver, "_LONG_LINE", LONG_LINE)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and its self-signed certificate for 127.0.0.1."""
    return certificate_in(tmp_path_factory.mktemp("tls"))


async def until(true: Callable[[], object]) -> None:
    """Wait until ``true`` returns a true value."""
    while not true():  # noqa: ASYNC110 - what is waited for knows of no event
        await asyncio.sleep(0.005)


@define
class Recorder:
    """A running source, the events that it passed on, and its log."""

    logs: Sequence[Any]
    source: AmiSource = field(init=False)
    events: list[SecurityEvent] = field(factory=list)
    times: list[float] = field(factory=list)

    def sink(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Record events, as the source's sink."""
        self.events += events
        self.times.append(now)

    @property
    def states(self) -> list[str]:
        """The changes of state that were logged."""
        return [entry["state"] for entry in self.logs if entry["event"] == "source.state"]

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until ``true`` returns a true value."""
        await until(true)

    async def until_state(self, state: State) -> None:
        """Wait until the source is in that state."""
        await self.until(lambda: self.source.condition.state is state)


Then = Callable[[Recorder], Coroutine[Any, Any, None]]


async def listen(
    target: AmiTarget,
    then: Then,
    backoff: Backoff | None = None,
    foreign_user: Callable[[int], str] | None = None,
) -> Recorder:
    """Run a source on ``target`` while ``then`` runs; no resource of it may be left."""
    with capture_logs() as logs:
        pauses = backoff if backoff is not None else Backoff(0.01, 0.02)
        recorder = Recorder(logs)
        recorder.source = AmiSource(target, recorder.sink, pauses, foreign_user=foreign_user)
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            task = group.create_task(recorder.source.run())
            await then(recorder)
            assert not task.done()
            task.cancel()
    assert [
        task for task in asyncio.all_tasks() if "ringfence/sources" in repr(task.get_stack(limit=1))
    ] == []
    assert SECRET not in repr(logs)
    return recorder


def target_at(port: int, host: str = HOST, tls: AmiTls | None = None) -> AmiTarget:
    """Return the target of a test server."""
    return AmiTarget("pbx", host, port, "ringfence", Secret(SECRET), tls)


def at(state: State) -> Then:
    """Return a function that waits for that state."""

    async def then(recorder: Recorder) -> None:
        await recorder.until_state(state)

    return then


def run_on(
    script: Script,
    then: Then,
    backoff: Backoff | None = None,
    **server: Any,  # noqa: ANN401 - the server's own
) -> tuple[Recorder, AmiServer]:
    """Run a source on a server that follows the script."""

    async def main() -> tuple[Recorder, AmiServer]:
        async with AmiServer(script, **server) as there:
            return await listen(target_at(there.port), then, backoff), there

    result = asyncio.run(main())
    gc.collect()  # a forgotten socket or future warns, and a warning is an error
    return result


@asynccontextmanager
async def raw(converse: Converse, host: str = HOST, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections with ``converse``, and yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close()
        await asyncio.sleep(0.05)


def run_on_raw(converse: Converse, then: Then) -> Recorder:
    """Run a source on a server with this behaviour."""

    async def main() -> Recorder:
        async with raw(converse) as port:
            return await listen(target_at(port), then)

    return asyncio.run(main())


# -- events -----------------------------------------------------------------------------------------------


def test_a_source_that_listens() -> None:
    """Logged in by MD5, with an event that proves the class: the state shows it, once in the log."""
    recorder, server = run_on(Script(play=[GRANTED]), at(State.LISTENING))

    assert recorder.source.condition == Condition(State.LISTENING, "manager interface 11.0.0")
    assert recorder.source.version == "11.0.0"
    assert recorder.source.settled.is_set()
    assert server.actions[:2] == ["Challenge", "Login"]
    assert recorder.logs == [
        {
            "event": "source.state",
            "log_level": "info",
            "source": "pbx/ami",
            "state": "listening",
            "detail": "manager interface 11.0.0",
        }
    ]


CAPTURES = [
    capture("asterisk-22", "wrong-password-register"),
    capture("asterisk-22", "unknown-account-invite"),
    capture("asterisk-22", "user-carries-crlf-event"),
    capture("asterisk-22", "call-id-forges-address"),
    capture("asterisk-22", "good-register"),
    capture("asterisk-16", "chan-sip-wrong-password"),
    capture("hostile-22", "two-authorizations"),
]


@pytest.mark.parametrize("chunk", [-1, 0, 31])
@pytest.mark.parametrize("recorded", CAPTURES, ids=str)
def test_a_recording_becomes_its_attempts(
    recorded: Capture, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any split of the bytes, the events combine into the attempts that were made."""
    monkeypatch.setattr(parse_ami, "HOLD", 1.0)  # on a busy machine the next piece comes late

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: recorder.events and recorder.events[-1].service is Service.AMI)

    recorder, _ = run_on(Script(play=[recorded.ami.read_bytes(), GRANTED], chunk=chunk), then)
    senders = Senders()
    attempts = [senders.report(event, 0.0) for event in recorder.events]

    assert sum(attempt is not None for attempt in attempts) == recorded.attempts
    assert {attempt.address for attempt in attempts if attempt is not None} <= {recorded.source}
    assert {str(event.source) for event in recorder.events} == {"pbx/ami"}
    assert recorder.source.counts.events == len(recorder.events)


def test_events_have_the_loops_time() -> None:
    """The sink gets monotonic time, so that windows can count with it."""

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: recorder.times)
        assert 0 <= asyncio.get_running_loop().time() - recorder.times[0] < 5

    run_on(Script(play=[GRANTED]), then)


def test_the_sources_own_login_is_not_passed_on() -> None:
    """An AMI event from this connection's own address and port proves the class and is not passed on."""

    async def main() -> Recorder:
        async with AmiServer(Script()) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until(lambda: server._listeners)
                [writer] = server._listeners
                port = writer.get_extra_info("peername")[1]
                await server.send(GRANTED.replace(b"/51108", b"/%d" % port))
                await recorder.until_state(State.LISTENING)
                failed = GRANTED.replace(b"SuccessfulAuth", b"ChallengeSent").replace(
                    b"UsingPassword: 0", b"Challenge: 1"
                )
                await server.send(failed.replace(b"/51108", b"/%d" % port))
                await server.send(GRANTED)
                await recorder.until(lambda: recorder.events)

            return await listen(target_at(server.port), then)

    recorder = asyncio.run(main())

    assert [(event.kind, event.remote.port) for event in recorder.events] == [
        (EventKind.SUCCESSFUL_AUTH, 51108)
    ]


@pytest.mark.asterisk
def test_the_addresses_of_a_real_asterisk(each_asterisk: Lab) -> None:
    """Behind loopback, Asterisk has no other address than this host's; then its events name one."""

    async def then(recorder: Recorder) -> None:
        assert recorder.source.addresses is None
        await recorder.until(lambda: recorder.source.addresses == frozenset())
        target = f"{PBX_IPV4}:{5060 if each_asterisk.asterisk.kind is Kind.PJSIP else 5080}"
        await asyncio.to_thread(each_asterisk.attack, "guess", "--number", "1", "--target", target)
        await recorder.until(lambda: recorder.source.addresses == frozenset({ip_address(PBX_IPV4)}))

    with inside(each_asterisk.network.pbx):
        asyncio.run(listen(target_at(MANAGER_PORT), then))


def test_the_address_of_a_container_behind_a_published_port() -> None:
    """The login's own event names it, and it stays until the next connection's first event."""
    inner = GRANTED.replace(b"LocalAddress: IPV4/TCP/127.0.0.1/", b"LocalAddress: IPV4/TCP/172.17.0.2/")
    moved = inner.replace(b"172.17.0.2", b"172.17.0.3")
    first, second = frozenset({ip_address("172.17.0.2")}), frozenset({ip_address("172.17.0.3")})
    found: list[frozenset[object] | None] = []

    async def main() -> None:
        async with AmiServer(Script()) as server:

            async def then(recorder: Recorder) -> None:
                source = recorder.source
                await recorder.until(lambda: server._listeners)
                found.append(source.addresses)
                await server.send(inner)
                await recorder.until(lambda: source.addresses)
                found.append(source.addresses)
                [writer] = server._listeners
                writer.close()
                await recorder.until(lambda: server._listeners and writer not in server._listeners)
                found.append(source.addresses)
                await server.send(moved)
                await recorder.until(lambda: source.addresses not in (None, first))
                found.append(source.addresses)

            await listen(target_at(server.port), then)

    asyncio.run(main())
    assert found == [None, first, first, second]


def test_the_address_to_which_ami_connects_is_asterisks() -> None:
    """It is known before the first connection, unless it is a name or loopback."""
    hosts = ("172.17.0.2", "::ffff:172.17.0.2", "fd00:9::2", "127.0.0.1", "::1", "pbx.example")
    found = [AmiSource(target_at(5038, host), lambda _events, _now: None).addresses for host in hosts]
    near, six = frozenset({ip_address("172.17.0.2")}), frozenset({ip_address("fd00:9::2")})
    assert found == [near, near, six, None, None, None]


def test_counts_are_summed_over_connections() -> None:
    """The counters are summed over every connection since the start."""

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: recorder.source.counts.events >= 3)

    recorder, server = run_on(Script(play=[GRANTED], hang_up=True), then)

    assert server.connections >= 3
    assert recorder.source.counts.events == len(recorder.events)


# -- logins -----------------------------------------------------------------------------------------------


def refuser(challenge: str, received: bytearray, login: str = "Response: Success") -> Converse:
    """Answer the question for a challenge with ``challenge``, any login with ``login``; record every byte."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER)
        unanswered = b""
        while data := await reader.read(65536):
            received.extend(data)
            unanswered += data
            while b"\r\n\r\n" in unanswered:
                request, _, unanswered = unanswered.partition(b"\r\n\r\n")
                action_id = next(line for line in request.split(b"\r\n") if line.startswith(b"ActionID"))
                answer = challenge if b"Action: Challenge" in request else login
                writer.write(answer.encode() + b"\r\n" + action_id + b"\r\n\r\n" + GRANTED)

    return converse


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "challenge",
    [
        "Response: Error\r\nMessage: Must specify AuthType",
        "Response: Error\r\nChallenge: 123456789",
        "Response: Success",
        "Response: Success\r\nChallenge: ",
        "Response: Success\r\nChallenge: abc",
        "Response: Success\r\nChallenge: 12345678901",
        "Response: Success\r\nChallenge: \N{ARABIC-INDIC DIGIT ONE}",
        "Response: Success\r\nEventList: start",
    ],
)
def test_a_server_without_the_challenge_gets_no_secret(
    certificate: Path, caplog: pytest.LogCaptureFixture, challenge: str, *, tls: bool
) -> None:
    """A server that refuses MD5 receives neither the secret nor a login, and the state names the fix."""
    received = bytearray()

    async def main() -> Recorder:
        context = served(certificate) if tls else None
        async with raw(refuser(challenge, received), tls=context) as port:
            trust = AmiTls(certificate) if tls else None
            return await listen(target_at(port, tls=trust), at(State.NO_CHALLENGE))

    with everything_logged(caplog):
        recorder = asyncio.run(main())

    assert b"Action: Challenge" in received
    assert b"Login" not in received
    assert SECRET.encode() not in received
    assert SECRET not in caplog.text + str(recorder.source.condition) + repr(recorder.source._target)
    assert "the secret was not sent; fix: see which program listens there (ss " in recorder.logs[0]["detail"]


def test_a_login_sends_a_digest_in_place_of_the_secret() -> None:
    """If the server offers the challenge, the login holds the digest of it and of the secret."""
    received = bytearray()
    converse = refuser("Response: Success\r\nChallenge: 123456789", received)
    run_on_raw(converse, at(State.LISTENING))

    digest = md5(f"123456789{SECRET}".encode(), usedforsecurity=False).hexdigest()
    assert f"Key: {digest}\r\n".encode() in received
    assert SECRET.encode() not in received


def test_a_program_of_a_user_that_does_not_run_asterisk_gets_no_login() -> None:
    """While Asterisk is down, any user may listen on its port: nothing is sent there, and no event counts."""
    asked: set[int] = set()
    received = bytearray()

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER + packet())
        received.extend(await reader.read())

    def foreign_user(user: int) -> str:
        asked.add(user)
        return "mallory (1001)"

    async def main() -> Recorder:
        async with raw(impostor) as port:
            return await listen(target_at(port), at(State.FOREIGN_USER), foreign_user=foreign_user)

    recorder = asyncio.run(main())

    assert asked == {os.geteuid()}
    assert received == b""
    assert recorder.events == []
    assert " runs as the user mallory (1001), but Asterisk " in recorder.source.condition.detail
    assert "(ss -ltnp 'sport = :" in recorder.source.condition.detail
    assert "add its user to server_users in [asterisk.ami]" in recorder.source.condition.detail


@pytest.mark.parametrize("why", ["user", "unknown", "certificate"])
def test_a_program_that_may_be_asterisk_gets_the_login(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Its user may run Asterisk, or is unknown (it is elsewhere), or its certificate is verified."""
    tls = AmiTls(certificate) if why == "certificate" else None
    name = "" if why == "user" else "mallory (1001)"
    if why == "unknown":
        monkeypatch.setattr(ami, "peer_user", lambda *_: None)

    async def main() -> Recorder:
        async with AmiServer(Script(play=[GRANTED]), certificate=certificate if tls else None) as server:
            target = target_at(server.port, tls=tls)
            return await listen(target, at(State.LISTENING), foreign_user=lambda _: name)

    assert asyncio.run(main()).states == ["listening"]


def test_events_before_the_login_do_not_count() -> None:
    """No Asterisk sends any, but a program in its place could, before its user is known."""
    early = packet().decode() + "Response: Success\r\nChallenge: 123456789"
    recorder = run_on_raw(refuser(early, bytearray()), at(State.LISTENING))

    assert {event.kind for event in recorder.events} == {EventKind.SUCCESSFUL_AUTH}


def test_a_refused_login() -> None:
    """A wrong secret is a state with the PBX's own words, tried again, logged once.

    No guard bans its own host, so the usual pauses follow: a corrected manager.conf counts within seconds.
    """

    async def main() -> tuple[Recorder, int]:
        async with AmiServer(Script(fault=Fault.REFUSES)) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until(lambda: server.connections > 3)

            return await listen(target_at(server.port), then), server.port

    recorder, port = asyncio.run(main())

    assert recorder.source.condition == Condition(
        State.LOGIN_REFUSED,
        f'127.0.0.1:{port} refuses "ringfence" (Authentication failed); compare with manager.conf',
    )
    assert recorder.states == ["login refused"]


def test_a_login_that_another_host_refuses_waits_for_minutes_or_for_a_reload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The usual pauses do not follow a wrong login there; after a reload, the source logs in at once."""
    monkeypatch.setattr(ami, "_outside", lambda _: ip_address("192.0.2.1"))

    async def main() -> None:
        async with AmiServer(Script(fault=Fault.REFUSES)) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until_state(State.LOGIN_REFUSED)
                await asyncio.sleep(0.3)  # many of the usual pauses
                assert server.connections == 1
                assert recorder.source.condition.detail.endswith(
                    "compare with manager.conf, then: ringfence reload (without it, ringfence logs in again "
                    "after 5 minutes, later each hour: a PBX may ban a host whose logins fail)"
                )
                server.script = Script(play=[GRANTED])
                recorder.source.retry()
                await recorder.until_state(State.LISTENING)
                assert server.connections == 2
                assert recorder.source._refusals.next() == ami.REFUSED_PAUSE  # as after the first refusal

            await listen(target_at(server.port), then)

    asyncio.run(main())


def test_a_login_that_is_refused_for_another_reason_is_tried_again_soon() -> None:
    """A session that has not ended yet is no wrong secret, so the usual pauses follow its refusal."""
    received = bytearray()
    refused = "Response: Error\r\nMessage: Login Already In Use"

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: received.count(b"Action: Login") > 2)

    recorder = run_on_raw(refuser("Response: Success\r\nChallenge: 123456789", received, refused), then)

    assert recorder.states == ["login refused"]
    assert recorder.source.condition.detail.endswith(" (Login Already In Use); compare with manager.conf")


class Counted(Backoff):
    """Pauses that are counted."""

    def __init__(self, shortest: float = 0.01, longest: float = 0.02) -> None:
        super().__init__(shortest, longest)
        self.pauses: list[float] = []
        self.resets = 0

    def __len__(self) -> int:
        """The number of pauses."""
        return len(self.pauses)

    def next(self) -> float:
        """Return the next delay."""
        self.pauses.append(super().next())
        return self.pauses[-1]

    def reset(self) -> None:
        """Start again with the shortest delay."""
        self.resets += 1
        super().reset()


CARELESS = AmiTls(verify=False)


def tls_listened(
    certificate: Path, tls: AmiTls, then: Then, script: Script | None = None
) -> tuple[Recorder, AmiServer]:
    """Run a source over TLS."""

    async def main() -> tuple[Recorder, AmiServer]:
        async with AmiServer(script or Script(play=[GRANTED]), certificate=certificate) as server:
            return await listen(target_at(server.port, tls=tls), then), server

    return asyncio.run(main())


def served(certificate: Path) -> ssl.SSLContext:
    """Return the context of a TLS server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def listening_and_checked(recorder: Recorder) -> None:
    """Wait until the source listens and knows whether AMI is served over HTTP."""
    await recorder.until_state(State.LISTENING)
    await recorder.until(recorder.source.http_checked.is_set)


def test_tls(certificate: Path) -> None:
    """Over TLS with a trusted certificate the login is the same, and there is no warning."""
    recorder, server = tls_listened(certificate, AmiTls(certificate), listening_and_checked)

    assert server.actions[:2] == ["Challenge", "Login"]
    assert recorder.states == ["listening"]
    assert recorder.source.weaknesses == ()
    assert [entry["event"] for entry in recorder.logs] == ["source.state"]


def test_tls_without_verification_warns(certificate: Path) -> None:
    """An unverified certificate causes a warning in the log and in the condition that status shows."""
    recorder, server = tls_listened(certificate, CARELESS, listening_and_checked)

    [weakness] = recorder.source.weaknesses
    assert "not verified (tls_verify = false)" in weakness
    assert weakness in recorder.source.condition.detail
    assert [(entry["event"], entry["log_level"]) for entry in recorder.logs] == [
        ("source.weak", "warning"),
        ("source.state", "info"),
    ]
    assert recorder.logs[0]["why"] == weakness
    assert server.actions[:2] == ["Challenge", "Login"]


def test_a_self_signed_certificate_is_refused(certificate: Path) -> None:
    """A self-signed certificate is refused by default, and the state names TLS."""
    recorder, server = tls_listened(certificate, AmiTls(), at(State.TLS_FAILED))

    assert recorder.source.condition == Condition(
        State.TLS_FAILED, f"127.0.0.1:{server.port}: CERTIFICATE_VERIFY_FAILED"
    )
    assert server.actions == []


def test_tls_to_a_plain_port_fails() -> None:
    """A plain manager interface where TLS is expected is a TLS failure."""

    async def main() -> Recorder:
        async with AmiServer(Script(play=[GRANTED])) as server:
            return await listen(target_at(server.port, tls=CARELESS), at(State.TLS_FAILED))

    assert asyncio.run(main()).states == ["tls failed"]


def test_a_renewed_certificate_is_trusted_at_the_next_connection(tmp_path: Path, unused_port: int) -> None:
    """The file of trusted certificates is read for each connection, so its new content needs no restart."""
    target = target_at(unused_port, tls=AmiTls(certificate_in(tmp_path)))

    async def then(recorder: Recorder) -> None:
        for _ in range(2):
            certificate = certificate_in(tmp_path)
            async with AmiServer(Script(play=[GRANTED]), unused_port, certificate):
                await recorder.until_state(State.LISTENING)
            await recorder.until(lambda: recorder.source.condition.state is not State.LISTENING)

    assert asyncio.run(listen(target, then)).states.count("listening") == 2


def test_certificates_that_are_gone_are_a_tls_failure(tmp_path: Path, unused_port: int) -> None:
    """The state names the file of trusted certificates and why it cannot be used."""
    target = target_at(unused_port, tls=AmiTls(tmp_path / "none.pem"))
    recorder = asyncio.run(listen(target, at(State.TLS_FAILED)))

    detail = f"the certificates in {tmp_path}/none.pem cannot be used: No such file or directory"
    assert recorder.source.condition == Condition(State.TLS_FAILED, detail)


def test_only_a_file_has_certificates(tmp_path: Path) -> None:
    """A FIFO in its place, perhaps by Asterisk's user, holds no thread. An empty file trusts nobody."""
    fifo, empty = tmp_path / "fifo", tmp_path / "empty.pem"
    os.mkfifo(fifo)
    empty.touch()
    with pytest.raises(OSError, match="not a regular file"):
        AmiTls(fifo).context()
    with pytest.raises(ssl.SSLError):
        AmiTls(empty).context()


# -- AMI over HTTP ------------------------------------------------------------------------------------------

FAILED = packet(service=b"AMI")
"""A failed login at the AMI port."""


def over_http(value: bytes) -> dict[str, bytes]:
    """Return the reply to CoreSettings with this value."""
    return {
        "CoreSettings": b"Response: Success\r\nActionID: {ActionID}\r\nCoreHTTPenabled: "
        + value
        + b"\r\n\r\n"
    }


def failed_login(
    script: Script, *, when: Callable[[Recorder], object]
) -> tuple[Recorder, AmiServer, SecurityEvent]:
    """Run a source on a PBX with a failed manager login once ``when`` is true; return the event."""

    async def main() -> tuple[Recorder, AmiServer]:
        async with AmiServer(script) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until(lambda: when(recorder))
                await server.send(FAILED)
                await recorder.until(lambda: [event for event in recorder.events if event.kind in ATTEMPTS])
                await recorder.until_state(State.LISTENING)
                await recorder.until(lambda: server.actions.count("Ping") > 1)

            return await listen(target_at(server.port), then), server

    recorder, server = asyncio.run(main())
    [event] = [event for event in recorder.events if event.kind in ATTEMPTS]
    return recorder, server, event


ATTEMPTS = (EventKind.INVALID_ACCOUNT_ID,)


def checked(recorder: Recorder) -> object:
    """Whether the source knows if AMI is served over HTTP."""
    return recorder.source.http_checked.is_set()


def test_a_failed_manager_login_is_trusted_if_http_is_off() -> None:
    """With two replies that AMI over HTTP is off, and a third after the event, it is passed on unmarked."""
    recorder, server, event = failed_login(Script(play=[GRANTED]), when=checked)

    assert not event.forgeable
    assert recorder.source.weaknesses == ()
    assert server.actions.count("CoreSettings") >= 3


@pytest.mark.parametrize("value", [b"Yes", b"", b"no"])
def test_a_failed_manager_login_is_forgeable_unless_http_is_off(value: bytes) -> None:
    """With AMI over HTTP on, or an unknown reply, the event is marked, and the state names the reason."""
    script = Script(play=[GRANTED], answers=over_http(value))
    recorder, _, event = failed_login(script, when=checked)

    assert event.forgeable
    [weakness] = recorder.source.weaknesses
    assert ("webenabled = yes" in weakness) is (value == b"Yes")
    assert "failed manager logins that it reports are listed and cause no ban; fix: " in weakness
    assert weakness in recorder.source.condition.detail


def test_a_user_without_the_right_never_asks() -> None:
    """Without the class ``reporting`` only Ping is sent, because a refusal is a security event."""
    recorder, server, event = failed_login(Script(play=[GRANTED], lists={}), when=checked)

    assert event.forgeable
    assert "CoreSettings" not in server.actions
    assert "write = reporting in [ringfence] of manager.conf" in recorder.source.weaknesses[0]


def test_a_failed_manager_login_before_any_reply_is_forgeable() -> None:
    """Events that come with the login, before Asterisk was asked, are marked."""
    recorder, _ = run_on(Script(play=[FAILED + GRANTED]), at(State.LISTENING))

    assert [(event.kind, event.forgeable) for event in recorder.events] == [
        (EventKind.INVALID_ACCOUNT_ID, True),
        (EventKind.SUCCESSFUL_AUTH, True),
    ]


def test_an_unanswered_question_holds_events_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a peer stops replying, held events are returned in time, marked, also during other waits."""
    monkeypatch.setattr(ami_http, "HOLD_WITHIN", 0.3)
    monkeypatch.setattr(ami, "PING_EVERY", 60.0)
    silent = {"CoreSettings": b""}

    async def main() -> Recorder:
        async with AmiServer(Script(play=[GRANTED])) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until(lambda: checked(recorder))
                server.script = evolve(server.script, answers=silent)
                await server.send(FAILED + packet(service=b"SIP"))
                await recorder.until(lambda: len(recorder.events) >= 3)

            return await listen(target_at(server.port), then)

    assert [event.forgeable for event in asyncio.run(main()).events] == [False, True, True]


# -- failures ---------------------------------------------------------------------------------------------


def test_a_refused_connection_is_a_state(unused_port: int) -> None:
    """A refused connection is a state, tried again and again, logged once."""
    pauses = Counted()

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: len(pauses) >= 5)

    recorder = asyncio.run(listen(target_at(unused_port), then, pauses))

    assert recorder.source.condition.state is State.UNREACHABLE
    assert recorder.states == ["unreachable"]
    assert f"127.0.0.1:{unused_port}" in recorder.source.condition.detail


@pytest.fixture
def unused_port() -> int:
    """Return a port without a listener."""

    async def main() -> int:
        async with raw(nothing) as port:
            return port

    return asyncio.run(main())


async def nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Close at once."""


@pytest.mark.parametrize("host", ["pbx..example", "x" * 300, "pbx.invalid"])
def test_an_unresolvable_host_is_unreachable(host: str) -> None:
    """A name without an address, or an impossible name, is unreachable and no defect."""
    recorder = asyncio.run(listen(target_at(5038, host), at(State.UNREACHABLE)))

    assert recorder.states == ["unreachable"]


def test_a_connection_without_a_handshake_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is not ready in time, here without a TLS handshake, is unreachable."""
    monkeypatch.setattr(ami, "CONNECT_WITHIN", 0.1)

    async def main() -> Recorder:
        async with AmiServer(Script(fault=Fault.SILENT)) as server:
            return await listen(target_at(server.port, tls=CARELESS), at(State.UNREACHABLE))

    assert asyncio.run(main()).source.condition.detail.endswith(" did not answer in 0 s")


def test_a_connection_closed_at_once_is_lost() -> None:
    """A connection that ends before any byte is lost."""
    recorder, _ = run_on(Script(fault=Fault.CLOSES), at(State.LOST))

    assert recorder.source.condition == Condition(State.LOST, "the connection was closed")


@pytest.mark.parametrize("name", ["sockname", "peername"])
def test_a_connection_reset_at_once_is_lost(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A connection that is reset before its addresses are looked up is lost, and no defect of ringfence."""
    connect = ami._Connection.connect

    def reset(manager: ami._Connection) -> Awaitable[object]:
        async def without_address() -> object:
            made = await connect(manager)
            made[0]._extra[name] = None
            return made

        return without_address()

    monkeypatch.setattr(ami._Connection, "connect", reset)
    recorder, server = run_on(Script(fault=Fault.SILENT), at(State.LOST))

    assert recorder.source.condition == Condition(State.LOST, f"{HOST}:{server.port} reset the connection")


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Behave as another service."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a megabyte of random text."""
    writer.write(b"\xff" * 2**20)
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the banner a byte at a time, and never its end."""
    for byte in b"Asterisk Call Manager/" + b"1" * 60:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)
    await reader.read()


@pytest.mark.parametrize("converse", [http, noise])
def test_another_service_is_no_manager_interface(converse: Converse) -> None:
    """A peer without a banner is no manager interface, and receives nothing."""
    recorder = run_on_raw(converse, at(State.NOT_AMI))

    assert recorder.source.condition.detail.endswith(" does not speak as a manager interface")


@pytest.mark.parametrize("how", ["silent", "drip"])
def test_a_missing_banner_is_unresponsive(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Silence, or a banner that never ends, is limited in time."""
    monkeypatch.setattr(ami, "GREET_WITHIN", 0.2)
    if how == "drip":
        recorder = run_on_raw(drip, at(State.UNRESPONSIVE))
    else:
        recorder, _ = run_on(Script(fault=Fault.SILENT), at(State.UNRESPONSIVE))

    assert recorder.source.condition.detail.endswith(" sent no banner in 0 s")


def test_a_ping_without_a_reply_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a peer accepts the login and then sends nothing, the connection is closed and tried again."""
    monkeypatch.setattr(ami, "PING_WITHIN", 0.1)

    async def main() -> tuple[Recorder, int]:
        async with AmiServer(Script(fault=Fault.DEAF, play=[GRANTED])) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until(lambda: "unresponsive" in recorder.states and server.connections >= 2)
                await recorder.until(lambda: len(server._sessions) <= 1)

            return await listen(target_at(server.port), then), server.port

    recorder, port = asyncio.run(main())

    assert recorder.states[:2] == ["listening", "unresponsive"]
    assert recorder.logs[1]["detail"] == f"127.0.0.1:{port} did not answer Ping in 0 s"


def test_a_peer_that_sends_events_stays_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply to a Ping comes after earlier events; while these come the connection stays."""
    monkeypatch.setattr(ami, "PING_WITHIN", 1.5)
    script = Script(fault=Fault.DEAF, play=[GRANTED] * 41, pause=0.05)

    async def main() -> int:
        async with AmiServer(script) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until(lambda: "unresponsive" in recorder.states)

            return len((await listen(target_at(server.port), then)).events)

    assert asyncio.run(main()) == 41


def test_bytes_without_an_event_are_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that replies to no Ping and sends a byte now and then is unresponsive."""
    monkeypatch.setattr(ami, "PING_WITHIN", 0.2)
    script = Script(fault=Fault.DEAF, play=[GRANTED, *[b"x"] * 2000], pause=0.02)
    recorder, _ = run_on(script, at(State.UNRESPONSIVE))

    assert recorder.states == ["listening", "unresponsive"]


def test_the_documented_times(request: pytest.FixtureRequest) -> None:
    """A Ping each 5 s with a limit of 5 s, and pauses from half a second to half a minute.

    After a wrong login at another host they are longer: 5 minutes to an hour.
    """
    request.getfixturevalue("monkeypatch").undo()

    assert (ami.PING_EVERY, ami.PING_WITHIN) == (5.0, 5.0)
    assert (Backoff()._shortest, Backoff()._longest) == (0.5, 30.0)
    assert (ami.REFUSED_PAUSE, ami.MOST_REFUSED_PAUSE) == (300.0, 3_600.0)


def test_a_login_without_a_reply_is_unresponsive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A banner and then silence is unresponsive, and the action is named."""
    monkeypatch.setattr(ami, "LOGIN_WITHIN", 0.1)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER)
        await reader.read()

    recorder = run_on_raw(converse, at(State.UNRESPONSIVE))

    assert recorder.source.condition.detail.endswith(" did not answer Challenge in 0 s")


def test_a_source_without_the_security_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an event of the class the state is `no events`, with the fix; the first event ends it."""
    monkeypatch.setattr(ami, "PROVE_WITHIN", 0.1)

    async def main() -> Recorder:
        async with AmiServer(Script()) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until_state(State.NO_EVENTS)
                assert recorder.source.listening_since is None
                assert recorder.source.logged_in_since is not None  # so its roster of phones counts
                await recorder.until(lambda: server.actions.count("Ping") >= 2)
                await server.send(GRANTED)
                await recorder.until_state(State.LISTENING)

            return await listen(target_at(server.port), then)

    recorder = asyncio.run(main())

    assert recorder.states == ["no events", "listening"]
    assert recorder.logs[0]["detail"].startswith("logged in, but no security events arrive; fix: set read =")


def test_garbage_after_the_login_is_counted() -> None:
    """Noise ends nothing: it is counted, and the event after it is passed on."""
    script = Script(fault=Fault.GARBAGE, play=[b"\r\n\r\n", GRANTED])
    recorder, server = run_on(script, at(State.LISTENING))

    assert (recorder.source.counts.events, recorder.source.counts.garbled) == (1, 1)
    assert server.connections == 1


def test_a_line_of_many_megabytes_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without an end is skipped as it comes, and the event after it is passed on."""
    monkeypatch.setattr(ami, "PING_WITHIN", 60.0)  # a Ping inside the line gets no answer
    tracemalloc.start()
    try:
        script = Script(fault=Fault.LONG_LINE, play=[b"\r\n\r\n", GRANTED])
        recorder, server = run_on(script, at_length)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 8 * 2**20
    assert server.connections == 1
    # Replies of the server stand in the middle of the line, and the packets that they end are garbled.
    assert recorder.source.counts.events == 1
    assert 1 <= recorder.source.counts.garbled <= 3
    assert abs(LONG_LINE - recorder.source.counts.dropped_bytes) < 4096


async def at_length(recorder: Recorder) -> None:
    """Wait for an event."""
    await recorder.until(lambda: recorder.events)


def test_a_garbled_reply_is_the_peers_fault() -> None:
    """A reply with two ids is no manager interface's, and no defect of ours."""
    answer = b"Response: Success\r\nActionID: {ActionID}\r\nActionID: {ActionID}\r\n\r\n"
    recorder, _ = run_on(Script(play=[GRANTED], answers={"Ping": answer}), at(State.NOT_AMI))

    assert recorder.states[-1] == "not ami"
    assert [entry for entry in recorder.logs if entry["log_level"] == "error"] == []


@pytest.mark.parametrize(
    "more", [b"Message: Peer status list will follow", b"EventList: start", b"Event: a\r\nEvent: b"]
)
def test_a_reply_that_promises_more_is_complete(more: bytes) -> None:
    """A reply to a Ping with the beginning of a list is complete: nothing after it is kept."""
    answer = b"Response: Success\r\nActionID: {ActionID}\r\n" + more + b"\r\n\r\n"

    async def main() -> Recorder:
        async with AmiServer(Script(play=[GRANTED], answers={"Ping": answer * 50})) as server:

            async def then(recorder: Recorder) -> None:
                await recorder.until(lambda: server.actions.count("Ping") >= 4)

            return await listen(target_at(server.port), then)

    assert asyncio.run(main()).states == ["listening"]


def test_an_unrequested_reply_is_dropped() -> None:
    """Replies without an action, or to another's, change nothing."""
    stray = b"Response: Error\r\nMessage: x\r\n\r\nResponse: Error\r\nActionID: 5\r\n\r\nResponse: \r\n\r\n"
    recorder, server = run_on(Script(play=[stray, GRANTED]), at(State.LISTENING))

    assert recorder.states == ["listening"]
    assert server.connections == 1


def test_a_sink_that_raises_is_a_defect() -> None:
    """An error in the sink is logged in full, shown as a state, and the source continues."""

    def sink(events: Sequence[SecurityEvent], _now: float) -> None:
        if not caught:
            caught.append(len(events))
            raise KeyError("the detector stumbled")

    caught: list[int] = []

    async def main() -> tuple[AmiSource, list[Any]]:
        with capture_logs() as logs:
            async with asyncio.timeout(20), AmiServer(Script(play=[GRANTED])) as server:
                source = AmiSource(target_at(server.port), sink, Backoff(0.01, 0.02))
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(source.run())
                    await until(lambda: source.condition.state is State.LISTENING)
                    task.cancel()
        return source, list(logs)

    source, logs = asyncio.run(main())

    assert [entry.get("state", entry["event"]) for entry in logs] == ["source.defect", "defect", "listening"]
    assert logs[0]["exc_info"] is True
    assert logs[1]["detail"] == "KeyError; see the log"
    assert source.counts.events == 2


def test_a_lasting_defect_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect at each try is logged in full the first time only."""
    pauses = Counted()

    async def broken(_: AmiSource) -> None:
        raise RuntimeError("of our own making")

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: len(pauses) >= 5)

    monkeypatch.setattr(AmiSource, "_session", broken)
    recorder = asyncio.run(listen(target_at(1), then, pauses))

    assert [entry["event"] for entry in recorder.logs] == ["source.defect", "source.state"]


# -- reconnection -----------------------------------------------------------------------------------------


def test_each_try_waits_its_pause() -> None:
    """Between two connections is one pause of the backoff."""
    pauses = Counted(0.1, 0.1)
    began: list[float] = []

    async def then(recorder: Recorder) -> None:
        began.append(asyncio.get_running_loop().time())
        await recorder.until(lambda: len(pauses) >= 5)
        began.append(asyncio.get_running_loop().time())

    _, server = run_on(Script(fault=Fault.CLOSES), then, pauses)

    assert began[1] - began[0] >= 0.4
    assert server.connections == 5
    assert pauses.resets == 0


def test_a_good_connection_makes_the_next_pause_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a connection that lasted, the backoff starts again."""
    monkeypatch.setattr(AmiSource, "good_after", 0.0)
    pauses = Counted()

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: len(pauses) >= 2)

    run_on(Script(fault=Fault.CLOSES), then, pauses)

    assert pauses.resets >= 2


def test_every_change_is_logged_once() -> None:
    """A PBX that comes, goes and comes again causes one log line for each change."""

    async def main() -> Recorder:
        async with AmiServer(Script(play=[GRANTED])) as server:
            pauses = Counted()

            async def then(recorder: Recorder) -> None:
                await recorder.until_state(State.LISTENING)
                await asyncio.sleep(0.3)
                server.script = Script(fault=Fault.CLOSES)
                await server.hang_up()
                await recorder.until(lambda: len(pauses) >= 5)
                server.script = Script(play=[GRANTED])
                await recorder.until_state(State.LISTENING)

            return await listen(target_at(server.port), then, pauses)

    recorder = asyncio.run(main())

    assert recorder.states == ["listening", "lost", "listening"]
    assert [entry["log_level"] for entry in recorder.logs] == ["info", "warning", "info"]


@contextmanager
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Record every logger of the standard library."""
    with caplog.at_level(logging.DEBUG):
        yield


@pytest.mark.parametrize("fault", [None, *Fault])
def test_the_secret_is_in_no_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    """With any peer, neither our log nor a library's holds the secret or its digest."""
    for name in ("GREET_WITHIN", "PING_WITHIN", "PROVE_WITHIN"):
        monkeypatch.setattr(ami, name, 0.1)
    pauses = Counted()

    async def then(recorder: Recorder) -> None:
        await recorder.source.settled.wait()
        await asyncio.sleep(0.2)

    with everything_logged(caplog):
        recorder, _ = run_on(Script(fault=fault, play=[GRANTED]), then, pauses)

    shown = repr(recorder.logs) + caplog.text + repr(recorder.source._target) + str(recorder.source.condition)
    assert SECRET not in shown
    assert "Key:" not in shown


@pytest.mark.parametrize("fault", [None, Fault.SILENT, Fault.DEAF])
@pytest.mark.parametrize("tls", [False, True])
def test_cancelled_at_any_moment_it_leaves_nothing(fault: Fault | None, *, tls: bool) -> None:
    """Cancelled while it connects, waits or listens, the source leaves no task, socket or connection."""

    async def main(after: float) -> None:
        async with AmiServer(Script(play=[GRANTED], fault=fault)) as server:

            async def then(recorder: Recorder) -> None:
                await asyncio.sleep(after)

            await listen(target_at(server.port, tls=CARELESS if tls else None), then)
            async with asyncio.timeout(5):
                await until(lambda: not server._sessions)

    for after in (0.0, 0.001, 0.005, 0.1):
        asyncio.run(main(after))
        gc.collect()


def test_cancelled_as_the_connection_ends_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that comes together with the connection's end is not lost."""

    async def both(_: AmiSource) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise EndError(State.LOST, "the connection was closed") from None

    async def then(_: Recorder) -> None:
        await asyncio.sleep(0.01)

    monkeypatch.setattr(AmiSource, "_session", both)

    assert asyncio.run(listen(target_at(1), then)).states == ["lost"]


def test_a_connection_that_comes_too_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was abandoned at the moment when it was made does not stay open."""
    waiting = ami._Connection.connect

    def connect(manager: ami._Connection) -> Awaitable[object]:
        async def late() -> object:
            made = await waiting(manager)
            asyncio.get_running_loop().call_soon(made_then_cancelled.set)
            await asyncio.Event().wait()
            return made

        return late()

    made_then_cancelled = asyncio.Event()
    monkeypatch.setattr(ami._Connection, "connect", connect)

    async def main() -> None:
        async with AmiServer(Script(fault=Fault.SILENT)) as server:

            async def then(_: Recorder) -> None:
                await made_then_cancelled.wait()

            await listen(target_at(server.port), then)
            async with asyncio.timeout(5):
                await until(lambda: server.connections and not server._sessions)

    asyncio.run(main())


def test_a_target_shows_no_secret() -> None:
    """The repr of a target, and of a changed one, has the mask."""
    target = evolve(target_at(5038), host="pbx.example")

    assert repr(target) == (
        "AmiTarget(asterisk='pbx', host='pbx.example', port=5038, username='ringfence', "
        "secret=Secret('***'), tls=None)"
    )


def test_coverage_holds_the_first_and_the_last_event() -> None:
    """The first and the last event of a connection, also its own login's; nothing once that has ended."""
    delivered: list[Period] = []

    async def then(recorder: Recorder) -> None:
        coverage = recorder.source.coverage
        for _ in range(2):
            await recorder.until(lambda: coverage.period is not None and coverage.period not in delivered)
            assert coverage.period is not None
            delivered.append(coverage.period)
            await recorder.until(lambda: coverage.period is None)

    later = GRANTED.replace(b"06:05:00.256", b"06:05:01.512")
    run_on(Script(play=[GRANTED, later], pause=0.05, hang_up=True), then)
    login = datetime(2026, 11, 20, 6, 5, 0, 256_000, UTC).timestamp()
    assert [(period.first, period.last) for period in delivered] == [(login, login + 1.256)] * 2
    assert delivered[0].since < delivered[1].since


def test_garbled_bytes_begin_a_new_coverage_period() -> None:
    """They may have been an event, which the log then has: one period ends with them, another begins."""
    later = GRANTED.replace(b"06:05:00.256", b"06:05:01.512")
    periods: list[tuple[float, float]] = []

    async def then(recorder: Recorder) -> None:
        login = datetime(2026, 11, 20, 6, 5, 0, 256_000, UTC).timestamp()
        coverage = recorder.source.coverage
        await recorder.until(lambda: coverage.period is not None and coverage.period.last > login)
        assert coverage.period is not None
        periods.append((coverage.period.first - login, coverage.period.last - login))

    run_on(Script(play=[GRANTED, b"Event: \r\n\r\nnonsense\r\n\r\n", later], pause=0.05), then)
    assert periods == [pytest.approx((1.256, 1.256))]


def test_each_answer_to_a_ping_is_a_sign_of_life() -> None:
    """The time of the last sign grows with each answer, also if nothing happens."""

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: recorder.source.condition.state is State.LISTENING)
        first = recorder.source.last_sign
        assert first is not None
        await recorder.until(lambda: recorder.source.last_sign != first)
        assert 0 <= asyncio.get_running_loop().time() - (recorder.source.last_sign or 0.0) < 5

    run_on(Script(play=[GRANTED]), then)
