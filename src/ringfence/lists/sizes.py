"""The sizes of lists that others publish, and which changes of a size are suspicious.

Whoever publishes a list could have anybody denied. So no list may cover a large part of the Internet, and a
new version of a list may not have a far different size than the one before.
"""

from collections.abc import Mapping

from ringfence.errors import ListError
from ringfence.lists.prefixes import Prefixes
from ringfence.networks import VERSIONS

MOST_COVERED: Mapping[int, int] = {4: 1 << (32 - 4), 6: 1 << (128 - 7)}
"""The maximum number of addresses in a list without ``force``, by IP version.

This is a sixteenth of the IPv4 addresses, and of the IPv6 addresses that registries assign (2000::/3). The
lists of attackers that we know are far shorter: Spamhaus DROP has about 0.4 % of the IPv4 addresses.
"""

MOST_GROWTH = 10
"""A list may grow or shrink at most so many times without ``force``."""

_UNREMARKABLE: Mapping[int, int] = {4: 1 << (32 - 12), 6: 1 << (128 - 28)}
"""Addresses up to which any growth is accepted: a single new network may multiply those of a short list."""


def check_size(name: str, networks: Prefixes, before: Prefixes) -> None:
    """Raise ListError if the list of the feed ``name`` covers too many addresses, or changed too much.

    ``before`` are the networks that it had before. A list that had none may have any number.
    """
    rest = f"fix: look at the list; to accept it: ringfence feeds refresh --force {name}"
    for version in VERSIONS:
        covered, old = networks.addresses(version), before.addresses(version)
        if covered > MOST_COVERED[version]:
            raise ListError(f"the list covers a large part of the internet (IPv{version}); {rest}")
        if covered > _UNREMARKABLE[version] and 0 < old * MOST_GROWTH < covered:
            raise ListError(f"the list covers {covered // old} times more addresses (IPv{version}); {rest}")
    number, number_before = len(networks), len(before)
    if 0 < number_before * MOST_GROWTH < number or number * MOST_GROWTH < number_before:
        raise ListError(f"the list has {number} networks, and had {number_before} before; {rest}")
