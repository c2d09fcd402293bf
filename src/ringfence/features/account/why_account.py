"""The places of an account in ``ringfence why ACCOUNT``."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.output import short_time
from ringfence.features.account.rows import grade
from ringfence.plurals import counted

_SHOWN = 8
"""The maximum number of places that are shown, the latest ones; ``ringfence account`` shows all."""


def request(account: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the fields of the request whose answer has the places of the account."""
    return "account", {"account": account}


def facts(answer: Mapping[str, Any], _: str) -> dict[str, Any]:
    """Return under ``places`` where the account logged in, the latest login first.

    The answer is empty without a daemon and a readable database. Then there are none.
    """
    return {"places": answer.get("places", [])}


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of a line for each of the latest places.

    ``found`` are the facts about the account, with those of :func:`facts`.
    """
    places = found.get("places", ())
    for place in places[:_SHOWN]:
        known = ", ".join(filter(None, (place["country"], place["asn"])))
        where = f"{place['network']} ({known})" if known else place["network"]
        times = f"{counted(place['logins'], 'login')} on {counted(place['days'], 'day')}"
        yield "place", f"{where}: {grade(place)}; {times}, last {short_time(place['last'])}"
    if len(places) > _SHOWN:
        yield "place", f"and {counted(len(places) - _SHOWN, 'more place')}: ringfence account"
