"""The control socket's requests about lists, and the rows of their answers.

The answer to ``{"do": "deny_add", "what": ["203.0.113.9"], "note": "", "seconds": null, "force": false}`` is
an :class:`Answer` as JSON. ``seconds`` is how long the entries last (null: without end). ``deny_remove`` has
``what``, the entries, or ``origin``, the imported file whose entries are removed. ``lists`` has ``side``, the
list ("allow" or "deny"), and returns rows. ``lists_reload`` makes the daemon read the database again after an
import has written it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import Factory, asdict, define, frozen

from ringfence.errors import ControlError
from ringfence.lists.entries import EntryValue, parse_entry
from ringfence.lists.prefixes import code_of, text_of
from ringfence.model import Network

MAX_AT_ONCE = 1_000
MAX_NOTE = 200
MAX_TEXT = 300
MAX_SECONDS = 10 * 365 * 86_400.0


@define
class Answer:
    """The result of a request: what was done, what failed and why, and further notes."""

    done: list[str] = Factory(list)
    problems: list[str] = Factory(list)
    notes: list[str] = Factory(list)

    def as_json(self) -> dict[str, list[str]]:
        """Return the JSON form."""
        return asdict(self)


@frozen
class Addition:
    """Entries to be added to a list; ``wrong`` has a line for each text that is not an entry.

    ``seconds`` is how long the entries last, None for no end. ``force``: a network is accepted even if it is
    protected, or wider than the deny list allows.
    """

    values: tuple[EntryValue, ...]
    wrong: tuple[str, ...]
    note: str
    seconds: float | None
    force: bool

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Addition":
        """Parse a request; raise ControlError if it is malformed."""
        values, wrong = [], []
        for text in texts_of(request, "what"):
            try:
                values.append(parse_entry(text))
            except ValueError as error:
                wrong.append(str(error))
        note, seconds = request.get("note", ""), request.get("seconds")
        if not isinstance(note, str) or len(note) > MAX_NOTE or not note.isprintable():
            raise ControlError(f"the note must be a text of at most {MAX_NOTE} characters, in one line")
        length = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (length and 0 < seconds <= MAX_SECONDS):
            raise ControlError(
                "the duration must be a number of seconds above 0 and at most ten years, or null"
            )
        return cls(tuple(values), tuple(wrong), note, seconds, request.get("force") is True)


def texts_of(request: Mapping[str, Any], key: str) -> list[str]:
    """Return the list of texts that the request has under ``key``.

    Raise ControlError if it is missing, empty or too long, or if one of its texts is.
    """
    texts = request.get(key)
    if (
        not isinstance(texts, list)
        or not 0 < len(texts) <= MAX_AT_ONCE
        or not all(isinstance(text, str) and 0 < len(text) <= MAX_TEXT for text in texts)
    ):
        raise ControlError(f"{key}: must be 1 to {MAX_AT_ONCE} texts")
    return texts


@define
class ListRow:
    """A row of a listing: an entry, or a whole imported file if ``file`` is set.

    ``source`` is the origin. ``added`` and ``ends`` are seconds since the epoch. ``added`` is None if
    unknown, and ``ends`` is None if the entry does not end. ``networks`` is the number of networks in the
    kernel for this row (None: unknown). ``leads_to`` are the addresses of a host name.
    """

    entry: str
    source: str
    note: str = ""
    added: float | None = None
    ends: float | None = None
    forced: bool = False
    file: bool = False
    networks: int | None = 0
    leads_to: list[str] = Factory(list)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form, with times as RFC 3339 texts in UTC."""
        return asdict(self) | {"added": _moment(self.added), "ends": _moment(self.ends)}


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def addresses(networks: frozenset[Network]) -> list[str]:
    """Return the addresses of a host name as sorted texts."""
    return [network_text(n) for n in sorted(networks, key=lambda n: (n.version, int(n.network_address)))]


def network_text(network: Network) -> str:
    """Return the text of a network; a single address has no prefix length."""
    return text_of(*code_of(network))
