"""``make bench``: every figure that ringfence promises, measured on this machine in one run.

Prints the table and writes it to RESULTS.md beside this file. Where the laboratory has fail2ban, it is
measured too, on the same Asterisk. It measures a machine: run it on one that does nothing else. Parts can be
chosen (``python -m tests.bench costs``); only a whole run is written down.
"""

import argparse
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import (
    attacks,
    costs,
    firewall,
    floods,
    forged,
    hostile,
    judgement,
    kills,
    losses,
    newcomers,
    phones,
    replays,
)
from tests.bench.figures import Figure, table
from tests.support.fail2ban import tree, why_no_fail2ban
from tests.support.lab import Lab, why_no_asterisk

RESULTS = Path(__file__).with_name("RESULTS.md")
PARTS = {
    "attacks": attacks.figures,
    "hostile": hostile.figures,
    "losses": losses.figures,
    "costs": costs.figures,
    "replays": replays.figures,
    "firewall": firewall.figures,
    "floods": floods.figures,
    "kills": kills.figures,
    "newcomers": newcomers.figures,
    "phones": phones.figures,
    "forged": forged.figures,
    "judgement": judgement.figures,
}


def main() -> int:
    """Measure what was asked for; 1 where a figure was not reached."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure ringfence.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    chosen = parser.parse_args().parts or list(PARTS)
    if reason := why_no_asterisk():
        print(f"The figures need a real Asterisk: {reason}", file=sys.stderr)
        return 1
    other = _fail2ban()
    figures: list[Figure] = []
    version = ""
    for name in chosen:
        with Lab.made("22") as lab:
            version = lab.asterisk.version
            figures += PARTS[name](lab, other)
        print(table(figures), flush=True)
    if set(chosen) == set(PARTS):
        RESULTS.write_text(_page(figures, version), "utf-8")
    return 0 if all(figure.reached is not False for figure in figures) else 1


def _fail2ban() -> Path | None:
    reason = why_no_fail2ban()
    if reason:
        print(f"fail2ban is not measured: {reason}", file=sys.stderr)
    return None if reason else tree()


def _page(figures: list[Figure], version: str) -> str:
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").split("\n")
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"""# What was measured

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {len(_processors())} processors ({processor}),
Linux {platform.release()}, Python {platform.python_version()}, {version}. All rows are of one run; the
guards ran beside the same Asterisk, one after the other, and where they ban with a threshold of 5.

{table(figures)}
"""


def _processors() -> list[str]:
    text = Path("/proc/cpuinfo").read_text("utf-8")
    return [line for line in text.split("\n") if line.startswith("processor")]


sys.exit(main())
