"""What commands ask of the lists over the control socket, and the rows that they are told.

``{"do": "deny_add", "what": ["203.0.113.9"], "note": "", "seconds": null, "force": false}`` is answered with
an :class:`Answer` as JSON; ``deny_remove`` takes ``what`` or ``origin``; ``lists`` takes ``side`` and gives
rows; ``lists_reload`` has the database read again, after an import wrote it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import Factory, asdict, define, frozen

from ringfence.errors import ControlError
from ringfence.lists.entries import What, what_from
from ringfence.lists.prefixes import code_of, text_of
from ringfence.model import Network

MAX_AT_ONCE = 1_000
MAX_NOTE = 200
MAX_TEXT = 300
MAX_SECONDS = 10 * 365 * 86_400.0


@define
class Answer:
    """What became of a request: what was done, what was not and why, and what is to be known beside."""

    done: list[str] = Factory(list)
    problems: list[str] = Factory(list)
    notes: list[str] = Factory(list)

    def as_json(self) -> dict[str, list[str]]:
        """Give it as a control answer."""
        return asdict(self)


@frozen
class Addition:
    """What is to be put on a list; ``wrong`` says of what was written that it is no entry."""

    whats: tuple[What, ...]
    wrong: tuple[str, ...]
    note: str
    seconds: float | None
    force: bool

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Addition":
        """Read a request; ControlError where no command of ours wrote it."""
        whats, wrong = [], []
        for text in texts_of(request, "what"):
            try:
                whats.append(what_from(text))
            except ValueError as error:
                wrong.append(str(error))
        note, seconds = request.get("note", ""), request.get("seconds")
        if not isinstance(note, str) or len(note) > MAX_NOTE or not note.isprintable():
            raise ControlError(f"a note is a text of at most {MAX_NOTE} characters, in one line")
        length = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (length and 0 < seconds <= MAX_SECONDS):
            raise ControlError("an entry ends after some seconds, above 0 and at most ten years, or never")
        return cls(tuple(whats), tuple(wrong), note, seconds, request.get("force") is True)


def texts_of(request: Mapping[str, Any], key: str) -> list[str]:
    """Give a request's texts; ControlError where they are none."""
    texts = request.get(key)
    if (
        not isinstance(texts, list)
        or not 0 < len(texts) <= MAX_AT_ONCE
        or not all(isinstance(text, str) and 0 < len(text) <= MAX_TEXT for text in texts)
    ):
        raise ControlError(f"{key}: must be 1 to {MAX_AT_ONCE} texts")
    return texts


@define
class Row:
    """An entry as it is listed, or with ``file`` a whole imported file.

    ``source`` is where it comes from. ``added`` and ``ends`` are seconds since the epoch, None where that is
    not known, or never. ``networks`` is how many the kernel is given for it (None: not known here), and
    ``leads_to`` which, for a name.
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
        """Give it as a control answer, with times as every listing writes them."""
        return asdict(self) | {"added": _moment(self.added), "ends": _moment(self.ends)}


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def addresses(networks: frozenset[Network]) -> list[str]:
    """Write where a name leads."""
    return [shown(n) for n in sorted(networks, key=lambda n: (n.version, int(n.network_address)))]


def shown(network: Network) -> str:
    """Write a network as people do: an address without its length."""
    return text_of(*code_of(network))
