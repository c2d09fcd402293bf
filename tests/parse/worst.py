"""The worst text for the readers of log messages, and how long they take with it."""

import time
from collections.abc import Callable

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


def seconds(read: Callable[[bytes], object], text: bytes) -> float:
    """Give the shorter of two times of the processor that reading ``text`` takes."""
    taken = []
    for _ in range(2):
        start = time.thread_time()
        read(text)
        taken.append(time.thread_time() - start)
    return min(taken)


def is_linear_in(times: Callable[[int], float], most: int) -> bool:
    """Say whether four times as much takes far less than sixteen times as long.

    Asked several times where it seems not to: a busy machine makes one answer worse, while what takes the
    square of its length does so in every round.
    """
    return any(times(most) < 10 * times(most // 4) + 0.01 for _ in range(ROUNDS))


def is_linear(read: Callable[[bytes], object], head: bytes, filler: bytes, *, most: int = 1_000_000) -> bool:
    """Say whether ``head`` with as much ``filler`` as makes ``most`` bytes is read in linear time."""
    return is_linear_in(lambda size: seconds(read, head + filler * (size // len(filler))), most)
