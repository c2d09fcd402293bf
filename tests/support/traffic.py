"""Packets of banned and of other senders, while something happens to the guarded host."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tests.support.network import PBX_IPV4, Network, socket_in

_PORT = 40_000
"""Neither SIP nor RTP: the limiter does not see these packets."""
_PAUSE = 0.005


class Traffic:
    """The packets that arrive, and the time without a reader of each source, while the context lasts.

    ``readers`` has, by the name of each source, a function that returns whether something reads it now.
    ``sent`` counts the packets of one sender, ``received`` those of each sender that reached the host.
    ``silences`` is the longest time in seconds without a reader, by source.
    """

    def __init__(self, network: Network, readers: Mapping[str, Callable[[], bool]], *senders: str) -> None:
        self.sent = 0
        self.received: Counter[str] = Counter()
        self.silences = dict.fromkeys(readers, 0.0)
        self._readers = readers
        self._receiver = socket_in(network.pbx, kind=socket.SOCK_DGRAM)
        self._receiver.bind((PBX_IPV4, _PORT))
        self._receiver.setblocking(False)  # noqa: FBT003 - the only form of this call
        self._senders = [socket_in(network.attacker, kind=socket.SOCK_DGRAM) for _ in senders]
        for sender, address in zip(self._senders, senders, strict=True):
            sender.bind((address, 0))
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self._running = self._pool.submit(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()
        for own in (self._receiver, *self._senders):
            own.close()
        self._running.result()

    def _run(self) -> None:
        last = dict.fromkeys(self._readers, time.monotonic())
        while not self._stop.wait(_PAUSE):
            for sender in self._senders:
                sender.sendto(b"?", (PBX_IPV4, _PORT))
            self.sent += 1
            self._receive()
            for source, is_read in self._readers.items():
                if is_read():
                    last[source] = time.monotonic()
                self.silences[source] = max(self.silences[source], time.monotonic() - last[source])

    def _receive(self) -> None:
        try:
            while True:
                _, (address, _) = self._receiver.recvfrom(16)
                self.received[address] += 1
        except BlockingIOError:
            return
