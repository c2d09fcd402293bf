"""The texts about bans and about the results of changes."""

from ipaddress import ip_network

from tests.support.attempts import attempts

from ringfence.bans.book import failure_lines
from ringfence.bans.enforcer import ban_fields
from ringfence.errors import FirewallError
from ringfence.firewall.contract import Outcome, Remove
from ringfence.values.ban import Ban

ONE = ip_network("192.0.2.1")


def test_each_failed_order_is_one_line_with_its_reason() -> None:
    """Each failed order is one line with its reason."""
    assert failure_lines([Outcome(Remove(ONE), error=FirewallError("no memory"))]) == ["192.0.2.1: no memory"]


def test_a_ban_is_described_for_the_log() -> None:
    """The log fields of a ban have at most five accounts, which are hostile text."""
    made = attempts(2)
    ban = Ban(ONE, since=0.0, expires=60.4, rule="guess", attempts=made)
    assert ban_fields(ban) == {
        "address": "192.0.2.1/32",
        "seconds": 60,
        "rule": "guess",
        "attempts": 2,
        "accounts": ["alice"],
    }
