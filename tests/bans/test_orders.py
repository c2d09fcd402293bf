"""Orders to the kernel, and the texts about their results."""

from ipaddress import ip_network

from tests.support.attempts import attempts

from ringfence.bans.enforcer import add_order, ban_fields, failure_lines, keys_of
from ringfence.errors import FirewallError
from ringfence.firewall.contract import Add, Outcome, Remove
from ringfence.ledger import key_of
from ringfence.model import Ban, Scope

ONE = ip_network("192.0.2.1")


def test_a_key_becomes_an_order_and_an_order_a_key() -> None:
    """A key becomes an order with the ban's scope, and an order becomes its key."""
    key = key_of(ONE, Scope.SIP_UDP)
    assert add_order(key, 5.0) == Add(ONE, 5.0, Scope.SIP_UDP)
    assert keys_of([add_order(key, 5.0), Remove(ONE)]) == {key, key_of(ONE)}


def test_each_failed_order_is_one_line_with_its_reason() -> None:
    """Each failed order is one line with its reason."""
    assert failure_lines([Outcome(Remove(ONE), error=FirewallError("no memory"))]) == [
        "192.0.2.1/32: no memory"
    ]


def test_a_ban_is_described_for_the_log() -> None:
    """The log fields of a ban have at most five accounts, which are hostile text."""
    made = attempts(2)
    ban = Ban(ONE, 0.0, 60.4, "guess", attempts=made)
    assert ban_fields(ban) == {
        "address": "192.0.2.1/32",
        "seconds": 60,
        "rule": "guess",
        "attempts": 2,
        "accounts": ["alice"],
    }
