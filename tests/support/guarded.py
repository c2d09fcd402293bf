"""ringfence running beside a real Asterisk of the laboratory."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER
from tests.support.daemon import Guard, until
from tests.support.lab import Lab

from ringfence.firewall.contract import NetworkList
from ringfence.firewall.ipset.sets import list_set_name

NO_LOGS: dict[str, object] = {"paths": []}
NO_WIRE: dict[str, object] = {"enabled": False}

_UNIT = Path(__file__).parents[2] / "contrib/systemd/ringfence.service"


def preferred(guard: Guard) -> None:
    """Set the daemon to the priority (``Nice=``) of the systemd unit, if the unit sets one."""
    nice = re.search(r"^Nice=(-?\d+)$", _UNIT.read_text("utf-8"), re.MULTILINE)
    if nice is not None:
        for thread in Path(f"/proc/{guard.pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), int(nice[1]))


def until_rationed(guard: Guard) -> None:
    """Wait until the ration drops packets: at first it only observes."""
    until(lambda: guard.ask("status")["firewall"]["ration"] == "enforce", "the ration")


def passing(lab: Lab, backend: str) -> set[str]:
    """Return the addresses in the kernel's list of friends (IPv4)."""
    command = ["nft", "list", "set", "inet", "ringfence", "friends4"]
    if backend == "ipset":
        command = ["ipset", "list", list_set_name(NetworkList.FRIENDS, 4)]
    found = set()
    for word in lab.run(*command).replace(",", " ").split():
        first, _, last = word.partition("-")  # nft prints neighbours as a range
        with suppress(ValueError):
            ends = ip_network(first), ip_network(last or first)
            found |= {str(ip_address(n)) for n in range(int(ends[0][0]), int(ends[1][-1]) + 1)}
    return found


@contextmanager
def guarded(lab: Lab, folder: Path, **settings: Any) -> Iterator[Guard]:  # noqa: ANN401 - whatever TOML holds
    """Guard the laboratory's Asterisk with ipset until the block ends; leave no rule and no ban.

    The daemon reads all three sources. ``logs`` and ``wire`` replace those tables (NO_LOGS, NO_WIRE); ``ami``
    adds to the table of the manager interface, ``proxies`` are SIP proxies. The ration only observes, unless
    ``firewall`` has one: most tests judge what the daemon itself does, and their clients give up at the first
    silence. The block begins when all sources listen and the friends are known, unless ``listening=False``.
    """
    ami = {"username": MANAGER_USER, "secret": SECRET, "port": MANAGER_PORT, **settings.pop("ami", {})}
    listening = settings.pop("listening", True)
    logs = settings.pop("logs", {"paths": [str(lab.asterisk.logs / "ringfence")], "timezone": "UTC"})
    wire = settings.pop("wire", {"enabled": True})
    proxies = settings.pop("proxies", [])
    pbx = {"name": "pbx", "ami": ami, "logs": logs, "wire": wire, "proxies": proxies}
    firewall = {"ration": {"mode": "observe"}, **settings.pop("firewall", {"backend": "ipset"})}
    guard = Guard(folder, prefix=lab.network.in_pbx(), asterisk=[pbx], firewall=firewall, **settings)
    with guard:
        try:
            if listening:
                until(lambda: guard.source_is("listening"), "all sources")
                until(lambda: "friends.known" in guard.log, "the friends to be known")
            yield guard
        finally:
            guard.command("off")
