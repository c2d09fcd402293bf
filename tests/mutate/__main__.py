"""Changes the code of a package in small ways, one at a time, and prints what its tests did not notice.

    python -m tests.mutate bans
    python -m tests.mutate detect --sample 300
    python -m tests.mutate detect --numbers rules

mutmut makes the changes, in a copy of the project in ``build/mutate``. Its results stay there, so the next
run tries only what is new in the package: delete them if tests are new. A change that no test can notice
stands in ``equivalent.toml``, with the reason. All changes of a package take hours; a random sample of them
estimates how many its tests notice.

mutmut imports the package and runs all tests before it makes a change. So it misses what a change does during
the import, and in a function with a cache. Each change that no test noticed is tried again in a new process.

mutmut changes no function with a decorator, such as a property or a function with a cache. So in the copy,
a statement below each function decorates it (``decorators.py``). Only setters of properties never change.

mutmut changes functions and methods only. ``--numbers`` changes the numbers outside of them: those of one
module, or of all with ``'*'``. Each is tried in a new process, first with the tests of its module.
"""

import argparse
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from attrs import frozen
from tests.mutate.decorators import with_plain_functions
from tests.mutate.literals import Changed, changed_numbers

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPIED = ("src", "tests", "docs", "examples", "contrib", "README.md", "CHANGELOG.md", "Makefile")
TESTS: Mapping[str, Sequence[str]] = {
    "bans": ("tests/bans",),
    "detect": ("tests/detect", "tests/judge"),
    "parse": ("tests/parse",),
}
"""The tests of each package."""
MUTMUT = (sys.executable, "-m", "mutmut")
MUST: Mapping[str, float] = {"bans": 0.90, "detect": 0.95, "parse": 0.95}
"""The share of the changes that the tests of a package must notice."""
_NOTICED = frozenset({"killed", "timeout", "suspicious", "caught by type check", "segfault"})
_LEFT = "not checked"
_TESTS_FAILED = (1, 2)  # exit codes of pytest: a test failed, or a file of tests cannot be imported
_OPTIONS = ("-m", "not kernel and not asterisk and not long", "-p", "no:cacheprovider", "-q")
_LONGER = 3.0
"""How many times as long as without a change the tests may take: some changes make a loop endless."""
_NO_NAME = "nothing"
"""No change has this name: mutmut makes the changes, runs the tests once, and tries none."""
_NAME = re.compile(r"ringfence\.(?P<module>[\w.]+?)\.x(?P<function>.*)__mutmut_[0-9]+")
_T = TypeVar("_T")


@frozen
class Mutant:
    """A change of the code: its function, such as ``bans.book.Book.add``, and the lines that are new."""

    function: str
    new: str
    shown: str


def main() -> int:
    """Change a package, and print what was not noticed; return 1 if that is too much."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("package", choices=sorted(TESTS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only N changes, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--numbers", metavar="MODULE", help="only numbers outside of functions")
    options = parser.parse_args()
    folder = _copy(options.package)
    if options.numbers:
        every = _changes_of_numbers(folder, options.package, options.numbers)
        chosen = _drawn(every, options.sample, options.seed) if options.sample else every
        return _try_numbers(folder, options.package, chosen)
    _move_decorators(folder, options.package)
    run = [*MUTMUT, "run", "--max-children", str(options.processes)]
    names: Sequence[str] = ()
    if options.sample:
        subprocess.run([*run, _NO_NAME], cwd=folder, check=False, stderr=subprocess.DEVNULL)
        names = _drawn(sorted(_results(folder)), options.sample, options.seed)
    subprocess.run([*run, *names], cwd=folder, check=False)
    return _report(folder, options.package, names)


def _drawn(every: Sequence[_T], number: int, seed: int) -> Sequence[_T]:
    """Return ``number`` of ``every``, drawn at random, or all if there are fewer."""
    return random.Random(seed).sample(every, min(number, len(every)))  # noqa: S311 - a sample, no secret


def _copy(package: str) -> Path:
    """Copy the project, with the settings of mutmut; keep the results of an earlier run."""
    folder = ROOT / "build" / "mutate" / package
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    settings = f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/ringfence/{package}/*.py"]
also_copy = {[*COPIED]}
pytest_add_cli_args = {[*_OPTIONS]}
pytest_add_cli_args_test_selection = {[*TESTS[package]]}
"""
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8") + settings, "utf-8")
    return folder


def _move_decorators(folder: Path, package: str) -> None:
    """Move the decorators in the copy, so that mutmut changes their functions.

    The files keep their times, because mutmut begins again with a file that is newer than its results.
    """
    for path in (folder / "src" / "ringfence" / package).glob("*.py"):
        source, times = path.read_bytes(), path.stat()
        path.write_bytes(with_plain_functions(source))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _results(folder: Path) -> Mapping[str, str]:
    """Return by the name of each change what became of it, such as "killed" or "survived"."""
    listed = subprocess.run(
        [*MUTMUT, "results", "--all", "true"], cwd=folder, capture_output=True, text=True, check=True
    )
    return dict(re.findall(r"^ *(\S+): (.+)$", listed.stdout, re.MULTILINE))


def _fails(root: Path, tests: Sequence[str], most: float | None = None, mutant: str = "") -> bool:
    """Whether tests in the copy ``root`` fail, or take longer than ``most`` seconds.

    If ``mutant`` is set, mutmut's change with this name is made before the import.
    """
    environ = {"MUTANT_UNDER_TEST": mutant, "PYTHONPATH": os.pathsep.join(map(str, (root / "src", root)))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--exitfirst", *_OPTIONS, *tests],
            cwd=root,
            env=os.environ | environ,
            check=False,
            stdout=subprocess.DEVNULL,
            timeout=most,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode in _TESTS_FAILED


def _changes_of_numbers(folder: Path, package: str, modules: str) -> list[tuple[Path, Changed]]:
    """Return each changed number of the modules whose names match ``modules``, with its module's path."""
    return [
        (path, changed)
        for path in sorted((folder / "src" / "ringfence" / package).glob("*.py"))
        if fnmatchcase(path.stem, modules)
        for changed in changed_numbers(path.read_bytes())
    ]


def _try_numbers(folder: Path, package: str, chosen: Sequence[tuple[Path, Changed]]) -> int:
    """Print which changed numbers no test noticed; return 1 if there are any, or if nothing was tried."""
    began = time.monotonic()
    if not chosen or _fails(folder, TESTS[package]):
        print("no number stands there, or the tests fail without a change")
        return 1
    most = _LONGER * (time.monotonic() - began)
    equivalent = {(one["function"], one["new"]) for one in _equivalent()}
    unnoticed = 0
    for version, (path, changed) in enumerate(chosen, 1):
        name, before = f"{package}.{path.stem}", path.read_bytes()
        if (name, changed.new) in equivalent:
            continue
        own = f"tests/{package}/test_{path.name}"
        _write(path, changed.source, version)
        runs = [[own], TESTS[package]] if (folder / own).exists() else [TESTS[package]]
        if not any(_fails(folder, tests, most) for tests in runs):
            unnoticed += 1
            print(f"\n{name}, line {changed.line}\n-{changed.old}\n+{changed.new}", flush=True)
        _write(path, before, 0)
    print(f"\n{len(chosen)} changes tried, {unnoticed} not noticed")
    return int(unnoticed > 0)


def _write(path: Path, source: bytes, version: int) -> None:
    """Write a module of the copy. Each version has a time of its own, so that Python compiles it again."""
    path.write_bytes(source)
    os.utime(path, (version, version))


def _report(folder: Path, package: str, names: Sequence[str]) -> int:
    """Print which changes no test noticed, and the share of those that were: of ``names``, or of all."""
    results = _results(folder)
    pairs = {name: results[name] for name in names or results}
    states = Counter(pairs.values())
    equivalent = {(one["function"], one["new"]) for one in _equivalent()}
    unnoticed = [
        mutant
        for name, state in pairs.items()
        if state not in _NOTICED and state != _LEFT
        if ((mutant := _mutant(folder, name)).function, mutant.new) not in equivalent
        if not _fails(folder / "mutants", TESTS[package], mutant=name)
    ]
    for mutant in unnoticed:
        print(f"\n{mutant.function}\n{mutant.shown}")
    left = states[_LEFT]
    tried = len(pairs) - left
    share = 1 - len(unnoticed) / tried if tried else 0.0
    print(f"\n{tried} changes tried, {left} not tried, {len(unnoticed)} not noticed: {share:.1%} noticed")
    if names and tried:
        print(f"of all {len(results)}: {share:.1%} ± {1.96 * math.sqrt(share * (1 - share) / tried):.1%}")
    return int(share < MUST[package] or left > 0)


def _equivalent() -> Sequence[Mapping[str, str]]:
    """Return the changes that no test can notice: the function, the new lines, and the reason."""
    with (HERE / "equivalent.toml").open("rb") as file:
        found: Sequence[Mapping[str, str]] = tomllib.load(file)["change"]
    return found


def _mutant(folder: Path, name: str) -> Mutant:
    """Return the change of this name, as mutmut shows it."""
    shown = subprocess.run([*MUTMUT, "show", name], cwd=folder, capture_output=True, text=True, check=True)
    lines = [line for line in shown.stdout.split("\n") if re.match(r"[-+](?!--|\+\+)", line)]
    new = "\n".join(line[1:].strip() for line in lines if line.startswith("+"))
    function, found = name, _NAME.fullmatch(name)
    if found is not None:
        function = f"{found['module']}.{re.sub('^_|^ǁ', '', found['function']).replace('ǁ', '.')}"
    return Mutant(function, new, "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
