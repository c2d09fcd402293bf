"""Bans from before a reboot: in the kernel before the network is up, and before a daemon runs."""

import socket
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.support.daemon import Guard
from tests.support.netns import inside, neighbour, netns, run

from ringfence.firewall import network_lists
from ringfence.firewall.ipset.sets import list_set_name
from ringfence.store.database import Store
from ringfence.values.ban import Ban, Origin
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import Network

FIREWALLS = ["ipset", "nftables"]
BANNED, FREE = "198.18.0.7", "198.18.0.8"
PORT = 5060


def record(path: Path, *networks: str) -> None:
    """Record bans from before the reboot in the database."""
    now = time.time()
    bans = [
        Ban(network_of(text), since=now, expires=now + 600, rule="guess", reason="before", origin=Origin.RULE)
        for text in networks
    ]
    with Store.open(path, owner=False) as store:
        store.bans.record(bans)


def network_of(text: str) -> Network:
    """Return a network."""
    network: Network = ip_network(text)
    return network


@pytest.mark.kernel
@pytest.mark.parametrize("firewall", FIREWALLS)
def test_banned_addresses_are_blocked_from_boot_on(tmp_path: Path, firewall: str) -> None:
    """After `restore`, with an empty kernel and no interface up, no packet of a banned address arrives."""
    record(tmp_path / "ringfence.db", BANNED, "2001:db8::/64")
    guard = Guard(tmp_path, firewall={"backend": firewall})
    with netns(loopback=False), neighbour() as sender:
        done = guard.command("restore")
        assert (done.returncode, done.stdout) == (0, f"2 bans are in place ({firewall})\n")

        run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", sender)
        run("ip", "address", "add", "198.18.0.1/16", "dev", "cable")
        run("ip", "link", "set", "cable", "up")
        for address in (BANNED, FREE):
            run("ip", "-n", sender, "address", "add", f"{address}/16", "dev", "cable")
        run("ip", "-n", sender, "link", "set", "cable", "up")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pbx:
            pbx.bind(("198.18.0.1", PORT))
            pbx.settimeout(2.0)
            arrived = [_send(sender, address, pbx) for address in (BANNED, FREE)]

        assert arrived == [False, True]
        assert {row["address"] for row in guard.bans()} == {BANNED, "2001:db8::/64"}
        guard.command("off")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("firewall", FIREWALLS)
def test_friends_pass_the_limiter_from_boot_on(tmp_path: Path, firewall: str) -> None:
    """`restore` also restores the list of friends, so the limiter can enforce from the first packet on."""
    now, phone = time.time(), ip_address(FREE)
    with Store.open(tmp_path / "ringfence.db", owner=False) as store:
        store.friends.add([Friend("pbx", phone, "alice", FriendReason.AUTHENTICATED, now, now, now + 600)])
    guard = Guard(tmp_path, firewall={"backend": firewall, "limit": {"mode": "enforce"}})
    guard.must("restore")
    listed = {
        "ipset": ("ipset", "list", list_set_name(network_lists.FRIENDS, 4)),
        "nftables": ("nft", "list", "set", "inet", "ringfence", "friends4"),
    }

    assert FREE in run(*listed[firewall])
    guard.must("off")


def _send(sender: str, address: str, pbx: socket.socket) -> bool:
    """Send a packet from an address; return whether it arrived."""
    with inside(sender), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind((address, 0))
        phone.sendto(b"REGISTER", ("198.18.0.1", PORT))
    try:
        return bool(pbx.recvfrom(100)[1][0] == address)
    except TimeoutError:
        return False


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("firewall", ["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def test_the_daemon_goes_on_with_what_the_boot_put_back(tmp_path: Path, firewall: str) -> None:
    """The daemon keeps the bans that the boot restored, and restores none twice."""
    record(tmp_path / "ringfence.db", BANNED)
    guard = Guard(tmp_path, firewall={"backend": firewall})
    guard.command("restore")
    with guard:
        assert guard.banned() == {BANNED}
        assert "event=bans.restored kept=1 put_back=0 adopted=0" in guard.log
        again = guard.command("restore")
        guard.command("off")

    assert again.returncode == 1
    assert "another ringfence" in again.stderr


def test_nothing_is_put_in_place_where_nothing_is_wanted(tmp_path: Path) -> None:
    """If enforcement is off, `restore` places no rule and prints the reason."""
    record(tmp_path / "ringfence.db", BANNED)
    with Store.open(tmp_path / "ringfence.db", owner=False) as store:
        store.state.set_switched_off(True)
    done = Guard(tmp_path).command("restore")

    assert done.returncode == 0
    assert "switched off: nothing was put in place" in done.stdout


def test_invalid_records_do_not_stop_the_start(tmp_path: Path) -> None:
    """Invalid records of a name's addresses or of a trial's end are skipped, and the daemon starts."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        store.state.set_fact("names", '{"sip.carrier.example": ["nowhere"]}')
        store.state.set_fact("trial", "soon")
    with Guard(tmp_path) as guard:
        assert guard.status()["firewall"]["backend"] == "memory"
        assert "the recorded addresses of names are invalid" in guard.log
