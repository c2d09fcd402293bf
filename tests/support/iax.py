"""One wrong password by IAX2 (RFC 5456), with the minimum of the protocol that leads to a refusal.

A new sender asks to register and receives a call token, which proves its address. It asks again with the
token, receives a challenge, and answers wrongly.
"""

import socket
import struct
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from functools import partial

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
_MOST_OF_NAME = 255
_SECONDS = 3.0


def configured() -> dict[str, str]:
    """Return the configuration with which a laboratory's Asterisk listens and logs refused registrations."""
    return {
        "iax.conf": (
            f"[general]\nbindaddr = {PBX_IPV4}\nauthdebug = yes\n\n"
            f"[{ACCOUNT}]\ntype = friend\nhost = dynamic\nauth = md5\nsecret = {PASSWORD}\n"
        )
    }


def guess(lab: Lab, source: str, account: str) -> bool:
    """Guess a password once from ``source``; return whether Asterisk refused it."""
    with socket_in(lab.network.attacker, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.connect((PBX_IPV4, PORT))
        sender.settimeout(_SECONDS)
        talk = guessing(account.encode())
        frame, accept = next(talk)
        with suppress(StopIteration):
            while True:
                sender.send(frame)
                while not accept(answer := sender.recv(2_000)):
                    pass
                frame, accept = talk.send(answer)
        return True


def guessing(account: bytes) -> Generator[tuple[bytes, Callable[[bytes], bool]], bytes, None]:
    """Guess once: yield a frame with a function that recognises its answer, and receive that answer."""
    name = {_USERNAME: account[:_MOST_OF_NAME], _REFRESH: b"\0\x3c"}
    token = yield _frame(_REGREQ, 0, 0, 0, 0, name | {_TOKEN: b""}), partial(_is, _CALLTOKEN)
    given = {_TOKEN: _elements(token[_HEAD.size :]).get(_TOKEN, b"")}
    asked = yield _frame(_REGREQ, 0, 0, 0, 3, name | given), partial(_is, _REGAUTH)
    call = _HEAD.unpack_from(asked)[0] & ~_FULL
    yield _frame(_REGREQ, call, 1, 1, 20, name | {_MD5_RESULT: b"0" * 32}), partial(_is, _REGREJ)


def _is(subclass: int, frame: bytes) -> bool:
    *_, kind, found = _HEAD.unpack_from(frame)
    return (kind, found) == (_IAX, subclass)


def _frame(subclass: int, call: int, sent: int, got: int, time: int, elements: Mapping[int, bytes]) -> bytes:
    body = b"".join(bytes((kind, len(data))) + data for kind, data in elements.items())
    return _HEAD.pack(_FULL | _CALL, call, time, sent, got, _IAX, subclass) + body


def _elements(body: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 2 <= len(body):
        kind, length = body[at], body[at + 1]
        found[kind] = body[at + 2 : at + 2 + length]
        at += 2 + length
    return found
