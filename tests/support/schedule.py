"""The order of the tests, and which of them share a process, when several processes run them.

Each process makes its own shared laboratories (``asterisk22``, ``open16`` …). So the files that use them form
few groups, and pytest-xdist gives a whole group to one process. Every other file is a group of its own. The
longest groups begin first, so that no process is left alone with one of them: none takes three minutes.
"""

from pathlib import Path

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
    "asterisk-1",
    "asterisk-open-3",
    "asterisk-open-4",
    "asterisk-2",
    "asterisk-open-2",
    "asterisk-open-5",
    "e2e/test_ports.py",
    "packaging/test_install.py",
    "asterisk-open-6",
    "asterisk-open-1",
    "contrib/test_ansible.py",
    "e2e/test_setup_failures.py",
    "e2e/test_web.py",
    "asterisk-3",
    "e2e/test_blames.py",
    "lab/test_honest.py",
    "features/trial/test_trial.py",
    "test_street.py",
    "firewall/test_asking.py",
    "firewall/test_packets.py",
    "firewall/test_ration.py",
    "e2e/test_notify.py",
    "e2e/test_setup_crowdsec.py",
    "e2e/test_setup.py",
    "guard/test_rights.py",
    "features/web/test_pages.py",
    "firewall/test_contract.py",
    "e2e/test_prefixes.py",
    "e2e/test_bare_guard.py",
    "lab/test_checked.py",
    "e2e/test_repaired.py",
    "scenarios/test_scenarios.py",
    "e2e/test_setup_container.py",
    "features/feeds/test_command.py",
    "e2e/test_notify_service.py",
    "features/setup/test_crowdsec.py",
    "e2e/test_distributed.py",
    "cli/test_hanging.py",
    "packaging/test_build.py",
    "contrib/test_unit.py",
    "e2e/test_host_name.py",
    "sources/test_roster.py",
    "features/web/test_connections.py",
    "firewall/test_fence.py",
    "e2e/test_fleet.py",
    "store/test_faults.py",
    "features/setup/test_interrupted.py",
    "e2e/test_exports.py",
    "firewall/test_fates.py",
    "sources/test_wire.py",
    "sources/test_journal.py",
    "firewall/test_probe.py",
    "e2e/test_forged.py",
    "firewall/ipset/test_backend.py",
    "cli/test_width.py",
    "e2e/test_field_logs.py",
    "sources/test_log_follower.py",
    "sources/test_ami.py",
    "contrib/test_prometheus.py",
    "guard/test_daemon_logs.py",
    "cli/test_check.py",
    "e2e/test_killed.py",
    "detect/test_distributed.py",
    "features/fail2ban/test_command.py",
    "e2e/test_disk.py",
    "parse/test_requests.py",
    "e2e/test_friends.py",
    "parse/test_log.py",
    "features/audit/test_hardening.py",
    "e2e/test_setup_fail2ban.py",
    "host/test_closed.py",
    "features/notify/test_own_name.py",
    "guard/test_daemon.py",
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
