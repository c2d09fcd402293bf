"""``make demo``: an attack on a PBX that ringfence guards, with the output that an administrator sees.

``attack``: a real Asterisk in network namespaces of its own, a SIP client that guesses a password at full
speed, and the ban in the kernel. ``replay``: the same daemon on recorded bytes of a real Asterisk, sent by a
small AMI server, with the memory firewall: nothing is dropped, so root is not needed. Everything is removed
at the end, also after Ctrl-C and SIGTERM.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import Guard, ami_server, until
from tests.support.guarded import guarded
from tests.support.lab import Lab, why_no_asterisk
from tests.support.sip import Result

ATTACKER = "198.19.66.6"
PHONE = "198.19.7.7"
_INSISTENT = ("--number", "1000", "--silences", "8", "--timeout", "0.3", "--reuse-nonce")
"""The ration drops answers before the ban, so the guesser goes on through two seconds of silence."""


def attack(folder: Path, watch: int) -> None:
    """Run a real attacker against a real, guarded Asterisk; show the ban for ``watch`` seconds."""
    if reason := why_no_asterisk("22"):
        raise SystemExit(f"The demo needs a real Asterisk: {reason}. Without one: make demo DEMO=replay")
    _say("Starting a real Asterisk in a network of its own")
    with Lab.made("22") as lab:
        _note(lab.asterisk.version)
        _say("Starting ringfence beside it: five wrong guesses are a ban")
        with guarded(lab, folder, firewall={"backend": "ipset", "ration": {}}) as guard:
            until(lambda: _line_of("ration", guard).startswith("ration    enforce:"), "the ration")
            _note(_line_of("firewall", guard))
            _say(f"{ATTACKER} guesses the password of extension alice, as fast as it can")
            result = lab.attack("guess", *_INSISTENT, "--sources", ATTACKER)
            _show_guesses(result)
            until(guard.bans, "the ban")
            _watch(guard, watch)
            _say(f"A phone with the right password, at {PHONE}, registers as ever")
            _note(_phone(lab.attack("register", "--sources", PHONE)))
            _say("`ringfence off` lets everybody in again, at once")
            guard.command("off")
            again = lab.attack("guess", "--number", "3", "--sources", ATTACKER)
            _note(f"{again.answered} of {again.sent} guesses answered")
    _say("Everything is removed")


def replay(folder: Path, watch: int) -> None:
    """Send a recording to the daemon; show the ban for ``watch`` seconds."""
    _say("No Asterisk and no kernel firewall here: a REPLAY of recorded bytes, with the memory firewall")
    recorded = capture("hostile-22", "parallel-one-call-id")
    _note(f"recorded from a real Asterisk 22: {recorded.attempts} guesses from {recorded.source}")
    script = Script(play=[recorded.ami.read_bytes()], chunk=0, pause=0.1)
    with ami_server(script) as server, Guard(folder, ami={"port": server.port}) as guard:
        _note(_line_of("firewall", guard))
        until(guard.bans, "the ban")
        _watch(guard, watch)
    _say("Everything is removed. With a real Asterisk and real drops, as root on Debian: make demo")


def _show_guesses(result: Result) -> None:
    for number, at in enumerate(result.answered_at, start=1):
        _note(f"guess {number}: answered after {1_000 * (at - result.first_sent):.1f} ms")
    _note(f"no answer to the other {result.sent - result.answered} of {result.sent} guesses")


def _phone(result: Result) -> str:
    return "200 OK" if result.statuses == {"200": 1} else f"NOT registered: {result.statuses}"


def _line_of(label: str, guard: Guard) -> str:
    """Return the line of ``ringfence status`` that begins with ``label``."""
    lines = guard.command("status").stdout.split("\n")
    return next((line for line in lines if line.startswith(label)), "")


def _watch(guard: Guard, seconds: int) -> None:
    _say("The ban, as `ringfence bans` reads it from the firewall, its time running out")
    for second in range(seconds):
        header, *rows = guard.command("bans").stdout.rstrip().split("\n")
        for line in [header, *rows] if second == 0 else rows:
            _note(line)
        time.sleep(1)


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _note(text: str) -> None:
    print(f"   {text}", flush=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM end the demo in order, with everything removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        _say("Interrupted: everything is removed")
        sys.exit(130)


def main() -> None:
    """Run the requested demo."""
    parser = argparse.ArgumentParser(prog="make demo", description="See ringfence at work.")
    parser.add_argument("which", choices=("attack", "replay"))
    parser.add_argument("--watch", type=int, default=5, help="seconds that the ban is shown")
    options = parser.parse_args()
    which = {"attack": attack, "replay": replay}[options.which]
    with _interruptible(), tempfile.TemporaryDirectory(prefix="ringfence-demo-") as folder:
        which(Path(folder), options.watch)


main()
