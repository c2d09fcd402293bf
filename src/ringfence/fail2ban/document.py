"""Configuration of ringfence as TOML, from converted settings of fail2ban, with notes for the administrator.

Text from fail2ban's files is written only into strings and one-line comments.
"""

import textwrap
from collections.abc import Iterator, Sequence

from ringfence.fail2ban.carried import ALLOW, GUESS, LOGS, ConvertedSettings
from ringfence.fail2ban.times import length_of
from ringfence.model import printable

WIDTH = 110
_HEAD = (
    "ringfence's configuration, made from fail2ban: {jails}. Lines that begin with NOTE describe what is "
    "different here, and what was not carried over."
)
_LOGS = (
    "the user ringfence must be able to read these, and callers can write into them. Better is a channel of "
    'its own, see "The log" in docs/evidence.md; then leave paths out'
)
_JOURNAL = 'the user ringfence must be able to read the journal: see "The journal" in docs/evidence.md'


def document_of(settings: ConvertedSettings) -> str:
    """Return the text of the configuration file."""
    jails = ", ".join(f"jail {printable(name)}" for name in settings.jails)
    lines = [
        *_comment(_HEAD.format(jails=jails)),
        "",
        "[[asterisk]]",
        "",
        "[asterisk.ami]",
        'secret_file = "/etc/ringfence/asterisk.secret"',
        *_table(LOGS, [*_always(settings), *settings.notes.of(LOGS)], _logs(settings)),
        *_table(
            ALLOW, settings.notes.of(ALLOW), [_list("networks", [str(net) for net in settings.networks])]
        ),
        *_table(GUESS, settings.notes.of(GUESS), _numbers(settings)),
    ]
    return "\n".join(lines) + "\n"


def _table(name: str, notes: Sequence[str], keys: Sequence[str]) -> Iterator[str]:
    if notes or keys:
        yield from ("", f"[{name}]")
        for note in notes:
            yield from _comment(f"NOTE {note}.")
        yield from keys


def _always(settings: ConvertedSettings) -> Iterator[str]:
    if settings.paths:
        yield _LOGS
    if settings.journal:
        yield _JOURNAL


def _logs(settings: ConvertedSettings) -> list[str]:
    keys = [_list("paths", settings.paths)] if settings.paths else []
    keys += ["journal = true"] if settings.journal else []
    return [*keys, f"timezone = {_quoted(settings.timezone)}"] if settings.timezone else keys


def _numbers(settings: ConvertedSettings) -> list[str]:
    keys = [] if settings.attempts is None else [f"attempts = {settings.attempts}"]
    keys += [] if settings.window is None else [f"window = {_quoted(length_of(settings.window))}"]
    return [*keys, _list("ban", [length_of(step) for step in settings.ban])] if settings.ban else keys


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
