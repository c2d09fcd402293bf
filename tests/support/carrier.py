"""A carrier in the attacker's namespace, at which the PBX registers: it says 200 to whatever it is asked."""

import socket
import threading
from types import TracebackType
from typing import Self

from tests.support.lab import Lab
from tests.support.network import socket_in
from tests.support.phones import reply

PORT = 5060


def configured(address: str) -> dict[str, str]:
    """Give what the files of a laboratory's Asterisk need to register there."""
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
    """A registrar at work, while the context lasts; ``registered`` counts the REGISTERs that it took."""

    def __init__(self, lab: Lab, address: str) -> None:
        self.address = address
        self.registered = 0
        self._lab = lab
        self._socket = socket_in(lab.network.attacker, socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._serve, name="carrier")
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._socket.bind((self.address, PORT))
        self._socket.settimeout(0.1)
        self._thread.start()
        self.register()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def register(self) -> None:
        """Have the PBX register now."""
        self._lab.asterisk.cli("pjsip send register carrier")

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                request, sender = self._socket.recvfrom(65_535)
            except TimeoutError:
                continue
            answer = reply(request)
            if answer is None:
                continue
            self._socket.sendto(answer, sender)
            self.registered += request.startswith(b"REGISTER ")
