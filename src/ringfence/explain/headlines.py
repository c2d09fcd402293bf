"""The first sentence of ``why``, the rules that it lists, and the test whether its argument is an account."""

import re
from collections.abc import Mapping
from typing import Any

from ringfence import street
from ringfence.values.network import parse_network

_LIKE_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9]+){2,}(?:/.*)?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:[/%].*)?")
"""A text that is meant as an address or a network, valid or not.

It has numbers with at least two dots between them, or hexadecimal digits with at least one colon.
"""
_OF_ACCOUNTS = {
    "outage": "fails, as all phones do",
    "denied": "cannot reach this PBX: its address is denied",
    "banned": "cannot reach this PBX: its address is banned",
    "broken": "fails at the address where it worked",
    "registered": "works",
    "locked out": "fails, and the address that tried it is banned",
    "failing": "fails",
    "gone": "worked, and is not there now",
    "unknown": "is not known to ringfence",
}
BAD_VERDICTS = frozenset({"outage", "denied", "banned", "broken", "locked out", "failing"})
"""The verdicts on an account that require somebody to do something."""


def is_account(text: str) -> bool:
    """Whether ``text`` is an account: neither an address or network, nor a mistyped one."""
    try:
        parse_network(text)
    except ValueError:
        return not _LIKE_ADDRESS.fullmatch(text)
    return False


def account_headline(found: Mapping[str, Any]) -> str:
    """Return the verdict on an account as a sentence; ``found`` is the result of ``account_document``."""
    return f"account {found['account']} {_OF_ACCOUNTS.get(found['verdict'], found['verdict'])}"


def address_headline(found: Mapping[str, Any]) -> str:
    """Return the verdict on an address as a sentence; ``found`` is the result of ``as_json.document``."""
    address, verdict = found["address"], found["verdict"]
    if verdict == "off":
        return f"{address}: nothing is dropped because enforcement is switched off"
    if verdict == "banned" and not any(ban["in_kernel"] for ban in found["bans"]):
        return f"{address} should be banned, but the ban is missing in the kernel"
    if verdict == "banned" and all(ban["scope"] != "full" for ban in found["bans"]):
        scopes = {ban["scope"] for ban in found["bans"]}
        transports = sorted((scope.removeprefix("sip-").upper() for scope in scopes), reverse=True)
        by = "" if "sip" in scopes else f" by {' and '.join(transports)}"
        return f"{address} is banned from the SIP ports{by}"
    for reason in street.functions("why", "kept_out") if verdict == "stranger" else ():
        if text := reason(found):
            return f"{address} is not banned, but {text}"
    texts = {"friend": "is a friend", "stranger": "is not banned", "protected": "is never banned by a rule"}
    return f"{address} {texts.get(verdict, f'is {verdict}')}"


def begun_rules(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rules that count attempts of an address now; ``found`` is as in :func:`address_headline`.

    Rules that count by network (prefix) are left out if the network has a friend or an exempt address in it,
    because no rule bans such a network.
    """
    off = "prefix" if found["contains_exempt"] else None
    return [rule for rule in found["rules"] if rule["have"] and rule["by"] != off]
