"""Every reader of bytes from outside keeps its promises, over its corpus and some random changes of it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.faults import FAULTS
from tests.fuzz.findings import command_of, inputs_of, keep, repeat
from tests.fuzz.mutations import changed
from tests.fuzz.promises import BrokenPromiseError, Checker, Finding, Target, joined, parts_of, require
from tests.fuzz.table import LEFT_OUT, NOT_ENTERED, TARGETS
from tests.judge.fault import put_back

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "ringfence"
DECODES = re.compile(
    r"json\.loads|tomllib\.loads|\bStruct\(|struct\.(?:iter_)?unpack|from_bytes|csv\.reader|literal_eval"
    r"|b64decode|http\.client\.|\.recv\(|\bexpat\.|\b(?:gzip|bz2|lzma)\."
)
"""Calls that turn bytes into values."""
SEED = 1


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_promises_are_kept(target: Target) -> None:
    """No other exception than the documented ones, linear time, and memory in proportion to the input."""
    assert {one.what: one.data[:500] for one in _findings(target)} == {}


def _findings(target: Target) -> Iterator[Finding]:
    """Read the corpus of a target, and random changes of it; yield what breaks a promise."""
    corpus = [*target.corpus()]
    checker = Checker(target, share=0.2, chance=1 / 32)
    for data in (*corpus, *changed(corpus, target.tries, SEED)):
        found = checker.check(data)
        if found is not None:
            yield found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_is_put_back_breaks_a_promise(name: str) -> None:
    """The corpus and its random changes find each old fault of a reader."""
    fault, target = FAULTS[name]
    with put_back(fault):
        assert next(_findings(TARGETS[target]), None) is not None


def test_every_reader_is_a_target_or_left_out() -> None:
    """A module that turns bytes into values is in the table, or is left out for a reason, but not both."""
    decoding = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.parent.name == "parse" or DECODES.search(path.read_text("utf-8"))
    } - {"parse/__init__.py"}
    read = {module for target in TARGETS.values() for module in target.modules}

    assert decoding - read - LEFT_OUT.keys() == set()
    assert LEFT_OUT.keys() - decoding == set()
    assert read & LEFT_OUT.keys() == set()
    assert {module for module in read if not (PACKAGE / module).exists()} == set()


def test_the_corpus_enters_every_function_that_gets_bytes() -> None:
    """The corpus leads into each function that gets bytes, unless the table has a reason why not."""
    declared = {module for target in TARGETS.values() for module in target.modules}
    getting = {place: name for module in declared for place, name in _with_bytes(module)}
    line = [sys.executable, "-m", "tests.fuzz.entered"]
    done = subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    entered = frozenset(done.stdout.split("\n"))

    assert {name for place, name in getting.items() if place not in entered} == NOT_ENTERED.keys()


_BYTES = re.compile(r"\b(?:bytes|bytearray|memoryview|_Buffer)\b")


def _with_bytes(module: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the qualified name of each function of a module that has bytes as a parameter."""
    path = PACKAGE / module
    yield from _in_body(ast.parse(path.read_text("utf-8")), f"{module}:", f"{module}:")


def _in_body(outer: ast.AST, place: str, prefix: str) -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(outer):
        inner = prefix
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{prefix}{node.name}."
            if not isinstance(node, ast.ClassDef) and _gets_bytes(node.args):
                first = min(one.lineno for one in (node, *node.decorator_list))
                yield f"{place}{first}", f"{prefix}{node.name}"
        yield from _in_body(node, place, inner)


def _gets_bytes(given: ast.arguments) -> bool:
    more = filter(None, (given.vararg, given.kwarg))
    types = (one.annotation for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, *more))
    return any(_BYTES.search(ast.unparse(one)) for one in types if one is not None)


def _fails(data: bytes) -> None:
    if b"boom" in data:
        raise KeyError
    require(b"long" not in data, "the length of a text")
    if b"slow" in data:
        sum(1 for _ in range(data.count(b"a") ** 3 // 1_000))  # 1,200 letters take some 100 ms
    if b"wide" in data:
        bytes(1 << 24)


BROKEN = Target("broken", _fails, lambda: [b""], (), (ValueError,), longest=1_200, slowest=1.0)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"boom", "exception: KeyError in a library"),
        (b"long", "bound: the length of a text"),
        (b"wide", "memory: an input takes too much memory"),
        (b"a" * 50 + b"slow", "time: a longer input takes more than linear time"),
    ],
)
def test_a_broken_promise_is_found(data: bytes, what: str) -> None:
    """An exception, a bound, memory and time are findings, each with its input."""
    checker = Checker(BROKEN, chance=1.0)
    found = next((one for _ in range(20) if (one := checker.check(data) or checker.repeat(data))), None)

    assert found is not None
    assert found.what == what


def test_a_finding_is_kept_once_and_shortened(tmp_path: Path) -> None:
    """One cause has one input, the shortest one, and the command that repeats it."""
    assert keep(Finding("ami", "exception: x", b"longer"), tmp_path) != ""
    assert keep(Finding("ami", "exception: x", b"short"), tmp_path) == ""
    assert keep(Finding("ami", "exception: x", b"longest"), tmp_path) == ""
    [path] = inputs_of("ami", tmp_path)

    assert path.read_bytes() == b"short"
    assert path.with_suffix(".txt").read_text("utf-8") == f"exception: x\n{command_of(path)}\n"
    assert repeat(path) == ""


def test_the_command_repeats_a_finding(tmp_path: Path) -> None:
    """The command reads the file of a finding, and reports whether it still breaks a promise."""
    keep(Finding("roster", "exception: x", b"sip:alice@192.0.2.7"), tmp_path)
    [path] = inputs_of("roster", tmp_path)
    line = [sys.executable, "-m", "tests.fuzz", "--repeat", str(path)]
    done = subprocess.run(line, cwd=ROOT, check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "no promise is broken\n")


def test_parts_of_an_input() -> None:
    """A part has a number and at most its length; an incomplete head is no part."""
    assert [*parts_of(joined((7, b"abc"), (0, b"")) + b"\1\0")] == [(7, b"abc"), (0, b"")]
    assert [*parts_of(b"\2\0\5ab")] == [(2, b"ab")]
    with pytest.raises(BrokenPromiseError):
        require([], "a bound")
