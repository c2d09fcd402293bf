"""The tables of docs/firewall.md that are made from the rules: the stages in their order, and the lists."""

import re
from collections.abc import Iterable

from tests.docs.pages import FOLDER

from ringfence.firewall import network_lists
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import additions
from ringfence.firewall.stages import every_stage
from ringfence.values.ban import Scope

PAGE = FOLDER / "firewall.md"

_MADE = re.compile(
    r"(<!-- Written by `make docs` from \S*\. (\w+): -->\n).*?(<!-- End -->\n)", re.MULTILINE | re.DOTALL
)


def page() -> str:
    """Return the page with its made tables."""
    return _MADE.sub(lambda found: f"{found[1]}\n{_TABLES[found[2]]}\n{found[3]}", PAGE.read_text("utf-8"))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


_DROPS = {None: "nothing", Scope.FULL: "all traffic", Scope.SIP: "the SIP ports"}
_TABLES = {
    "Stages": _table(
        ("stage", "packets", "hooks", "what it does"),
        (
            (stage.name, f"{stage.side} remote addresses", ", ".join(stage.hooks), stage.what)
            for stage in every_stage(FirewallPlan(added=additions()))
        ),
    ),
    "Lists": _table(
        ("list", "contents", "drops"),
        ((f"`{one}`", one.contents, _DROPS[one.drops]) for one in network_lists.every()),
    ),
}
