"""What is carried over from fail2ban, written as ringfence's configuration: TOML, with notes for a person.

Whatever fail2ban's files hold ends up in a string or in a comment of one line, and as nothing else.
"""

import textwrap
from collections.abc import Iterator, Sequence

from ringfence.fail2ban.carried import ALLOW, GUESS, LOGS, Carried
from ringfence.fail2ban.times import length_of
from ringfence.model import printable

WIDTH = 110
_HEAD = (
    "ringfence's configuration, made from fail2ban: {jails}. Lines that begin with NOTE say what is "
    "different here, and what was not carried over."
)
_LOGS = (
    "the user ringfence must be able to read these, and callers can write into them. Better is a channel of "
    'its own, as in "Asterisk\'s log" in the README; then leave paths out'
)
_JOURNAL = 'the user ringfence must be able to read the journal: see "The journal" in the README'


def document_of(carried: Carried) -> str:
    """Give the text of the file."""
    jails = ", ".join(f"jail {printable(name)}" for name in carried.jails)
    lines = [
        *_comment(_HEAD.format(jails=jails)),
        "",
        "[[asterisk]]",
        "",
        "[asterisk.ami]",
        'secret_file = "/etc/ringfence/asterisk.secret"',
        *_table(LOGS, [*_always(carried), *carried.notes.of(LOGS)], _logs(carried)),
        *_table(ALLOW, carried.notes.of(ALLOW), [_list("networks", [str(net) for net in carried.networks])]),
        *_table(GUESS, carried.notes.of(GUESS), _numbers(carried)),
    ]
    return "\n".join(lines) + "\n"


def _table(name: str, notes: Sequence[str], keys: Sequence[str]) -> Iterator[str]:
    if notes or keys:
        yield from ("", f"[{name}]")
        for note in notes:
            yield from _comment(f"NOTE {note}.")
        yield from keys


def _always(carried: Carried) -> Iterator[str]:
    if carried.paths:
        yield _LOGS
    if carried.journal:
        yield _JOURNAL


def _logs(carried: Carried) -> list[str]:
    keys = [_list("paths", carried.paths)] if carried.paths else []
    keys += ["journal = true"] if carried.journal else []
    return [*keys, f"timezone = {_quoted(carried.timezone)}"] if carried.timezone else keys


def _numbers(carried: Carried) -> list[str]:
    keys = [] if carried.attempts is None else [f"attempts = {carried.attempts}"]
    keys += [] if carried.window is None else [f"window = {_quoted(length_of(carried.window))}"]
    return [*keys, _list("ban", [length_of(step) for step in carried.ban])] if carried.ban else keys


def _list(key: str, values: Sequence[str]) -> str:
    line = f"{key} = [{', '.join(map(_quoted, values))}]"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{key} = [", *(f"    {_quoted(value)}," for value in values), "]"])


def _quoted(text: str) -> str:
    return '"' + "".join(map(_letter, text)) + '"'


def _letter(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08X}"


def _comment(text: str) -> list[str]:
    lines = textwrap.wrap(
        printable(text), WIDTH - 2, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
    )
    return [f"# {line}" for line in lines]
