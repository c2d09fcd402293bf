"""ringfence at work beside a real Asterisk of the laboratory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER
from tests.support.daemon import Guard, until
from tests.support.lab import Lab


@contextmanager
def guarded(lab: Lab, folder: Path, **settings: Any) -> Iterator[Guard]:  # noqa: ANN401 - whatever TOML holds
    """Guard the laboratory's Asterisk with ipset until the block ends; leaves no rule and no ban.

    ``ami`` adds to how the manager interface is reached, ``logs`` (none by default) and ``wire`` are those
    tables. The block begins when the daemon listens, unless ``listening=False``.
    """
    ami = {"username": MANAGER_USER, "secret": SECRET, "port": MANAGER_PORT, **settings.pop("ami", {})}
    listening = settings.pop("listening", True)
    more: dict[str, Any] = {table: settings.pop(table) for table in ("logs", "wire") if table in settings}
    pbx = {"name": "pbx", "ami": ami, "logs": {"paths": []}, **more}
    guard = Guard(
        folder,
        prefix=lab.network.in_pbx(),
        asterisk=[pbx],
        **{"firewall": {"backend": "ipset"}, **settings},
    )
    with guard:
        try:
            if listening:
                until(lambda: guard.source_is("listening"), "the manager interface")
            yield guard
        finally:
            guard.command("off")
