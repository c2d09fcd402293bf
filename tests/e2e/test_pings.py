"""Requests without credentials at a real Asterisk: pings lead to no attempt, and scans to a ban."""

import time

import pytest
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS, NO_WIRE, shared
from tests.support.lab import Lab
from tests.support.pings import AN_HOUR, TRANSPORTS, ask, ping
from tests.support.sip_raw import Raw, calling, guess_until

pytestmark = pytest.mark.asterisk

SOURCES: dict[str, dict[str, dict[str, object]]] = {
    "all": {},
    "AMI": {"logs": NO_LOGS, "wire": NO_WIRE},
    "log": {"ami": {"enabled": False}, "wire": NO_WIRE},
}
METHODS = [b"OPTIONS", b"REGISTER", b"INVITE", b"SUBSCRIBE"]
ACCOUNTS = [str(number) for number in range(700, 720)]


@pytest.mark.parametrize(
    ("sources", "transport"),
    [
        pytest.param(one, transport, marks=() if at == number else pytest.mark.long)
        for at, one in enumerate(SOURCES)
        for number, transport in enumerate(TRANSPORTS)
    ],
)
def test_the_pings_of_an_hour_are_no_attempt(open22: Lab, sources: str, transport: str) -> None:
    """An SBC that no ``identify`` matches sends OPTIONS and makes no attempt, whatever reports it."""
    source = f"198.19.142.{1 + 3 * list(SOURCES).index(sources) + TRANSPORTS.index(transport)}"
    with shared(open22, **SOURCES[sources]) as guard:
        assert ping(open22, source, transport) == AN_HOUR
        time.sleep(1.5)

        assert guard.attempts_of(source) == []
        assert guard.bans() == []
        [sentence] = guard.ask("why", network=source)["evidence"]
        assert sentence.startswith("sends OPTIONS that" if sources != "AMI" else "sends requests without")
        assert source in [one["address"] for one in guard.status()["pinging"]]


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_the_pings_of_an_hour_at_chan_sip_are_no_attempt(open16: Lab, transport: str) -> None:
    """chan_sip answers OPTIONS of a stranger, and nothing counts."""
    source = f"198.19.142.{10 + TRANSPORTS.index(transport)}"
    with shared(open16) as guard:
        assert ping(open16, source, transport) == AN_HOUR
        time.sleep(1.5)

        assert guard.attempts_of(source) == []
        assert guard.bans() == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sources", SOURCES)
def test_twenty_accounts_without_credentials_are_an_enumeration(
    open22: Lab, sources: str, method: bytes
) -> None:
    """A sender that asks for twenty accounts is banned, by whatever method, and whatever reports it."""
    source = f"198.19.142.{20 + len(METHODS) * list(SOURCES).index(sources) + METHODS.index(method)}"
    with shared(open22, **SOURCES[sources]) as guard:
        ask(open22, source, ACCOUNTS, method=method)

        until(lambda: [row["address"] for row in guard.bans()] == [source], "the ban")
        assert [(row["rule"], row["scope"]) for row in guard.bans()] == [("enumeration", "sip-udp")]


@pytest.mark.parametrize("transport", ["UDP", "TCP", "TLS"])
def test_calls_of_an_sbc_without_identify_close_their_transport_only(open22: Lab, transport: str) -> None:
    """After a trunk failed over, the new nodes of the carrier call, each for an account of its own.

    Their /24 gets no ban, and each node a short one of the transport that it uses.
    """
    net = f"198.19.{150 + TRANSPORTS.index(transport)}."
    with shared(open22) as guard:
        for node in range(1, 5):
            with calling(open22, f"{net}{node}", transport) as caller:
                for number in range(6):
                    caller.ask(Raw(method=b"INVITE", from_user=b"sbc%d%d" % (node, number), extension=b"100"))
        until(lambda: len(guard.bans()) == 4, "the bans")
        scope = "sip-udp" if transport == "UDP" else "sip-tcp"
        assert {row["scope"] for row in guard.bans()} == {scope}
        assert guard.banned() == {f"{net}{node}" for node in range(1, 5)}
        assert "had no credentials" in " ".join(guard.ask("why", network=f"{net}1")["evidence"])


def test_a_reload_frees_a_carrier_and_no_guesser(open22: Lab) -> None:
    """When Asterisk has read its trunks again, an ``identify`` may match who called: its ban ends."""
    carrier, guesser = "198.19.156.1", "198.19.156.2"
    with shared(open22) as guard:
        with calling(open22, carrier, "TCP") as caller:
            for number in range(6):
                caller.ask(Raw(method=b"INVITE", from_user=b"sbc%d" % number, extension=b"100"))
        with calling(open22, guesser, "TCP") as caller:
            guess_until(caller, Raw(from_user=b"alice"), lambda: guesser in guard.banned(), "a ban")
        until(lambda: guard.banned() == {carrier, guesser}, "the bans")
        open22.asterisk.cli("module reload res_pjsip_endpoint_identifier_ip.so")
        until(lambda: guard.banned() == {guesser}, "the end of the ban")
        with calling(open22, carrier, "TCP") as caller:
            assert caller.ask(Raw(method=b"OPTIONS", from_user=b"sbc", extension=b"100"))


@pytest.mark.parametrize("transport", ["TCP", "TLS"])
def test_guesses_by_calls_at_unknown_accounts_are_no_calls(open22: Lab, transport: str) -> None:
    """A guesser that calls, and answers the challenges, loses SIP by every transport.

    The ban is that of ``guess`` if the wire reports the fifth guess before AMI reports the third reason.
    """
    source = f"198.19.155.{1 + TRANSPORTS.index(transport)}"
    with shared(open22) as guard:
        with calling(open22, source, transport) as caller:
            for number in range(8):
                caller.guess(Raw(method=b"INVITE", from_user=b"none%d" % number, extension=b"100"), "x", 2.0)
        until(lambda: {row["scope"] for row in guard.bans()} in ({"full"}, {"sip"}), "the full ban")
        assert [row["address"] for row in guard.bans()] == [source]


def test_a_guesser_that_pings_too_is_banned_for_its_guesses(open22: Lab) -> None:
    """Pings before, between and under the Call-IDs of guesses excuse none of them."""
    source = "198.19.142.40"
    with shared(open22) as guard:
        ping(open22, source)
        with calling(open22, source) as caller:
            guess_until(caller, Raw(from_user=b"alice"), guard.bans, "a ban")

        until(lambda: [row["rule"] for row in guard.bans()] == ["guess"], "the ban")
