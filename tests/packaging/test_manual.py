"""The manual pages and the completion of shells, against the commands themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest
from debian import manual
from tests.docs import pages
from tests.docs.commands import commands

CLI = pages.text_of("docs/cli.md")
COMPLETIONS = manual.completions(CLI)

_ASK = {
    "bash": """\
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_ringfence
printf '%s\\n' "${COMPREPLY[@]}"
""",
    # Only zsh's line editor offers words. Here a function stands for it.
    "zsh": """\
script=$1
shift
words=("$@")
CURRENT=$#
compadd() { shift; print -l -- "${(@M)@:#${words[CURRENT]}*}" }
_files() { }
ask() { source $script }
ask
""",
    "fish": """\
source $argv[1]
complete -C (string join ' ' -- $argv[2..-1])
""",
}
"""For each shell a program that prints what the shell offers for the last of its arguments."""


def complete(shell: str, script: Path, *words: str) -> list[str]:
    """Return what a shell offers for the last word; skip the test if this host does not have the shell."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is in the package {shell}")
    script.write_text(COMPLETIONS[shell], "utf-8")
    ask = {
        "bash": ["bash", "-euc", _ASK["bash"], "bash"],
        "zsh": ["zsh", "-fec", _ASK["zsh"], "zsh"],
        "fish": ["fish", "--no-config", "-c", _ASK["fish"]],
    }
    empty = script.with_name("empty")  # fish offers the files of its folder, too
    empty.mkdir(exist_ok=True)
    command = [*ask[shell], str(script), *words]
    return subprocess.run(command, cwd=empty, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(name="shell", params=sorted(COMPLETIONS))
def _shell(request: pytest.FixtureRequest) -> str:
    """Return the name of each shell."""
    return str(request.param)


def test_completion_offers_each_command_with_its_options(shell: str, tmp_path: Path) -> None:
    """Behind each command, a shell offers the options and commands that the command accepts."""
    for name, command in commands():
        accepted = {option for parameter in command.params for option in parameter.opts if option[0] == "-"}
        accepted |= {"--help", *getattr(command, "commands", ())}
        offered = {*complete(shell, tmp_path / "completion", "ringfence", *name.split(), "")}
        assert offered <= accepted
        assert accepted - offered <= {"-c"}, name


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ringfence", "unb"], ["unban"]),
        (["ringfence", "allow", "co"], ["country"]),
        (["ringfence", "bans", "192.0.2.1", "--wa"], ["--watch"]),
        (["ringfence", "--ver"], ["--version"]),
        (["ringfence", "replay", "full.l"], []),
    ],
)
def test_completion_completes_the_last_word(
    shell: str, tmp_path: Path, words: list[str], offered: list[str]
) -> None:
    """Commands, options and commands of groups complete; for others a shell completes file names itself."""
    assert complete(shell, tmp_path / "completion", *words) == offered


def test_the_manual_page_has_every_command_and_option() -> None:
    """Each command has a section, and each of its options is in the page."""
    page = manual.manual_page("ringfence", 8, "guard", CLI, "2026-01-01", "1").replace(r"\-", "-")

    for name, command in commands():
        assert f"\n.SS {name}\n{'.PP'}" in page
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                assert parameter.opts[0] in page


def test_markdown_becomes_man() -> None:
    """Headings, tables, lists, code and links have their form of man(7); no line becomes a request."""
    markdown = """\
# Title

.See `a-b` in [the page](page.md).

| key | default | meaning |
|---|---|---|
| `name` | 1 | a \\| b &lt;c> |

```text
'quoted \\ text
```

- one
  two
- three
"""
    page = manual.manual_page("t", 5, "a test", markdown, "2026-01-01", "1")

    assert page.splitlines()[4:-2] == [
        *(".PP", r"\&.See \fBa\-b\fR in the page."),
        *(".TP", r"\fBname\fR", "a | b <c> (default: 1)"),
        *(".PP", ".RS 4", ".nf", r"\&'quoted \e text", ".fi", ".RE"),
        *(r".IP \(bu 2", "one two", r".IP \(bu 2", "three"),
    ]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is in the package groff-base")
@pytest.mark.parametrize("page", ["docs/cli.md", "docs/configuration.md"])
def test_groff_accepts_the_pages(page: str) -> None:
    """The formatter of man(1) prints the manual page without a warning."""
    text = manual.manual_page("ringfence", 8, "guard", pages.text_of(page), "2026-01-01", "1")
    groff = ["groff", "-man", "-Tutf8", "-ww", "-rLL=100n"]
    done = subprocess.run(groff, input=text, capture_output=True, text=True, check=True)

    assert done.stderr == ""
