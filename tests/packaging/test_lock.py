"""The lock file: every dependency, each with its hash."""

import re

import pytest
from debian import lock


def test_every_dependency_is_pinned() -> None:
    """Each line has a version and a hash, and each dependency of pyproject.toml has a line."""
    lines = [line for line in lock.LOCK.read_text("utf-8").splitlines() if not line.startswith("#")]
    pinned = {line.partition("==")[0] for line in lines}

    assert [
        line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line)
    ] == []
    assert {lock.name_of(one) for one in lock.requirements()} - pinned == set()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pyroute2.minimal>=0.9.7,<0.10", "pyroute2-minimal"),
        ("typing_extensions-4.16.0-py3-none-any.whl", "typing-extensions"),
        ("markdown_it_py-4.3.0.dist-info", "markdown-it-py"),
        ("Pygments", "pygments"),
    ],
)
def test_names_are_compared_as_indexes_do(text: str, name: str) -> None:
    """A requirement, a wheel and a folder of metadata have the same name in one form."""
    assert lock.name_of(text) == name
