"""A relay in front of a manager interface, which a test can cut and stall.

    with Relay(namespace) as relay:
        relay.cut()

It listens on 127.0.0.1 of this process's own namespace or, with ``inside``, of Asterisk's, and connects to
the manager interface in Asterisk's namespace.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from tests.support.asterisk_files import MANAGER_PORT
from tests.support.network import socket_in

_PIECE = 64 * 1024


class Relay:
    """A relay that listens on ``port`` while the context lasts."""

    def __init__(self, namespace: str, *, inside: bool = False) -> None:
        self._namespace = namespace
        self._listener = socket_in(namespace) if inside else socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._flows = threading.Event()
        self._flows.set()
        self._open = True
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        self._flows.set()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def cut(self) -> None:
        """Close all connections, and each new one, until :meth:`join`."""
        self._open = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Relay connections again."""
        self._open = True

    def stall(self) -> None:
        """Delay the data from Asterisk until :meth:`flow`."""
        self._flows.clear()

    def flow(self) -> None:
        """Forward the delayed data, and all data that follows."""
        self._flows.set()

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                near.close()
                continue
            far = socket_in(self._namespace)
            far.connect(("127.0.0.1", MANAGER_PORT))
            self.connections += 1
            self._ends += [near, far]
            self._start(partial(self._pump, near, far, stalls=False))
            self._start(partial(self._pump, far, near, stalls=True))

    def _pump(self, source: socket.socket, sink: socket.socket, *, stalls: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                if stalls:
                    self._flows.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
