"""One Asterisk's manager interface, well-behaved or not: what is heard, and what the source says."""

import asyncio
import gc
import logging
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from structlog.testing import capture_logs
from tests.support.amiserver import BANNER, HOST, AmiServer, Fault, Script
from tests.support.asterisk import SECRET
from tests.support.captures import Capture, capture
from tests.support.daemon import GRANTED
from tests.support.netns import run

from ringfence.detect.fold import Fold
from ringfence.model import EventKind, Secret, SecurityEvent, Service
from ringfence.sources import ami
from ringfence.sources.ami import AmiSource, AmiTarget
from ringfence.sources.backoff import Backoff
from ringfence.sources.state import Condition, EndError, State

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a hundredth of what is waited for a real Asterisk."""
    monkeypatch.setattr(ami, "PING_EVERY", 0.05)
    monkeypatch.setattr(ami, "PROVE_WITHIN", 2.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with a key and its self-signed certificate for 127.0.0.1."""
    file = tmp_path_factory.mktemp("tls") / "ami.pem"
    key = file.with_name("key.pem")
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=pbx "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {file}".split(),
        check=True,
        capture_output=True,
    )
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file


async def until(true: Callable[[], object]) -> None:
    """Wait for something to become true."""
    while not true():  # noqa: ASYNC110 - what is waited for knows of no event
        await asyncio.sleep(0.005)


@define
class Heard:
    """A source at work, what it handed on, and what it logged."""

    logs: Sequence[Any]
    source: AmiSource = field(init=False)
    events: list[SecurityEvent] = field(factory=list)
    times: list[float] = field(factory=list)

    def take(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Be the source's sink."""
        self.events += events
        self.times.append(now)

    @property
    def states(self) -> list[str]:
        """The changes of state that were logged."""
        return [entry["state"] for entry in self.logs if entry["event"] == "source.state"]

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for something to become true."""
        await until(true)

    async def until_state(self, state: State) -> None:
        """Wait for the source to be in that state."""
        await self.until(lambda: self.source.condition.state is state)


Then = Callable[[Heard], Coroutine[Any, Any, None]]


async def listen(target: AmiTarget, then: Then, backoff: Backoff | None = None) -> Heard:
    """Have a source listen to ``target`` while ``then`` runs; nothing may be left of it."""
    with capture_logs() as logs:
        pauses = backoff if backoff is not None else Backoff(0.01, 0.02)
        heard = Heard(logs)
        heard.source = AmiSource(target, heard.take, pauses)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(heard.source.run())
            await then(heard)
            assert not task.done()
            task.cancel()
    assert [
        task for task in asyncio.all_tasks() if "ringfence/sources" in repr(task.get_stack(limit=1))
    ] == []
    assert SECRET not in repr(logs)
    return heard


def target_at(port: int, host: str = HOST, tls: ssl.SSLContext | None = None) -> AmiTarget:
    """Give the target of a server of ours."""
    return AmiTarget("pbx", host, port, "ringfence", Secret(SECRET), tls)


def at(state: State) -> Then:
    """Wait for that state, and no longer."""

    async def then(heard: Heard) -> None:
        await heard.until_state(state)

    return then


def listened(
    script: Script,
    then: Then,
    backoff: Backoff | None = None,
    **server: Any,  # noqa: ANN401 - the server's own
) -> tuple[Heard, AmiServer]:
    """Listen to a server that follows the script."""

    async def main() -> tuple[Heard, AmiServer]:
        async with AmiServer(script, **server) as there:
            return await listen(target_at(there.port), then, backoff), there

    result = asyncio.run(main())
    gc.collect()  # a socket or a future that was forgotten warns, and a warning is an error
    return result


@asynccontextmanager
async def raw(converse: Converse, host: str = HOST) -> AsyncIterator[int]:
    """Serve connections in any way at all, and give the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close()
        await asyncio.sleep(0.05)


def raw_listened(converse: Converse, then: Then) -> Heard:
    """Listen to whoever converses so."""

    async def main() -> Heard:
        async with raw(converse) as port:
            return await listen(target_at(port), then)

    return asyncio.run(main())


# -- what is heard ----------------------------------------------------------------------------------------


def test_a_source_that_listens() -> None:
    """Logged in by MD5, with an event that proves the class: the state says so, once in the log."""
    heard, server = listened(Script(play=[GRANTED]), at(State.LISTENING))

    assert heard.source.condition == Condition(State.LISTENING, "manager interface 11.0.0")
    assert heard.source.version == "11.0.0"
    assert heard.source.settled.is_set()
    assert server.actions[:2] == ["Challenge", "Login"]
    assert heard.logs == [
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


@pytest.mark.parametrize("chunk", [-1, 0, 7])
@pytest.mark.parametrize("recorded", CAPTURES, ids=str)
def test_a_recording_becomes_the_attempts_it_tells_of(recorded: Capture, chunk: int) -> None:
    """However the bytes are cut, the events that are handed on fold into the attempts that were made."""

    async def then(heard: Heard) -> None:
        await heard.until(lambda: heard.events and heard.events[-1].service is Service.AMI)

    heard, _ = listened(Script(play=[recorded.ami.read_bytes(), GRANTED], chunk=chunk), then)
    fold = Fold()
    attempts = [fold.feed(event, 0.0) for event in heard.events]

    assert sum(attempt is not None for attempt in attempts) == recorded.attempts
    assert {attempt.address for attempt in attempts if attempt is not None} <= {recorded.source}
    assert {str(event.source) for event in heard.events} == {"pbx/ami"}
    assert heard.source.counts.events == len(heard.events)


def test_events_come_with_the_loops_time() -> None:
    """The sink is given monotonic time, so that windows can be counted with it."""

    async def then(heard: Heard) -> None:
        await heard.until(lambda: heard.times)
        assert 0 <= asyncio.get_running_loop().time() - heard.times[0] < 5

    listened(Script(play=[GRANTED]), then)


def test_the_sources_own_login_is_not_handed_on() -> None:
    """An AMI event from this connection's own address and port proves the class and goes no further."""

    async def main() -> Heard:
        async with AmiServer(Script()) as server:

            async def then(heard: Heard) -> None:
                await heard.until(lambda: server._listeners)
                [writer] = server._listeners
                port = writer.get_extra_info("peername")[1]
                await server.say(GRANTED.replace(b"/51108", b"/%d" % port))
                await heard.until_state(State.LISTENING)
                failed = GRANTED.replace(b"SuccessfulAuth", b"ChallengeSent").replace(
                    b"UsingPassword: 0", b"Challenge: 1"
                )
                await server.say(failed.replace(b"/51108", b"/%d" % port))
                await server.say(GRANTED)
                await heard.until(lambda: heard.events)

            return await listen(target_at(server.port), then)

    heard = asyncio.run(main())

    assert [(event.kind, event.remote.port) for event in heard.events] == [(EventKind.SUCCESSFUL_AUTH, 51108)]


def test_counts_go_on_over_connections() -> None:
    """What was heard is summed up over every connection since the start."""

    async def then(heard: Heard) -> None:
        await heard.until(lambda: heard.source.counts.events >= 3)

    heard, server = listened(Script(play=[GRANTED], hang_up=True), then)

    assert server.connections >= 3
    assert heard.source.counts.events == len(heard.events)


# -- logins -----------------------------------------------------------------------------------------------


def no_md5(requests: list[str]) -> Converse:
    """Be a manager interface that knows no MD5 and takes a login in the clear."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER)
        while True:
            try:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                return
            requests.append(request)
            action_id = next(line for line in request.split("\r\n") if line.startswith("ActionID"))
            right = "Challenge" not in request
            writer.write(f"Response: {'Success' if right else 'Error'}\r\n{action_id}\r\n\r\n".encode())
            if "Login" in request:
                writer.write(GRANTED)

    return converse


def test_without_md5_the_secret_stays_on_this_host() -> None:
    """Over loopback a PBX that refuses MD5 is told the secret itself."""
    requests: list[str] = []
    heard = raw_listened(no_md5(requests), at(State.LISTENING))

    assert heard.source.condition.state is State.LISTENING
    assert [f"Secret: {SECRET}\r\n" in request for request in requests[:2]] == [False, True]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_without_md5_the_secret_does_not_leave_this_host() -> None:
    """Over a network a PBX that refuses MD5 is told nothing, and the mend is named."""
    run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    requests: list[str] = []

    async def main() -> Heard:
        async with raw(no_md5(requests), "192.0.2.1") as port:
            return await listen(target_at(port, "192.0.2.1"), at(State.LOGIN_REFUSED))

    heard = asyncio.run(main())

    assert heard.source.condition.detail.endswith(
        " refuses MD5; use tls, so that the secret does not travel in clear"
    )
    assert [request for request in requests if SECRET in request] == []


def test_a_refused_login() -> None:
    """A wrong secret is a state with the PBX's own words, tried again, said once."""

    async def then(heard: Heard) -> None:
        await heard.until(lambda: len(attempts) > 3)

    attempts = Counted()
    heard, server = listened(Script(fault=Fault.REFUSES), then, attempts)

    assert heard.source.condition == Condition(
        State.LOGIN_REFUSED,
        f'127.0.0.1:{server.port} refuses "ringfence" (Authentication failed); compare with manager.conf',
    )
    assert heard.states == ["login refused"]


class Counted(Backoff):
    """Pauses that are counted."""

    def __init__(self, shortest: float = 0.01, longest: float = 0.02) -> None:
        super().__init__(shortest, longest)
        self.pauses: list[float] = []
        self.resets = 0

    def __len__(self) -> int:
        """How many there were."""
        return len(self.pauses)

    def next(self) -> float:
        """Give the next delay."""
        self.pauses.append(super().next())
        return self.pauses[-1]

    def reset(self) -> None:
        """Begin anew."""
        self.resets += 1
        super().reset()


def tls_listened(
    certificate: Path, context: ssl.SSLContext, then: Then, script: Script | None = None
) -> tuple[Heard, AmiServer]:
    """Listen over TLS."""

    async def main() -> tuple[Heard, AmiServer]:
        async with AmiServer(script or Script(play=[GRANTED]), certificate=certificate) as server:
            return await listen(target_at(server.port, tls=context), then), server

    return asyncio.run(main())


def trusting(certificate: Path) -> ssl.SSLContext:
    """Trust this certificate."""
    return ssl.create_default_context(cafile=certificate)


def careless() -> ssl.SSLContext:
    """Trust anybody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("trust", ["ca", "anybody"])
def test_tls(certificate: Path, trust: str) -> None:
    """Over TLS, with the certificate trusted or not looked at, the secret goes inside."""
    context = trusting(certificate) if trust == "ca" else careless()
    heard, server = tls_listened(certificate, context, at(State.LISTENING))

    assert heard.states == ["listening"]
    assert server.actions[0] == "Login"


def test_a_certificate_that_nobody_vouches_for(certificate: Path) -> None:
    """A self-signed certificate is refused by default, and the state says that it is TLS."""
    heard, server = tls_listened(certificate, ssl.create_default_context(), at(State.TLS_FAILED))

    assert heard.source.condition == Condition(
        State.TLS_FAILED, f"127.0.0.1:{server.port}: CERTIFICATE_VERIFY_FAILED"
    )
    assert server.actions == []


def test_tls_to_who_speaks_none() -> None:
    """A plain manager interface where TLS is expected is a TLS failure."""

    async def main() -> Heard:
        async with AmiServer(Script(play=[GRANTED])) as server:
            return await listen(target_at(server.port, tls=careless()), at(State.TLS_FAILED))

    assert asyncio.run(main()).states == ["tls failed"]


# -- trouble ----------------------------------------------------------------------------------------------


def test_nobody_listens(unused_port: int) -> None:
    """A refused connection is a state, tried again and again, said once."""
    pauses = Counted()

    async def then(heard: Heard) -> None:
        await heard.until(lambda: len(pauses) >= 5)

    heard = asyncio.run(listen(target_at(unused_port), then, pauses))

    assert heard.source.condition.state is State.UNREACHABLE
    assert heard.states == ["unreachable"]
    assert f"127.0.0.1:{unused_port}" in heard.source.condition.detail


@pytest.fixture
def unused_port() -> int:
    """Give a port where nobody listens."""

    async def main() -> int:
        async with raw(nothing) as port:
            return port

    return asyncio.run(main())


async def nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Close at once."""


@pytest.mark.parametrize("host", ["pbx..example", "x" * 300, "pbx.invalid"])
def test_a_host_that_no_dns_knows(host: str) -> None:
    """A name without an address, or that cannot be one, is unreachable and no defect."""
    heard = asyncio.run(listen(target_at(5038, host), at(State.UNREACHABLE)))

    assert heard.states == ["unreachable"]


def test_a_host_that_does_not_come_to_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is not ready in time, here for want of a TLS handshake, is unreachable."""
    monkeypatch.setattr(ami, "CONNECT_WITHIN", 0.1)

    async def main() -> Heard:
        async with AmiServer(Script(fault=Fault.SILENT)) as server:
            return await listen(target_at(server.port, tls=careless()), at(State.UNREACHABLE))

    assert asyncio.run(main()).source.condition.detail.endswith(" did not answer in 0 s")


def test_closed_at_once() -> None:
    """A connection that ends before anything was said is lost."""
    heard, _ = listened(Script(fault=Fault.CLOSES), at(State.LOST))

    assert heard.source.condition == Condition(State.LOST, "the connection was closed")


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be another service altogether."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say a megabyte of nothing."""
    writer.write(b"\xff" * 2**20)
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say the banner a byte at a time, and never its end."""
    for byte in b"Asterisk Call Manager/" + b"1" * 60:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)
    await reader.read()


@pytest.mark.parametrize("converse", [http, noise])
def test_who_is_no_manager_interface(converse: Converse) -> None:
    """What does not begin as a manager interface does is none, and is told nothing."""
    heard = raw_listened(converse, at(State.NOT_AMI))

    assert heard.source.condition.detail.endswith(" does not speak as a manager interface")


@pytest.mark.parametrize("how", ["silent", "drip"])
def test_a_banner_that_does_not_come(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Silence, or a banner that never ends, is waited for no longer than its time."""
    monkeypatch.setattr(ami, "GREET_WITHIN", 0.2)
    if how == "drip":
        heard = raw_listened(drip, at(State.UNRESPONSIVE))
    else:
        heard, _ = listened(Script(fault=Fault.SILENT), at(State.UNRESPONSIVE))

    assert heard.source.condition.detail.endswith(" sent no banner in 0 s")


def test_a_ping_that_is_not_answered_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes the login and then answers nothing is torn down, said to be unresponsive, and tried anew."""
    monkeypatch.setattr(ami, "PING_WITHIN", 0.1)

    async def main() -> tuple[Heard, int]:
        async with AmiServer(Script(fault=Fault.DEAF, play=[GRANTED])) as server:

            async def then(heard: Heard) -> None:
                await heard.until(lambda: "unresponsive" in heard.states and server.connections >= 2)
                await heard.until(lambda: len(server._sessions) <= 1)

            return await listen(target_at(server.port), then), server.port

    heard, port = asyncio.run(main())

    assert heard.states[:2] == ["listening", "unresponsive"]
    assert heard.logs[1]["detail"] == f"127.0.0.1:{port} did not answer Ping in 0 s"


def test_who_goes_on_telling_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a Ping stands behind the events before it; while these come nobody hangs up."""
    monkeypatch.setattr(ami, "PING_WITHIN", 0.5)
    script = Script(fault=Fault.DEAF, play=[GRANTED] * 41, pause=0.05)

    async def main() -> int:
        async with AmiServer(script) as server:

            async def then(heard: Heard) -> None:
                await heard.until(lambda: "unresponsive" in heard.states)

            return len((await listen(target_at(server.port), then)).events)

    assert asyncio.run(main()) == 41


def test_the_times_that_the_promise_names(request: pytest.FixtureRequest) -> None:
    """A Ping each 5 s that must be answered within 5 s, and pauses from half a second to half a minute."""
    request.getfixturevalue("monkeypatch").undo()

    assert (ami.PING_EVERY, ami.PING_WITHIN) == (5.0, 5.0)
    assert (Backoff()._shortest, Backoff()._longest) == (0.5, 30.0)


def test_a_login_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A banner and then silence is unresponsive, and the action is named."""
    monkeypatch.setattr(ami, "LOGIN_WITHIN", 0.1)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER)
        await reader.read()

    heard = raw_listened(converse, at(State.UNRESPONSIVE))

    assert heard.source.condition.detail.endswith(" did not answer Challenge in 0 s")


def test_a_source_without_the_security_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an event of the class the source is deaf, with the mend; the first event makes it well."""
    monkeypatch.setattr(ami, "PROVE_WITHIN", 0.1)

    async def main() -> Heard:
        async with AmiServer(Script()) as server:

            async def then(heard: Heard) -> None:
                await heard.until_state(State.DEAF)
                await asyncio.sleep(0.2)
                assert server.actions.count("Ping") >= 2
                await server.say(GRANTED)
                await heard.until_state(State.LISTENING)

            return await listen(target_at(server.port), then)

    heard = asyncio.run(main())

    assert heard.states == ["deaf", "listening"]
    assert heard.logs[0]["detail"].startswith("logged in, but no security events come: give the user read =")


def test_garbage_after_the_login_is_counted() -> None:
    """Noise ends nothing: it is counted, and what follows it is heard."""
    script = Script(fault=Fault.GARBAGE, play=[b"\r\n\r\n", GRANTED])
    heard, server = listened(script, at(State.LISTENING))

    assert (heard.source.counts.events, heard.source.counts.garbled) == (1, 1)
    assert server.connections == 1


def test_a_line_of_a_hundred_megabytes_costs_none() -> None:
    """A line without an end is skipped as it comes, and the event behind it is heard."""
    tracemalloc.start()
    try:
        script = Script(fault=Fault.LONG_LINE, play=[b"\r\n\r\n", GRANTED])
        heard, server = listened(script, at_length)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 8 * 2**20
    assert server.connections == 1
    # Answers of the server's stand in the middle of the line, and what they end is garbled.
    assert heard.source.counts.events == 1
    assert 1 <= heard.source.counts.garbled <= 3
    assert abs(100 * 2**20 - heard.source.counts.dropped_bytes) < 4096


async def at_length(heard: Heard) -> None:
    """Wait for an event."""
    await heard.until(lambda: heard.events)


def test_a_garbled_answer_is_the_peers_fault() -> None:
    """An answer with two ids is no manager interface's, and no defect of ours."""
    answer = b"Response: Success\r\nActionID: {ActionID}\r\nActionID: {ActionID}\r\n\r\n"
    heard, _ = listened(Script(play=[GRANTED], answers={"Ping": answer}), at(State.NOT_AMI))

    assert heard.states[-1] == "not ami"
    assert [entry for entry in heard.logs if entry["log_level"] == "error"] == []


@pytest.mark.parametrize(
    "more", [b"Message: Peer status list will follow", b"EventList: start", b"Event: a\r\nEvent: b"]
)
def test_an_answer_that_promises_more_is_an_answer(more: bytes) -> None:
    """Who answers a Ping with the beginning of a list has answered: nothing is kept of what follows."""
    answer = b"Response: Success\r\nActionID: {ActionID}\r\n" + more + b"\r\n\r\n"

    async def main() -> Heard:
        async with AmiServer(Script(play=[GRANTED], answers={"Ping": answer * 50})) as server:

            async def then(heard: Heard) -> None:
                await heard.until(lambda: server.actions.count("Ping") >= 4)

            return await listen(target_at(server.port), then)

    assert asyncio.run(main()).states == ["listening"]


def test_an_answer_that_nobody_asked_for_is_dropped() -> None:
    """Answers without an action, or to another's, change nothing."""
    stray = b"Response: Error\r\nMessage: x\r\n\r\nResponse: Error\r\nActionID: 5\r\n\r\nResponse: \r\n\r\n"
    heard, server = listened(Script(play=[stray, GRANTED]), at(State.LISTENING))

    assert heard.states == ["listening"]
    assert server.connections == 1


def test_a_sink_that_raises_is_a_defect_and_no_end() -> None:
    """What goes wrong on the way of the evidence is logged in full, shown as a state, and survived."""

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


def test_a_defect_that_stays_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect at each try is logged in full the first time, and is no flood."""
    pauses = Counted()

    async def broken(_: AmiSource) -> None:
        raise RuntimeError("of our own making")

    async def then(heard: Heard) -> None:
        await heard.until(lambda: len(pauses) >= 5)

    monkeypatch.setattr(AmiSource, "_session", broken)
    heard = asyncio.run(listen(target_at(1), then, pauses))

    assert [entry["event"] for entry in heard.logs] == ["source.defect", "source.state"]


# -- again and again --------------------------------------------------------------------------------------


def test_each_try_waits_its_pause() -> None:
    """Between two connections lies one pause of the backoff, so nobody is hammered."""
    pauses = Counted(0.1, 0.1)
    began: list[float] = []

    async def then(heard: Heard) -> None:
        began.append(asyncio.get_running_loop().time())
        await heard.until(lambda: len(pauses) >= 5)
        began.append(asyncio.get_running_loop().time())

    _, server = listened(Script(fault=Fault.CLOSES), then, pauses)

    assert began[1] - began[0] >= 0.4
    assert server.connections == 5
    assert pauses.resets == 0


def test_a_good_connection_makes_the_next_pause_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a connection that lasted, the backoff begins anew."""
    monkeypatch.setattr(ami, "WELL_AFTER", 0.0)
    pauses = Counted()

    async def then(heard: Heard) -> None:
        await heard.until(lambda: len(pauses) >= 2)

    listened(Script(fault=Fault.CLOSES), then, pauses)

    assert pauses.resets >= 2


def test_every_change_is_said_once() -> None:
    """A PBX that comes, goes and comes again: a line for each change, and none between."""

    async def main() -> Heard:
        async with AmiServer(Script(play=[GRANTED])) as server:
            pauses = Counted()

            async def then(heard: Heard) -> None:
                await heard.until_state(State.LISTENING)
                await asyncio.sleep(0.3)
                server.script = Script(fault=Fault.CLOSES)
                await server.hang_up()
                await heard.until(lambda: len(pauses) >= 5)
                server.script = Script(play=[GRANTED])
                await heard.until_state(State.LISTENING)

            return await listen(target_at(server.port), then, pauses)

    heard = asyncio.run(main())

    assert heard.states == ["listening", "lost", "listening"]
    assert [entry["log_level"] for entry in heard.logs] == ["info", "warning", "info"]


@contextmanager
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Listen to every logger of the standard library."""
    with caplog.at_level(logging.DEBUG):
        yield


@pytest.mark.parametrize("fault", [None, *Fault])
def test_the_secret_is_in_no_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    """However the other side behaves, neither our log nor a library's holds the secret or its digest."""
    for name in ("GREET_WITHIN", "PING_WITHIN", "PROVE_WITHIN"):
        monkeypatch.setattr(ami, name, 0.1)
    pauses = Counted()

    async def then(heard: Heard) -> None:
        await heard.source.settled.wait()
        await asyncio.sleep(0.2)

    with everything_logged(caplog):
        heard, _ = listened(Script(fault=fault, play=[GRANTED]), then, pauses)

    shown = repr(heard.logs) + caplog.text + repr(heard.source._target) + str(heard.source.condition)
    assert SECRET not in shown
    assert "Key:" not in shown


@pytest.mark.parametrize("fault", [None, Fault.SILENT, Fault.DEAF])
@pytest.mark.parametrize("tls", [False, True])
def test_cancelled_at_any_moment_it_leaves_nothing(fault: Fault | None, *, tls: bool) -> None:
    """Cancelled while it connects, waits or listens, the source leaves no task, socket or connection."""

    async def main(after: float) -> None:
        async with AmiServer(Script(play=[GRANTED], fault=fault)) as server:

            async def then(heard: Heard) -> None:
                await asyncio.sleep(after)

            await listen(target_at(server.port, tls=careless() if tls else None), then)
            async with asyncio.timeout(5):
                await until(lambda: not server._sessions)

    for after in (0.0, 0.001, 0.005, 0.1):
        asyncio.run(main(after))
        gc.collect()


def test_cancelled_as_the_connection_ends_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that comes together with the connection's end is not lost behind it."""

    async def both(_: AmiSource) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise EndError(State.LOST, "the connection was closed") from None

    async def then(_: Heard) -> None:
        await asyncio.sleep(0.01)

    monkeypatch.setattr(AmiSource, "_session", both)

    assert asyncio.run(listen(target_at(1), then)).states == ["lost"]


def test_a_connection_that_comes_too_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given up in the very moment that it was made, a connection does not stay open behind the source."""
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

            async def then(_: Heard) -> None:
                await made_then_cancelled.wait()

            await listen(target_at(server.port), then)
            async with asyncio.timeout(5):
                await until(lambda: server.connections and not server._sessions)

    asyncio.run(main())


def test_a_target_shows_no_secret() -> None:
    """The repr of a target, and of one changed, has the mask."""
    target = evolve(target_at(5038), host="pbx.example")

    assert repr(target) == (
        "AmiTarget(asterisk='pbx', host='pbx.example', port=5038, username='ringfence', "
        "secret=Secret('***'), tls=None)"
    )
