"""The sizes of lists that others publish, and which changes of a size are suspicious.

Whoever publishes a list could have anybody denied. So no list may cover a large part of the Internet, and a
new version of a list may not be far larger than the one before.
"""

from collections.abc import Mapping

from ringfence.errors import ListError
from ringfence.lists.prefixes import Prefixes
from ringfence.networks import VERSIONS

MOST_COVERED: Mapping[int, int] = {4: 1 << (32 - 4), 6: 1 << (128 - 7)}
"""The maximum number of addresses in an imported file without ``force``, by IP version.

This is a sixteenth of the IPv4 addresses, and of the IPv6 addresses that registries assign (2000::/3). The
lists of attackers that we know are far shorter: Spamhaus DROP has about 0.4 % of the IPv4 addresses.
"""

MOST_GROWTH = 10
"""A list may grow to at most so many times its former size without ``force``."""

_UNREMARKABLE: Mapping[int, int] = {4: 1 << (32 - 12), 6: 1 << (128 - 28)}
"""Addresses up to which any growth is accepted: a single new network may multiply those of a short list."""


def check_size(networks: Prefixes, before: Prefixes, number_before: int, *, shrinkage: bool = False) -> None:
    """Raise ListError if a list covers too many addresses, or has grown too much.

    ``before`` are the networks that it had before, and ``number_before`` is their number. With ``shrinkage``,
    raise it too if the list has shrunk as much.
    """
    rest = "nothing is changed; fix: look at the file; --force accepts it anyway"
    for version in VERSIONS:
        covered, old = networks.addresses(version), before.addresses(version)
        if covered > MOST_COVERED[version]:
            raise ListError(f"the file covers a large part of the internet (IPv{version}): {rest}")
        if covered > _UNREMARKABLE[version] and 0 < old * MOST_GROWTH < covered:
            raise ListError(f"the file covers {covered // old} times more addresses (IPv{version}): {rest}")
    number = len(networks)
    if 0 < number_before * MOST_GROWTH < number or (shrinkage and number * MOST_GROWTH < number_before):
        raise ListError(f"the file has {len(networks)} networks, and had {number_before} before: {rest}")
