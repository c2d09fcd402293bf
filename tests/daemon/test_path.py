"""The path of one wrong password through the code, traced in a running daemon: what a reader must open."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from attrs import frozen
from tests.support.amiserver import Script
from tests.support.daemon import GRANTED, Guard, ami_server, until

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

TRACED = """
import json, sys
from pathlib import Path
import ringfence
from ringfence.daemon import service

HOME = str(Path(ringfence.__file__).parent)
outermost, calls = None, []

def trace(frame, event, argument):
    global outermost
    code = frame.f_code
    if event == "return" and frame is outermost:
        outermost = None
    if event != "call" or not code.co_filename.startswith(HOME) or code.co_name.startswith("<"):
        return
    if code.co_name == "buffer_updated":
        outermost, calls[:] = frame, []
    if outermost is not None:
        calls.append((code.co_filename[len(HOME) + 1:], code.co_qualname))
        if code.co_qualname == "NetlinkConnection.transact":
            Path(sys.argv[2]).write_text(json.dumps(calls))
            sys.setprofile(None)

sys.setprofile(trace)
sys.exit(service.main(sys.argv[1], "20"))
"""
"""A daemon that writes each function it enters, from the bytes of AMI to the request to the kernel.

Comprehensions and generator expressions are parts of their functions.
"""


@frozen
class Trace:
    """The calls from AMI's bytes to the request to the kernel: each with its file and its function."""

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


@pytest.fixture(name="trace")
def _trace(tmp_path: Path, netns: None) -> Trace:
    """Return the trace of the fifth guess, which is banned."""
    found = tmp_path / "trace.json"
    script = Script([GRANTED, *(GUESS.format(number).encode() for number in range(5))], chunk=0, pause=0.2)
    with ami_server(script) as server:
        guard = Guard(tmp_path, ami={"port": server.port}, firewall={"backend": "nftables"})
        with subprocess.Popen([sys.executable, "-c", TRACED, str(guard.config), str(found)]) as daemon:
            try:
                until(found.exists, "the ban")
                until(lambda: found.read_text("utf-8"), "the trace")
            finally:
                daemon.terminate()
    return Trace([(file, function) for file, function in json.loads(found.read_text("utf-8"))])


def test_a_guess_enters_few_rooms(trace: Trace) -> None:
    """From AMI's bytes to the request to the kernel a reader opens this many files and functions at most."""
    print(*(f"{file}: {function}" for file, function in trace.calls), sep="\n")
    print(len(trace.files), len(trace.functions), trace.changes)
    assert len(trace.files) <= 31
    assert len(trace.functions) <= 122
    assert trace.changes <= 94
