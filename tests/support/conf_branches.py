"""Small configuration files, one or more for each branch of Asterisk's reader, and what Asterisk loads.

The results are those of Asterisk 16 and 22, and the tests ask both again. ``MAIN`` is the main file.
"""

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen
from tests.support.loaded_files import MAIN, as_lines

from ringfence.host.conf_reader import ConfReader

_FOLDER = b"/etc/asterisk"


@frozen
class Branch:
    """Files for one branch: the main file, or each file by its name.

    A name that ends with ``/`` is a folder.
    ``loaded`` are the sections with their options, as lines of a file; None if Asterisk refuses the file.
    """

    name: str
    given: bytes | Mapping[str, bytes]
    loaded: bytes | None

    def files(self, folder: bytes = _FOLDER) -> dict[str, bytes]:
        """Return the files by name, for Asterisk's folder ``folder``."""
        given = {MAIN: self.given} if isinstance(self.given, bytes) else self.given
        return {name: content.replace(_FOLDER, folder) for name, content in given.items()}


def read_here(folder: Path) -> bytes | None:
    """Return what ringfence reads from the main file in a folder, in the form of ``Branch.loaded``."""
    reader = ConfReader(folder / MAIN)
    reader.read()
    if reader.refused:
        return None
    return as_lines((one.name, one.options) for one in reader.sections if not one.template)


BRANCHES = (
    Branch("two includes of itself", b"[a]\n#include branch.conf\n#include branch.conf\nb=1\n", None),
    Branch("byte order mark", b"\xef\xbb\xbf[a]\nb = 1\n", b"[a]\nb=1\n"),
    Branch("byte order mark second line", b"[a]\n\xef\xbb\xbfb = 1\n", b"[a]\n\xef\xbb\xbfb=1\n"),
    Branch("byte order mark before option", b"[a]\nx=1\n\xef\xbb\xbf[c]\ny=2\n", b"[a]\nx=1\ny=2\n"),
    Branch(
        "highbyte",
        b"[a]\n\xe9b = \xe91\xe9\n\xa0nb\xa0=\xa0v\xa0\n",
        b"[a]\n\xe9b=\xe91\xe9\n\xa0nb\xa0=\xa0v\xa0\n",
    ),
    Branch("byte order mark+blank", b"\xef\xbb\xbf [a]\nb=1\n", b"[a]\nb=1\n"),
    Branch("byte order mark twice", b"\xef\xbb\xbf\xef\xbb\xbf[a]\nb=1\n", None),
    Branch("byte order mark comment", b"\xef\xbb\xbf;--\n[a]\n--;\n[b]\nb=1\n", b"[b]\nb=1\n"),
    Branch("utf16", b"\xff\xfe\xff\xfe[\x00a\x00]\x00\n\x00b\x00=\x001\x00\n\x00", None),
    Branch(
        "control characters",
        b"\x01\x1f[a]\x02\n\x03b\x04=\x05v\x06\n\x7fd=\x7fe\x7f\n",
        b"[a]\nb=v\n\x7fd=\x7fe\x7f\n",
    ),
    Branch("first of two", b"[a]\nx=1\n[a]\nx=2\n", b"[a]\nx=1\n[a]\nx=2\n"),
    Branch("blank parenthesis", b"[t] (!)\na=1\n[u](t)\nb=2\n", b"[t]\na=1\n[u]\na=1\nb=2\n"),
    Branch("blanks in name", b"[ a ]\nb=1\n[ a ](+)\nc=2\n", b"[ a ]\nb=1\nc=2\n"),
    Branch("blanks in parenthesis", b"[t](!)\na=1\n[b](t )\nb=2\n", None),
    Branch("parenthesis blank", b"[t]( !)\na=1\n", None),
    Branch("empty parenthesis first", b"[t]()\na=1\n", None),
    Branch("empty parenthesis later", b"[s]\nq=1\n[t]()\na=1\n", b"[s]\nq=1\n[t]\nq=1\na=1\n"),
    Branch("empty parenthesis later template", b"[s](!)\nq=1\n[t](!,)\na=1\n[v](t)\n", b"[v]\nq=1\na=1\n"),
    Branch("empty name addition", b"[s]\nq=1\n[](+)\na=1\n", b"[s]\nq=1\na=1\n"),
    Branch("empty name", b"[]\na=1\n", b"[]\na=1\n"),
    Branch("addition template", b"[t](!)\na=1\n[t](+)\nb=1\n", None),
    Branch(
        "addition template include",
        b"[t](!)\na=1\n[t](+TEMPLATES=include)\nb=1\n[x](t)\n",
        b"[x]\na=1\nb=1\n",
    ),
    Branch("addition case", b"[T]\na=1\n[t](+)\nb=1\n", b"[T]\na=1\nb=1\n"),
    Branch("inherit case", b"[T](!)\na=1\n[x](t)\nb=1\n", b"[x]\na=1\nb=1\n"),
    Branch("addition mark of a template", b"[x]\na=1\n[x](+,!)\nb=1\n[y]\n", b"[y]\n"),
    Branch("mark of a template addition", b"[x]\na=1\n[x](!,+)\nb=1\n[y]\n", b"[y]\n"),
    Branch("t addition", b"[t](!)\nq=1\n[x]\na=1\n[x](t,+)\nb=1\n[y]\n", b"[x]\na=1\nq=1\nb=1\n[y]\n"),
    Branch("addition t", b"[t](!)\nq=1\n[x]\na=1\n[x](+,t)\nb=1\n[y]\n", b"[x]\na=1\nq=1\nb=1\n[y]\n"),
    Branch(
        "filter",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\n[a](+type=auth)\nx=1\n",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\nx=1\n",
    ),
    Branch(
        "filter regex",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\n[a](+type=^a)\nx=1\n[a](+type=e.dp)\ny=1\n",
        b"[a]\ntype=endpoint\ny=1\n[a]\ntype=auth\nx=1\n",
    ),
    Branch(
        "filter part",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\n[a](+ype=ut)\nx=1\n",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\nx=1\n",
    ),
    Branch("filter case", b"[a]\ntype=endpoint\n[a]\ntype=auth\n[a](+Type=auth)\nx=1\n", None),
    Branch(
        "filter two",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\nz=1\n[a](+type=auth&z=1)\nx=1\n",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\nz=1\nx=1\n",
    ),
    Branch(
        "filter blanks",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\nz=1\n[a](+ type = auth & z = 1)\nx=1\n",
        b"[a]\ntype=endpoint\n[a]\ntype=auth\nz=1\nx=1\n",
    ),
    Branch("filter no equals", b"[a]\ntype=auth\n[a](+type)\nx=1\n", None),
    Branch(
        "filter second only equal",
        b"[a]\ntype=endpoint\n[b]\n[a]\ntype=auth\n[a](+)\nx=1\n",
        b"[a]\ntype=endpoint\nx=1\n[b]\n[a]\ntype=auth\n",
    ),
    Branch("filter empty amp", b"[a]\ntype=auth\n[a](+&)\nx=1\n", None),
    Branch("filter eqeq", b"[a]\ntype=auth\n[a](+type=auth=x)\nx=1\n", b"[a]\ntype=auth\nx=1\n"),
    Branch("after bracket", b"[a]foo\nb=1\n[c](!)foo\nd=1\n[e](a)(!)\n", b"[a]\nb=1\n[e]\nb=1\n"),
    Branch("no close", b"[a\nb=1\n", None),
    Branch("no close parenthesis", b"[a](b\nb=1\n", None),
    Branch("long name", b"[" + b"n" * 100 + b"]\na=1\n", b"[" + b"n" * 79 + b"]\na=1\n"),
    Branch(
        "long name addition",
        b"[" + b"n" * 100 + b"]\na=1\n[" + b"n" * 79 + b"](+)\nb=2\n",
        b"[" + b"n" * 79 + b"]\na=1\nb=2\n",
    ),
    Branch("long name addition full", b"[" + b"n" * 100 + b"]\na=1\n[" + b"n" * 100 + b"](+)\nb=2\n", None),
    Branch("no context", b"a=1\n[b]\nc=1\n", None),
    Branch("no equal", b"[a]\nfoo\nb=1\n", b"[a]\nb=1\n"),
    Branch("no equal no section", b"foo\n[a]\nb=1\n", None),
    Branch("empty key", b"[a]\n=1\n => 2\n+=3\nb=\n", b"[a]\nb=\n"),
    Branch(
        "arrow", b"[a]\nb=>1\nc => 2\nd = > 3\ne =>> 4\nf +=> 5\n", b"[a]\nb=1\nc=2\nd=> 3\ne=> 4\nf=> 5\n"
    ),
    Branch("addition equals", b"[a]\nb=1\nb+=2\nb += , 3 \nc += 4\n", b"[a]\nb=12 , 3\nc=4\n"),
    Branch("addition equals case", b"[a]\nB=1\nb+=2\n", b"[a]\nB=1\nb=2\n"),
    Branch("addition equals first of equal", b"[a]\nb=1\nb=2\nb=1\nb+=3\n", b"[a]\nb=13\nb=2\nb=1\n"),
    Branch("addition equals empty", b"[a]\nb=7\nb=\nb+=3\n", b"[a]\nb=3\nb=\n"),
    Branch("addition equals case first", b"[a]\nB=1\nb=1\nb+=3\n", b"[a]\nb=13\nb=1\n"),
    Branch("addition equals inherit", b"[t](!)\nb=1\n[a](t)\nb+=2\n", b"[a]\nb=12\n"),
    Branch(
        "backslash first",
        b"[a]\n\\#b=1\n\\[c=2\n\\;d=3\n\\=e=4\n\\+=5\n",
        b"[a]\n#b=1\n[c=2\n;d=3\n=e=4\n+=5\n",
    ),
    Branch("backslash invalid", b"[a]\n\\ b=1\n[c]\n", None),
    Branch("backslash end", b"[a]\n\\\n[c]\n", None),
    Branch("backslash high", b"[a]\n\\\xc3\xa9=1\n[c]\n", None),
    Branch("escaped semicolon", b"[a]\nb=1\\;2;3\nc=1\\\\;2\n", b"[a]\nb=1;2\nc=1\\;2\n"),
    Branch("semicolon", b"[a]\nb=1;2\n;c=1\n ;d\n", b"[a]\nb=1\n"),
    Branch("block comment", b"[a]\nb=1;-- x --;2\nc=1;--\nd=2\n--;e=3\nf=4\n", b"[a]\nb=12\nc=1\ne=3\nf=4\n"),
    Branch("block comment nested", b"[a]\n;-- one ;-- two --; a = 1\n--;\nb = 2\n", b"[a]\nb=2\n"),
    Branch("block comment ;---", b"[a]\n;--- b=1\nc=1\n", b"[a]\nc=1\n"),
    Branch("block comment backslash", b"[a]\n;-- x \\--; y\nc=1 --;\nd=1\n", b"[a]\nc=1 --;\n"),
    Branch("end only", b"[a]\nb=1\n--;\nc=2\nd=x--;y\n", b"[a]\nb=1\n"),
    Branch("end negative", b"[a]\n--;\n;-- z\nb=1\n--;\nc=1\n", b"[a]\nb=1\n"),
    Branch("unterminated", b"[a]\nb=1\n;--\nc=1\n", b"[a]\nb=1\n"),
    Branch("comment semicolon in comment", b"[a]\n;-- a ; b --; c=1\nd=1\n", b"[a]\nc=1\nd=1\n"),
    Branch(
        "comment dashes",
        b"[a]\n;-- a ---; \nc=1\n;----;\nd=1\n;--;\ne=1\n--;\nf=1\n",
        b"[a]\nc=1\nd=1\nf=1\n",
    ),
    Branch("backslash in block same", b"[a]\nb=1 ;-- \\; --; c\nd=1\n", b"[a]\nb=1  c\nd=1\n"),
    Branch("two blocks a line", b"[a]\nb=1;--x--;2;--y--;3;z\n", b"[a]\nb=123\n"),
    Branch("block then backslash", b"[a]\nb=1;--x--;2\\;3\n", b"[a]\nb=12;3\n"),
    Branch("crlf", b"[a]\r\nb=1\r\n[c](!)\r\nd=1\r\n", b"[a]\nb=1\n"),
    Branch("cr only", b"[a]\rb=1\r", b"[a]\n"),
    Branch("NUL", b"[a]\nb=1\x00 2\nc\x00=2\nd=3\n\x00e=4\nf=5\n", b"[a]\nb=1\nd=3\nf=5\n"),
    Branch("no newline at the end", b"[a]\nb=1", b"[a]\nb=1\n"),
    Branch("no newline at the end nocontent", b"[a]", b"[a]\n"),
    Branch("empty", b"", b""),
    Branch("only comment", b"; x\n", b""),
    Branch("vertical tab and form feed", b"[a]\n\x0bb=1\x0c\nc\x0b=\x0c2\n", b"[a]\nb=1\nc=2\n"),
    Branch("unknown directive", b"[a]\n#foo bar\n#include\n# include x\n#\nb=1\n", b"[a]\nb=1\n"),
    Branch("exec", b"[a]\n#exec /bin/echo x=1\nb=1\n", b"[a]\nb=1\n"),
    Branch("u2028", b"[a]\nb=1\xe2\x80\xa8c=2\xc2\x85d=3\n", b"[a]\nb=1\xe2\x80\xa8c=2\xc2\x85d=3\n"),
    Branch("indented", b"   [a]\n\t b = 1 \t\n   #include gone\n", None),
    Branch("invalid utf8", b"[a\xff]\nb\xfe=\xfd\n", b"[a\xff]\nb\xfe=\xfd\n"),
    Branch("section twice", b"[a]\nb=1\n[A]\nb=2\n[a]\nc=3\n", b"[a]\nb=1\n[A]\nb=2\n[a]\nc=3\n"),
    Branch(
        "line of 8189 bytes",
        b"[a]\nb=" + b"x" * 8187 + b"\nc=1\nd=2\n",
        b"[a]\nb=" + b"x" * 8187 + b"\nc=1\nd=2\n",
    ),
    Branch(
        "line of 8190 bytes",
        b"[a]\nb=" + b"x" * 8188 + b"\nc=1\nd=2\n",
        b"[a]\nb=" + b"x" * 8188 + b"\nc=1\nd=2\n",
    ),
    Branch("line of 8191 bytes", b"[a]\nb=" + b"x" * 8189 + b"\nc=1\nd=2\n", b"[a]\nc=1\nd=2\n"),
    Branch("line of 8192 bytes", b"[a]\nb=" + b"x" * 8190 + b"\nc=1\nd=2\n", b"[a]\nc=1\nd=2\n"),
    Branch("line of 16382 bytes", b"[a]\nb=" + b"x" * 16380 + b"\nc=1\nd=2\n", b"[a]\nc=1\nd=2\n"),
    Branch("line of 16381 bytes", b"[a]\nb=" + b"x" * 16379 + b"\nc=1\nd=2\n", b"[a]\nc=1\nd=2\n"),
    Branch("line of 20000 bytes", b"[a]\nb=" + b"x" * 20000 + b"\nc=1\nd=2\n", b"[a]\nc=1\nd=2\n"),
    Branch("line of 20000 bytes at the end of the file", b"[a]\nb=1\nc=" + b"x" * 20000, b"[a]\nb=1\n"),
    Branch("NUL long", b"[a]\nb=1\x00" + b"x" * 8187 + b"\nq=1\nc=1\n", b"[a]\nb=1\nq=1\nc=1\n"),
    Branch("NUL long2", b"[a]\nb=1\x00" + b"x" * 8186 + b"q=1\nc=1\n", b"[a]\nb=1\nc=1\n"),
    Branch(
        "inherit then own", b"[t](!)\na=1\nb=2\n[u](!,t)\nb=3\n[x](u)\nc=4\n", b"[x]\na=1\nb=2\nb=3\nc=4\n"
    ),
    Branch("inherit from section", b"[t]\na=1\n[x](t)\nc=4\n", b"[t]\na=1\n[x]\na=1\nc=4\n"),
    Branch(
        "inherit two same name", b"[t]\na=1\n[t]\na=2\n[x](t)\nc=4\n", b"[t]\na=1\n[t]\na=2\n[x]\na=1\nc=4\n"
    ),
    Branch(
        "inherit not frozen",
        b"[t](!)\na=1\n[x](t)\n[t](+TEMPLATES=include)\nb=1\n[y](t)\n",
        b"[x]\na=1\n[y]\na=1\nb=1\n",
    ),
    Branch("inherit missing", b"[a]\nb=1\n[x](t)\nc=4\n", None),
    Branch("addition missing", b"[a]\nb=1\n[x](+)\nc=4\n", None),
    Branch("mark of a template twice", b"[a](!,!)\nb=1\n[c]\n", b"[c]\n"),
    Branch("two parentheses", b"[t](!)\na=1\n[b](t)(t)\n", b"[b]\na=1\n"),
    Branch("bracket in name", b"[a[b]\nc=1\n[d]e]\nf=1\n", b"[a[b]\nc=1\n[d]\nf=1\n"),
    Branch("comment in header", b"[a];(!)\nb=1\n[c](;!)\n", None),
    Branch("comment in header2", b"[a];--x--;(!)\nb=1\n[c]\n", b"[c]\n"),
    Branch(
        "comment nesting 128",
        b"[a]\n" + b";-- " * 127 + b";--\nb=1\n" + b"--; " * 127 + b"\nc=1\n--;d=2\n",
        b"[a]\nd=2\n",
    ),
    Branch("byte order mark only", b"\xef\xbb\xbf", b""),
    Branch("byte order mark long first", b"\xef\xbb\xbf[a]" + b"x" * 8191 + b"\n[b]\nc=1\n", b"[b]\nc=1\n"),
    Branch("byte order mark 8190", b"\xef\xbb\xbf[a]" + b"x" * 8184 + b"\n[b]\nc=1\n", b"[a]\n[b]\nc=1\n"),
    Branch("byte order mark empty line first", b"\n\xef\xbb\xbf[a]\nc=1\n", None),
    Branch("byte order mark escape", b"\xef\xbb\xbf\\;x\n[a]\nc=1\n", None),
    Branch("byte order mark semicolon", b"\xef\xbb\xbf; x\n[a]\nc=1\n", b"[a]\nc=1\n"),
    Branch("byte order mark endblock", b"\xef\xbb\xbf--;\n[a]\nc=1\n", None),
    Branch("semicolon backslash at start", b"[a]\nb=1;--x--;\\;3\nc=\\\\;4\n", b"[a]\nb=1;3\nc=\\;4\n"),
    Branch(
        "restrict", b"[a](!)\ntype=auth\n[a](+TEMPLATES=restrict)\nx=1\n[b](a)\n", b"[b]\ntype=auth\nx=1\n"
    ),
    Branch("restrict no", b"[a]\ntype=auth\n[a](+TEMPLATES=restrict)\nx=1\n", None),
    Branch("template other", b"[a]\ntype=auth\n[a](+TEMPLATES=foo)\nx=1\n", None),
    Branch(
        "template includeude plain",
        b"[a]\ntype=auth\n[a](+TEMPLATES=include)\nx=1\n",
        b"[a]\ntype=auth\nx=1\n",
    ),
    Branch(
        "template includeude and",
        b"[a](!)\ntype=auth\n[a](+TEMPLATES=include&type=auth)\nx=1\n[b](a)\n",
        b"[b]\ntype=auth\nx=1\n",
    ),
    Branch("template lower", b"[a](!)\ntype=auth\n[a](+templates=include)\nx=1\n[b](a)\n", None),
    Branch("filter empty name", b"[a]\ntype=auth\n[a](+=auth)\nx=1\n", b"[a]\ntype=auth\nx=1\n"),
    Branch(
        "filter two sections",
        b"[a]\ntype=auth\n[b]\ntype=auth\n[](+type=auth)\nx=1\n",
        b"[a]\ntype=auth\nx=1\n[b]\ntype=auth\n",
    ),
    Branch("addition addition", b"[a]\nq=1\n[a](+,+)\nx=1\n", b"[a]\nq=1\nx=1\n"),
    Branch("plusx", b"[a]\nq=1\n[a](+x)\nx=1\n", None),
    Branch("empty name include", b"[a]\nq=1\n[]\nw=1\n[b]()\n", b"[a]\nq=1\n[]\nw=1\n[b]\nq=1\n"),
    Branch("tab in mark", b"[a]\nq=1\n[b](a,\t!)\n", None),
    Branch(
        "includeude",
        {MAIN: b"[a]\n#include x.conf\nb=1\n", "x.conf": b"c=1\n[d]\ne=1\n"},
        b"[a]\nc=1\nb=1\n[d]\ne=1\n",
    ),
    Branch("includeude missing", b"[a]\n#include gone.conf\nb=1\n", None),
    Branch("tryincludeude missing", b"[a]\n#tryinclude gone.conf\nb=1\n", b"[a]\nb=1\n"),
    Branch(
        "includeude second and the section after it",
        {
            MAIN: b"[a]\n#include x.conf\n#include y.conf\nb=1\n",
            "x.conf": b"c=1\n[d]\ne=1\n",
            "y.conf": b"f=1\n",
        },
        b"[a]\nc=1\nb=1\n[d]\ne=1\nf=1\n",
    ),
    Branch(
        "includeude second addition",
        {
            MAIN: b"[q]\n[a]\n#include x.conf\n#include y.conf\nb=1\n",
            "x.conf": b"c=1\n[q](+)\ne=1\n",
            "y.conf": b"f=1\n",
        },
        b"[q]\ne=1\nf=1\n[a]\nc=1\nb=1\n",
    ),
    Branch(
        "includeude broken",
        {MAIN: b"[a]\n#include x.conf\nb=1\n", "x.conf": b"c=1\n[d]\ne=1\n[f\ng=1\n[h]\ni=1\n"},
        b"[a]\nc=1\nb=1\n[d]\ne=1\n",
    ),
    Branch(
        "includeude broken nested missing",
        {MAIN: b"[a]\n#include x.conf\nb=1\n", "x.conf": b"c=1\n#include gone\nd=1\n"},
        b"[a]\nc=1\nb=1\n",
    ),
    Branch(
        "includeude broken opt", {MAIN: b"#include x.conf\n[a]\nb=1\n", "x.conf": b"c=1\n"}, b"[a]\nb=1\n"
    ),
    Branch(
        "includeude broken 9",
        {
            MAIN: b"[a]\n" + b"#include x.conf\n" * 9 + b"b=1\n",
            "x.conf": b"c=1\n[f\n",
        },
        b"[a]\n" + b"c=1\n" * 9 + b"b=1\n",
    ),
    Branch(
        "includeude broken 10",
        {
            MAIN: b"[a]\n" + b"#include x.conf\n" * 10 + b"b=1\n",
            "x.conf": b"c=1\n[f\n",
        },
        b"[a]\n" + b"c=1\n" * 10 + b"b=1\n",
    ),
    Branch(
        "includeude broken 11",
        {
            MAIN: b"[a]\n" + b"#include x.conf\n" * 11 + b"b=1\n",
            "x.conf": b"c=1\n[f\n",
        },
        None,
    ),
    Branch(
        "includeude broken 11 try",
        {
            MAIN: b"[a]\n" + b"#tryinclude x.conf\n" * 14 + b"b=1\n",
            "x.conf": b"c=1\n[f\n",
        },
        b"[a]\n" + b"c=1\n" * 10 + b"b=1\n",
    ),
    Branch(
        "includeude loop",
        b"[a]\nb=1\n#include branch.conf\nc=1\n",
        b"[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\n",
    ),
    Branch(
        "includeude loop try",
        b"[a]\nb=1\n#tryinclude branch.conf\nc=1\n",
        b"[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n[a]\nb=1\nc=1\n",
    ),
    Branch(
        "includeude deep 10",
        {
            MAIN: b"[a]\n#include 1.conf\nb=1\n",
            "1.conf": b"n1=1\n#include 2.conf\n",
            "2.conf": b"n2=1\n#include 3.conf\n",
            "3.conf": b"n3=1\n#include 4.conf\n",
            "4.conf": b"n4=1\n#include 5.conf\n",
            "5.conf": b"n5=1\n#include 6.conf\n",
            "6.conf": b"n6=1\n#include 7.conf\n",
            "7.conf": b"n7=1\n#include 8.conf\n",
            "8.conf": b"n8=1\n#include 9.conf\n",
            "9.conf": b"n9=1\n#include 10.conf\n",
            "10.conf": b"last=1\n",
        },
        b"[a]\nn1=1\nn2=1\nn3=1\nn4=1\nn5=1\nn6=1\nn7=1\nn8=1\nn9=1\nlast=1\nb=1\n",
    ),
    Branch(
        "includeude deep 11",
        {
            MAIN: b"[a]\n#include 1.conf\nb=1\n",
            "1.conf": b"n1=1\n#include 2.conf\n",
            "2.conf": b"n2=1\n#include 3.conf\n",
            "3.conf": b"n3=1\n#include 4.conf\n",
            "4.conf": b"n4=1\n#include 5.conf\n",
            "5.conf": b"n5=1\n#include 6.conf\n",
            "6.conf": b"n6=1\n#include 7.conf\n",
            "7.conf": b"n7=1\n#include 8.conf\n",
            "8.conf": b"n8=1\n#include 9.conf\n",
            "9.conf": b"n9=1\n#include 10.conf\n",
            "10.conf": b"n10=1\n#include 11.conf\n",
            "11.conf": b"last=1\n",
        },
        b"[a]\nn1=1\nn2=1\nn3=1\nn4=1\nn5=1\nn6=1\nn7=1\nn8=1\nn9=1\nn10=1\nb=1\n",
    ),
    Branch(
        "quotes",
        {MAIN: b'[a]\n#include "x.conf"\n#include <x.conf>\n#include "x.conf\n', "x.conf": b"c=1\n"},
        None,
    ),
    Branch("quotes2", {MAIN: b'[a]\n#include x.conf"\n', "x.conf": b"c=1\n"}, None),
    Branch("quotes3", {MAIN: b'[a]\n#include <x.conf"\n', "x.conf": b"c=1\n"}, None),
    Branch("quotes4", {MAIN: b'[a]\n#include "<x.conf>"\n', "x.conf": b"c=1\n"}, None),
    Branch("quotes5", b'[a]\n#tryinclude "\n#tryinclude ""\nb=1\n', b"[a]\nb=1\n"),
    Branch("quotes blank", {MAIN: b'[a]\n#include " x.conf "\n', "x.conf": b"c=1\n"}, None),
    Branch("includeude space", {MAIN: b"[a]\n#include x y.conf\n", "x y.conf": b"c=1\n"}, b"[a]\nc=1\n"),
    Branch(
        "includeude case",
        {MAIN: b"[a]\n#INCLUDE x.conf\n#TryInclude x.conf\n", "x.conf": b"c=1\n"},
        b"[a]\nc=1\nc=1\n",
    ),
    Branch(
        "includeude tab",
        {
            MAIN: b'[a]\n#include\tx.conf\n#include\x01x.conf\n#include\xa0x.conf\n#include"x.conf"\n',
            "x.conf": b"c=1\n",
        },
        b"[a]\nc=1\nc=1\nc=1\n",
    ),
    Branch("includeude comment", {MAIN: b"[a]\n#include x.conf ; foo\n", "x.conf": b"c=1\n"}, b"[a]\nc=1\n"),
    Branch(
        "glob",
        {
            MAIN: b"[a]\n#include d/*.conf\nb=1\n",
            "d/2.conf": b"two=1\n",
            "d/1.conf": b"[e]\none=1\n",
            "d/.h.conf": b"hidden=1\n",
            "d/B.conf": b"B=1\n",
            "d/a.conf": b"a=1\n",
        },
        b"[a]\nb=1\n[e]\none=1\ntwo=1\nB=1\na=1\n",
    ),
    Branch("glob none", {MAIN: b"[a]\n#include d/*.conf\nb=1\n", "d/": b""}, None),
    Branch("glob nodir", b"[a]\n#include nod/*.conf\nb=1\n", None),
    Branch(
        "glob brace",
        {MAIN: b"[a]\n#include {y,x}.conf\nb=1\n", "x.conf": b"x=1\n", "y.conf": b"y=1\n"},
        b"[a]\ny=1\nx=1\nb=1\n",
    ),
    Branch(
        "glob brace none", {MAIN: b"[a]\n#include {y,z}.conf\nb=1\n", "y.conf": b"y=1\n"}, b"[a]\ny=1\nb=1\n"
    ),
    Branch(
        "glob brace nest",
        {MAIN: b"[a]\n#include {y{1,2},x}.conf\nb=1\n", "x.conf": b"x=1\n", "y2.conf": b"y=1\n"},
        b"[a]\ny=1\nx=1\nb=1\n",
    ),
    Branch(
        "glob brace one",
        {MAIN: b"[a]\n#include {x}.conf\nb=1\n", "x.conf": b"x=1\n", "{x}.conf": b"q=1\n"},
        b"[a]\nx=1\nb=1\n",
    ),
    Branch(
        "glob brace empty",
        {MAIN: b"[a]\n#include x{}.conf\nb=1\n", "x.conf": b"x=1\n", "x{}.conf": b"q=1\n"},
        b"[a]\nx=1\nb=1\n",
    ),
    Branch(
        "glob brace star",
        {MAIN: b"[a]\n#include {y,x}*.conf\nb=1\n", "x1.conf": b"x=1\n", "y1.conf": b"y=1\n"},
        b"[a]\ny=1\nx=1\nb=1\n",
    ),
    Branch(
        "glob class",
        {
            MAIN: b"[a]\n#include [xy].conf\n#include [!y].conf\n#include [^y].conf\n#include ?.conf\n",
            "x.conf": b"x=1\n",
            "y.conf": b"y=1\n",
        },
        b"[a]\nx=1\ny=1\nx=1\nx=1\nx=1\ny=1\n",
    ),
    Branch(
        "glob backslash",
        {MAIN: b"[a]\n#include x\\*.conf\n", "x*.conf": b"x=1\n", "xy.conf": b"y=1\n"},
        b"[a]\nx=1\n",
    ),
    Branch("glob backslash plain", {MAIN: b"[a]\n#tryinclude \\x.conf\n", "x.conf": b"x=1\n"}, b"[a]\nx=1\n"),
    Branch("glob backslash star", {MAIN: b"[a]\n#tryinclude \\x*.conf\n", "x.conf": b"x=1\n"}, b"[a]\nx=1\n"),
    Branch(
        "glob directive", {MAIN: b"[a]\n#include d*\nb=1\n", "d/": b"", "d2": b"x=1\n"}, b"[a]\nx=1\nb=1\n"
    ),
    Branch(
        "glob broken",
        {MAIN: b"[a]\n#include d/*.conf\nb=1\n", "d/1.conf": b"one=1\n[x\n", "d/2.conf": b"two=1\n"},
        b"[a]\none=1\nb=1\n",
    ),
    Branch(
        "glob comment",
        {
            MAIN: b"[a]\n#include d/*.conf\nb=1\n",
            "d/1.conf": b"one=1\n;--\nx=1\n",
            "d/2.conf": b"two=1\n--;\nthree=1\n",
        },
        b"[a]\none=1\nthree=1\nb=1\n",
    ),
    Branch(
        "includeude comment open",
        {MAIN: b"[a]\n#include x.conf\nb=1\n", "x.conf": b";--\nx=1\n"},
        b"[a]\nb=1\n",
    ),
    Branch("includeude directive", {MAIN: b"[a]\n#include d\nb=1\n", "d/": b""}, None),
    Branch(
        "includeude abs",
        {MAIN: b"[a]\n#include /etc/asterisk/x.conf\nb=1\n", "x.conf": b"x=1\n"},
        b"[a]\nx=1\nb=1\n",
    ),
    Branch(
        "includeude dotdot",
        {MAIN: b"[a]\n#include d/../x.conf\nb=1\n", "x.conf": b"x=1\n", "d/": b""},
        b"[a]\nx=1\nb=1\n",
    ),
    Branch(
        "includeude nested rel",
        {
            MAIN: b"[a]\n#include d/y.conf\nb=1\n",
            "d/y.conf": b"#include x.conf\n",
            "x.conf": b"x=1\n",
            "d/x.conf": b"dx=1\n",
        },
        b"[a]\nx=1\nb=1\n",
    ),
    Branch(
        "includeude long",
        {
            MAIN: b"[a]\n#include " + b"./" * 100 + b"x.conf\n#tryinclude " + b"./" * 130 + b"x.conf\nb=1\n",
            "x.conf": b"x=1\n",
        },
        b"[a]\nx=1\nb=1\n",
    ),
    Branch(
        "includeude long trunc",
        {
            MAIN: b"[a]\n#include " + b"./" * 115 + b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nb=1\n",
            "xxxxxxxxxx": b"x=10\n",
            "xxxxxxxxx": b"x=9\n",
            "xxxxxxxxxxx": b"x=11\n",
        },
        b"[a]\nx=11\nb=1\n",
    ),
    Branch(
        "includeude twice",
        {MAIN: b"[a]\n#include x.conf\n[b]\n#include x.conf\n", "x.conf": b"x=1\n"},
        b"[a]\nx=1\n[b]\nx=1\n",
    ),
    Branch(
        "includeude addition outer",
        {MAIN: b"[a]\n[b]\n#include x.conf\nc=1\n", "x.conf": b"[a](+)\nx=1\n"},
        b"[a]\nx=1\n[b]\nc=1\n",
    ),
    Branch(
        "includeude template", {MAIN: b"#include x.conf\n[b](t)\n", "x.conf": b"[t](!)\nx=1\n"}, b"[b]\nx=1\n"
    ),
    Branch(
        "includeude byte order mark",
        {MAIN: b"#include x.conf\n[b]\nc=1\n", "x.conf": b"\xef\xbb\xbf[t]\nx=1\n"},
        b"[t]\nx=1\n[b]\nc=1\n",
    ),
    Branch(
        "includeude bom2",
        {MAIN: b"[a]\n#include x.conf\n[b]\nc=1\n", "x.conf": b"\xef\xbb\xbfx=1\n"},
        b"[a]\nx=1\n[b]\nc=1\n",
    ),
    Branch(
        "includeude empty", {MAIN: b"[a]\n#include x.conf\n[b]\nc=1\n", "x.conf": b""}, b"[a]\n[b]\nc=1\n"
    ),
    Branch("tilde", b"[a]\n#tryinclude ~/x.conf\n[b]\nc=1\n", b"[a]\n[b]\nc=1\n"),
    Branch(
        "unreadable of two in glob",
        {MAIN: b"[a]\n#include d/*.conf\n", "d/1.conf/": b"", "d/2.conf": b"x=1\n"},
        b"[a]\nx=1\n",
    ),
    Branch(
        "byte order mark in an includeuded template",
        {MAIN: b"#include x.conf\n[phones](base)\n", "x.conf": b"\xef\xbb\xbf[base](!)\r\nsecret=1\r\n"},
        b"[phones]\nsecret=1\n",
    ),
    Branch(
        "byte order mark 2nd glob",
        {
            MAIN: b"[a]\n#include d/*.conf\n",
            "d/1.conf": b"\xef\xbb\xbfone=1\n",
            "d/2.conf": b"\xef\xbb\xbftwo=1\n",
        },
        b"[a]\none=1\n\xef\xbb\xbftwo=1\n",
    ),
    Branch(
        "byte order mark 2nd glob empty",
        {MAIN: b"[a]\n#include d/*.conf\n", "d/1.conf": b"", "d/2.conf": b"\xef\xbb\xbftwo=1\n"},
        b"[a]\n\xef\xbb\xbftwo=1\n",
    ),
    Branch(
        "unbalanced",
        {
            MAIN: b"[a]\n#tryinclude {x.conf\n#tryinclude x}.conf\n#tryinclude \\{x.conf\n"
            b"#tryinclude {x,y.conf\nb=1\n",
            "x.conf": b"x=1\n",
            "{x.conf": b"y=1\n",
            "x}.conf": b"z=1\n",
            "{x,y.conf": b"w=1\n",
        },
        b"[a]\ny=1\nz=1\ny=1\nw=1\nb=1\n",
    ),
    Branch(
        "unbalanced bracket",
        {MAIN: b"[a]\n#tryinclude [x.conf\nb=1\n", "x.conf": b"x=1\n", "[x.conf": b"y=1\n"},
        b"[a]\ny=1\nb=1\n",
    ),
    Branch(
        "star folder",
        {MAIN: b"[a]\n#tryinclude */x.conf\nb=1\n", "d/x.conf": b"x=1\n", "e/x.conf": b"y=1\n"},
        b"[a]\nx=1\ny=1\nb=1\n",
    ),
    Branch(
        "hidden",
        {MAIN: b"[a]\n#tryinclude .*.conf\n#tryinclude [.]h.conf\nb=1\n", ".h.conf": b"x=1\n"},
        b"[a]\nx=1\nb=1\n",
    ),
    Branch(
        "brace backslash comma",
        {MAIN: b"[a]\n#tryinclude {x\\,y,z}.conf\nb=1\n", "x,y.conf": b"x=1\n", "z.conf": b"z=1\n"},
        b"[a]\nx=1\nz=1\nb=1\n",
    ),
    Branch(
        "brace in class",
        {MAIN: b"[a]\n#tryinclude {[x,y],z}.conf\nb=1\n", "x.conf": b"x=1\n", "z.conf": b"z=1\n"},
        b"[a]\nz=1\nb=1\n",
    ),
    Branch("slash", {MAIN: b"[a]\n#tryinclude x.conf/\nb=1\n", "x.conf": b"x=1\n"}, b"[a]\nx=1\nb=1\n"),
    Branch("slash dot", {MAIN: b"[a]\n#tryinclude x.conf/.\nb=1\n", "x.conf": b"x=1\n"}, b"[a]\nb=1\n"),
    Branch("slash directive", {MAIN: b"[a]\n#tryinclude d/\nb=1\n", "d/x.conf": b"x=1\n"}, b"[a]\nb=1\n"),
    Branch("slash glob", {MAIN: b"[a]\n#tryinclude x*/\nb=1\n", "x.conf": b"x=1\n"}, b"[a]\nb=1\n"),
    Branch(
        "double slash", {MAIN: b"[a]\n#tryinclude d//x.conf\nb=1\n", "d/x.conf": b"x=1\n"}, b"[a]\nx=1\nb=1\n"
    ),
    Branch("exec name", b"[a]\n#exec\nb=1\n", b"[a]\nb=1\n"),
    Branch("includeude a lot", {MAIN: b"[a]\n#tryinclude d/x\nb=1\n", "d/x": b""}, b"[a]\nb=1\n"),
    Branch(
        "glob caret backslash",
        {MAIN: b"[a]\n#tryinclude \\[x].conf\nb=1\n", "[x].conf": b"x=1\n"},
        b"[a]\nx=1\nb=1\n",
    ),
)
