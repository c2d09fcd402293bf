"""The firewall: bans out to the kernel, and what the kernel says back.

``contract`` is what the rest of ringfence knows; a backend is one more file and one row in ``BACKENDS``
(``ipset`` drops in the kernel with ipset and iptables, ``memory`` only remembers, for dry runs and demos;
nftables will be the next row). Nothing outside this room names a concrete backend.
"""

from collections.abc import Callable, Mapping

from ringfence.firewall.contract import Backend, Plan


def _ipset(plan: Plan) -> Backend:
    from ringfence.firewall.ipset import IpsetBackend  # noqa: PLC0415 - only the chosen backend is loaded

    return IpsetBackend(plan)


def _nftables(plan: Plan) -> Backend:
    from ringfence.firewall.nftables import NftablesBackend  # noqa: PLC0415 - only the chosen backend is loaded

    return NftablesBackend(plan)


def _memory(plan: Plan) -> Backend:
    from ringfence.firewall.memory import MemoryBackend  # noqa: PLC0415 - only the chosen backend is loaded

    return MemoryBackend(plan)


BACKENDS: Mapping[str, Callable[[Plan], Backend]] = {
    "auto": _ipset,
    "ipset": _ipset,
    "nftables": _nftables,
    "memory": _memory,
}


def make_backend(name: str, plan: Plan | None = None) -> Backend:
    """Make the backend of that name, a key of ``BACKENDS``, whose rules are to be as ``plan`` says."""
    return BACKENDS[name](plan if plan is not None else Plan())
