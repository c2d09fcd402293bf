"""The manual pages and the completion of shells, made from the pages of docs/.

``make docs`` writes docs/cli.md from the commands and docs/configuration.md from the settings. So the manual
pages, the completion and ``--help`` agree.
"""

import re
import textwrap
from collections.abc import Iterator

NO_CONFIG = "It has no `--config`."
"""The sentence of a command in docs/cli.md that does not read the configuration."""
_BLOCKS = re.compile(
    r"^```\w*\n(?P<code>(?:.*\n)*?)```$|(?P<rows>(?:^\|.*\n)+)|(?P<text>(?:^.+\n)+)", re.MULTILINE
)
_CELL = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"\[([^\]]*)\]\((?:[^)\s]+)\)")
_MARKS = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")
_OPTION = re.compile(r"`(-[^` ]+)")

_BASH = """\
# Completion of ringfence for bash. Made from docs/cli.md.
_ringfence() {{
    local command=ringfence word
    local -A words=(
{words}
    )
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ -z ${{words[$command $word]+known}} ]] || command+=" $word"
    done
    mapfile -t COMPREPLY < <(compgen -W "${{words[$command]}}" -- "${{COMP_WORDS[COMP_CWORD]}}")
}}
complete -o default -F _ringfence ringfence
"""
_ZSH = """\
#compdef ringfence
# Completion of ringfence for zsh. Made from docs/cli.md.
local command=ringfence word
local -A offered=(
{words}
)
for word in "${{(@)words[2,CURRENT-1]}}"; do
    if (( ${{+offered[$command $word]}} )); then command+=" $word"; fi
done
compadd -- ${{=offered[$command]}}
if [[ $words[CURRENT] != -* ]]; then _files; fi
"""
_FISH = """\
# Completion of ringfence for fish. Made from docs/cli.md.
function __ringfence_words
    set -l commands {commands}
    set -l offered {words}
    set -l command ringfence
    for word in (commandline -opc)[2..-1]
        if contains -- "$command $word" $commands
            set command "$command $word"
        end
    end
    string split " " -- $offered[(contains -i -- $command $commands)]
end
complete -c ringfence -a "(__ringfence_words)"
"""


def manual_page(title: str, section: int, summary: str, markdown: str, date: str, version: str) -> str:
    """Return a page of docs/ as a manual page (man(7)), with ``summary`` as its line in whatis(1)."""
    head = [
        f'.TH "{title.upper()}" {section} "{date}" "ringfence {version}" "ringfence"',
        ".SH NAME",
        rf"{_escaped(title)} \- {_escaped(summary)}",
        ".SH DESCRIPTION",
    ]
    foot = [".SH SEE ALSO", r"\fBringfence\fR(8), \fBringfence.toml\fR(5), /usr/share/doc/ringfence/docs"]
    body = [line for found in _BLOCKS.finditer(markdown) for line in _block(found)]
    return "\n".join([*head, *body, *foot, ""])


def _block(found: re.Match[str]) -> Iterator[str]:
    text = found["text"]
    if found["code"] is not None:
        yield from (
            ".PP",
            ".RS 4",
            ".nf",
            *(_escaped(line) for line in found["code"].splitlines()),
            ".fi",
            ".RE",
        )
    elif found["rows"] is not None:
        yield from _table(found["rows"])
    elif text.startswith("#"):
        marks, _, heading = text.strip().partition(" ")
        if len(marks) > 1:  # the title of the page is in NAME
            yield f".SS {_formatted(heading)}"
    elif text.startswith("- "):
        for entry in re.split(r"^- ", text, flags=re.MULTILINE)[1:]:
            yield from (r".IP \(bu 2", _formatted(entry))
    elif not text.startswith("<!--"):
        yield from (".PP", _formatted(text))


def _table(rows: str) -> Iterator[str]:
    """Yield a paragraph for each row: the first cell, the last one, and those between by their names."""
    head, _, *body = (
        [cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]] for line in rows.splitlines()
    )
    for first, *between, last in body:
        named = "; ".join(f"{name}: {cell}" for name, cell in zip(head[1:-1], between, strict=True))
        yield from (".TP", _formatted(first), _formatted(f"{last} ({named})" if named else last))


def _formatted(text: str) -> str:
    """Return inline Markdown as one line of man(7)."""
    plain = _LINK.sub(r"\1", " ".join(text.split())).replace("&lt;", "<")
    return _MARKS.sub(r"\\fB\1\2\\fR", _escaped(plain))


def _escaped(text: str) -> str:
    line = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{line}" if line.startswith((".", "'")) else line


def completions(commands: str) -> dict[str, str]:
    """Return the completion of the commands that docs/cli.md documents, for each shell."""
    words = {name: " ".join(dict.fromkeys(own)) for name, own in _words(commands).items()}
    bash = "\n".join(f'["{name}"]="{own}"' for name, own in words.items())
    zsh = "\n".join(f"'{name}' '{own}'" for name, own in words.items())
    names, offered = (
        " \\\n".join(f"        '{one}'" for one in several).lstrip() for several in (words, words.values())
    )
    return {
        "bash": _BASH.format(words=textwrap.indent(bash, " " * 8)),
        "zsh": _ZSH.format(words=textwrap.indent(zsh, " " * 4)),
        "fish": _FISH.format(commands=names, words=offered),
    }


def _words(commands: str) -> dict[str, list[str]]:
    """Return the options and commands that may follow each command."""
    words: dict[str, list[str]] = {"ringfence": ["--help", "--version"]}
    sections = re.split(r"^(?=##+ )", commands.partition("\n## Exit codes\n")[0], flags=re.MULTILINE)[1:]
    for section in sections:
        heading, _, body = section.partition("\n")
        name = f"ringfence {heading.partition(' ')[2]}"
        options = _OPTION.findall("".join(_first_cells(body)))
        is_group = "] COMMAND " in body
        has_config = NO_CONFIG not in body and (options or not is_group)
        words[name] = [*(["--config"] if has_config else ()), "--help", *options]
        words[name.rpartition(" ")[0]].append(name.rpartition(" ")[2])
    return words


def _first_cells(body: str) -> Iterator[str]:
    for line in body.splitlines():
        if line.startswith("|"):
            yield _CELL.split(line)[1]
