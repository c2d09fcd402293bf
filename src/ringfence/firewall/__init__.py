"""The firewall: bans out to the kernel, and what the kernel says back.

``contract`` is what the rest of ringfence knows; a backend is one more file and one row in ``BACKENDS``
(``ipset`` drops in the kernel with ipset and iptables, ``nftables`` with nothing but nftables, ``memory``
only remembers, for dry runs and demos). ``auto`` is :func:`choose`. Nothing outside this room names a
concrete backend.
"""

from collections.abc import Callable, Mapping

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall.contract import Backend, Plan

KERNELS = ("ipset", "nftables")
"""The backends that drop, the one that is chosen first before the other."""


def _ipset(plan: Plan) -> Backend:
    from ringfence.firewall.ipset import IpsetBackend  # noqa: PLC0415 - only the chosen backend is loaded

    return IpsetBackend(plan)


def _nftables(plan: Plan) -> Backend:
    from ringfence.firewall.nftables import NftablesBackend  # noqa: PLC0415 - only the chosen backend is loaded

    return NftablesBackend(plan)


def _memory(plan: Plan) -> Backend:
    from ringfence.firewall.memory import MemoryBackend  # noqa: PLC0415 - only the chosen backend is loaded

    return MemoryBackend(plan)


def _auto(plan: Plan) -> Backend:
    return choose(plan)[0]


BACKENDS: Mapping[str, Callable[[Plan], Backend]] = {
    "auto": _auto,
    "ipset": _ipset,
    "nftables": _nftables,
    "memory": _memory,
}


def make_backend(name: str, plan: Plan | None = None) -> Backend:
    """Make the backend of that name, a key of ``BACKENDS``, whose rules are to be as ``plan`` says."""
    return BACKENDS[name](plan if plan is not None else Plan())


def choose(plan: Plan | None = None) -> tuple[Backend, str]:
    """Choose a backend that can be used here, and say why it.

    One whose bans are in the kernel already goes on, so that a restart has no moment without them; else it is
    the first of ``KERNELS`` that lacks nothing it cannot do without. Raises FirewallUnsupportedError naming
    what each of them lacks.
    """
    usable: list[Backend] = []
    lacking: list[str] = []
    for name in KERNELS:
        backend = make_backend(name, plan)
        lacks = [f"{part.what}: {part.lack}" for part in backend.look() if part.lack and not part.spared]
        if lacks:
            backend.close()
            lacking.append(f"{name} cannot be used ({'; '.join(lacks)})")
        else:
            usable.append(backend)
    if not usable:
        raise FirewallUnsupportedError(" and ".join(lacking))
    holding = [backend for backend in usable if _holds(backend)]
    chosen = (holding or usable)[0]
    for backend in usable:
        if backend is not chosen:
            backend.close()
    if chosen.name == KERNELS[0]:
        return chosen, "what it needs is there"
    return chosen, "its bans are in the kernel already" if holding else "; ".join(lacking)


def _holds(backend: Backend) -> bool:
    try:
        return any(True for _ in backend.list())
    except FirewallError:
        return False
