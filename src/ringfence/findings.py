"""Findings: lines that state what is right, wrong or unknown on this host."""

from attrs import frozen


@frozen
class Finding:
    """One result of a check of this host: the subject, its state, and a detail or fix.

    ``right`` is True if the state is right, False if it is wrong, None if it is unknown or may be intended.
    """

    right: bool | None
    what: str
    detail: str = ""

    @property
    def line(self) -> str:
        """The finding as one line of text for people: subject, state, and detail or fix."""
        mark = {True: "ok", False: "NO", None: "--"}[self.right]
        return ": ".join(filter(None, [f"{mark:3} {self.what}", self.detail]))

    @property
    def as_json(self) -> dict[str, bool | str | None]:
        """The finding as a JSON object for scripts."""
        return {"right": self.right, "what": self.what, "detail": self.detail}
