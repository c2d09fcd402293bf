"""The firewall: bans out to the kernel, and what the kernel says back.

``contract`` is what the rest of ringfence knows; a backend is one more file and one row in ``BACKENDS``
(``ipset`` drops in the kernel with ipset and iptables, ``memory`` only remembers, for dry runs and demos;
nftables will be the next row). Nothing outside this room names a concrete backend.
"""

from collections.abc import Callable, Mapping

from ringfence.firewall.contract import Backend


def _ipset(maxelem: int, log_group: int | None) -> Backend:
    from ringfence.firewall.ipset import IpsetBackend  # noqa: PLC0415 - only the chosen backend is loaded

    return IpsetBackend(maxelem=maxelem, log_group=log_group)


def _memory(maxelem: int, log_group: int | None) -> Backend:
    from ringfence.firewall.memory import MemoryBackend  # noqa: PLC0415 - only the chosen backend is loaded

    return MemoryBackend(maxelem=maxelem, log_group=log_group)


BACKENDS: Mapping[str, Callable[[int, int | None], Backend]] = {
    "auto": _ipset,
    "ipset": _ipset,
    "memory": _memory,
}


def make_backend(name: str, *, maxelem: int = 262_144, log_group: int | None = None) -> Backend:
    """Make the backend of that name, a key of ``BACKENDS``, for ``maxelem`` bans of each IP version.

    ``log_group`` is the NFLOG group to which outgoing SIP challenges go; None for no such rule.
    """
    return BACKENDS[name](maxelem, log_group)
