"""Unusual ports of a real Asterisk: ringfence asks them, and rations the protocols that they speak."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.e2e.test_framing import settle
from tests.support import checked
from tests.support.asterisk_files import CERTIFICATE_NAME
from tests.support.checked import Trial, pipelined, traced
from tests.support.daemon import until
from tests.support.guarded import SharedGuard, end_shared, shared, until_asking, until_known
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, PBX_IPV6
from tests.support.sip_raw import Raw, calling

from ringfence.alarm_codes import is_about_setup

pytestmark = pytest.mark.asterisk

ODD = {"UDP": 15_066, "TCP": 5_070, "TLS": 5_095}
"""A UDP port among those of calls, and a TCP port and a TLS port beside no UDP port."""
ONLY_IPV6 = {"TCP": 5_072, "TLS": 5_097}
LATE = {"UDP": 15_076, "TCP": 5_076, "TLS": 5_098}
CHAN_SIP_TLS = 5_099
RIGHT_AT = 40
MOST = {"UDP": 5, "TCP": 6, "TLS": 6}
"""Guesses. Six short ones fit into a frame, and a whole frame passes."""


def transport(protocol: str, host: str, port: int) -> str:
    """Return the section of a transport of PJSIP."""
    certificate = (
        f"cert_file = /etc/asterisk/{CERTIFICATE_NAME}\npriv_key_file = /etc/asterisk/{CERTIFICATE_NAME}\n"
    )
    more = f"{certificate}method = tlsv1_2\n" if protocol == "TLS" else ""
    return (
        f"\n[odd-{protocol}-{port}]\ntype = transport\nprotocol = {protocol.lower()}\n"
        f"bind = {host}:{port}\n{more}"
    )


def configured(release: str) -> dict[str, str]:
    """Return the configuration of an Asterisk whose ports have unusual numbers."""
    texts = checked.configured(release)
    odd = [transport(protocol, PBX_IPV4, port) for protocol, port in ODD.items()]
    odd += [transport(protocol, f"[{PBX_IPV6}]", port) for protocol, port in ONLY_IPV6.items()]
    sip = texts.get("sip.conf", "").replace(f"{PBX_IPV4}:5061", f"{PBX_IPV4}:{CHAN_SIP_TLS}")
    more = {"sip.conf": sip} if sip else {}
    return {**texts, **more, "pjsip.conf": texts["pjsip.conf"] + "".join(odd)}


@pytest.fixture(scope="module")
def odd22() -> Iterator[Lab]:
    """Yield an Asterisk 22 whose ports have unusual numbers."""
    with Lab.made("22", configured("22")) as lab:
        checked.route(lab)
        yield lab
        end_shared(lab)


@pytest.fixture(scope="module")
def odd16() -> Iterator[Lab]:
    """Yield such an Asterisk 16."""
    with Lab.made("16", configured("16")) as lab:
        checked.route(lab)
        yield lab
        end_shared(lab)


@contextmanager
def rationed(lab: Lab, backend: str, *ports: int) -> Iterator[SharedGuard]:
    """Guard the laboratory's Asterisk; the block begins when the rules know these ports."""
    firewall = {"backend": backend, "ration": {"asking": "enforce"}}
    with shared(lab, firewall=firewall, rules={"prefix": {"enabled": False}}) as guard:
        until_asking(guard)
        until_known(guard, *ports)
        yield guard


def is_bounded(lab: Lab, protocol: str, trial: Trial, version: int = 4) -> None:
    """Guess at once; few guesses are checked, and none behind them registers."""
    with traced(lab) as trace:
        [found] = trace.count((pipelined(protocol, version), trial))
    assert 1 <= found.refused <= MOST[protocol]
    assert not found.registered


@pytest.mark.parametrize(
    ("protocol", "backend"),
    [
        *((protocol, "nftables") for protocol in ODD),
        ("TCP", "ipset"),
        *(pytest.param(protocol, "ipset", marks=pytest.mark.long) for protocol in ("UDP", "TLS")),
    ],
)
def test_guesses_are_rationed_at_any_port(odd22: Lab, backend: str, protocol: str) -> None:
    """The ration covers TCP, TLS and UDP at ports of any number."""
    number = 1 + [*ODD].index(protocol) + (10 if backend == "ipset" else 0)
    with rationed(odd22, backend, *ODD.values()):
        is_bounded(odd22, protocol, Trial(odd22, number, RIGHT_AT, ports=ODD))


@pytest.mark.parametrize("protocol", ["TCP", pytest.param("TLS", marks=pytest.mark.long)])
def test_guesses_are_rationed_at_a_port_of_ipv6_alone(odd22: Lab, protocol: str) -> None:
    """A transport that only listens at an IPv6 address is found and rationed."""
    with rationed(odd22, "nftables", *ONLY_IPV6.values()):
        trial = Trial(odd22, 21 + [*ONLY_IPV6].index(protocol), RIGHT_AT, ports=ONLY_IPV6)
        is_bounded(odd22, protocol, trial, 6)


def test_a_port_of_a_reload_is_rationed_within_seconds(odd22: Lab) -> None:
    """A transport that `pjsip reload` adds is found while the daemon runs."""
    with rationed(odd22, "nftables") as guard:
        file = odd22.asterisk.folder / "etc/pjsip.conf"
        more = "".join(transport(protocol, PBX_IPV4, port) for protocol, port in LATE.items())
        file.write_text(file.read_text("utf-8") + more, "utf-8")
        odd22.asterisk.cli("module reload res_pjsip.so")
        until_known(guard, *LATE.values())
        for number, protocol in enumerate(LATE, 31):
            is_bounded(odd22, protocol, Trial(odd22, number, RIGHT_AT, ports=LATE))


@pytest.mark.parametrize("protocol", ["UDP", "TLS", pytest.param("TCP", marks=pytest.mark.long)])
def test_guesses_are_rationed_at_any_port_of_asterisk_16(odd16: Lab, protocol: str) -> None:
    """PJSIP of Asterisk 16 is rationed at ports of any number, beside chan_sip."""
    with rationed(odd16, "nftables", ODD[protocol]):
        trial = Trial(odd16, 1 + [*ODD].index(protocol), RIGHT_AT, ports=ODD)
        is_bounded(odd16, protocol, trial)


def test_another_tls_port_of_chan_sip_is_rationed(odd16: Lab) -> None:
    """A stranger's packets to chan_sip's ``tlsbindaddr`` are counted, at any port."""
    with rationed(odd16, "nftables", CHAN_SIP_TLS) as guard:
        before = guard.ask("status")["asked"]
        with calling(odd16, "198.19.40.7", "TLS", CHAN_SIP_TLS) as caller:
            for _ in range(20):
                caller.send(Raw(from_user=b"carol"))
            until(lambda: guard.ask("status")["asked"] > before, "the ration")


def test_being_asked_leaves_no_trace(odd16: Lab, odd22: Lab) -> None:
    """To find out what a port speaks causes no security event, no attempt and no alarm."""
    for lab in (odd16, odd22):
        with rationed(lab, "nftables", ODD["TLS"]) as guard:
            settle(guard)
            events = (lab.asterisk.logs / "ringfence").read_text("utf-8", "replace")
            assert "ringfence@" not in events
            assert 'RemoteAddress="IPV4/TLS/198.18.0.1' not in events
            assert guard.attempts_of(PBX_IPV4) == []
            alarms = [one for one in guard.status()["alarms"] if not is_about_setup(one["code"])]
            assert PBX_IPV4 not in str(alarms)
