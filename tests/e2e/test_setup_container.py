"""``ringfence setup`` on a host whose Asterisk runs in a container on a bridge, with its files in volumes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from tests.support.daemon import until
from tests.support.netns import inside, neighbour, run
from tests.support.network import Network
from tests.support.pbx_machine import Installation, PbxMachine, differing, digest_of, pbx_machine
from tests.support.setup_commands import ATTACKER, WATCHED, guess, proven

from ringfence.values.event import SETUP_ACCOUNT

pytestmark = [pytest.mark.asterisk, pytest.mark.kernel]

VOLUME = "/srv/pbx"
HOST, CONTAINER = "10.9.9.1", "10.9.9.2"
# As Docker publishes a port of a container.
_PUBLISHED = f"""\
table ip published {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        udp dport 5060 dnat to {CONTAINER}
    }}
}}
"""


@frozen
class House:
    """A host with a container on its bridge br9, and a network of an attacker."""

    network: Network
    machine: PbxMachine


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> Iterator[House]:
    with Network() as network, neighbour() as container:
        with inside(network.pbx):
            run("sysctl", "-q", "net.ipv4.ip_forward=1")
            lines = (
                "link add br9 type bridge",
                "link set br9 up",
                f"address add {HOST}/24 dev br9",
                f"link add near9 type veth peer name eth0 netns {container}",
                "link set near9 master br9 up",
            )
            run("ip", "-batch", "-", text="\n".join(lines))
            run("nft", "--file", "-", text=_PUBLISHED)
        run("ip", "-n", container, "link", "set", "eth0", "up")
        run("ip", "-n", container, "address", "add", f"{CONTAINER}/24", "dev", "eth0")
        run("ip", "-n", container, "route", "add", "default", "via", HOST)
        installed = Installation(volume=VOLUME, namespace=container)
        with pbx_machine(tmp_path, network, installed) as machine:
            yield House(network, machine)


def test_an_asterisk_in_a_container_is_protected_over_its_volumes(house: House, package: Path) -> None:
    """The files change in the volumes, the host alone may log in, and an attacker from outside is banned."""
    machine = house.machine
    machine.install(package)
    before = digest_of(machine.root, *WATCHED, VOLUME[1:] + "/etc")
    done = machine.must("ringfence", "setup", "--yes")

    assert f"layout    plain Asterisk in a container, {VOLUME}/etc" in done
    assert proven(done) == ["asterisk/ami", f"asterisk/log:{VOLUME}/log/ringfence/ringfence"]
    assert "\n--  wire: listens; no SIP challenge of the failed login leaves this host" in done
    report = machine.must("ringfence", "report")
    assert (SETUP_ACCOUNT in report, HOST in report) == (False, False)
    guess(house.network)
    until(lambda: machine.banned() == {ATTACKER}, "the ban", pause=0.2)

    machine.must("ringfence", "setup", "--undo", "--yes")
    assert differing(before, digest_of(machine.root, *WATCHED, VOLUME[1:] + "/etc")) == []
    assert not (machine.root / VOLUME[1:] / "log/ringfence").exists()
