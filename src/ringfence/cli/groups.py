"""Groups of commands: they load a command when it runs, and suggest what a mistyped word may have meant."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer.core
import typer.main

from ringfence.street import Command


class HintingGroup(typer.core.TyperGroup):
    """A group of commands. Its error message for an unknown command suggests the one that was meant.

    An option of the group itself is refused before a command, where it would change nothing.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer's own copies of click's types
        """Find the command whose name is the first of ``args``. If it does not exist, end with a usage error.

        The error contains a suggestion if possible. An option of this group before the command is an error
        too. ``ctx`` is the context of click, typer's base.
        """
        if args and self.get_command(ctx, args[0]) is None:
            suggestion = _suggestion(ctx.command_path, str(ctx.info_name), args[0])
            if suggestion:
                ctx.fail(f"No such command {args[0]!r}. Did you mean: {suggestion}")
        elif before := [one.opts[0] for one in self.params if _is_given(ctx, str(one.name))]:
            ctx.fail(f"Write {before[0]} after {args[0]!r}: before it, it would change nothing.")
        return super().resolve_command(ctx, args)


def _is_given(ctx: Any, name: str) -> bool:  # noqa: ANN401 - see above
    """Whether the command line has an option of this name; its value may come from elsewhere too."""
    source = ctx.get_parameter_source(name)
    return source is not None and str(source.name) == "COMMANDLINE"


class LazyGroup(HintingGroup):
    """A group that loads the module of a command when this command runs.

    So a module imports at its top whatever its commands need, and ``ringfence --help`` is still fast. The
    module has a function or a :class:`typer.Typer` (for a group) with the name of the command.
    """

    lazy: ClassVar[Mapping[str, Command]]
    """The commands by their names, in the order of the list that ``--help`` prints."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - see above
        """Return the names of all commands."""
        return [*self.lazy]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - as above
        """Return the command with this name; None if there is none."""
        if cmd_name in self.lazy and cmd_name not in self.commands:
            lazy, part = self.lazy[cmd_name], typer.Typer(rich_markup_mode=None, add_completion=False)
            found = getattr(import_module(lazy.module, "ringfence.cli"), cmd_name.replace("-", "_"))
            if isinstance(found, typer.Typer):
                part.add_typer(found, name=cmd_name, help=lazy.help)
            else:
                part.command(cmd_name)(found)
            _show_whole_help(part)
            self.commands.update(typer.main.get_group(part).commands)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - as above
        """Write the list of commands, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in self.lazy.items()])


def _show_whole_help(commands: typer.Typer) -> None:
    """Show the whole docstring of each command in ``--help``. Typer would cut it to the terminal's width."""
    for command in commands.registered_commands:
        command.short_help = command.help or (command.callback.__doc__ if command.callback else None)
    for group in commands.registered_groups:
        group.short_help = group.help
        if group.typer_instance is not None:
            _show_whole_help(group.typer_instance)


def _suggestion(path: str, name: str, word: str) -> str:
    """Return the command line that the user probably meant; "" if it cannot be guessed.

    The user typed ``word`` where a command is expected. ``path`` is the command line before ``word``
    (``ringfence allow``), and ``name`` is the last word of ``path`` (``allow``).
    """
    from ringfence.lists.entries import EntryKind, parse_entry  # noqa: PLC0415 - slow to load

    if word == "help":
        return f"{path} --help"
    try:
        what = parse_entry(word)
    except ValueError:
        return ""
    if name in {"allow", "deny"}:
        return f"{path} {what.command} {word}"
    return f"ringfence why {word}" if what.kind is EntryKind.NETWORK else ""
