"""``ringfence setup`` on a machine: the sources that it proves, a guesser after it, and a kill."""

from tests.support.network import Network
from tests.support.pbx_machine import PbxMachine
from tests.support.sip import Attack

LOG = "/var/log/ringfence/ringfence"
"""The log that setup makes Asterisk write."""
SOURCES = ["asterisk/ami", f"asterisk/log:{LOG}", "wire"]
"""The sources of an Asterisk on the host itself."""
WATCHED = ("etc", "usr/local", "var/lib/ringfence", "var/lib/ringfence-setup", "var/log/ringfence")
"""The folders of the host that must be as before after an undo."""
ATTACKER = "198.18.1.7"

# As `ringfence setup --yes`, killed before its write of this number. A start of a process counts as a write.
_KILLED = """\
import os, signal, sys
CHANGES = ("rename", "remove", "mkdir", "rmdir", "chmod", "chown")
STEPS = {"subprocess.Popen", *(f"os.{name}" for name in CHANGES)}
count = 0
def hook(event, arguments):
    global count
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes and arguments[0] != os.devnull) or event in STEPS:
        count += 1
        if count == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
from ringfence.features.setup.command import SetupRun
from ringfence.features.setup.texts import HostPaths
sys.addaudithook(hook)
SetupRun(HostPaths(), dry_run=False, yes=True).setup()
print(f"writes {count}")
"""
_RUN = ("env", "PYTHONPATH=/usr/share/ringfence/python", "python3", "-P", "-c", _KILLED)
_KILLED_BY_SIGNAL = -9


def setup(machine: PbxMachine) -> str:
    """Run setup, which must succeed; return its output."""
    return machine.must("ringfence", "setup", "--yes")


def undo(machine: PbxMachine) -> None:
    """Undo setup, which must succeed."""
    machine.must("ringfence", "setup", "--undo", "--yes")


def proven(output: str) -> list[str]:
    """Return the sources that reported the failed login."""
    lines = (line for line in output.split("\n") if line.endswith(": reported the failed login"))
    return [line.removeprefix("ok  ").partition(": reported")[0] for line in lines]


def guess(network: Network, number: int = 20) -> None:
    """Guess passwords from the attacker's side; go on after guesses that a ration drops or leaves unanswered.

    Each guess is one datagram: of two, sent together, the ration of questions drops the second.
    """
    every = ("--number", str(number), "--silences", str(number), "--reuse-nonce")
    Attack(network.attacker, "guess", *every, "--sources", ATTACKER).result()


def writes_of_setup(machine: PbxMachine) -> int:
    """Run setup, and return the number of its writes."""
    return int(machine.must(*_RUN, "0").rpartition("writes ")[2])


def kill_setup(machine: PbxMachine, number: int) -> bool:
    """Run setup, and kill it before the write of this number; return whether it had so many writes."""
    done = machine.run(*_RUN, str(number))
    assert done.returncode in {0, _KILLED_BY_SIGNAL}, done.stdout + done.stderr
    return done.returncode == _KILLED_BY_SIGNAL
