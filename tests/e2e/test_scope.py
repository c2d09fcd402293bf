"""A ban that closes Asterisk's ports only, on a real Asterisk with each backend."""

import socket
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in

pytestmark = pytest.mark.asterisk

ENDLESS = ("--number", "20000", "--silences", "3")  # one late answer is no ban
SIP, SSH = 5060, 2222
WAIT = 1.0  # seconds; a connection within this network takes a millisecond


def connects(lab: Lab, source: str, port: int) -> bool:
    """Whether a TCP connection from ``source`` to a port of the PBX's host succeeds."""
    with socket_in(lab.network.attacker) as there:
        there.bind((source, 0))
        there.settimeout(WAIT)
        try:
            there.connect((PBX_IPV4, port))
        except TimeoutError:
            return False
        return True


@pytest.mark.parametrize(
    ("backend", "transport"),
    [
        ("ipset", "UDP"),
        ("nftables", "TCP"),
        pytest.param("ipset", "TCP", marks=pytest.mark.long),
        pytest.param("nftables", "UDP", marks=pytest.mark.long),
    ],
)
def test_a_guesser_keeps_the_other_ports(
    asterisk22: Lab, tmp_path: Path, backend: str, transport: str
) -> None:
    """A guesser loses SIP by every transport and keeps SSH, also after enforcement was off."""
    source = f"198.19.{60 + len(backend)}.{1 + len(transport) + ord(transport[0])}"
    settings = {"firewall": {"backend": backend}}
    with (
        guarded(asterisk22, tmp_path, **settings) as guard,
        closing(socket_in(asterisk22.network.pbx)) as sshd,
    ):
        sshd.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sshd.bind((PBX_IPV4, SSH))
        sshd.listen(100)
        assert connects(asterisk22, source, SIP)
        attack = ("guess", *ENDLESS, "--sources", source)
        assert asterisk22.attack(*attack, "--transport", transport).stopped == "silence"

        until(guard.bans, "the ban")
        [row] = guard.bans()
        assert (row["address"], row["rule"], row["scope"]) == (source, "guess", "sip")
        assert asterisk22.attack(*attack, "--transport", "UDP").sent == 0
        assert not connects(asterisk22, source, SIP)
        assert connects(asterisk22, source, SSH)
        why = guard.command("why", source).stdout
        assert why.startswith(f"{source} is banned from the SIP ports\n")

        guard.ask("off")
        assert connects(asterisk22, source, SIP)
        guard.ask("on")
        assert not connects(asterisk22, source, SIP)
        assert connects(asterisk22, source, SSH)
        guard.must("unban", source)
        assert connects(asterisk22, source, SIP)
