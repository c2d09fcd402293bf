"""The measurable part of CONTRIBUTING's rules of language: phrases that readers had to read twice.

Each pattern finds one habit in docstrings, comments and Markdown. A hit is a sentence to read again, and a
text without hits can still be unclear. A few hits are correct English: the limits are hits per 1,000 words.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.trees import statements_of

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]

HABITS = {
    "begin with Return, Record, Parse, Ban … or with a noun phrase": re.compile(
        r"\A\W*(?:Give|Say|Take|Tell|Have|Note|See|Learn|Hear|Let|Go|Begin)\b"
    ),
    "name the noun before who, whom, whose or what": re.compile(
        r"(?:\A|(?<=[.:;]\s)|(?<=\n))(?:Who|Whom|Whose|Whoever|What)\s(?![^.\n]*\?)"
        r"|\b(?:of|by|to|for|from|with|that|and|or|but|than|is|are|says?)\s+(?:who|whom)\s"
        r"|\bwho(?:m|so)?ever\b"
    ),
    "write report, state, log, return or print": re.compile(
        r"\b(?:told|tells?|telling|tellings|said|says?|hearsay)\b", re.IGNORECASE
    ),
    "an address, a program or a sender is it or they": re.compile(
        r"\b(?:he|him|his|himself)\b", re.IGNORECASE
    ),
    "use the common word": re.compile(
        r"\b(?:anew|mends?|mended|nobody|whatsoever|veiled|manieth|thereof|lest|aught|naught|hither|as ever"
        r"|as far as is known|(?-i:is none|are none)|is no friend|at its end|by itself|no longer is"
        r"|is not even|gone back|go back on|let go|lets? in|kept out|keeps? out|in clothes|besides? those)\b",
        re.IGNORECASE,
    ),
}
FIRST_WORD = next(iter(HABITS))  # of a docstring

# Words with another name in CONTRIBUTING's table, or too vague for the name of a module, class or function.
REPLACED_WORDS = frozenset(
    """
    alone anyhow beside besides besieged brake braked calm doubt doubts ear ears fleeting further hear heard
    hearing hears hearsay keeper keeping lifting lone made mend mends outlook place places quick roll rolls
    said say says shelf siege singles spare spared stirred story tallies tally tell telling tellings tells tie
    told twin veiled who whom whose witness witnesses
    """.split()  # noqa: SIM905 - a list of this length is easier to read as text
)
EXEMPT_NAMES = {
    "connection_made",  # panoramisk calls it
    *("Place", "places"),  # where an account logs in; the rules count and ban subjects
}

WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
NOT_PROSE = re.compile(r"#\s*(?:noqa|type:|pragma|!|fmt:|--)")


class Text(NamedTuple):
    """A docstring, a run of comments or a paragraph, and its first line in the file."""

    line: int
    text: str
    is_docstring: bool = False


def docstrings_of(source: str) -> Iterator[Text]:
    """Yield every docstring of Python source, also those that follow an attribute."""
    tree = ast.parse(source)
    for node in (tree, *statements_of(tree)):
        for number, statement in enumerate(getattr(node, "body", ())):
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield Text(statement.lineno, text, is_docstring=number == 0)


def comments_of(source: str) -> Iterator[Text]:
    """Yield the comments of Python source. Comments in adjacent lines are one text."""
    start, run = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or NOT_PROSE.match(token.string):
            continue
        if run and token.start[0] != start + len(run):
            yield Text(start, "\n".join(run))
            run = []
        start = start if run else token.start[0]
        run.append(token.string.lstrip("# "))
    if run:
        yield Text(start, "\n".join(run))


def paragraphs_of(source: str) -> Iterator[Text]:
    """Yield the prose of Markdown, without code."""
    fenced, start, run = False, 0, list[str]()
    for number, line in enumerate([*source.split("\n"), ""], 1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        if fence or fenced or line.startswith("    ") or not line.strip():
            if run:
                yield Text(start, "\n".join(run))
            run = []
            continue
        start = start if run else number
        run.append(re.sub(r"`[^`]*`", "CODE", line.strip()))


def hits_in(name: str, texts: list[Text]) -> list[str]:
    """Return a line for each hit in the texts of the file ``name``: file and line, the phrase, the advice."""
    return [
        f"{name}:{line + text.count(chr(10), 0, match.start())}: {phrase_at(text, match)!r}: {advice}"
        for line, text, is_docstring in texts
        for advice, habit in HABITS.items()
        if is_docstring or advice != FIRST_WORD
        for match in habit.finditer(text)
    ]


def phrase_at(text: str, match: re.Match[str]) -> str:
    """Return the words around a hit."""
    return " ".join(text[max(0, match.start() - 30) : match.end() + 30].split())


def measured(paths: list[Path]) -> tuple[list[str], float]:
    """Return the hits in files, and their number for each 1,000 words."""
    hits, words = list[str](), 0
    for path in paths:
        source = path.read_text("utf-8")
        python = path.suffix == ".py"
        texts = [*docstrings_of(source), *comments_of(source)] if python else [*paragraphs_of(source)]
        hits += hits_in(str(path.relative_to(ROOT)), texts)
        words += sum(len(WORD.findall(text)) for _, text, _ in texts)
    return hits, 1000 * len(hits) / words


def replaced_names(name: str, source: str) -> list[str]:
    """Return a line for each module, class and function whose name has a replaced word."""
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        (node.lineno, node.name) for node in statements_of(ast.parse(source)) if isinstance(node, definitions)
    ]
    return [
        f"{name}:{line}: {defined}"
        for line, defined in [(1, Path(name).stem), *sorted(found)]
        if defined not in EXEMPT_NAMES and words_of(defined) & REPLACED_WORDS
    ]


def words_of(identifier: str) -> set[str]:
    """Return the words of an identifier in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


@pytest.mark.parametrize(
    ("paths", "limit"),
    [
        pytest.param([*(ROOT / "src").rglob("*.py")], 1.5, id="src"),
        pytest.param([*(ROOT / "tests").rglob("*.py"), *(ROOT / "tests").rglob("*.md")], 4, id="tests"),
        pytest.param(PAGES, 1.5, id="documentation"),
    ],
)
def test_texts_use_plain_words(paths: list[Path], limit: float) -> None:
    """The texts of the source, of the tests and of the documentation have few phrases to read twice."""
    hits, rate = measured(sorted(paths))
    assert rate <= limit, "\n".join([f"{rate:.1f} hits per 1,000 words, at most {limit}:", *hits])


def test_names_use_words_of_the_table() -> None:
    """No module, class or function of the source has a word in its name that CONTRIBUTING replaces."""
    package = ROOT / "src"
    names = [
        line
        for path in sorted(package.rglob("*.py"))
        for line in replaced_names(str(path.relative_to(ROOT)), path.read_text("utf-8"))
    ]
    assert names == []


@pytest.mark.parametrize(
    ("docstring", "phrase"),
    [
        ("Give the ban to the kernel.", "begin with"),
        ("Ban the sender.\n\nWho hides is banned.", "name the noun"),
        ("Ban an address by whom a line is written.", "name the noun"),
        ("Record what AMI said.", "write report"),
        ("Ban the attacker and his network.", "it or they"),
        ("Read the list anew.", "common word"),
    ],
)
def test_an_unclear_docstring_is_found(docstring: str, phrase: str) -> None:
    """A docstring with one of the habits is a hit that names the file, the line and the advice."""
    source = f'import attrs\n\n\ndef ban():\n    """{docstring}"""\n'
    (hit,) = hits_in("src/file.py", [*docstrings_of(source)])
    line = 5 + docstring.count("\n")
    assert hit.startswith(f"src/file.py:{line}: ")
    assert phrase in hit


def test_an_unclear_comment_is_found() -> None:
    """Adjacent comments are one text, and a hit in the second line names that line."""
    source = "a = 1\n# The kernel expires a ban.\n# Then he returns.\n\nb = 2  # no hit\n"
    (hit,) = hits_in("file.py", [*comments_of(source)])
    assert hit.startswith("file.py:3: ")


def test_an_unclear_paragraph_is_found() -> None:
    """Markdown is read without its code: the same word in code is no hit."""
    source = "# Title\n\n```\nhe\n```\n\nUse `he`.\nThen he returns.\n"
    (hit,) = hits_in("page.md", [*paragraphs_of(source)])
    assert hit.startswith("page.md:8: ")


def test_plain_words_are_no_hit() -> None:
    """Questions and the words of CONTRIBUTING's examples are not found."""
    texts = [
        Text(1, "Return the addresses that AMI reported.", is_docstring=True),
        Text(9, "Who may read it?"),
    ]
    assert hits_in("file.py", texts) == []


def test_a_replaced_word_in_a_name_is_found() -> None:
    """Modules, classes and functions are found by any word of their name; other names pass."""
    source = "class SenderTally:\n    def whose_ban(self): ...\n    def tallow(self): ...\n"
    assert replaced_names("a/hearing.py", source) == [
        "a/hearing.py:1: hearing",
        "a/hearing.py:1: SenderTally",
        "a/hearing.py:2: whose_ban",
    ]
