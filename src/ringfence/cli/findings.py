"""What ``check`` finds: a line each, right or wrong, or neither."""

from attrs import frozen


@frozen
class Finding:
    """One line: whether it is right, and what was found or what mends it.

    ``right`` is None for what is neither: something is not seen, or cannot be told, and that may be meant so.
    """

    right: bool | None
    what: str
    detail: str = ""

    @property
    def line(self) -> str:
        """Give it as it is printed."""
        mark = {True: "ok", False: "NO", None: "--"}[self.right]
        return ": ".join(filter(None, [f"{mark:3} {self.what}", self.detail]))

    @property
    def as_json(self) -> dict[str, bool | str | None]:
        """Give it as scripts get it."""
        return {"right": self.right, "what": self.what, "detail": self.detail}
