"""The decorators that `make mutate` moves below their functions."""

import ast
import runpy
from itertools import pairwise
from pathlib import Path

from tests.mutate.__main__ import ROOT, TESTS
from tests.mutate.decorators import with_plain_functions

SOURCE = b'''from functools import cache, lru_cache

from attrs import define


@define
class Counter:
    """Counts."""

    _n: int = 0

    @property
    def n(self) -> int:
        """The number."""
        return self._n

    @n.setter
    def n(self, n: int) -> None:
        self._n = n

    @classmethod
    def at(cls, n: int) -> "Counter":
        return cls(n)


@cache
@lru_cache(
    maxsize=16,
)
def half(n: int) -> int:
    """Return a half, rounded down."""
    return n // 2
'''


def test_a_statement_below_a_function_decorates_it() -> None:
    """All decorators of a function move into the statement; setters and class methods keep theirs."""
    before, after = SOURCE.splitlines(), with_plain_functions(SOURCE).splitlines()
    assert [line for line in before if line not in after] == [
        b"    @property",
        b"@cache",
        b"@lru_cache(",
        b"    maxsize=16,",
        b")",
    ]
    assert [pair for pair in pairwise(after) if pair[1] not in before] == [
        (b"        return self._n", b"    n = property(n)"),
        (b"    return n // 2", b"half = cache(lru_cache(maxsize=16)(half))"),
    ]


def test_the_module_does_the_same(tmp_path: Path) -> None:
    """The property of an attrs class, its setter, the class method and the cache work."""
    path = tmp_path / "counter.py"
    path.write_bytes(with_plain_functions(SOURCE))
    module = runpy.run_path(str(path))
    counter = module["Counter"].at(3)
    counter.n += 1
    assert counter.n == 4
    assert [module["half"](9), module["half"](9)] == [4, 4]
    assert module["half"].cache_info().hits == 1


def test_mutmut_gets_the_functions_of_each_package_without_decorators() -> None:
    """Only setters, and the methods that mutmut changes itself, keep theirs."""
    kept = {
        ast.unparse(decorator)
        for package in TESTS
        for path in (ROOT / "src" / "ringfence" / package).glob("*.py")
        for node in ast.walk(ast.parse(with_plain_functions(path.read_bytes())))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for decorator in node.decorator_list
    }
    assert kept <= {"classmethod", "staticmethod", "exempt.setter"}
