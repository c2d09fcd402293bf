"""Two servers with one floating address: after a failover no phone is a stranger to the second one."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.support.asterisk import Asterisk, tree_of
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.guarded import guarded, passing
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, Network, inside
from tests.support.phones import Phone, phones_at, together

pytestmark = pytest.mark.asterisk

STRANGER = "198.19.93.1"
NARROW = {"mode": "enforce", "rate": 1, "burst": 1}  # drops even a single registration of a stranger
STANDBY_IPV4 = "198.18.0.2"

_ACCOUNT = """\
[phone{number}]
type = endpoint
context = internal
disallow = all
allow = ulaw
auth = phone{number}
aors = phone{number}

[phone{number}]
type = auth
auth_type = userpass
username = phone{number}
password = {password}

[phone{number}]
type = aor
max_contacts = 2

"""


def accounts(phones: int) -> dict[str, str]:
    """Return the configuration of both servers: the accounts of the phones and of the stranger."""
    text = "".join(_ACCOUNT.format(number=number, password=PASSWORD) for number in range(1, phones + 2))
    return {"pjsip.conf": text}


def ip(namespace: str, *words: str) -> None:
    """Run `ip` in a namespace."""
    done = subprocess.run(["ip", "-n", namespace, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Pair:
    """The active server, the standby server, and one network of phones in front of both.

    The address of the laboratory's PBX floats. The cable of the second server ends beside that of the first
    one. A route decides which server gets the packets for the address; in real networks a switch does that.
    """

    def __init__(self, stack: ExitStack, phones: int) -> None:
        self.active = stack.enter_context(Lab.made("22", accounts(phones)))
        other = stack.enter_context(Network())
        self._phones = self.active.network.attacker
        ip(other.pbx, "link", "delete", "lan")
        ip(other.pbx, "link", "add", "lan", "type", "veth", "peer", "name", "lan2", "netns", self._phones)
        ip(other.pbx, "address", "add", f"{STANDBY_IPV4}/16", "dev", "lan")
        ip(other.pbx, "address", "add", "fd00:18::2/64", "dev", "lan", "nodad")
        ip(other.pbx, "link", "set", "lan", "up")
        ip(other.pbx, "route", "add", "198.19.0.0/16", "via", "198.18.2.254")
        ip(self._phones, "link", "set", "lan2", "up")
        for family in ("ipv4", "ipv6"):  # to bind an address that is not there yet
            switch = f"echo 1 >/proc/sys/net/{family}/ip_nonlocal_bind"
            subprocess.run(inside(other.pbx, "sh", "-c", switch), check=True)
        asterisk = stack.enter_context(Asterisk(tree_of("22"), other.pbx, extra=accounts(phones)))
        self.standby = Lab(other, asterisk)

    def fail_over(self) -> None:
        """Move the address from the first server to the second one."""
        ip(self.active.network.pbx, "address", "delete", f"{PBX_IPV4}/16", "dev", "lan")
        ip(self.standby.network.pbx, "address", "add", f"{PBX_IPV4}/16", "dev", "lan")
        ip(self._phones, "route", "replace", f"{PBX_IPV4}/32", "dev", "lan2")


@contextmanager
def desks(lab: Lab, phones: int) -> Iterator[Sequence[Phone]]:
    """Yield the phones, each at its own address."""
    with ExitStack() as stack:
        yield [
            phone
            for number in range(1, phones + 1)
            for phone in stack.enter_context(phones_at(lab, f"198.19.92.{number}", [f"phone{number}"]))
        ]


@pytest.mark.parametrize(
    ("backend", "number"),
    [
        ("nftables", 60),
        pytest.param("nftables", 200, marks=pytest.mark.long),
        pytest.param("ipset", 200, marks=pytest.mark.long),
    ],
)
def test_after_a_failover_no_phone_is_a_stranger(tmp_path: Path, backend: str, number: int) -> None:
    """All phones register at once at the second server: no ban, no drop by the narrowest limit."""
    with ExitStack() as stack:
        pair = Pair(stack, number)
        folders = [tmp_path / name for name in ("active", "standby")]
        for folder in folders:
            folder.mkdir()
        firewall = {"backend": backend, "limit": {"mode": "enforce"}}
        active = stack.enter_context(guarded(pair.active, folders[0], firewall=firewall))
        narrow = {**firewall, "limit": NARROW}
        standby = stack.enter_context(guarded(pair.standby, folders[1], firewall=narrow))
        until(lambda: not standby.ask("status")["limiter_waits"], "the limiter at the second server")
        phones = stack.enter_context(desks(pair.active, number))
        assert together(phones, Phone.register) == [200] * number
        until(lambda: len(active.friends()) == number, "every phone a friend at the first server")

        assert standby.friends() == set()
        exported = active.must("friends", "export")
        assert standby.must("friends", "import", "-", text=exported).startswith("imported: ")
        assert standby.friends() == active.friends()
        until(lambda: passing(pair.standby, backend) >= active.friends(), "the friends in the kernel")
        pair.fail_over()
        for phone in phones:
            phone.reboot()
        assert together(phones, Phone.register) == [200] * number
        status = standby.ask("status")

        assert (standby.bans(), active.bans()) == ([], [])
        assert (status["firewall"]["limiter"], status["limiter_drops"]) == ("enforce", 0)
        assert max(phone.asked for phone in phones) == 4
        assert standby.command("ban", PBX_IPV4).returncode == 1  # its own address now
        with phones_at(pair.active, STRANGER, [f"phone{number + 1}"]) as [stranger]:
            until(
                lambda: stranger.register() == 200 and standby.ask("status")["limiter_drops"] > 0,
                "drops of a stranger's packets",
            )
