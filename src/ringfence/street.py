"""The features of ringfence, one row each, and what the guard collects from them (the *street*).

The guard is every package outside ``features``: sources, detection, bans, firewall, lists, and commands such
as ``why`` and ``status``. It imports no feature by its name. A feature is the package ``features/NAME``. Its
additions have fixed names, and each of these modules is optional. The guard loads a module where it needs it:

- in the package itself: ``COMMANDS``, its commands
- in the module ``settings``, if it has a table in ringfence.toml: ``TABLE``, its type. The rest is
  optional: ``RESTART``, whether a change needs a restart of the daemon; ``VARIABLES``, the variables of the
  environment that begin with RINGFENCE_ and set no key; ``problems``, a function that gets the table and the
  whole document, and returns a line for each mistake that the check of single values does not find;
  ``with_rules`` and ``with_lists``, functions that get a value and the settings, and return the value with
  the table's additions. The values are the plan of the firewall's rules (``firewall/contract.py``), and the
  configured part of the lists (``Configured`` of ``lists/entries.py``).
  If the table has secrets: its property ``secrets``, each with the file that may contain it instead; and
  ``with_secrets``, a function that returns the table with the secrets of these files, and a line for each
  file that it cannot use. A table in ``[[asterisk]]`` or ``[firewall]`` has only ``TABLE``,
  ``with_rules`` and ``with_lists``. One in ``[[asterisk]]`` also has ``at_start``, a function that gets the
  settings and returns those that take effect only at the start of the daemon
- in the module ``table``: ``TABLES``, its tables in the database
- in the module ``alarms``: ``CODES``, the codes of its alarms (``alarm_codes.py``)
- in the module ``guard``: ``build``, a function that gets the daemon's parts (``guard/feature.py``) and
  returns the feature's own; ``REQUESTS``, the fields of each of its requests on the control socket, by name.
  ``RECORDED`` and ``OFFLINE`` have the requests that a command answers without a daemon, by name: a function
  of ``RECORDED`` gets the store, the arguments and the time, one of ``OFFLINE`` the settings and the
  arguments. ``keeps_off`` is a function that gets the store, and returns why ``ringfence restore`` must put
  nothing in place, or ""
- in the module ``firewall``: ``build``, a function that gets the firewall's side in the daemon and in
  ``ringfence restore`` (``guard/firewall_side.py``), and returns the feature's part of it
- in the module ``stage``: ``ADDITIONS``, what it adds to the rules (``firewall/limits.py``) while it is off
- in the module ``denied``: ``build``, a function that gets the settings and returns networks that the feature
  denies (``OtherNetworks`` of ``lists/manager.py``)
- in the module ``network_list``: ``LIST``, its list of networks in the kernel (``firewall/network_lists.py``)
- in the module ``regions``, if it knows the networks of countries and autonomous systems: ``build``,
  ``files_of``, ``locations_of`` and ``UNKNOWN`` (``lists/regions.py`` uses these)
- in the module ``status``: ``lines``, a function that gets the status as JSON and yields its lines of it for
  the terminal, each with whether all is well
- in the module ``rights``: ``PAGE_USER``, the user of its process that shows pages to people
- the templates ``page.html``, its page at ``/NAME`` of the live page, and ``overview.html`` and
  ``lists.html``, its parts of these pages (``features/web/rendering.py``)
- in the module ``rows``: ``rows``, a function that gets the daemon's answer about the feature, and yields
  what both its command and its page show of it
- in the module ``why``: ``facts``, a function that gets the facts about a network (``explain/facts.py``) and
  returns its keys of the JSON about it; ``lines``, a function that gets this JSON and yields its lines of
  ``ringfence why`` and of the live page, each as a label and a text. Optional are ``forecast``, which gets
  the facts about a stranger and yields sentences, and ``kept_out``, which gets this JSON and returns what
  keeps the stranger from the SIP ports, or ""
- in the module ``why_account``: ``request``, a function that gets an account, and returns the name and the
  fields of a request that the daemon answers the page too; ``facts``, a function that gets the answer ({}
  without one) and the account, and returns its keys of the JSON about the account; ``lines``, a function that
  gets this JSON and yields its lines of ``ringfence why ACCOUNT`` and of the live page, each as a label and a
  text
- in the module ``report``: ``dropped``, a function that gets the status as JSON and returns how many packets
  its rules dropped, by its name
- in the modules ``text`` and ``page``: ``report_lines`` and ``report_page``, functions that get a report and
  return it as text and as HTML for a mail, and ``history_lines``, which yields the lines of the history in it
- in the module ``bans``: ``notes``, a function that gets the configuration's file and the networks that the
  user asked for, and yields lines below the list of ``ringfence bans``
- in the module ``check``: ``findings``, a function that gets what is checked (``cli/check.py``) and yields
  lines of ``ringfence check``
- in the module ``setup``: ``notes``, a function that gets the folder of Asterisk's files and its console, and
  yields lines of ``ringfence setup``; ``withdraw``, which gets all registrations that setup has made and the
  folder /etc, ends the feature's own, and yields a line for each that stays
- in the module ``options``: functions with the names of commands. The parameters of such a function are
  options that the feature adds to the command. It returns the daemon's arguments (``run``), the name of a
  wish (``check``), or a part of the run (``setup``, see ``Part`` of ``features/setup/session.py``)
- in the module ``other_guard``: ``OtherGuard``, a program that guards Asterisk until ``ringfence setup``
  replaces it

A copy of ringfence without the folder of a feature does everything else. Some features need others
(``docs/architecture.md``).
"""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

STREET = {
    "trial": "rules and bans that are removed again, unless an administrator confirms them in time",
    "fence": "who may reach the SIP ports: only friends, the allow list, and named networks and countries",
    "setup": "connects ringfence to the Asterisk of this host, and undoes this",
    "audit": "accounts, services and weaknesses in Asterisk's own settings, as `check` prints them",
    "fail2ban": "its settings and bans taken over, and its jails replaced",
    "account": "where each account logs in, and an alarm if somebody else may have its password",
    "history": "attempts and bans over time",
    "tops": "the accounts and addresses with the most attempts, and the live display",
    "geo": "countries and autonomous systems: on the lists, and of the addresses that are shown",
    "feeds": "networks to deny, from block lists of others",
    "fleet": "bans shared with other hosts by CrowdSec's local API",
    "limiter": "the kernel's limit on the packets of each source, and bans of floods",
    "ration": "the kernel's limits on refusals to a stranger, and on what a stranger asks",
    "bare_address": "strangers that ask for the bare address of this PBX, as scanners do",
    "phones": "an alarm about phones that were registered for a day and are gone",
    "notify": "bans, alarms and reports, sent to administrators by mail, by Apprise or by a command",
    "report": "what happened in a period, as a command and by mail each week",
    "publish": "the list of banned networks for routers",
    "replay": "past logs played to the rules, and how their lines are read",
    "hep": "Asterisk's own export of decrypted SIP, read from the wire",
    "web": "the live page",
    "metrics": "numbers for Prometheus, and the server of the list for routers",
}
"""The features by name, with a description. The daemon builds them in this order.

The feature that sends reports stands before the one that makes them.
"""

SETTINGS = {
    "asterisk.hep": "hep",
    "firewall.limit": "limiter",
    "firewall.ration": "ration",
    "fence": "fence",
    "bare_address": "bare_address",
    "geo": "geo",
    "account": "account",
    "feeds": "feeds",
    "crowdsec": "fleet",
    "phones": "phones",
    "notify": "notify",
    "metrics": "metrics",
    "publish": "publish",
}
"""The tables of ringfence.toml that belong to features, each with its feature, as ``config show`` sorts them.

A table whose name begins with ``asterisk.`` is in each ``[[asterisk]]``, and one whose name begins with
``firewall.`` in ``[firewall]``.
"""

NEEDS = dict.fromkeys(("allow.countries", "deny.countries", "fence.countries"), "geo")
"""The keys of ringfence.toml in tables of other parts that need a feature, each with this feature."""

_FOLDER = "ringfence.features"


class Command(NamedTuple):
    """A command of the command line that is not loaded yet: its module, and its text in ``ringfence --help``.

    The module has a function, or a typer.Typer, with the name of the command.
    """

    module: str
    help: str


@cache
def present() -> tuple[str, ...]:
    """Return the names of the features that this installation of ringfence has, in the order of STREET."""
    return tuple(name for name in STREET if _is_package(_FOLDER) and _is_package(f"{_FOLDER}.{name}"))


def _is_package(name: str) -> bool:
    """Whether the package ``name`` has its ``__init__.py``. A removed one may leave a folder of bytecode."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def reason(feature: str) -> str:
    """Return a message that the feature with this name is not installed, with the fix."""
    return f"{feature} is not installed; fix: install all of ringfence"


def modules(kind: str) -> Iterator[Any]:
    """Yield the module ``kind`` (such as ``alarms``) of each installed feature that has such a module."""
    yield from map(import_module, _named(kind))


@cache
def _named(kind: str) -> tuple[str, ...]:
    """Return the full name of the module ``kind`` of each installed feature that has such a module."""
    names = (f"{_FOLDER}.{name}.{kind}" for name in present())
    return tuple(name for name in names if find_spec(name))


def functions(kind: str, name: str) -> Iterator[Any]:
    """Yield the function (or constant) ``name`` from the module ``kind`` of each feature that has both."""
    return (getattr(module, name) for module in modules(kind) if hasattr(module, name))


def commands() -> dict[str, Command]:
    """Return the commands of the installed features, by name."""
    found: dict[str, Command] = {}
    for name in present():
        found |= getattr(import_module(f"{_FOLDER}.{name}"), "COMMANDS", {})
    return found


@cache
def settings(inside: str = "") -> dict[str, Any]:
    """Return the module ``settings`` of each installed feature, by the feature's table in ringfence.toml.

    With ``inside``, such as ``firewall``, return those of the tables in that table, by their names in it.
    """
    found: dict[str, Any] = {}
    for path, name in SETTINGS.items():
        outer, _, table = path.rpartition(".")
        if outer == inside and name in present():
            found[table] = import_module(f"{_FOLDER}.{name}.settings")
    return found
