"""Honest phones that hostile text names, and programs on the host of the PBX that send to them.

The phones use the right password and send no hostile text. Whatever strangers write about them, and whatever
others send to them, none may be banned.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.daemon import until
from tests.support.hostile_text import Case, Victim
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.open_pbx import LAMPS
from tests.support.phones import phones_at

_PRESSED = 6
"""The number of requests that a phone sends, more than any threshold."""
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_OTHER_PORT = 45_060
_MOST_RELAYED = 60_000
_RELAY = """
import json, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
    relay.bind((sys.argv[1], 45000))
    for victim, port, answer in json.load(sys.stdin):
        relay.sendto(bytes.fromhex(answer), (victim, port))
"""
_SERVER = """
import socket, sys
KEPT = b"via:", b"from:", b"call-id:", b"cseq:"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((sys.argv[1], int(sys.argv[2])))
    print("ready", flush=True)
    for number in range(100_000):
        request, sender = server.recvfrom(65_535)
        lines = request.split(b"\\r\\n")
        kept = [line for line in lines if line.lower().startswith(KEPT)]
        to = [line + b";tag=other" for line in lines if line.lower().startswith(b"to:")]
        known = b"\\r\\nAuthorization: " in request
        challenge = b'WWW-Authenticate: Digest realm="asterisk",nonce="1790000000/%032x"' % number
        status = b"SIP/2.0 200 OK" if known else b"SIP/2.0 401 Unauthorized"
        answer = [status, *kept, *to, b"Server: Asterisk" if known else challenge]
        server.sendto(b"\\r\\n".join([*answer, b"Content-Length: 0", b"", b""]), sender)
"""


def relay(lab: Lab, texts: Sequence[tuple[Case, Victim]], answers: int) -> None:
    """Send each victim answers with its case's text, by another user's program on the host of the PBX."""
    sent = []
    for case, victim in texts:
        raw = case.request(victim)
        for number in range(answers):
            request = raw.encode(f"{victim.address}:{victim.port}", "UDP", f"relay{number}")
            via, *others = request.partition(b"\r\n")[2].partition(b"\r\n\r\n")[0].split(b"\r\n")
            kept = [one for one in others if one.startswith((b"From:", b"To:", b"Call-ID:", b"CSeq:"))]
            received = via + b";received=" + victim.address.encode()
            challenge = b'WWW-Authenticate: Digest realm="asterisk",nonce="1790000000/%032x"' % number
            answer = b"\r\n".join([b"SIP/2.0 401 Unauthorized", received, *kept, challenge, b"", b""])
            sent.append([victim.address, victim.port, answer[:_MOST_RELAYED].hex()])
    if sent:
        command = lab.network.in_pbx(*_NOBODY, sys.executable, "-I", "-c", _RELAY, PBX_IPV4)
        subprocess.run(command, input=json.dumps(sent).encode(), check=True, timeout=60)


def press_lamps(lab: Lab, victims: Sequence[Victim], port: int) -> None:
    """Subscribe each victim again and again to what it may not; every second one logs in before.

    chan_sip answers 403, PJSIP 603.
    """
    for number, victim in enumerate(victims):
        with phones_at(lab, victim.address, [LAMPS], (PBX_IPV4, port)) as [phone]:
            if number % 2:
                assert phone.register() == 200, victim
            for _ in range(_PRESSED):
                phone.reboot()
                assert phone.subscribe() in {403, 603}, victim


def log_in_elsewhere(lab: Lab, victims: Sequence[Victim]) -> None:
    """Register each victim again and again at another SIP server, with a challenge each time."""
    if victims:
        with _other_server(lab):
            for victim in victims:
                with phones_at(lab, victim.address, ["desk"], (PBX_IPV4, _OTHER_PORT)) as [phone]:
                    for _ in range(_PRESSED):
                        phone.reboot()
                        assert phone.register() == 200, victim


@contextmanager
def _other_server(lab: Lab) -> Iterator[None]:
    """Run a SIP server of another user on the host of the PBX."""
    command = [*_NOBODY, sys.executable, "-I", "-c", _SERVER, PBX_IPV4, str(_OTHER_PORT)]
    with subprocess.Popen(lab.network.in_pbx(*command), stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            until(server.stdout.readline, "the other SIP server")
            yield
        finally:
            server.kill()
