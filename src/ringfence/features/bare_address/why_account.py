"""What an account asks for, in ``ringfence why ACCOUNT``: only a bare address is shown."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.output import short_time
from ringfence.plurals import counted
from ringfence.values.text import printable


def request(_: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the fields of the request whose answer has what accounts ask for."""
    return "status", {}


def facts(answer: Mapping[str, Any], account: str) -> dict[str, Any]:
    """Return under ``without_name`` the account's addresses that asked for no name of the PBX within a week.

    There are none without a daemon (then the answer is empty), or if the rule ``bare_address`` is off. The
    daemon lists only the latest such addresses; under ``unlisted`` is the number of the others, of any
    account.
    """
    found = answer.get("bare_address", {})
    friends, name = found.get("friends", ()), printable(account)
    return {
        "without_name": [friend for friend in friends if name in friend["accounts"]],
        "unlisted": found.get("without_name", 0) - len(friends),
    }


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of a line for each address that asks for no name of the PBX.

    ``found`` are the facts about the account, with those of :func:`facts`.
    """
    for friend in found.get("without_name", ()):
        asks = f"{friend['address']} asks for {friend['host']}, last {short_time(friend['last'])}"
        yield "domain", f"{asks}: no name of this PBX, so the rule bare_address may ban it at a new address"
    if unlisted := found.get("unlisted", 0):
        others = counted(unlisted, "other address asks", "other addresses ask")
        yield "domain", f"{others} for no name of this PBX, and may be this account's; see: ringfence check"
