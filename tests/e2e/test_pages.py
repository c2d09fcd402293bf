"""A web page that makes a browser guess by WebSocket, at a real Asterisk."""

import pytest
from tests.support.daemon import until
from tests.support.guarded import shared
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.sip_raw import Raw, calling, guess_until

pytestmark = pytest.mark.asterisk


PAGES = [
    ("http://evil.example", "sip-tcp"),
    ("null", "sip-tcp"),
    ("http://198.18.0.99:8088", "sip-tcp"),
    (f"http://{PBX_IPV4}:8088", "sip"),
    ("", "sip"),
]


@pytest.mark.parametrize(("origin", "scope"), PAGES)
def test_a_page_of_another_site_closes_its_transport_only(open22: Lab, origin: str, scope: str) -> None:
    """An office in which a browser shows a malicious page keeps SIP by UDP, and everything that is no SIP."""
    source = f"198.19.{160 + PAGES.index((origin, scope))}.1"
    with shared(open22) as guard:
        with calling(open22, source, "WS", origin=origin) as caller:
            guess_until(caller, Raw(from_user=b"alice"), lambda: source in guard.banned(), "a ban")
        until(lambda: guard.scopes().get(source) == scope, "the ban")
        if scope == "sip-tcp":
            assert "for a web page of another site" in " ".join(guard.ask("why", network=source)["evidence"])
            with calling(open22, source) as caller:
                assert caller.ask(Raw(method=b"OPTIONS", from_user=b"alice", extension=b"100"))
