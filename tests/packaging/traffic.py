"""Packets of a banned and of another sender, while something happens to the guarded host."""

import socket
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from tests.support.daemon import ServedAmi
from tests.support.network import PBX_IPV4, Network, socket_in

_PORT = 40_000
"""Neither SIP nor RTP: the limiter does not see these packets."""
_PAUSE = 0.005


class Traffic:
    """What the senders reach, and how long the daemon was away from AMI, while the context lasts.

    ``received`` counts the packets of each sender that reached the host. ``longest_silence`` is the longest
    time in seconds without a client at the AMI server.
    """

    def __init__(self, network: Network, ami: ServedAmi, *senders: str) -> None:
        self.received: Counter[str] = Counter()
        self.longest_silence = 0.0
        self._ami = ami
        self._receiver = socket_in(network.pbx, kind=socket.SOCK_DGRAM)
        self._receiver.bind((PBX_IPV4, _PORT))
        self._receiver.setblocking(False)  # noqa: FBT003 - the only form of this call
        self._senders = [socket_in(network.attacker, kind=socket.SOCK_DGRAM) for _ in senders]
        for sender, address in zip(self._senders, senders, strict=True):
            sender.bind((address, 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for own in (self._receiver, *self._senders):
            own.close()

    def _run(self) -> None:
        heard = time.monotonic()
        while not self._stop.wait(_PAUSE):
            for sender in self._senders:
                sender.sendto(b"?", (PBX_IPV4, _PORT))
            self._receive()
            if self._ami.server._listeners:
                heard = time.monotonic()
            self.longest_silence = max(self.longest_silence, time.monotonic() - heard)

    def _receive(self) -> None:
        try:
            while True:
                _, (address, _) = self._receiver.recvfrom(16)
                self.received[address] += 1
        except BlockingIOError:
            return
