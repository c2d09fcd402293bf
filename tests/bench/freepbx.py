"""How long bans are ineffective while FreePBX replaces the rules of the host (``fwconsole restart``)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure, spread
from tests.support.freepbx import KINDS, MOST, ROUNDS, freepbx


def figures() -> Iterator[Figure]:
    """Measure each backend, and yield the rows."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder, freepbx(kind, Path(folder)) as host:
            openings = [host.restart() for _ in range(ROUNDS)]
        seconds = [one.seconds for one in openings]
        yield Figure(
            what=f"`fwconsole restart` twice in a row: seconds that packets of banned senders arrive, {kind}",
            measured=f"{spread(seconds)}; work waited {max(one.waited for one in openings):.0%} of its time",
            must=f"≤ {MOST:.0f} in every trial",
            reached=max(seconds) <= MOST,
        )
