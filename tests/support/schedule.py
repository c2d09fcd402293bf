"""The order of the tests, and which of them share a process, when several processes run them.

Each process makes its own shared laboratories (``asterisk22``, ``open16`` …). So the files that use them form
few groups, and pytest-xdist gives a whole group to one process. Every other file is a group of its own. The
longest groups begin first, so that no process is left alone with one of them: none takes three minutes.

Most tests wait, so there are more processes than cores. But each process first imports and collects tests for
seconds. So if every test is run, only some processes collect all tests, and the others those that wait.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_TESTS = Path(__file__).parents[1]

_SHARED = {
    "asterisk-1": ("guard", "why"),
    "asterisk-2": ("crafted", "flood", "first_seconds", "metrics", "scope", "standby"),
    "asterisk-3": ("found_logs", "not_effective", "proxies", "report"),
    "asterisk-open-1": ("framing", "hidden_streams", "pages"),
    "asterisk-open-2": ("hostile_text",),
    "asterisk-open-3": ("asking", "ration"),
    "asterisk-open-4": ("manager_logins", "relays", "uncounted"),
    "asterisk-open-5": ("fence", "phones", "pings", "unexplained", "unread"),
    "asterisk-open-6": ("conversations", "findings", "observed", "own_account"),
}
"""Files of tests/e2e by the laboratory that they share."""

_SINGLE = ("e2e/test_setup.py", "e2e/test_friends.py")
"""Files whose tests share nothing and are long: each test is a group of its own."""

_LONGEST = (
    "packaging/test_install.py",
    "asterisk-open-5",
    "asterisk-1",
    "asterisk-open-3",
    "asterisk-open-4",
    "e2e/test_setup_failures.py",
    "asterisk-open-6",
    "e2e/test_ports.py",
    "contrib/test_ansible.py",
    "asterisk-2",
    "asterisk-open-1",
    "asterisk-3",
    "e2e/test_web.py",
    "asterisk-open-2",
    "test_street.py",
    "firewall/test_asking.py",
    "firewall/test_packets.py",
    "firewall/test_ration.py",
    "features/trial/test_trial.py",
    "e2e/test_blames.py",
    "e2e/test_setup.py",
    "e2e/test_setup_crowdsec.py",
    "guard/test_rights.py",
    "lab/test_honest.py",
    "e2e/test_notify.py",
    "e2e/test_notify_service.py",
    "firewall/test_contract.py",
    "scenarios/test_scenarios.py",
    "contrib/test_unit.py",
    "faults/test_faults.py",
    "features/setup/test_interrupted.py",
    "e2e/test_setup_container.py",
    "features/fleet/test_setup.py",
    "firewall/test_copied_packets.py",
    "lab/test_checked.py",
    "e2e/test_setup_fail2ban.py",
    "e2e/test_host_name.py",
    "store/test_faults.py",
    "features/feeds/test_command.py",
)
"""The longest groups and files as measured, the longest first."""

_GROUP_OF = {f"e2e/test_{name}.py": group for group, names in _SHARED.items() for name in names}
_RANK_OF = {name: rank for rank, name in enumerate(_LONGEST)}


_WAITING = ("contrib", "e2e", "faults", "firewall", "lab", "packaging")
"""Folders in which most tests wait."""
_EVERYTHING = 3
"""So many processes collect every test."""


class Groups(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist's type is unknown to mypy
    """A scheduler that gives a whole group to one process, in the order of :func:`sort`.

    A process gets only tests that it has collected.
    """

    registered_collections: dict[Any, Sequence[str]]
    _numbers: dict[Any, dict[str, int]]

    def schedule(self) -> None:
        """Make the groups when all processes have collected, and give each process its next ones."""
        if self.collection is None:
            collections = sorted(self.registered_collections.items(), key=_size_of, reverse=True)
            self.registered_collections = dict(collections)
            self._numbers = {node: _numbered(tests) for node, tests in collections}
            self.config.pluginmanager.getplugin("session").testscollected = len(collections[0][1])
        super().schedule()

    def add_node_collection(self, node: object, collection: Sequence[str]) -> None:
        """Record what a process has collected, also one that replaces a process that crashed."""
        super().add_node_collection(node, collection)
        if self.collection is not None:
            self._numbers[node] = _numbered(collection)

    def _check_nodes_have_same_collection(self) -> bool:
        return True

    def _assign_work_unit(self, node: Any) -> None:  # noqa: ANN401 - pytest-xdist has no types
        """Assign to a process the first group that it has collected, or end it.

        A process that has collected all first gets what others have not.
        """
        numbers = self._numbers[node]
        possible = [group for group, tests in self.workqueue.items() if tests.keys() <= numbers.keys()]
        if not possible:
            node.shutdown()
            return
        fewest = min(self._numbers.values(), key=len).keys()
        group = next((one for one in possible if not self.workqueue[one].keys() <= fewest), possible[0])
        tests = self.assigned_work[node][group] = self.workqueue.pop(group)
        node.send_runtest_some([numbers[test] for test, has_run in tests.items() if not has_run])

    def _split_scope(self, nodeid: str) -> str:
        file = _file_of(nodeid)
        return nodeid if file in _SINGLE else _GROUP_OF.get(file, file)


def is_left_out(path: Path, config: pytest.Config) -> bool:
    """Whether this process leaves a folder or file to the others."""
    if not collects_a_part(config) or path == _TESTS:
        return False
    return path.is_relative_to(_TESTS) and path.relative_to(_TESTS).parts[0] not in _WAITING


def collects_a_part(config: pytest.Config) -> bool:
    """Whether this process collects only where tests wait."""
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    if not worker or config.getoption("file_or_dir"):
        return False
    number = int(worker["workerid"].removeprefix("gw"))
    return bool(_EVERYTHING <= number < worker["workercount"])  # a higher one replaces a process that crashed


def sort(items: list[pytest.Item]) -> None:
    """Sort the tests in place; the tests of a file keep their order."""
    items.sort(key=_rank)


def unknown_files() -> set[str]:
    """Return the files that are named here and do not exist."""
    named = {*_GROUP_OF, *_SINGLE, *_LONGEST}
    return {name for name in named if name not in _SHARED and not (_TESTS / name).exists()}


def _size_of(collected: tuple[object, Sequence[str]]) -> int:
    return len(collected[1])


def _numbered(tests: Sequence[str]) -> dict[str, int]:
    return {test: number for number, test in enumerate(tests)}


def _rank(item: pytest.Item) -> int:
    file = _file_of(item.nodeid)
    return _RANK_OF.get(_GROUP_OF.get(file, file), len(_LONGEST))


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0].removeprefix("tests/")
