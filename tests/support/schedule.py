"""The order of the tests, and which of them share a process, when several processes run them.

Each process makes its own shared laboratories (``asterisk22``, ``open16`` …). So the files that use them form
few groups, and pytest-xdist gives a whole group to one process. Every other file is a group of its own. The
longest groups begin first, so that no process is left alone with one of them.
"""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

_TESTS = Path(__file__).parents[1]

_SHARED = {
    "asterisk-1": ("guard", "flood", "crafted", "why"),
    "asterisk-2": ("standby", "proxies", "found_logs", "scope", "report", "metrics", "not_effective"),
    "asterisk-open-1": ("framing", "uncounted", "hostile_text"),
    "asterisk-open-2": ("asking", "ration", "manager_logins", "phones", "fence", "relays", "hidden_streams"),
}
"""Files of tests/e2e by the laboratory that they share."""

_SINGLE = ("e2e/test_setup.py", "e2e/test_friends.py")
"""Files whose tests share nothing and are long: each test is a group of its own."""

_LONGEST = (
    "asterisk-1",
    "asterisk-open-1",
    "asterisk-2",
    "asterisk-open-2",
    "packaging/test_install.py",
    "e2e/test_setup_failures.py",
    "firewall/test_packets.py",
    "e2e/test_web.py",
    "e2e/test_setup.py",
    "e2e/test_notify_service.py",
    "e2e/test_notify.py",
    "e2e/test_friends.py",
    "features/setup/test_interrupted.py",
    "contrib/test_unit.py",
    "features/trial/test_trial.py",
    "scenarios/test_scenarios.py",
    "detect/transcripts/test_recordings.py",
    "guard/test_rights.py",
    "sources/test_ami.py",
    "sources/test_wire.py",
    "cli/test_bans.py",
    "guard/test_daemon.py",
    "firewall/test_contract.py",
    "store/test_file.py",
    "e2e/test_hostile_output.py",
    "e2e/test_setup_container.py",
    "e2e/test_names.py",
    "firewall/test_copied_packets.py",
    "features/replay/test_command.py",
    "e2e/test_setup_fail2ban.py",
    "sources/test_roster.py",
    "e2e/test_repaired.py",
    "e2e/test_prefixes.py",
    "features/web/test_pages.py",
    "features/fail2ban/test_command.py",
)
"""The longest groups and files as measured, the longest first."""

_GROUP_OF = {f"e2e/test_{name}.py": group for group, names in _SHARED.items() for name in names}
_RANK_OF = {name: rank for rank, name in enumerate(_LONGEST)}


class Groups(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist's type is unknown to mypy
    """A scheduler that gives a whole group to one process, in the order of :func:`sort`."""

    def _split_scope(self, nodeid: str) -> str:
        file = _file_of(nodeid)
        return nodeid if file in _SINGLE else _GROUP_OF.get(file, file)


def sort(items: list[pytest.Item]) -> None:
    """Sort the tests in place; the tests of a file keep their order."""
    items.sort(key=_rank)


def unknown_files() -> set[str]:
    """Return the files that are named here and do not exist."""
    named = {*_GROUP_OF, *_SINGLE, *_LONGEST}
    return {name for name in named if name not in _SHARED and not (_TESTS / name).exists()}


def _rank(item: pytest.Item) -> int:
    file = _file_of(item.nodeid)
    return _RANK_OF.get(_GROUP_OF.get(file, file), len(_LONGEST))


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0].removeprefix("tests/")
