"""A report as lines of text, for a terminal and for a mail."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ringfence.clock import format_duration
from ringfence.report.history import history_lines
from ringfence.report.layout import Line, TextForm, table_lines

Document = Mapping[str, Any]


def report_lines(found: Document, form: TextForm) -> Iterator[Line]:
    """Yield the lines of the report ``found`` (see :func:`ringfence.report.summary.summary_of`).

    Only tables are fitted to the width of ``form``; callers wrap the rest.
    """
    for text in history_lines(found["history"], form):
        yield Line(text)
    for title, names, rows in _tables(found):
        if rows:
            yield Line()
            yield Line(title, is_head=True)
            yield from table_lines(names, rows, form.width)
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
    for kind, head in (("networks", "NETWORK"), ("countries", "COUNTRY"), ("operators", "OPERATOR")):
        rows = [(row["name"], str(row["attempts"]), str(row["addresses"])) for row in found[kind]]
        yield kind.capitalize(), [head, "ATTEMPTS", "ADDRESSES"], rows
    lengths = [(row["name"], str(row["bans"])) for row in found["held"]["lengths"]]
    yield "How long bans held", ["TIME", "BANS"], lengths if found["held"]["bans"] else []


def _note(kind: str, row: Document) -> str:
    known = ("friend" if kind == "addresses" else "works here") if row["known"] else ""
    where = " ".join(filter(None, (row.get("country"), row.get("asn"), row.get("organisation"))))
    return ", ".join(filter(None, (known, "banned" if row["banned"] else "", where)))


def _alarm(row: Document, form: TextForm) -> str:
    about = " ".join(filter(None, (row["code"], row["subject"])))
    again = f" ({row['times']} times)" if row["times"] > 1 else ""
    known = f" (acknowledged by {row['acknowledged_by']})" if row.get("acknowledged_by") else ""
    cleared = f" (cleared {form.moment(row['cleared'])})" if row.get("cleared") else ""
    return f"! {about}: {row['text']}{again}{known}{cleared}"


def _closing(found: Document) -> Iterator[str]:
    held = found["held"]
    if held["bans"]:
        ends = ", ".join(f"{number} {end}" for end, number in held["ends"].items())
        half = f", half of them after {format_duration(held['median'])}"
        bans = f"The latest {held['bans']} bans" if held["more"] else _counted(held["bans"], "ban")
        yield f"{bans} ended ({ends}){half}; {held['repeated']} were repeated bans."
    dropped = found["dropped"]
    if dropped is not None:
        packets = _counted(dropped["limiter"], "packet")
        yield f"Since the rules were made, the limiter dropped {packets}."
        for row in dropped["rules"]:
            yield f"{row['rule']}: {_counted(row['packets'], 'packet')}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
