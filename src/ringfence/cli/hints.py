"""Suggestions for a word that was typed where a command is needed: an address, a country, or ``help``."""

from typing import Any

import typer.core


class HintingGroup(typer.core.TyperGroup):
    """A group of commands. Its error message for an unknown command suggests the one that was meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer's own copies of click's types
        """Find the command whose name is the first of ``args``. If it does not exist, end with a usage error.

        The error contains a suggestion if possible. ``ctx`` is the context of click, typer's base.
        """
        if args and self.get_command(ctx, args[0]) is None:
            suggestion = _suggestion(ctx.command_path, str(ctx.info_name), args[0])
            if suggestion:
                ctx.fail(f"No such command {args[0]!r}. Did you mean: {suggestion}")
        return super().resolve_command(ctx, args)


def _suggestion(path: str, name: str, word: str) -> str:
    """Return the command line that the user probably meant; "" if it cannot be guessed.

    The user typed ``word`` where a command is expected. ``path`` is the command line before ``word``
    (``ringfence allow``), and ``name`` is the last word of ``path`` (``allow``).
    """
    from ringfence.lists.entries import EntryKind, parse_entry  # noqa: PLC0415 - loaded only for an error

    if word == "help":
        return f"{path} --help"
    try:
        what = parse_entry(word)
    except ValueError:
        return ""
    if name in {"allow", "deny"}:
        return f"{path} {'country' if what.kind is EntryKind.REGION else 'add'} {word}"
    return f"ringfence why {word}" if what.kind is EntryKind.NETWORK else ""
