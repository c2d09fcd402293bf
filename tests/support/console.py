"""A console of Asterisk with answers that a test chooses."""

from collections.abc import Callable


class ScriptedConsole:
    """A console that answers with ``answer(command)``; without it, Asterisk knows no command.

    ``problem`` is why it cannot be used. Then it does not answer.
    """

    def __init__(self, answer: Callable[[str], str | None] | None = None, problem: str = "") -> None:
        self._answer = answer
        self.problem = problem

    def show(self, what: str) -> str | None:
        """Return the answer."""
        return self._answer(what) if self._answer and not self.problem else None
