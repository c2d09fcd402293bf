"""Firewall backends: they put bans into the kernel and report what the kernel confirmed.

``contract`` defines the interface that the rest of ringfence uses. Each backend has a row in ``BACKENDS``.
``ipset`` drops packets with ipset and iptables, ``nftables`` with nftables alone. ``memory`` only stores
bans, for dry runs and demonstrations. ``auto`` is the one that :func:`choose_backend` chooses. Code outside
this package gets a backend by its name, and never imports the module of a backend.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall.contract import Backend, FirewallPlan
from ringfence.firewall.requirements import require_capabilities

_PROC = Path("/proc")


def _new(module: str, name: str, plan: FirewallPlan) -> Backend:
    """Return a new backend of the class ``name``. Only the module of the chosen backend is loaded."""
    made: Backend = getattr(import_module(module, __name__), name)(plan)
    return made


def _auto(plan: FirewallPlan) -> Backend:
    return choose_backend(plan)[0]


BACKENDS: Mapping[str, Callable[[FirewallPlan], Backend]] = {
    "auto": _auto,
    "ipset": partial(_new, ".ipset.backend", "IpsetBackend"),
    "nftables": partial(_new, ".nftables.backend", "NftablesBackend"),
    "memory": partial(_new, ".memory", "MemoryBackend"),
}
KERNEL_BACKENDS = tuple(name for name in BACKENDS if name not in ("auto", "memory"))
"""The backends that drop packets, in order of preference."""


def make_backend(name: str, plan: FirewallPlan | None = None) -> Backend:
    """Return a new backend.

    ``name`` is a key of ``BACKENDS``. ``plan`` is the configuration of the backend's rules; None: the default
    configuration.
    """
    return BACKENDS[name](plan if plan is not None else FirewallPlan())


def choose_backend(plan: FirewallPlan | None = None) -> tuple[Backend, str]:
    """Return a backend that can be used on this host, and the reason for the choice as text for people.

    A backend whose bans are in the kernel already is preferred, so that bans stay in force during a restart.
    Otherwise it is the first of ``KERNEL_BACKENDS`` that has everything it needs. ``plan`` is the
    configuration of its rules; None: the default configuration.

    If no backend can be used and this process lacks CAP_NET_ADMIN, raises FirewallPermissionError. If none
    can be used for other reasons, raises FirewallUnsupportedError, which names the problems of each backend.
    """
    usable: list[Backend] = []
    unusable: list[str] = []
    for name in KERNEL_BACKENDS:
        backend = make_backend(name, plan)
        problems = [
            f"{one.name}: {one.problem}" for one in backend.requirements() if one.problem and not one.optional
        ]
        if problems:
            backend.close()
            unusable.append(f"{name} cannot be used ({'; '.join(problems)})")
        else:
            usable.append(backend)
    if not usable:
        require_capabilities(_PROC, "CAP_NET_ADMIN")  # every backend needs it: one error for all
        raise FirewallUnsupportedError(" and ".join(unusable))
    with_bans = [backend for backend in usable if _has_bans(backend)]
    chosen = (with_bans or usable)[0]
    for backend in usable:
        if backend is not chosen:
            backend.close()
    if chosen.name == KERNEL_BACKENDS[0]:
        return chosen, "it has everything it needs"
    return chosen, "its bans are in the kernel already" if with_bans else "; ".join(unusable)


def _has_bans(backend: Backend) -> bool:
    try:
        return any(True for _ in backend.list())
    except FirewallError:
        return False
