"""The street: the features of ringfence, one row each, and what the guard collects from them.

The guard is what the product is for: sources, detection, bans, firewall, with list, ``why`` and ``status``.
It names no feature. A feature is the folder ``features/NAME``. The package has ``COMMANDS``, if it has
commands. It brings modules with fixed names, each of which is loaded only where it is needed:

- ``table``: ``TABLES``, its tables in the database
- ``guard``: ``build``, which returns its part in the running daemon; ``REQUESTS``, if it has requests on the
  control socket; ``RECORDED``, those that a command answers from the database, without a daemon

A copy of ringfence without the folder of a feature does the rest.
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

STREET = {
    "history": "attempts and bans over time",
    "tops": "the accounts and addresses with the most attempts, and the live display",
    "report": "what happened in a period, as a command and by mail each week",
    "publish": "the list of banned networks for routers",
    "replay": "past logs played to the rules, and how their lines are read",
    "web": "the live page",
    "metrics": "numbers for Prometheus, and the server of the list for routers",
}
"""The features by name, and what each of them is."""

_FOLDER = "ringfence.features"


class Command(NamedTuple):
    """A command of the command line that is not loaded yet: its module, and its line in the list."""

    module: str
    help: str


def present() -> list[str]:
    """Return the names of the features that this copy has."""
    return [name for name in STREET if find_spec(_FOLDER) and find_spec(f"{_FOLDER}.{name}")]


def modules(kind: str) -> Iterator[Any]:
    """Yield the module ``kind`` of each feature that this copy has, if the feature has one."""
    for name in present():
        module = f"{_FOLDER}.{name}.{kind}"
        if find_spec(module):
            yield import_module(module)


def commands() -> dict[str, Command]:
    """Return the commands of the features that this copy has, by name."""
    found: dict[str, Command] = {}
    for name in present():
        found |= getattr(import_module(f"{_FOLDER}.{name}"), "COMMANDS", {})
    return found
