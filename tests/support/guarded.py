"""ringfence running beside a real Asterisk of the laboratory.

``guarded`` starts a daemon for one test. ``shared`` has one daemon for all tests of a file with the same
settings: each test has its own senders, and sees the bans that began since its own begin.
"""

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER
from tests.support.daemon import Guard, until
from tests.support.lab import Lab

from ringfence import street
from ringfence.errors import RingfenceError
from ringfence.firewall import network_lists
from ringfence.firewall.ipset.sets import list_set_name

NO_LOGS: dict[str, object] = {"paths": []}
NO_WIRE: dict[str, object] = {"enabled": False}

_READY = 0.1
"""Seconds between two looks at the status: for each, the daemon starts iptables-save several times."""
_UNIT = Path(__file__).parents[2] / "contrib/systemd/ringfence.service"


def preferred(guard: Guard) -> None:
    """Set the daemon to the priority (``Nice=``) of the systemd unit, if the unit sets one."""
    nice = re.search(r"^Nice=(-?\d+)$", _UNIT.read_text("utf-8"), re.MULTILINE)
    if nice is not None:
        for thread in Path(f"/proc/{guard.pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), int(nice[1]))


def until_rationed(guard: Guard) -> None:
    """Wait until the ration drops packets."""
    until(lambda: guard.ask("status")["firewall"]["ration"] == "enforce", "the ration")


def until_asking(guard: Guard) -> None:
    """Wait until the ration of questions drops packets."""
    until(lambda: guard.ask("status")["firewall"]["asking"] == "enforce", "the ration of questions")


def until_known(guard: Guard, *ports: int) -> None:
    """Wait until the rules know what is spoken at these ports."""

    def known() -> bool:
        [*_, line] = ["", *(line for line in guard.log.splitlines() if "event=asterisk.ports" in line)]
        sip, _, _ = line.partition(" other=")
        return {*map(str, ports)} <= {*sip.replace("=", ",").replace(" ", ",").split(",")}

    until(known, "the ports")


def passing(lab: Lab, backend: str) -> set[str]:
    """Return the addresses in the kernel's list of friends (IPv4)."""
    command = ["nft", "list", "set", "inet", "ringfence", "friends4"]
    if backend == "ipset":
        command = ["ipset", "list", list_set_name(network_lists.FRIENDS, 4)]
    found = set()
    for word in lab.run(*command).replace(",", " ").split():
        first, _, last = word.partition("-")  # nft prints neighbours as a range
        with suppress(ValueError):
            ends = ip_network(first), ip_network(last or first)
            found |= {str(ip_address(n)) for n in range(int(ends[0][0]), int(ends[1][-1]) + 1)}
    return found


class SharedGuard(Guard):
    """A daemon for several tests: it lists the bans of the present test only."""

    _before: frozenset[str] = frozenset()
    _began = 0.0
    _started = 0
    _ended = 0.0

    def begin(self) -> None:
        """Prepare a test; wait for the sources if the test before started the daemon again.

        All senders that ask PJSIP within a second get the same nonce, which then proves no address. So a test
        does not begin in the second in which the one before ended.
        """
        time.sleep(max(0.0, int(self._ended) + 1.0 - time.time()))
        if self.pid != self._started:
            until(lambda: self.source_is("listening"), "all sources", pause=_READY)
            self._started = self.pid
        self._before = frozenset(row["address"] for row in super().bans())
        self._began = time.time()

    def end(self) -> None:
        """End a test."""
        self._ended = time.time()

    def bans(self) -> list[dict[str, Any]]:
        """Return the bans of addresses that were not banned when the test began.

        A busy machine may ban a sender of an earlier test only now. So a ban without an attempt since the
        test's begin is left out too.
        """
        rows = [row for row in super().bans() if row["address"] not in self._before]
        late = {row["address"] for row in rows if row["origin"] == "rule" and self._is_late(row["address"])}
        self._before |= late
        return [row for row in rows if row["address"] not in late]

    def _is_late(self, address: str) -> bool:
        if not self._began:  # one test alone has this guard, and perhaps thousands of bans
            return False
        attempts = self.attempts_of(address)
        times = [datetime.fromisoformat(one["time"]).timestamp() for one in attempts]
        return bool(times) and max(times) < self._began - 1.0  # they are in whole seconds

    def attempts_of(self, address: str) -> list[dict[str, Any]]:
        """Return the attempts of an address."""
        attempts: list[dict[str, Any]] = self.ask("why", network=address)["attempts"]
        return attempts


@frozen
class _Running:
    """A shared daemon, its settings, and the stack whose end stops it."""

    settings: Mapping[str, Any]
    guard: SharedGuard
    end: ExitStack


_running: dict[str, _Running] = {}
"""The shared daemon of each laboratory, by the namespace of its PBX."""


@contextmanager
def shared(lab: Lab, **settings: Any) -> Iterator[SharedGuard]:  # noqa: ANN401 - whatever TOML holds
    """Guard the laboratory's Asterisk as :func:`guarded` does, with a daemon that goes on after the block.

    The next call with the same settings gets this daemon again; one with others stops it, and so does the end
    of the file. The senders of all tests guess at the same accounts, so the rule ``distributed`` is off. If
    the block fails, the daemon's status and log are printed, and it ends.
    """
    settings["rules"] = {"distributed": {"enabled": False}, **settings.get("rules", {})}
    running = _running.get(lab.network.pbx)
    if running is None or running.settings != settings or not running.guard.running:
        running = _start_shared(lab, settings)
    try:
        running.guard.begin()
        yield running.guard
        running.guard.end()
    except BaseException:
        with suppress(RingfenceError):
            print(running.guard.ask("status"))
        print(running.guard.log)
        end_shared(lab)
        raise


def end_shared(lab: Lab) -> None:
    """Stop the laboratory's shared daemon, if there is one: two daemons would change the same firewall."""
    _end(lab.network.pbx)


def end_all_shared() -> None:
    """Stop the shared daemons of all laboratories."""
    for namespace in list(_running):
        _end(namespace)


def _end(namespace: str) -> None:
    running = _running.pop(namespace, None)
    if running is not None:
        running.end.close()


def _start_shared(lab: Lab, settings: Mapping[str, Any]) -> _Running:
    end_shared(lab)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ringfence-shared-")))
        guard = stack.enter_context(guarded(lab, folder, **settings))
        running = _Running(settings, guard, stack.pop_all())
    _running[lab.network.pbx] = running
    return running


@contextmanager
def guarded(lab: Lab, folder: Path, **settings: Any) -> Iterator[SharedGuard]:  # noqa: ANN401 - as above
    """Guard the laboratory's Asterisk with ipset until the block ends; leave no rule, ban or registration.

    The daemon reads all three sources. ``logs`` and ``wire`` replace those tables (NO_LOGS, NO_WIRE); ``ami``
    adds to the table of the manager interface, ``proxies`` are SIP proxies, ``hep`` is the table of
    Asterisk's export, and ``others`` are more tables ``[[asterisk]]``. With ``guests``, strangers may call.
    The ration only observes, unless ``firewall`` has one, and that of questions unless its ``asking`` is set:
    most tests judge what the daemon itself does, and their clients give up at the first silence. The block
    begins when all sources listen and the friends are known, unless ``listening=False``.
    """
    end_shared(lab)
    ami = {"username": MANAGER_USER, "secret": SECRET, "port": MANAGER_PORT, **settings.pop("ami", {})}
    listening = settings.pop("listening", True)
    logs = settings.pop("logs", {"paths": [str(lab.asterisk.logs / "ringfence")], "timezone": "UTC"})
    wire = settings.pop("wire", {"enabled": True})
    pbx = {"name": "pbx", "ami": ami, "logs": logs, "wire": wire}
    pbx |= {key: settings.pop(key) for key in ("proxies", "guests", "hep") if key in settings}
    pbxs = [pbx, *settings.pop("others", [])]
    firewall = {"ration": {"mode": "observe"}, **settings.pop("firewall", {"backend": "ipset"})}
    firewall["ration"] = {"asking": "observe", **firewall["ration"]}
    if "ration" not in street.present():  # a copy without it refuses its table
        del firewall["ration"]
    guard = SharedGuard(folder, prefix=lab.network.in_pbx(), asterisk=pbxs, firewall=firewall, **settings)
    with guard:
        try:
            if listening:
                until(lambda: guard.source_is("listening"), "all sources", pause=_READY)
                until(lambda: "friends.known" in guard.log, "the friends to be known")
            yield guard
        finally:
            _off(guard)
            lab.asterisk.forget_phones()


def _off(guard: Guard) -> None:
    """Remove all rules, by the daemon or by the command without it."""
    try:
        guard.ask("off")
    except RingfenceError:
        guard.command("off")
