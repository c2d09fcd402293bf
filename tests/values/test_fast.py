"""``values.fast``: values that compare, hash and copy; the type checker keeps them unchanged."""

import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from attrs import fields

from ringfence.values import fast
from ringfence.values.fast import evolve


@fast.frozen
class Pair:
    """A class with two values, one of them with a default."""

    one: int
    other: str = ""


def test_it_is_a_value() -> None:
    """Equal values are equal, are the same in a set, and differ from others."""
    assert Pair(1, "a") == Pair(1, "a") != Pair(1, "b")
    assert {Pair(1), Pair(1)} == {attrs.evolve(Pair(2), one=1)}
    assert [field.name for field in fields(Pair)] == ["one", "other"]
    assert not hasattr(Pair(1), "__dict__")


def test_the_type_checker_keeps_it_from_being_changed(tmp_path: Path) -> None:
    """Code that changes such a value is an error of mypy, in this project and in its users."""
    code = tmp_path / "changes.py"
    code.write_text(
        "from ringfence.values.event import SecurityEvent\n\n"
        "def f(e: SecurityEvent) -> None:\n    e.time = 1.0\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert '"time" defined in "SecurityEvent" is read-only' in done.stdout


def test_a_copy_has_the_changed_fields_and_all_others() -> None:
    """A copy equals that of attrs, and the original keeps its values."""
    before = Pair(1, "a")

    assert evolve(before, other="b") == attrs.evolve(before, other="b") == Pair(1, "b")
    assert before == Pair(1, "a")


def test_an_unknown_field_cannot_be_changed() -> None:
    """A name that is no field raises an error."""
    with pytest.raises(KeyError):
        evolve(Pair(1, "a"), another=2)
