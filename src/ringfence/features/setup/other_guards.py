"""Other programs that guard Asterisk until setup replaces them: features know them (``street.py``).

The package runs this module before it is removed, so that the PBX is not without any guard afterwards:

    python -m ringfence.features.setup.other_guards
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ringfence import street
from ringfence.errors import SetupError
from ringfence.features.setup.journal import JournalRecord, read_journal, restore_files
from ringfence.features.setup.texts import HostPaths
from ringfence.host.file_changes import Change
from ringfence.values.text import printable


def other_guards(etc: Path) -> tuple[Any, ...]:
    """Return an ``OtherGuard`` for each program that may guard Asterisk; ``etc`` is /etc."""
    return tuple(feature.OtherGuard(etc) for feature in street.modules("other_guard"))


def give_back(others: Iterable[Any], changes: Sequence[Change]) -> Iterator[str]:
    """Enable other guards again, if ``changes`` disabled them; yield a line for each problem.

    Call this before ringfence is stopped, so that one of both always guards Asterisk.
    """
    for other in others:
        disabling = tuple(change for change in changes if change.path == other.file)
        if disabling:
            yield from restore_files(JournalRecord(disabling))
            yield from other.enable()


def main() -> int:
    """Enable the other guards that setup disabled on this host; print each problem. Return the exit code."""
    paths, problems = HostPaths(), list[str]()
    others = other_guards(paths.etc)
    try:
        problems.extend(give_back(others, read_journal(paths.state).changes))
    except SetupError as error:
        problems.append(str(error))
    problems += [line for other in others for line in other.still_disabled()]
    if problems:
        head = "after the removal of ringfence, nothing may guard Asterisk:"
        print(head, *map(printable, problems), sep="\n    ", file=sys.stderr)  # noqa: T201 - for dpkg's terminal
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
