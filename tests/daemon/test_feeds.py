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

        def denies(text: str) -> bool:
            return bool(guard.ask("feeds", networks=[text])[0]["denies"])

        lay_cable(far)
        until(lambda: denies("192.0.2.1/32"), "the first list is in force")
        with ends(cable, far, SIP) as (here, there):
            assert (sent(there, here), sent(here, there)) == (True, True)
            write(path, "192.0.2.1", cable.banned)
            until(lambda: denies(f"{cable.banned}/32"), "the second list is in force")
            assert sent(there, here) is True
        with ends(cable, far, SIP) as (here, there):
            assert sent(there, here) is False
        assert guard.command("allow", "add", cable.banned).returncode == 0
        with ends(cable, far, SIP) as (here, there):
            assert sent(there, here) is True
        remove_cable()
