"""One wrong password by IAX2 (RFC 5456): as much of the protocol as it takes to be refused.

A newcomer asks to register and is given a call token, which proves his address; he asks again with it, is
challenged, and answers wrongly.
"""

import socket
import struct
from collections.abc import Mapping

from tests.support.asterisk_files import PASSWORD
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in

PORT = 4569
ACCOUNT = "carol"
_HEAD = struct.Struct("!HHIBBBB")
_FULL, _IAX = 0x8000, 6
_ACK, _REGREQ, _REGAUTH, _REGREJ, _CALLTOKEN = 4, 13, 14, 16, 40
_USERNAME, _MD5_RESULT, _REFRESH, _TOKEN = 6, 16, 19, 54
_CALL = 7
_SECONDS = 3.0


def configured() -> dict[str, str]:
    """Give what the files of a laboratory's Asterisk need: it listens, and says who is refused."""
    return {
        "iax.conf": (
            f"[general]\nbindaddr = {PBX_IPV4}\nauthdebug = yes\n\n"
            f"[{ACCOUNT}]\ntype = friend\nhost = dynamic\nauth = md5\nsecret = {PASSWORD}\n"
        )
    }


def guess(lab: Lab, source: str, account: str) -> bool:
    """Guess a password once from ``source``; say whether it was refused."""
    with socket_in(lab.network.attacker, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.connect((PBX_IPV4, PORT))
        sender.settimeout(_SECONDS)
        name = {_USERNAME: account.encode(), _REFRESH: b"\0\x3c"}
        sender.send(_frame(_REGREQ, 0, 0, 0, 0, name | {_TOKEN: b""}))
        _, token = _expect(sender, _CALLTOKEN)
        sender.send(_frame(_REGREQ, 0, 0, 0, 3, name | {_TOKEN: token.get(_TOKEN, b"")}))
        call, _ = _expect(sender, _REGAUTH)
        sender.send(_frame(_REGREQ, call, 1, 1, 20, name | {_MD5_RESULT: b"0" * 32}))
        _expect(sender, _REGREJ)
        return True


def _frame(subclass: int, call: int, sent: int, got: int, time: int, elements: Mapping[int, bytes]) -> bytes:
    body = b"".join(bytes((kind, len(data))) + data for kind, data in elements.items())
    return _HEAD.pack(_FULL | _CALL, call, time, sent, got, _IAX, subclass) + body


def _expect(sender: socket.socket, subclass: int) -> tuple[int, dict[int, bytes]]:
    """Wait for a frame; give the PBX's call number and the frame's elements."""
    while True:
        frame = sender.recv(2_000)
        source, *_, kind, found = _HEAD.unpack_from(frame)
        if (kind, found) == (_IAX, subclass):
            return source & ~_FULL, _elements(frame[_HEAD.size :])


def _elements(body: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 2 <= len(body):
        kind, length = body[at], body[at + 1]
        found[kind] = body[at + 2 : at + 2 + length]
        at += 2 + length
    return found
