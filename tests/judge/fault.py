"""A fault that ringfence had once, which is put back into the running code: the judge must notice it.

A fault replaces one function for as long as its world is played. If the function is gone, ``put_back`` raises
an error. If the fault has no effect any more, the judge does not notice it, and that is a failure too.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.judge.asterisk import Act
from tests.judge.guard import guarding
from tests.judge.worlds import PLAIN, Failure, Site, play

Change = Callable[[Any], Any]
"""Makes the faulty function from the right one."""


@dataclass(frozen=True)
class Fault:
    """A fault, the function ``module:Class.name`` that it replaces, and a world in which it shows.

    ``invariant`` is the letter of the one that it breaks, "" for any.
    """

    name: str
    sentence: str
    where: str
    change: Change
    acts: tuple[Act, ...]
    site: Site = PLAIN
    invariant: str = ""


@contextmanager
def put_back(fault: Fault) -> Iterator[None]:
    """Replace the function while the context lasts; raise AttributeError if it is gone."""
    module, _, path = fault.where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    right = vars(owner).get(name)
    if right is None:
        raise AttributeError(f"fault {fault.name}: there is no {fault.where}; put the fault back elsewhere")
    setattr(owner, name, fault.change(right))
    try:
        yield
    finally:
        setattr(owner, name, right)


def noticed(fault: Fault) -> Failure | None:
    """Play the world of a fault to a guard that has it; return what the judge notices, or None."""
    with put_back(fault):
        return play(fault.acts, guarding, fault.site)
