"""Orders: what is asked of the kernel, and what is said of it."""

from ipaddress import ip_network

from tests.support.attempts import attempts

from ringfence.bans.ledger import key_of
from ringfence.bans.orders import described, in_order, keys_of, lines
from ringfence.errors import FirewallError
from ringfence.firewall.contract import Add, Outcome, Remove
from ringfence.model import Ban, Scope

ONE = ip_network("192.0.2.1")


def test_a_key_becomes_an_order_and_an_order_a_key() -> None:
    """With the scope of the ban."""
    key = key_of(ONE, Scope.SIP_UDP)
    assert in_order(key, 5.0) == Add(ONE, 5.0, Scope.SIP_UDP)
    assert keys_of([in_order(key, 5.0), Remove(ONE)]) == {key, key_of(ONE)}


def test_what_failed_is_said_with_its_reason() -> None:
    """A line each."""
    assert lines([Outcome(Remove(ONE), error=FirewallError("no memory"))]) == ["192.0.2.1/32: no memory"]


def test_a_ban_is_described_for_the_log() -> None:
    """Accounts are hostile text, and no more than five are written."""
    made = attempts(2)
    ban = Ban(ONE, 0.0, 60.4, "guess", attempts=made)
    assert described(ban) == {
        "address": "192.0.2.1/32",
        "seconds": 60,
        "rule": "guess",
        "attempts": 2,
        "accounts": ["alice"],
    }
