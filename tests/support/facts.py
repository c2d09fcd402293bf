"""A listener that keeps the facts."""

from typing import Any, TypeVar

_T = TypeVar("_T")


class Facts(list[_T]):
    """The facts that it heard, in order."""

    def on_fact(self, fact: Any) -> None:  # noqa: ANN401 - any fact
        """Keep a fact."""
        self.append(fact)
