"""``ringfence why``: show everything known about an address or an account, and advice."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ringfence import street
from ringfence.cli import output
from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, alarm_line, ask_or_read, networks_from
from ringfence.cli.output import JsonOption, echo_json, echo_stderr, errors_reported, short_time
from ringfence.cli.plain_text import cut
from ringfence.cli.screen import Screen, fitting, show_facts, show_list, table_of
from ringfence.clock import format_duration, time_left
from ringfence.errors import DaemonUnreachableError, Exit, StoreError
from ringfence.explain.headlines import (
    BAD_VERDICTS,
    account_headline,
    address_headline,
    begun_rules,
    is_account,
)
from ringfence.plurals import counted
from ringfence.values.ban import phrases_of
from ringfence.values.location import column_of, text_of

# -- ``ringfence why ACCOUNT``: show everything known about an account, and advice


Document = dict[str, Any]


def print_account(found: Document, screen: Screen) -> None:
    """Print the facts of an account for people. ``found`` is the daemon's answer to ``why_account``."""
    style = "bold red" if found["verdict"] in BAD_VERDICTS else "bold"
    screen.show(account_headline(found), style=style)
    for alarm in found["alarms"]:
        screen.show(alarm_line(alarm), style="bold red", indent=2)
    screen.show()
    show_facts(_account_lines(found), screen)
    if found["failures"]:
        screen.show()
        columns = {head: cells for head, cells in _failures(found["failures"]).items() if any(cells)}
        show_list(columns, ("FIRST", "BY", "COUNTRY"), screen, right=["TIMES"], wrapped=["FAILED AT"])


def _account_lines(found: Document) -> Iterator[tuple[str, str]]:
    for home in found["addresses"]:
        state = "at" if home["current"] else "was at"
        until = f"until {short_time(home['until'])}"
        banned = ", banned" if home["banned"] else ""
        yield "phone", f"{state} {home['address']} ({home['reason']}), {until}{banned}"
    if not found["addresses"]:
        yield "phone", "not registered, as far as Asterisk reported"
    success = found["last_success"]
    if success is not None:
        how = "password" if success["reason"] == "authenticated" else success["reason"]
        yield "success", f"{short_time(success['seen'])} from {success['address']} ({how})"
    for ban in found["bans"]:
        of = "" if ban["network"] == ban["address"] else f" (of {ban['network']})"
        former = " (a former address)" if ban["former"] else ""
        until = f"until {short_time(ban['expires'])}"
        yield "ban", f"{ban['address']}{of}{former}: {ban['rule']}, since {short_time(ban['since'])}, {until}"
    failures = found["failures"]
    if failures:
        last = failures[0]
        yield "failure", f"{short_time(last['last'])} from {last['address']}: {last['reason']}"
    for lines in street.functions("why_account", "lines"):
        yield from lines(found)
    yield "do", found["advice"]


def _failures(failures: list[Document]) -> dict[str, list[str]]:
    return {
        "FAILED AT": [one["address"] for one in failures],
        **column_of(failures),
        "REASON": [one["reason"] for one in failures],
        "TIMES": [str(one["times"]) for one in failures],
        "FIRST": [short_time(one["first"]) for one in failures],
        output.head("LAST"): [short_time(one["last"]) for one in failures],
        "BY": [f"{one['service']} {one['transport']}" for one in failures],
        "NOTE": [_account_note(one) for one in failures],
    }


def _account_note(one: Document) -> str:
    notes = ["worked there"] if one["worked"] else []
    return ", ".join([*notes, "banned"] if one["banned"] else notes)


_MAX_SHOWN = 20
"""The maximum number of rows of attempts that are shown (the latest ones), and of past bans."""

_ACCOUNT = 40  # columns of an account in a table
_SOURCES = "ami log notice journal wire"
_KERNEL_LISTS = {"allow": "never drops it", "deny": "drops all it sends", "friends": "does not limit it"}
_LEFT_OUT: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"date"}),
    frozenset({"date", "FIRST"}),
    frozenset({"date", "FIRST", "BY"}),
    frozenset({"date", "FIRST", "BY", "SOURCES"}),
)
"""Sets of columns to leave out of the table of attempts. The first set with which it fits the screen is used.

``date`` is not a column: it means that the columns of times show no dates.
"""


def why(
    about: Annotated[
        str, typer.Argument(metavar="ADDRESS|ACCOUNT", help="An address, a network, or an account.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    local: output.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Explain an address or an account: its attempts, its bans, and what to do."""
    output.choose(local=local)
    with errors_reported():
        by_account = is_account(about)
        if by_account:
            found, _ = ask_or_read(config, "why_account", account=about)
            for module in street.modules("why_account"):
                found |= module.facts(_answer_to(config, *module.request(about)), about)
        else:
            [network] = networks_from([about])
            found, _ = ask_or_read(config, "why", network=str(network))
    if as_json:
        echo_json(found)
    else:
        (print_account if by_account else _print)(found, Screen())
    if not found["daemon"]:
        echo_stderr("The daemon does not answer: attempts in its memory and the state of rules are unknown.")
    echo_stderr(*found["problems"])
    if found["problems"]:
        raise typer.Exit(Exit.PROBLEM)


def _answer_to(config: Path, do: str, fields: Document) -> Document:
    """Return the answer to a feature's request; {} without a daemon and a readable database.

    The answer to ``why_account`` has reported that already, and the mistakes of the configuration too.
    """
    try:
        answer: Document = ask_or_read(config, do, quietly=True, **fields)[0]
    except (DaemonUnreachableError, StoreError):
        return {}
    return answer


def _print(found: Document, screen: Screen) -> None:
    out = found["verdict"] in {"banned", "denied"}
    screen.show(address_headline(found), style="bold red" if out else "bold")
    for alarm in found["alarms"]:
        screen.show(alarm_line(alarm), style="bold red", indent=2)
    screen.show()
    show_facts(_lines(found), screen)
    _print_tables(screen, found)


def _print_tables(screen: Screen, found: Document) -> None:
    if found["groups"]:
        screen.show()
        last = [*reversed(found["groups"][:_MAX_SHOWN])]
        screen.print(fitting((_attempts(last, left_out) for left_out in _choices(last)), screen))
        more = sum(one["times"] for one in found["groups"][_MAX_SHOWN:])
        if more:
            screen.show(f"{counted(more, 'earlier one')}: --json")
    if begun := begun_rules(found):
        screen.show()
        screen.print(_rules(begun))


def _lines(found: Document) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of each known fact. Attempts and rules are printed as tables instead."""
    if found["subject"] != found["address"]:
        yield "counted", f"as {found['subject']}"
    if where := text_of(found["location"]):
        yield "where", where
    yield from (("ban", _ban(ban, found)) for ban in found["bans"])
    yield from (("list", _entry(entry)) for entry in found["lists"])
    yield from (("host", f"{own['network']} is {own['why']}") for own in found["protected"])
    yield from _friends(found)
    # If the address is banned or denied, do not print that its packets have no limit: this has no effect.
    out = found["verdict"] in {"banned", "denied"}
    lists = [name for name, contains in found["kernel_lists"].items() if contains]
    effects = [_KERNEL_LISTS[name] for name in lists if not (out and name == "friends")]
    if effects:
        yield "kernel", ", ".join(effects)
    for module in street.modules("why"):
        yield from module.lines(found)
    yield from (("before", _past(ban, found)) for ban in found["past"][:_MAX_SHOWN])
    more = len(found["past"]) - _MAX_SHOWN
    if more > 0:
        yield "before", f"{counted(more, 'earlier ban')}: --json"
    yield from (("evidence", sentence) for sentence in found["evidence"])
    yield from (("next", sentence) for sentence in found["forecast"])


def _friends(found: Document) -> Iterator[tuple[str, str]]:
    for friend in found["friends"]:
        how = friend["reason"] if friend["proven"] else f"{friend['reason']}, unproven"
        lasts = f"since {short_time(friend['since'])}, seen {short_time(friend['seen'])}"
        yield "friend", f"{friend['account']} ({how}) {lasts}, until {short_time(friend['until'])}"
    if not found["friends"]:
        yield "friend", "no"
    for friend in found["former"]:
        yield "was", f"{friend['account']} ({friend['reason']}) until {short_time(friend['until'])}"


def _ban(ban: Document, found: Document) -> str:
    parts = [_by(ban, found)]
    if ban["attempts"]:
        parts.append(f"{ban['proven']} of {counted(ban['attempts'], 'attempt')} proven")
    if ban["since"]:
        parts.append(f"since {short_time(ban['since'])}")
    if ban["in_kernel"]:
        left = "no end" if ban["timeout"] is None else f"{format_duration(ban['timeout'])} left in the kernel"
        parts += [left, f"{counted(ban['packets'], 'packet')} dropped"]
    else:
        parts.append("missing in the kernel")
    return "; ".join(parts)


def _by(ban: Document, found: Document) -> str:
    whose = "" if ban["network"] == found["address"] else f" of {ban['network']}"
    scope = "" if ban["scope"] == "full" else f" ({ban['scope']})"
    what = f"{ban['rule'] or 'unknown rule'}{scope}{whose}"
    return ", ".join(filter(None, [what, *phrases_of(ban), ban["reason"]]))


def _past(ban: Document, found: Document) -> str:
    end = f"ended {short_time(ban['ended'])}" if ban["ended"] else f"until {short_time(ban['expires'])}"
    return f"{_by(ban, found)}; since {short_time(ban['since'])}, {end}: {ban['why_ended']}"


def _entry(entry: Document) -> str:
    leads = "" if entry["network"] == entry["entry"] else f" ({entry['network']})"
    forced = ", forced" if entry["forced"] else ""
    ends = f", until {short_time(entry['ends'])}" if entry["ends"] else ""
    note = f", {entry['note']}" if entry["note"] else ""
    return f"{entry['list']}: {entry['entry']}{leads}{note}, from {entry['source']}{forced}{ends}"


def _choices(groups: list[Document]) -> Sequence[frozenset[str]]:
    """Return what to leave out of the table of attempts, as _LEFT_OUT has it.

    If the attempts were made on several days, the date is left out last: a time does not show the day.
    """
    days = {short_time(one[key])[:10] for one in groups for key in ("first", "time")}
    return _LEFT_OUT if len(days) == 1 else (*(one - {"date"} for one in _LEFT_OUT), _LEFT_OUT[-1])


def _attempts(groups: list[Document], left_out: frozenset[str]) -> Table:
    """Return the table of attempts: a row for each group of equal attempts, no columns in ``left_out``."""
    start = 11 if "date" in left_out else 0
    columns = {
        "TIMES": [str(one["times"]) for one in groups],
        "FIRST": [short_time(one["first"], seconds=True)[start:] for one in groups],
        output.head("TIME"): [short_time(one["time"], seconds=True)[start:] for one in groups],
        "ADDRESS": [one["address"] for one in groups],
        "REASON": [one["reason"] for one in groups],
        "ACCOUNT": [_account(one) for one in groups],
        "BY": [f"{one['service']} {one['transport']}" for one in groups],
        "PROOF": [one["proof"] for one in groups],
        "SOURCES": [_reported_by(one) for one in groups],
        "NOTE": [_note(one) for one in groups],
    }
    # Leave out ADDRESS if all attempts have the same one, NOTE if all cells are empty, and the columns of
    # groups if each has one attempt.
    left_out |= {"ADDRESS"} if len({*columns["ADDRESS"]}) == 1 else set()
    left_out |= set() if any(columns["NOTE"]) else {"NOTE"}
    left_out |= set() if any(one["times"] > 1 for one in groups) else {"TIMES", "FIRST"}
    shown = {head: cells for head, cells in columns.items() if head not in left_out}
    return table_of(shown, right=["TIMES"], wrapped=("ADDRESS", "ACCOUNT", "NOTE"))


def _account(group: Document) -> str:
    more = f" +{group['accounts'] - 1}" if group["accounts"] > 1 else ""
    return f"{cut(group['account'], _ACCOUNT)}{more}"


def _reported_by(attempt: Document) -> str:
    names = ["notice" if one.endswith("#notice") else one.partition(":")[0] for one in attempt["sources"]]
    return "+".join(sorted(set(names), key=_SOURCES.find)) or "?"


def _note(attempt: Document) -> str:
    notes = ["banned"] if attempt["ban"] else []
    notes += ["tampered"] if attempt["tampered"] else []
    notes += [] if attempt["trusted"] else ["unconfirmed"]
    notes += [f"names {attempt['forged_address']}"] if attempt["forged_address"] else []
    return ", ".join(notes)


def _rules(rules: Sequence[Mapping[str, Any]]) -> Table:
    whose = {"prefix": " (of its network)"}
    columns = {
        "RULE": [rule["rule"] + whose.get(rule["by"], "") for rule in rules],
        "COUNTED": [
            f"{rule['have']} of {rule['of']}" if rule["of"] else f"{rule['have']}, never" for rule in rules
        ],
        "PROVEN": [str(rule["proven"]) for rule in rules],
        "WITHIN": [format_duration(rule["window"]) for rule in rules],
        "ONE LESS IN": [time_left(rule["ends"]) if rule["ends"] else "" for rule in rules],
    }
    return table_of(columns, right=("COUNTED", "PROVEN"), wrapped=columns)
