"""The harm that ringfence does to honest strangers: bans, lost calls, and phones that register late.

:mod:`tests.support.honest` has their habits. There is no attack, so every ban that closes all of SIP is a
fault, and so is every phone that is not registered soon. Guests' calls are measured after their network was
allowed, as `setup` and `check` propose. All rules are on, ringfence reads all sources, and limiter and
rations have their defaults.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from itertools import count
from pathlib import Path

from attrs import frozen
from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, Bed, bed, defended, until_defended
from tests.support import honest, victims
from tests.support.honest import Done, Scene

from ringfence.values.ban import WHOLE_SCOPES

BACKENDS = ("ipset", "nftables")
_WHOLE = frozenset({"wide", *(scope.value for scope in WHOLE_SCOPES)})
"""The bans that no honest stranger may cause: of all of SIP, or of more than one address."""
_CORES = PLACED.replace("attacker", "strangers")


@frozen
class Suffered:
    """The outcome of a habit: its own count, and the scopes of the bans in its network."""

    done: Done
    bans: Sequence[str]


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    found = [_lived(backend) for backend in BACKENDS]
    for name in honest.PINGS:
        yield _row(name, [of[name] for of in found], "requests without an answer")
    for name in honest.REFUSED_CALLS:
        yield _row(name, [of[name] for of in found])
    for name in honest.WITH_PASSWORDS:
        yield _row(name, [of[name] for of in found], f"phones not registered after {honest.SOON:.0f} s")
    yield from _victims()
    for name in honest.GUESTS_CALLS:
        strangers = [of[name].done for of in found]
        lost, needed = (sum(getattr(one, what) for one in strangers) for what in ("failed", "needed"))
        yield _row(
            _allowed(name),
            [of[_allowed(name)] for of in found],
            "calls lost",
            f"not allowed: {lost} of {needed} calls lost",
        )


def _allowed(name: str) -> str:
    return f"{name}, their network allowed"


def _lived(backend: str) -> dict[str, Suffered]:
    """Run all habits with one Asterisk and one daemon: first the light habits at the same time."""
    allowed = {_allowed(name): habit for name, habit in honest.GUESTS_CALLS.items()}
    light = {**honest.PINGS, **honest.REFUSED_CALLS, **honest.GUESTS_CALLS, **allowed}
    with bed(extra=honest.configured(), firewall=defended(backend)) as here:
        until_defended(here.guard)
        scenes = {
            name: Scene(here.lab, number) for name, number in zip((*light, *honest.WITH_PASSWORDS), count(1))
        }
        for name in allowed:
            here.guard.must("allow", "add", scenes[name].at(1))
        with ThreadPoolExecutor(len(light)) as pool:
            done = dict(zip(light, pool.map(lambda name: light[name](scenes[name]), light), strict=True))
        for name, habit in honest.WITH_PASSWORDS.items():
            done[name] = habit(scenes[name])
        return {name: Suffered(one, _bans(here, scenes[name])) for name, one in done.items()}


def _victims() -> Iterator[Figure]:
    """Attack friends, an office and an administrator through ringfence."""
    with bed(extra=honest.configured(), firewall=defended("nftables")) as here:
        until_defended(here.guard)
        for number, (name, attack) in enumerate(victims.ATTACKS.items(), 1):
            done = attack(Scene(here.lab, number), here.guard)
            yield Figure(
                what=f"victims of an attack through ringfence: {name}: what fails for them",
                measured=f"{done.failed} of {done.needed}",
                must="0",
                reached=not done.failed,
                cores=_CORES,
            )


def _bans(here: Bed, scene: Scene) -> Sequence[str]:
    """Return the scopes of the bans that include an address of a scene; a wide one counts as of all SIP."""
    own = ip_network(f"{scene.at(0)}/24")
    bans = {ip_network(row["address"]): row["scope"] for row in here.guard.bans()}
    return ["wide" if one.num_addresses > 1 else scope for one, scope in bans.items() if own.overlaps(one)]


def _row(what: str, found: Sequence[Suffered], failed: str = "", compared: str = "") -> Figure:
    """Return a row; ``failed`` names the failures, unless they do not count."""
    bans = [scope for one in found for scope in one.bans]
    narrow = sorted({scope for scope in bans if scope not in _WHOLE})
    measured = [len([scope for scope in bans if scope in _WHOLE])]
    of = ""
    if failed:
        measured.append(sum(one.done.failed for one in found))
        of = f" of {sum(one.done.needed for one in found)}"
    return Figure(
        what=f"honest strangers: {what}: bans of all SIP or of a network{failed and f', {failed}'}",
        measured=", ".join(map(str, measured))
        + of
        + (f"; narrow bans: {', '.join(narrow)}" if narrow else ""),
        must=", ".join("0" for _ in measured),
        reached=not any(measured),
        compared=compared,
        cores=_CORES,
    )
