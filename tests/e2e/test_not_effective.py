"""An alarm about an ineffective ban: Asterisk is in another network namespace than the rules."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_LOGS, NO_WIRE
from tests.support.lab import Lab
from tests.support.netns import inside, neighbour

pytestmark = pytest.mark.asterisk

GUESSER = "198.19.41.1"


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Forward bytes until either end is closed."""
    with suppress(OSError), closing(source), closing(sink):
        while data := source.recv(65_536):
            sink.sendall(data)


@contextmanager
def published(lab: Lab, namespace: str) -> Iterator[int]:
    """Publish Asterisk's manager interface on loopback of another namespace, like a container's port."""
    with inside(namespace):
        listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                with inside(lab.network.pbx):
                    far = socket.create_connection(("127.0.0.1", MANAGER_PORT))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_an_asterisk_in_another_namespace_is_noticed(asterisk22: Lab, tmp_path: Path) -> None:
    """A banned guesser still gets answers: status and log report it."""
    with neighbour() as elsewhere, published(asterisk22, elsewhere) as port:
        ami = {"username": MANAGER_USER, "secret": SECRET, "port": port}
        pbx = {"name": "pbx", "ami": ami, "logs": NO_LOGS, "wire": NO_WIRE}
        prefix = ["ip", "netns", "exec", elsewhere]
        with Guard(tmp_path, prefix=prefix, asterisk=[pbx], firewall={"backend": "nftables"}) as guard:
            until(lambda: guard.source_is("listening"), "the manager interface", pause=0.1)
            attack = asterisk22.start_attack(
                *("guess", "--number", "200", "--pause", "0.4", "--seconds", "90", "--sources", GUESSER),
                *("--timeout", "5", "--silences", "5"),
            )
            try:
                until(lambda: guard.banned() == {GUESSER}, "the ban")
                assert guard.ask("status")["alarms"] == []
                until(lambda: guard.ask("status")["alarms"], "the alarm", 80, pause=0.3)
            finally:
                attack.stop()
            status = guard.ask("status")
    [alarm] = status["alarms"]
    assert (alarm["code"], alarm["subject"]) == ("ban.not_effective", GUESSER)
    assert guard.log.count("event=alarm.ban.not_effective") == 1
