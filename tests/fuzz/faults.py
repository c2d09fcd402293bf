"""Faults of the readers that are put back into the running code: a target of the fuzzer must find each."""
# ruff: noqa: ANN401 - a replaced function may be any

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tests.judge.fault import Change, Fault

_NO_BOUND = 1 << 40


def _unbounded(_right: Any) -> Any:
    return _NO_BOUND


def _nested(right: Any) -> Any:
    def read(data: bytes, *others: Any) -> Any:
        with suppress(ValueError):
            json.loads(data)
        return right(data, *others)

    return read


def _any_pause(_right: Any) -> Any:
    return lambda response: float(response.getheader("Retry-After") or "0")


def _any_text(right: Any) -> Any:
    return lambda values, at, _longest=0: right(values, at, _NO_BOUND)


def _whole(_right: Any) -> Any:
    return lambda response, _most: (response.read(), True)


_FEEDS, _FLEET = "ringfence.features.feeds", "ringfence.features.fleet"
_ROWS: tuple[tuple[str, str, str, Change, str], ...] = (
    (
        "a line of a feed of any length",
        "A list without a newline was kept whole.",
        f"{_FEEDS}.formats:MAX_LINE",
        _unbounded,
        "feed",
    ),
    (
        "bad lines of a feed that are all kept",
        "Each bad line of a list was kept for the alarm.",
        f"{_FEEDS}.formats:NAMED",
        _unbounded,
        "feed",
    ),
    (
        "a feed that wants a pause of years",
        "A server of a list could end its requests for ever.",
        f"{_FEEDS}.fetcher:MAX_RETRY_AFTER",
        _unbounded,
        "http-answer",
    ),
    (
        "a validator of any length",
        "What a server of a list called its version was kept and sent back whole.",
        f"{_FEEDS}.fetcher:MAX_VALIDATOR",
        _unbounded,
        "http-answer",
    ),
    (
        "an answer of any length",
        "The answer of a server of a list was read to its end.",
        f"{_FEEDS}.https:read_body",
        _whole,
        "http-answer",
    ),
    (
        "an API that wants a pause of years",
        "A local API could end the exchange of bans for ever.",
        f"{_FLEET}.api:_pause_of",
        _any_pause,
        "http-answer",
    ),
    (
        "a text of a decision of any length",
        "The scenario of each decision of others was kept whole.",
        f"{_FLEET}.lapi:MAX_TEXT",
        _unbounded,
        "crowdsec",
    ),
    (
        "a token of any length",
        "The token of a login was kept whole.",
        f"{_FLEET}.lapi:MAX_TOKEN",
        _unbounded,
        "crowdsec",
    ),
    (
        "a name of any length in a database of countries",
        "The name of a network's operator was kept whole.",
        "ringfence.features.geo.mmdb:_Values.text",
        _any_text,
        "mmdb",
    ),
    (
        "an answer of the daemon that is nested too deep",
        "A command ended with a traceback.",
        "ringfence.control:_result",
        _nested,
        "control-answer",
    ),
    (
        "a reason of any length",
        "What a program of notifications said was kept whole.",
        "ringfence.features.notify.delivery:MAX_REASON",
        _unbounded,
        "program-answer",
    ),
)
FAULTS: Mapping[str, tuple[Fault, str]] = {
    name: (Fault(name, sentence, where, change, ()), target)
    for name, sentence, where, change, target in _ROWS
}
"""The faults by name, each with the target that finds it. They need no acts of a world."""
