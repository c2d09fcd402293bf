"""The branches that tests reach: measured while the tests run, and printed by package.

``pytest --branches`` measures the tests of ``parse/`` and ``detect/``, with ``--long`` too the tests of every
package. Each process of pytest writes what it measured. ``python -m tests.support.branches`` combines that,
prints the table, and fails if the tests miss a line or a branch of ``parse/`` or ``detect/``. Branches that
run in other processes (daemons, commands) are not measured.

Not measured are tests by hypothesis, because the branches that random examples reach differ from run to run,
and tests of linear time, because measuring is slow.
"""

import importlib
import json
import pkgutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import coverage
import pytest

import ringfence

_COMPLETE = ("parse", "detect")
_DATA = Path(__file__).parents[2] / ".branches"
_TESTS = Path(__file__).parents[1]


class Branches:
    """A plugin of pytest that measures the tests that run in this process."""

    def __init__(self, *, everything: bool) -> None:
        names = [one.name for one in pkgutil.iter_modules(ringfence.__path__) if one.ispkg]
        self._packages = names if everything else [*_COMPLETE]
        sources = [f"ringfence.{name}" for name in self._packages]
        self._coverage = coverage.Coverage(
            data_file=str(_DATA), data_suffix=True, branch=True, source=sources
        )
        self._coverage.start()
        for name in _COMPLETE:  # the lines that run when a module is imported
            package = importlib.import_module(f"ringfence.{name}")
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)
        self._coverage.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> object:
        """Measure a test."""
        if not self._is_measured(item):
            return (yield)
        self._coverage.start()
        try:
            return (yield)
        finally:
            self._coverage.stop()

    def pytest_sessionfinish(self) -> None:
        """Write what was measured."""
        self._coverage.save()

    def _is_measured(self, item: pytest.Item) -> bool:
        package = item.path.relative_to(_TESTS).parts[0]
        return (
            package in self._packages
            and "linear" not in item.name
            and not item.get_closest_marker("hypothesis")
        )


def main() -> int:
    """Combine what the processes measured, print the table, and return 1 if a branch is missed."""
    measured = coverage.Coverage(data_file=str(_DATA), branch=True)
    measured.combine([str(_DATA.parent)])
    with tempfile.NamedTemporaryFile() as file:
        measured.json_report(outfile=file.name)
        files = json.loads(Path(file.name).read_text("utf-8"))["files"]
    _DATA.unlink()
    branches, missed = Counter[str](), Counter[str]()
    for name, found in files.items():
        package = Path(name).parent.relative_to(Path("src") / "ringfence").parts[0]
        branches[package] += found["summary"]["num_branches"]
        missed[package] += found["summary"]["missing_branches"]
    print(f"{'package':12}{'branches':>10}{'missed':>10}")
    for package, number in sorted(branches.items()):
        print(f"{package:12}{number:10}{missed[package]:10}")
    incomplete = [text for name, found in sorted(files.items()) for text in _missed(name, found)]
    print(*incomplete, sep="\n", file=sys.stderr, end="\n" if incomplete else "")
    return 1 if incomplete else 0


def _missed(name: str, found: dict[str, list[int] | list[list[int]]]) -> list[str]:
    """Return the lines and branches of a file that tests must reach and do not."""
    if Path(name).parts[2] not in _COMPLETE:
        return []
    lines = [f"{name}:{line}: no test runs this line" for line in found["missing_lines"]]
    branches = [f"{name}: no test takes the branch {branch}" for branch in found["missing_branches"]]
    return lines + branches


if __name__ == "__main__":
    sys.exit(main())
