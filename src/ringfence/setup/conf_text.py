"""Changes to the text of Asterisk's configuration files. All other parts of the text stay as they are."""

from collections.abc import Iterator

from ringfence.host.asterisk_conf import directive_of, uncommented

MARK = "; Added by `ringfence setup`; `ringfence setup --undo` removes it."


def includes(text: str) -> list[str]:
    """Return the names of the files that the text includes, in order. Names may contain ``*``."""
    found = (directive_of(line) for _, line in uncommented(text) if line.startswith("#"))
    return [name for command, name in found if command in {"include", "tryinclude"} and name]


def appended(text: str, addition: str) -> str:
    """Return the text with lines added at the end."""
    end = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{end}{addition}"


def with_include(text: str, name: str) -> str:
    """Return the text with an additional last line that includes a file.

    Asterisk ignores this line (``#tryinclude``) if the file does not exist.
    """
    return appended(text, f'\n{MARK}\n#tryinclude "{name}"\n')


def with_general(text: str, option: str, value: str) -> str:
    """Return the text with an option of section ``[general]`` set to a value.

    The last line that sets the option is replaced. If no line sets it, a line is added after the section's
    head. If the section does not exist, it is added at the end.
    """
    lines = text.split("\n")
    number = max(_settings(text, option), default=0)
    if number:
        lines[number - 1] = f"{option} = {value}"
        return "\n".join(lines)
    head = next((n for n, line in uncommented(text) if _section(line) == "general"), 0)
    if not head:
        return appended(text, f"\n[general]\n{option} = {value}\n")
    return "\n".join([*lines[:head], f"{option} = {value}", *lines[head:]])


def _settings(text: str, option: str) -> Iterator[int]:
    """Yield the number of each line of ``[general]`` that sets an option."""
    section = ""
    for number, line in uncommented(text):
        if line.startswith("["):
            section = _section(line)
        elif section == "general" and line.partition("=")[0].strip().lower() == option:
            yield number


def _section(line: str) -> str:
    return line[1:].partition("]")[0].strip().lower() if line.startswith("[") else ""
