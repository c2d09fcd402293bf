"""The report of a period as lines of text, for a terminal and for a mail.

A *row* is one entry of a table in a report or in the daemon's answers, a mapping of names to values.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ringfence import street
from ringfence.cli.plain_text import Line, TextForm, table_lines
from ringfence.clock import format_duration
from ringfence.plurals import counted
from ringfence.values.location import AREAS, parts_of

GROUPS = {"networks": "NETWORK", **AREAS, "operators": "OPERATOR"}
"""The tables of a report that group addresses (by network, operator …), each with the head of a column."""

Document = Mapping[str, Any]


def report_lines(found: Document, form: TextForm) -> Iterator[Line]:
    """Yield the lines of the report ``found`` (see :func:`~ringfence.features.report.summary.summary_of`).

    Only tables are fitted to the width of ``form``; callers wrap the rest.
    """
    for history_lines in street.functions("text", "history_lines"):
        yield from map(Line, history_lines(found["history"], form))
    for title, names, rows in _tables(found):
        if rows:
            yield Line()
            yield Line(title, is_head=True)
            yield from table_lines(names, rows, form.width)
    if not found["addresses"] and not found["held"]["bans"]:
        yield Line()
        yield Line("No attempt is recorded in this time. The report shows who guessed, and what was banned.")
        yield Line("To watch attempts as they come: ringfence events --follow")
    yield Line()
    yield Line("Phones that need a person", is_head=True)
    for row in found["phones"]:
        yield Line(_alarm(row, form), indent=2)
    if found["phones_left_out"]:
        yield Line(f"and {found['phones_left_out']} more; see: ringfence alarms")
    if not found["phones"]:
        yield Line("none")
    yield Line()
    for text in _closing(found):
        yield Line(text, indent=2)


def _tables(found: Document) -> Iterator[tuple[str, list[str], Sequence[Sequence[str]]]]:
    """Yield for each table of the report ``found`` its title, the heads of its columns, and its rows."""
    for kind, head in (("addresses", "ADDRESS"), ("accounts", "ACCOUNT")):
        rows = [(row["name"], str(row["attempts"]), _note(kind, row)) for row in found[kind]]
        yield f"{kind.capitalize()} with the most attempts", [head, "ATTEMPTS", "NOTE"], rows
    for kind, head in GROUPS.items():
        rows = [(row["name"], str(row["attempts"]), str(row["addresses"])) for row in found[kind]]
        yield kind.capitalize(), [head, "ATTEMPTS", "ADDRESSES"], rows
    lengths = [(row["name"], str(row["bans"])) for row in found["held"]["lengths"]]
    yield "How long bans held", ["TIME", "BANS"], lengths if found["held"]["bans"] else []


def _note(kind: str, row: Document) -> str:
    known = ("friend" if kind == "addresses" else "works here") if row["known"] else ""
    where = " ".join(parts_of(row))
    return ", ".join(filter(None, (known, "banned" if row["banned"] else "", where)))


def _alarm(row: Document, form: TextForm) -> str:
    about = " ".join(filter(None, (row["code"], row["subject"])))
    again = f" ({row['times']} times)" if row["times"] > 1 else ""
    cleared = f" (cleared {form.moment(row['cleared'])})" if row.get("cleared") else ""
    return f"! {about}: {row['text']}{again}{cleared}"


def _closing(found: Document) -> Iterator[str]:
    held = found["held"]
    if held["bans"]:
        ends = ", ".join(f"{number} {end}" for end, number in held["ends"].items())
        half = f", half of them after {format_duration(held['median'])}"
        bans = f"The latest {held['bans']} bans" if held["more"] else counted(held["bans"], "ban")
        repeated = counted(held["repeated"], "was a repeated ban", "were repeated bans")
        yield f"{bans} ended ({ends}){half}; {repeated}."
    dropped = found["dropped"]
    if dropped is not None:
        for name in [one for one in dropped if one != "rules"]:
            packets = counted(dropped[name], "packet")
            yield f"Since the rules were made, the {name} dropped {packets}."
        for row in dropped["rules"]:
            yield f"{row['rule']}: {counted(row['packets'], 'packet')}"
