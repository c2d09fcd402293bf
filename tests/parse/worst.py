"""The worst texts for the parsers of log messages, and the time that they take."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

SECURITY = (
    b'SecurityEvent="InvalidAccountID",EventTV="2026-11-20T06:05:22.090+0000",Severity="Error",'
    b'Service="PJSIP",EventVersion="1",AccountID="'
)
HEADS = (
    b"",
    b"Request 'X' from '",
    b"Registration from '",
    b"x: Call (UDP:192.0.2.7:5) to extension '",
    b"Call from 'x' (192.0.2.7) to extension '",
    b"AOR 'x",
    b"No registration for peer '",
    b"Host 192.0.2.7 failed MD5 authentication for '",
    b"192.0.2.7 failed to authenticate as '",
    b"SIP ACL: Rejecting '",
    b's: "',
    SECURITY,
)
FILLERS = (
    b"a",
    b"'",
    b'"',
    b" ",
    b"1",
    b":",
    b"\n",
    b"' failed for '",
    b"' failed for '1' (callid: ",
    b") - ",
    b"' (1) to extension '",
    b"' rejected because extension not found in context '",
    b"' (from 1",
    b"Rejecting unknown SIP connection from ",
    b'",SessionID="',
    b'oteAddress="x"',
    b',A="b"',
    b"' not found for endpoint '",
    b"sip:a@",
    b"\x1b[0m",
)


ROUNDS = 5


def seconds(read: Callable[[_T], object], text: _T) -> float:
    """Return the shorter of two CPU times for reading ``text``."""
    taken = []
    for _ in range(2):
        start = time.thread_time()
        read(text)
        taken.append(time.thread_time() - start)
    return min(taken)


def is_linear_in(times: Callable[[int], float], most: int) -> bool:
    """Whether four times the input takes far less than sixteen times as long.

    A failure is measured again several times: a busy machine spoils one measurement, but a quadratic parser
    fails each time.
    """
    return any(times(most) < 10 * times(most // 4) + 0.01 for _ in range(ROUNDS))


def is_linear(read: Callable[[bytes], object], head: bytes, filler: bytes, *, most: int = 250_000) -> bool:
    """Whether ``head`` with ``filler`` up to ``most`` bytes is parsed in linear time."""
    return is_linear_in(lambda size: seconds(read, head + filler * (size // len(filler))), most)
