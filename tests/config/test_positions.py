"""The line of each key in a TOML file."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.docs.pages import ROOT

from ringfence.config.effective import lines_of
from ringfence.config.schema import text_of_key

DOCUMENT = """\
# a comment with = and [brackets]
[[asterisk]]
name = "a" # [b]
ami.port = 1
[asterisk.logs]
paths = [
  "/a", # ]
  "/b]",
]
[[asterisk.logs.custom]]
name = "first"
[[asterisk.logs.custom]]
name = "second"

[[asterisk]]
ami = { host = "h", tls = true }
[asterisk.ami2]
text = '''
[[asterisk]]
name = "not a key"
'''
[rules.guess]
ban = ["1h",
       "6h"]
"quoted.key" = 1
[a]
b = [{c = 1}, {c = 2}]
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_each_key_has_its_line(newline: str) -> None:
    """Values of several lines, repeated tables, dotted keys and inline tables are found."""
    found = {text_of_key(path): line for path, line in lines_of(DOCUMENT.replace("\n", newline)).items()}

    assert found == {
        "asterisk[0].name": 3,
        "asterisk[0].ami.port": 4,
        "asterisk[0].logs.paths": 6,
        "asterisk[0].logs.custom[0].name": 11,
        "asterisk[0].logs.custom[1].name": 13,
        "asterisk[1].ami.host": 16,
        "asterisk[1].ami.tls": 16,
        "asterisk[1].ami2.text": 18,
        "rules.guess.ban": 23,
        "rules.guess.quoted.key": 25,
        "a.b[0].c": 27,
        "a.b[1].c": 27,
    }


def test_the_full_example() -> None:
    """Every key of the full example has the line on which it stands."""
    text = (ROOT / "examples/full.toml").read_text("utf-8")
    lines = text.split("\n")

    found = lines_of(text)

    assert len(found) > 50
    assert all(lines[line - 1].startswith(f"{path[-1]} = ") for path, line in found.items())


@given(st.text(alphabet="ab[]=\"'\n#,.{} 1\\", max_size=60))
def test_every_valid_document_can_be_searched(text: str) -> None:
    """Whatever TOML accepts, each line number is one of the document."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())
