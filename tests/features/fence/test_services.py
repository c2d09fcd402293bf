"""Other services of this host at ports of the fence: which of them speak SSH, on real sockets."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.cable import CABLES, far_end
from tests.support.daemon import Guard, ami_server, until
from tests.support.packets import connection, datagram, ends, stream

from ringfence.features.fence import services
from ringfence.features.fence.services import Connection, SshPorts, connections_to

of_root = pytest.mark.skipif(os.geteuid() != 0, reason="only the programs of root are asked")


@contextmanager
def server(
    banner: bytes | Callable[[], bytes],
    port: int = 0,
    family: socket.AddressFamily = socket.AF_INET,
    owner: int = -1,
    *,
    stays: bool = True,
) -> Iterator[int]:
    """Yield the port of a server on every address of this host that sends ``banner`` to each client.

    If ``banner`` is a function, it is called for each client, and an empty banner ends the connection. So
    does each banner, unless the server ``stays``. ``owner`` is the user of the socket.
    """
    with socket.socket(family) as listener:
        os.fchown(listener.fileno(), owner, -1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen()
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with suppress(OSError):
                    client, _ = listener.accept()
                    with client:
                        text = banner if isinstance(banner, bytes) else banner()
                        client.sendall(text)
                        if stays and (text or isinstance(banner, bytes)):
                            client.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            with suppress(OSError), socket.create_connection(("localhost", listener.getsockname()[1]), 1.0):
                pass
            thread.join()


@of_root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_ssh_is_found_by_its_banner(family: socket.AddressFamily) -> None:
    """A server that sends the banner of SSH is found at any port, and another one is not."""
    with server(b"SSH-2.0-OpenSSH_9.2\r\n", family=family) as ssh, server(b"220 mail\r\n") as mail:
        assert SshPorts().among({ssh, mail}) == {ssh}
        assert SshPorts().among({mail}) == frozenset()


@of_root
def test_no_other_user_opens_a_port() -> None:
    """A program of a user of this host counts for nothing, because they could open a port of the fence."""
    with server(b"SSH-2.0-OpenSSH_9.2\r\n", owner=65_534) as forged:
        assert SshPorts().among({forged}) == frozenset()


@of_root
def test_a_program_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is asked when it begins to listen, and once more if the caller wants that."""
    monkeypatch.setattr(services, "BANNER_SECONDS", 0.1)
    asked: list[int] = []
    target = services._target

    def counted(place: tuple[bytes, int]) -> tuple[str, int]:
        asked.append(place[1])
        return target(place)

    monkeypatch.setattr(services, "_target", counted)
    ports = SshPorts()
    with server(b"") as silent:
        assert [ports.among({silent}, again=again) for again in (False, False, True)] == [frozenset()] * 3
    assert asked == [silent] * 2
    with server(b"SSH-2.0-x\r\n", silent):
        assert [ports.among({silent}, again=again) for again in (False, True)] == [{silent}] * 2
    assert asked == [silent] * 3
    assert ports.among({silent}) == frozenset()


@of_root
def test_a_program_that_ends_the_connection_is_asked_again() -> None:
    """An SSH server with too many clients sends no banner; it is found when it has room again."""
    banners = [b"", b"SSH-2.0-OpenSSH_9.2\r\n"]
    ports = SshPorts()
    with server(lambda: banners.pop(0) if banners else b"") as ssh:
        assert ports.among({ssh}) == frozenset()
        assert ports.among({ssh}) == {ssh}


@of_root
@pytest.mark.parametrize("refusal", [b"Exceeded MaxStartups\r\n", b"Not allowed at this time\r\n"])
def test_a_refusal_in_words_is_no_answer(refusal: bytes) -> None:
    """OpenSSH tells a client that is one too many so, and ends the connection: it is asked again."""
    texts = [refusal]
    ports = SshPorts()
    with server(lambda: texts.pop(0) if texts else b"SSH-2.0-OpenSSH_9.8\r\n", stays=False) as ssh:
        assert ports.among({ssh}) == frozenset()
        assert ports.among({ssh}) == {ssh}


@of_root
def test_ssh_may_send_other_lines_first() -> None:
    """A server of SSH may send a notice before its banner (RFC 4253 section 4.2)."""
    notice = b"Authorized use only.\r\nSSH-2.0-x\r\n"
    with server(notice) as ssh, server(b"no SSH-2.0-x\r\n") as other, server(b"a" * 5_000) as long:
        assert SshPorts().among({ssh, other, long}) == {ssh}


@of_root
def test_many_silent_programs_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to wait is that for one program; the one that speaks is found among them."""
    monkeypatch.setattr(services, "BANNER_SECONDS", 3.0)
    with ExitStack() as stack:
        silent = [stack.enter_context(server(b"")) for _ in range(8)]
        ssh = stack.enter_context(server(b"SSH-2.0-x\r\n"))
        began = time.monotonic()
        assert SshPorts().among({*silent, ssh}) == {ssh}
        assert time.monotonic() - began < 8 * services.BANNER_SECONDS


@of_root
def test_ssh_is_left_out(tmp_path: Path) -> None:
    """The daemon leaves a port of SSH open, reports why, and guards it if the configuration forces this."""
    with server(b"SSH-2.0-OpenSSH_9.2\r\n") as ssh:
        fence = {"mode": "enforce", "also": [f"{ssh}/tcp", "69/udp"]}
        with Guard(tmp_path, fence=fence) as guard:
            guard.ask("fence_enforce", seconds=3_600.0, force=True)
            assert guard.ask("fence")["also"] == ["69/udp"]
            until(lambda: guard.ask("fence")["closed"] == ["69/udp"], "the fence, once the friends are known")
            assert f"open      {ssh}/tcp: SSH answers there" in guard.must("fence", "status")
            until(lambda: "fence.ssh" in str(guard.ask("alarms")), "the alarm")
            guard.configure(fence=fence | {"also_ssh": True})
            guard.reload()
            until(lambda: set(guard.ask("fence")["also"]) == {"69/udp", f"{ssh}/tcp"}, "the port")
            until(lambda: "fence.ssh" not in str(guard.ask("alarms")), "the end of the alarm")


def test_the_port_of_ssh_is_refused(tmp_path: Path) -> None:
    """A configuration with 22/tcp is refused, and the fix is named."""
    with Guard(tmp_path, fence={"mode": "observe", "also": ["443/tcp"]}) as guard:
        guard.configure(fence={"mode": "observe", "also": ["443/tcp", "22/tcp"]})
        refused = guard.command("reload")
        assert "22/tcp is the port of SSH" in " ".join(refused.stderr.split())
        assert guard.ask("fence")["also"] == ["443/tcp"]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_connection_of_this_host_to_itself_is_left_out(family: str) -> None:
    """The daemon connects to a port to find SSH there; this is no visitor, at any address of the host."""
    cable = CABLES[family]
    with (
        far_end() as far,
        stream(cable, far, 443),
        socket.create_server((cable.here, 8443), family=cable.family) as here,
        socket.create_connection(here.getsockname()[:2]),
    ):
        assert connections_to({443, 8443}) == {Connection(ip_address(cable.banned), 443)}


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("backend", ["nftables", pytest.param("ipset", marks=pytest.mark.long)])
def test_strangers_do_not_reach_other_services(tmp_path: Path, family: str, backend: str) -> None:
    """Only those inside connect to the web interface; observe names who would be cut, and a trial ends."""
    cable = CABLES[family]
    fence = {"mode": "enforce", "networks": [cable.other], "also": ["443/tcp", "8443/tcp", "69/udp"]}
    with far_end() as far, ami_server() as pbx:
        guarding = Guard(tmp_path, ami={"port": pbx.port}, fence=fence, firewall={"backend": backend})
        with guarding as guard, stream(cable, far, 443) as (here, there):
            until(lambda: not guard.status()["limiter_waits"], "the friends are known")
            assert connections_to({443}) == {Connection(ip_address(cable.banned), 443)}
            there.send(b"1")
            assert here.recv(1) == b"1"
            found = guard.ask("fence")
            assert found["connected"] == [{"address": cable.banned, "port": "443/tcp", "needed": None}]
            assert len(found["visitors"]) == 1
            line = f"{cable.banned} is connected to 443/tcp: outside, so it would be cut"
            assert line in " ".join(guard.must("fence", "status").split())
            assert "from outside to 3 other services; 0 friends outside" in guard.must("status")

            guard.ask("fence_enforce", seconds=600.0, force=True)
            there.send(b"2")
            status = guard.must("fence", "status")
            assert "also      443/tcp, 8443/tcp, 69/udp: packets from outside are dropped" in status
            assert line.replace("would be", "is") in " ".join(status.split())
            assert (connection(cable, far, 8443), datagram(cable, far, 69)) == (False, (False, True))
            assert connection(cable, far, 7060) is True
            with ends(cable, far, 8443, socket.SOCK_STREAM, cable.other) as (listener, inside):
                listener.listen()
                inside.connect(listener.getsockname())
            assert guard.ask("fence")["also_packets"] > 0
            guard.ask("fence_enforce", seconds=1.0, force=True)
            until(lambda: guard.ask("fence")["mode"] == "observe", "the end of the trial")
            assert here.recv(1) == b"2"  # sent again
            assert connection(cable, far, 8443) is True
            guard.ask("fence_enforce", seconds=60.0, force=True)
            guard.ask("fence_confirm")
            guard.stop()
            guard.start()
            until(lambda: guard.ask("fence")["mode"] == "enforce", "the fence")
            assert connection(cable, far, 8443) is False
