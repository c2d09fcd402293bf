"""Since when the AMI of each Asterisk has been connected, as the detector gets it."""

from collections.abc import Mapping


class _Everywhere(dict[str, float]):
    """The same time for every Asterisk."""

    def __missing__(self, _: str) -> float:
        return self["*"]

    def get(self, key: str, default: object = None) -> float:
        """Return the time, whichever Asterisk is asked for."""
        return self["*"]

    def __contains__(self, _: object) -> bool:
        return True


def connected(since: float | None) -> Mapping[str, float]:
    """Return that every AMI has been connected since ``since``; None: none is connected."""
    return {} if since is None else _Everywhere({"*": since})
