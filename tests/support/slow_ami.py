"""A relay to Asterisk's manager interface that passes on late what Asterisk sends, as a busy machine does."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from tests.support import netns
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.lab import Lab


@contextmanager
def slow_ami(lab: Lab, seconds: float) -> Iterator[int]:
    """Yield the port beside Asterisk at which the manager interface answers ``seconds`` late."""
    with netns.inside(lab.network.pbx):
        server = socket.create_server(("127.0.0.1", 0))
    os.fchown(
        server.fileno(), Path(f"/proc/{lab.asterisk.pid}").stat().st_uid, -1
    )  # as if it were Asterisk's
    threading.Thread(target=_serve, args=(lab, server, seconds), daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # accept() ends
        server.close()


def _serve(lab: Lab, server: socket.socket, seconds: float) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            with netns.inside(lab.network.pbx):
                asterisk = socket.create_connection(("127.0.0.1", MANAGER_PORT))
            for ends in ((client, asterisk, 0.0), (asterisk, client, seconds)):
                threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Pass on what ``source`` sends, ``seconds`` after it came, until it ends."""
    came: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
    threading.Thread(target=_read, args=(source, came), daemon=True).start()
    with closing(target), suppress(OSError):
        while (piece := came.get())[1]:
            time.sleep(max(0.0, piece[0] + seconds - time.monotonic()))
            target.sendall(piece[1])


def _read(source: socket.socket, came: "SimpleQueue[tuple[float, bytes]]") -> None:
    data = b"."
    while data:
        try:
            data = source.recv(65_536)
        except OSError:
            data = b""
        came.put((time.monotonic(), data))
