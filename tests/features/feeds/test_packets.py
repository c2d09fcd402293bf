"""Feeds in a daemon with a real firewall: which packets arrive."""

import os
from pathlib import Path

import pytest
from tests.support.cable import CABLES, lay_cable, remove_cable
from tests.support.daemon import Guard, until
from tests.support.netns import neighbour
from tests.support.packets import SIP, ends, sent

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def write(path: Path, *lines: str) -> None:
    """Replace a feed's file, so that the daemon need not wait until it is at rest."""
    new = path.with_name("new")
    new.write_text("".join(f"{line}\n" for line in lines))
    os.utime(new, (1, 1))
    new.replace(path)


@pytest.mark.parametrize("backend", ["nftables", "ipset"])
def test_a_feed_drops_strangers_and_nobody_else(tmp_path: Path, backend: str) -> None:
    """New packets of a listed stranger are dropped; known flows, and an allowed address, pass."""
    path, cable = tmp_path / "list.txt", CABLES["IPv4"]
    write(path, "192.0.2.1")
    feeds = [{"name": "office", "file": str(path)}]
    with neighbour() as far, Guard(tmp_path, firewall={"backend": backend}, feeds=feeds) as guard:

        def arrives() -> bool:
            """Whether the first packet of a new flow arrives."""
            with ends(cable, far, SIP) as (here, there):
                return sent(there, here) is True

        lay_cable(far)
        until(lambda: guard.ask("feeds")[0]["networks"] == 1, "the first list is taken over")
        with ends(cable, far, SIP) as (here, there):
            assert (sent(there, here), sent(here, there)) == (True, True)
            write(path, "192.0.2.1", cable.banned)
            until(lambda: not arrives(), "new flows are dropped")
            assert sent(there, here) is True
        assert guard.command("allow", "add", cable.banned).returncode == 0
        until(arrives, "new flows pass")
        remove_cable()
