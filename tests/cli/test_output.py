"""Plain output of commands: each text is one line, and no text controls the terminal."""

import ast
import json
from pathlib import Path

import pytest

import ringfence
from ringfence.cli import output

COMMANDS = Path(str(ringfence.__file__)).parent / "cli"
HOSTILE = "a\x1b[31m\r\n\u202e\u2028\x9b\x00[red]b"
ESCAPED = r"a\x1b[31m\r\n\u202e\u2028\x9b\x00[red]b"


def test_each_text_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Every text stays on one line, on either stream."""
    output.echo(HOSTILE, "two")
    output.echo_stderr(HOSTILE)

    assert capsys.readouterr() == (f"{ESCAPED}\ntwo\n", f"{ESCAPED}\n")


def test_nothing_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without texts nothing is printed, not even an empty line."""
    output.echo()
    output.echo_stderr()

    assert capsys.readouterr() == ("", "")


def test_json_is_ascii(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """JSON is printed unchanged as printable ASCII, including JSON that the daemon encoded."""
    output.echo_json({"account": HOSTILE}, indent=None)
    output.echo_encoded(b'{"a": 1}')
    output.echo_encoded(json.dumps({"account": HOSTILE}, ensure_ascii=False).encode())
    lines = capfdbinary.readouterr().out.decode("ascii").split("\n")

    assert [json.loads(line) for line in lines[:3]] == [{"account": HOSTILE}, {"a": 1}, {"account": HOSTILE}]
    assert all(line.isprintable() for line in lines)


def test_a_document_is_utf8(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The lines of a document are kept; other control characters are escaped."""
    output.echo_document("name = 'Küche'\nnote = '\x1b'\n")

    assert capfdbinary.readouterr().out == "name = 'Küche'\nnote = '\\x1b'\n".encode()


@pytest.mark.parametrize("module", sorted(path.name for path in COMMANDS.glob("*.py")))
def test_no_command_writes_another_way(module: str) -> None:
    """Only ``output`` and ``screen`` print, and only ``screen`` creates rich's texts and consoles."""
    if module in {"output.py", "screen.py"}:
        return
    tree = ast.parse((COMMANDS / module).read_text("utf-8"))
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}
    imports = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert names.isdisjoint({"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"})
    assert names.isdisjoint({"sys.stdout.buffer", "sys.stderr.buffer"})
    assert imports.isdisjoint({"rich.text.Text", "rich.console.Console", "rich.print"})
