"""A carrier in the attacker's namespace, at which the PBX registers. It answers 200 to every request."""

import socket
import threading
from types import TracebackType
from typing import Self

from tests.support.lab import Lab
from tests.support.network import socket_in
from tests.support.phones import reply

PORT = 5060


def configured(address: str) -> dict[str, str]:
    """Return the configuration with which a laboratory's Asterisk registers at ``address``."""
    return {
        "pjsip.conf": f"""\
[carrier]
type = registration
transport = udp4
outbound_auth = carrier
server_uri = sip:{address}
client_uri = sip:pbx@{address}
retry_interval = 2
expiration = 120

[carrier]
type = auth
auth_type = userpass
username = pbx
password = secret-of-the-trunk
"""
    }


class Carrier:
    """A registrar that runs while the context lasts; ``registered`` counts the accepted REGISTERs."""

    def __init__(self, lab: Lab, address: str) -> None:
        self.address = address
        self.registered = 0
        self._lab = lab
        self._socket = socket_in(lab.network.attacker, socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._serve, name="carrier")
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        self._socket.bind((self.address, PORT))
        self._socket.settimeout(0.1)
        self._thread.start()
        self.register()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._socket.close()

    def register(self) -> None:
        """Make the PBX register now."""
        self._lab.asterisk.cli("pjsip send register carrier")

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                request, sender = self._socket.recvfrom(65_535)
            except TimeoutError:
                continue
            answer = reply(request)
            if answer is None:
                continue
            self._socket.sendto(answer, sender)
            self.registered += request.startswith(b"REGISTER ")
