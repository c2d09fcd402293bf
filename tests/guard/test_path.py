"""The path of one wrong password through the code, traced in a running daemon: what a reader must open.

By AMI it is traced up to the request to the kernel. The log and the wire are traced up to the detector, where
their paths join that of AMI.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from attrs import frozen
from tests.support.amiserver import Script
from tests.support.asterisk import SECRET
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

from ringfence.errors import DaemonUnreachableError

pytestmark = pytest.mark.kernel

GUESS = (
    "Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\n"
    "EventTV: 2026-11-20T06:05:0{0}.462+0000\r\nSeverity: Error\r\nService: PJSIP\r\n"
    "EventVersion: 1\r\nAccountID: alice\r\nSessionID: deb91e705914d43{0}\r\n"
    "LocalAddress: IPV4/UDP/198.18.0.1/5060\r\nRemoteAddress: IPV4/UDP/198.18.1.101/37921\r\n"
    "Challenge: 179515470{0}/a045dd3f00d2fdc7bf4bebb3c98ec57e\r\n"
    "Response: 7d23cb639b2c26cccbfdea1b2a0d296{0}\r\n"
    "ExpectedResponse: \r\n\r\n"
)

LINE = next(
    line
    for line in capture("asterisk-22", "wrong-password-register").security_log.read_bytes().split(b"\n")
    if b"ChallengeResponseFailed" in line
)
CHALLENGE = (
    b"SIP/2.0 401 Unauthorized\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.2:5062;rport=5062;received=127.0.0.2;branch=z9hG4bK1\r\n"
    b"Call-ID: deb91e705914d430\r\n"
    b"From: <sip:alice@127.0.0.1>;tag=1\r\nTo: <sip:alice@127.0.0.1>;tag=z9hG4bK1\r\nCSeq: 1 REGISTER\r\n"
    b'WWW-Authenticate: Digest realm="asterisk",nonce="1795154700/a045dd3f00d2fdc7bf4bebb3c98ec57e",'
    b'opaque="6a04b4a71ba1c2bb",algorithm=MD5,qop="auth"\r\n'
    b"Content-Length: 0\r\n\r\n"
)

TRACED = """
import json, sys
from pathlib import Path
import ringfence
from ringfence.guard import service

HOME = str(Path(ringfence.__file__).parent)
first, last = sys.argv[3:5]
skipped = int(sys.argv[5])
outermost, calls = None, []

def trace(frame, event, argument):
    global outermost, skipped
    code = frame.f_code
    if event == "return" and frame is outermost:
        outermost = None
    if event != "call" or not code.co_filename.startswith(HOME) or code.co_name.startswith("<"):
        return
    if code.co_qualname == first:
        outermost, calls[:] = frame, []
    if outermost is not None:
        calls.append((code.co_filename[len(HOME) + 1:], code.co_qualname))
        if code.co_qualname == last and skipped:
            outermost, skipped = None, skipped - 1
        elif code.co_qualname == last:
            Path(sys.argv[2]).write_text(json.dumps(calls))
            sys.setprofile(None)

sys.setprofile(trace)
sys.exit(service.main(sys.argv[1], "20"))
"""
"""A daemon that writes each function it enters, from the call of the function ``first`` to that of ``last``.

The last call of ``first`` before that of ``last`` counts, after some ``skipped`` paths. Comprehensions and
generator expressions are parts of their functions.
"""


@frozen
class Trace:
    """The calls between two functions: each with its file and its function."""

    calls: list[tuple[str, str]]

    @property
    def files(self) -> set[str]:
        """The files that the path enters."""
        return {file for file, _ in self.calls}

    @property
    def functions(self) -> set[tuple[str, str]]:
        """The functions that the path enters."""
        return {*self.calls}

    @property
    def changes(self) -> int:
        """How often the path goes from one file to another."""
        return sum(one[0] != other[0] for one, other in pairwise(self.calls))


def assert_at_most(trace: Trace, files: int, functions: int, changes: int) -> None:
    """Print a path, and compare it with its maxima."""
    print(*(f"{file}: {function}" for file, function in trace.calls), sep="\n")
    print(len(trace.files), len(trace.functions), trace.changes)
    assert len(trace.files) <= files
    assert len(trace.functions) <= functions
    assert trace.changes <= changes


@contextmanager
def traced(guard: Guard, first: str, last: str, *, skipped: int = 0) -> Iterator[Path]:
    """Run a daemon that traces itself from ``first`` to ``last``; yield the file that it writes.

    ``skipped`` is the number of paths before the one that counts.
    """
    found = guard.folder / "trace.json"
    command = [sys.executable, "-c", TRACED, str(guard.config), str(found), first, last, str(skipped)]
    with subprocess.Popen(command) as daemon:
        try:
            yield found
        finally:
            daemon.terminate()


def read_trace(found: Path) -> Trace:
    """Wait for the trace, and return it."""
    until(found.exists, "the end of the path")
    until(lambda: found.read_text("utf-8"), "the trace")
    return Trace([(file, function) for file, function in json.loads(found.read_text("utf-8"))])


def listens(guard: Guard) -> bool:
    """Whether the daemon answers, and its sources listen. Its socket exists before it listens."""
    try:
        return guard.source_is("listening")
    except DaemonUnreachableError:
        return False


def has_judged(guard: Guard, number: int) -> bool:
    """Whether the daemon has judged so many attempts."""
    return bool(guard.status()["attempts"] == number)


def test_a_guess_by_ami_enters_few_rooms(tmp_path: Path, netns: None) -> None:
    """From AMI's bytes to the request to the kernel, for the fifth guess, which is banned."""
    with ami_server(Script([GRANTED], chunk=0)) as server:
        guard = Guard(tmp_path, ami={"port": server.port}, firewall={"backend": "nftables"})
        with traced(guard, "_Protocol.buffer_updated", "NetlinkConnection.transact") as found:
            until(lambda: listens(guard), "AMI")
            for number in range(4):  # a busy daemon would read two at once, and the path would show both
                server.send(GUESS.format(number).encode())
                until(partial(has_judged, guard, number + 1), "the guess")
            server.send(GUESS.format(4).encode())
            trace = read_trace(found)
    assert_at_most(trace, files=17, functions=101, changes=32)


def test_a_guess_by_the_log_enters_few_rooms(tmp_path: Path, netns: None) -> None:
    """From the bytes of a SECURITY line to the detector, at an Asterisk without AMI.

    The first line also shows the form of the log, so a later one counts.
    """
    log = tmp_path / "security"
    log.touch()
    pbx = {"name": "pbx", "ami": {"enabled": False}, "wire": {"enabled": False}}
    guard = Guard(tmp_path, asterisk=[pbx | {"logs": {"paths": [str(log)]}}])
    with traced(guard, "RotatingLog.step", "Detector.observe", skipped=1) as found, log.open("ab", 0) as file:
        until(lambda: listens(guard), "the log")
        until(lambda: file.write(LINE + b"\n") and found.exists(), "the end of the path", pause=0.2)
        trace = read_trace(found)
    assert_at_most(trace, files=10, functions=40, changes=14)


def test_a_challenge_on_the_wire_enters_few_rooms(tmp_path: Path, netns: None) -> None:
    """From the packet that the kernel copied to the detector, for a challenge that leaves this host.

    With the first challenge the daemon also looks up the users of Asterisk's sockets, so a later one counts.
    """
    with ami_server(Script([GRANTED], chunk=0)) as server:
        pbx = {"name": "pbx", "ami": {"port": server.port, "secret": SECRET}, "logs": {"paths": []}}
        guard = Guard(
            tmp_path, asterisk=[pbx | {"wire": {"enabled": True}}], firewall={"backend": "nftables"}
        )
        with (
            traced(guard, "NflogSource._readable", "Detector.observe_answers", skipped=2) as found,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asterisk,
        ):
            asterisk.bind(("127.0.0.1", 5060))

            def challenge() -> bool:
                asterisk.sendto(CHALLENGE, ("127.0.0.2", 5062))
                return found.exists()

            # A busy daemon would read two at once, and the path would show both.
            until(challenge, "the end of the path", pause=1.0)
            trace = read_trace(found)
    assert_at_most(trace, files=12, functions=39, changes=24)
