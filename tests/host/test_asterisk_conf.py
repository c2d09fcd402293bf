"""Asterisk's configuration files: sections, templates, includes, comments, and missing files."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.host import conf_reader
from ringfence.host.asterisk_conf import AsteriskFiles, Conf, Section, is_true
from ringfence.host.conf_reader import Unread
from ringfence.host.owned_files import names_in
from ringfence.values.secret import Secret

NOBODY = 65_534
UNREADABLE = "it is not a file that can be read"


@pytest.fixture(name="folder")
def _folder() -> Iterator[Path]:
    """Return a folder that every user may list."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def read(folder: Path, text: str) -> Conf:
    """Write x.conf and read it with every option wanted."""
    (folder / "x.conf").write_text(text, "utf-8")
    conf = AsteriskFiles(folder).read("x.conf", lambda _section, _name: True)
    assert conf is not None
    return conf


def let_links_be_followed(folder: Path) -> None:
    """Give a folder to a user: root follows no links in a folder of its own below ``/tmp``."""
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)


def test_sections_have_options(folder: Path) -> None:
    """``=`` and ``=>`` both assign; names keep their order and case, and lookups use lower case."""
    conf = read(folder, "[general]\nAuthDebug = yes\n deny=>a = b \n[one]x y\nb = \nc = 1\nnothing\n= 2\n")

    assert conf.sections == (
        Section("general", (("AuthDebug", "yes"), ("deny", "a = b"))),
        Section("one", (("b", ""), ("c", "1"))),
    )
    assert conf.section("general").last("authdebug") == "yes"
    assert conf.section("general").last("absent", "so") == "so"
    assert conf.section("absent").options == ()


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a = 1 ; b = 2\n; c = 3\nd = 4", {"a": "1", "d": "4"}),
        ("a = 1\\;2\nb = 3", {"a": "1;2", "b": "3"}),
        ("a = 1\n;-- b = 2\nc = 3\n--;\nd = 4", {"a": "1", "d": "4"}),
        ("a = 1;-- x --;2\nb = 3", {"a": "12", "b": "3"}),
        (";-- one ;-- two --; a = 1\n--;\nb = 2", {"b": "2"}),
        (";--- a = 1\nb = 2", {"b": "2"}),
        (";--\na = 1", {}),
    ],
)
def test_comments_are_left_out(folder: Path, text: str, options: dict[str, str]) -> None:
    """An unescaped semicolon ends a line, and lines between ``;--`` and ``--;`` are ignored, also nested."""
    conf = read(folder, f"[x]\n{text}\n")

    assert dict(conf.section("x").options) == options


def test_templates_give_their_options(folder: Path) -> None:
    """A template is no section; a section that names it inherits its options and may override them."""
    conf = read(folder, "[t](!)\na = 1\nb = 2\n[u](!,t)\nb = 3\n[x](u)\nc = 4\n[y]\nd = 5\n")

    assert [section.name for section in conf.sections] == ["x", "y"]
    assert conf.section("x").options == (("a", "1"), ("b", "2"), ("b", "3"), ("c", "4"))
    assert conf.section("x").last("b") == "3"


def test_sections_and_values_are_added_to(folder: Path) -> None:
    """``(+)`` continues the section of that name, and ``+=`` appends to the value of that option."""
    conf = read(folder, "[x]\na = 1\n[y]\nb = 2\n[x](+)\na += ,3\nc += 4\n")

    assert [section.name for section in conf.sections] == ["x", "y"]
    assert conf.section("x").options == (("a", "1 ,3"), ("c", "4"))


def test_sections_of_one_name_keep_their_own_options(folder: Path) -> None:
    """Several sections may share a name, as in pjsip.conf; each keeps its own options."""
    conf = read(folder, "[a]\ntype = endpoint\n[a]\ntype = auth\n")

    assert [section.last("type") for section in conf.sections] == ["endpoint", "auth"]
    assert conf.section("a").values("type") == ["endpoint"]
    assert conf.all_of("a").values("type") == ["endpoint", "auth"]


def test_includes_are_read_in_order(folder: Path) -> None:
    """Includes are read in all spellings and with wildcards; later lines belong to the outer section."""
    (folder / "d").mkdir()
    (folder / "d" / "2.conf").write_text("[two]\nb = 2\n", "utf-8")
    (folder / "d" / "1.conf").write_text("a = 1\n", "utf-8")
    (folder / "own.conf").write_text("[x](+)\nc = 3\n", "utf-8")
    conf = read(
        folder,
        f'[x]\n#include "d/*.conf"\n#include <own.conf>\n#tryinclude\t{folder}/own.conf\nd = 4\n'
        "#include\n#exec rm -r /\n#unknown x\n#tryinclude absent.conf\n",
    )

    assert conf.section("x").options == (("a", "1"), ("c", "3"), ("c", "3"), ("d", "4"))
    assert conf.section("two").options == (("b", "2"),)
    assert conf.unread == ()


@pytest.mark.parametrize(
    ("directories", "inside"),
    [
        ("", "/etc/asterisk"),
        ("[directories](!)\nastetcdir => /srv/other\n", "/srv/other"),
        ("[directories](!)\nastetcdir => /srv/other\n[directories]\nastetcdir => /srv/pbx\n", "/srv/pbx"),
        ("[directories]\nastetcdir => /srv/pbx\n", "/srv/pbx"),
    ],
)
def test_an_absolute_include_means_the_folder_of_a_container(
    folder: Path, directories: str, inside: str
) -> None:
    """The path by which a container's Asterisk names its folder has other files, or none, on this host."""
    (folder / "asterisk.conf").write_text(directories, "utf-8")
    (folder / "d").mkdir()
    (folder / "d" / "1.conf").write_text("a = 1\n", "utf-8")
    conf = read(folder, f"[x]\n#include {inside}/d/*.conf\n#include {folder}/d/1.conf\n")

    assert conf.section("x").options == (("a", "1"), ("a", "1"))
    assert conf.unread == ()


@pytest.mark.parametrize("include", ["{other}/x.conf", "{other}/*.conf", "../{name}/x.conf", "/gone/x.conf"])
def test_an_include_outside_of_the_folder_of_a_container_is_unread(folder: Path, include: str) -> None:
    """The path means a file of the container: what this host has there may belong to another PBX."""
    (folder / "asterisk.conf").write_text("[directories]\nastetcdir => /srv/pbx\n", "utf-8")
    with tempfile.TemporaryDirectory(dir=folder.parent) as other:
        (Path(other) / "x.conf").write_text("a = other\n", "utf-8")
        name = include.format(other=other, name=Path(other).name)
        conf = read(folder, f"[x]\n#include {name}\nb = 2\n")

    assert conf.section("x").options == (("b", "2"),)
    assert not conf.refused
    [unread] = conf.unread
    why = "it is included, and names a file of Asterisk's own host or container, which is not read here"
    assert unread == Unread("x.conf", name, why)
    assert AsteriskFiles(folder).fault_of("x.conf") == ""


def test_a_link_out_of_the_folder_of_a_container_is_unread(folder: Path) -> None:
    """The link leads to another file in the container, and to none or a wrong one on this host."""
    (folder / "asterisk.conf").write_text("[directories]\nastetcdir => /srv/pbx\n", "utf-8")
    (folder / "own").mkdir()
    (folder / "own/a.conf").write_text("a = 1\n", "utf-8")
    (folder / "a.conf").symlink_to("own/a.conf")
    (folder / "b.conf").symlink_to("/etc/hostname")
    (folder / "c.conf").symlink_to("/gone/c.conf")
    (folder / "y.conf").symlink_to("/gone/y.conf")
    let_links_be_followed(folder)
    conf = read(folder, "[x]\n#include [abc].conf\nb = 2\n")
    main = AsteriskFiles(folder).read("y.conf", lambda _section, _name: True)

    assert conf.section("x").options == (("a", "1"), ("b", "2"))
    assert [one.where for one in conf.unread] == [f"{folder}/b.conf", f"{folder}/c.conf"]
    assert main is not None
    assert main.unread[0].text.startswith(
        f"{folder}/y.conf: it is a link, and names a file of Asterisk's own"
    )


def test_a_container_may_have_its_folder_at_the_same_path(folder: Path) -> None:
    """The caller knows that Asterisk has another root folder, so its other paths are not of this host."""
    (folder / "d.conf").write_text("a = 1\n", "utf-8")
    (folder / "x.conf").write_text(f"[x]\n#include {folder}/d.conf\n#include /etc/hostname\nb = 2\n", "utf-8")
    conf = AsteriskFiles(folder, folder).read("x.conf", lambda _section, _name: True)

    assert conf is not None
    assert conf.section("x").options == (("a", "1"), ("b", "2"))
    assert [one.where for one in conf.unread] == ["/etc/hostname"]


def test_a_folder_with_two_names_is_one_folder(folder: Path) -> None:
    """On this host a link may be one of them, and then each path is of this host."""
    with tempfile.TemporaryDirectory() as other:
        (Path(other) / "x.conf").write_text("a = 1\n", "utf-8")
        (Path(other) / "asterisk").symlink_to(folder)
        (folder / "asterisk.conf").write_text(f"[directories]\nastetcdir => {other}/asterisk\n", "utf-8")
        let_links_be_followed(Path(other))
        conf = read(folder, f"[x]\n#include {other}/x.conf\n")

    assert (conf.section("x").options, conf.unread) == ((("a", "1"),), ())


def test_an_absolute_include_without_asterisk_conf_stays(folder: Path) -> None:
    """Nothing shows that Asterisk names the folder by another path."""
    (folder / "gone.conf").write_text("a = 1\n", "utf-8")
    conf = read(folder, "[x]\n#include /etc/asterisk/gone.conf\n")

    assert conf.refused


@pytest.mark.parametrize(("permitted", "unread"), [("yes", 1), ("no", 0)])
def test_a_program_that_asterisk_runs_is_reported(folder: Path, permitted: str, unread: int) -> None:
    """The output of the program of #exec is unknown; Asterisk runs it only if asterisk.conf permits it."""
    (folder / "asterisk.conf").write_text(f"[options]\nexecincludes = {permitted}\n", "utf-8")
    conf = read(folder, "[x]\n#exec /bin/false\na = 1\n")

    assert conf.section("x").options == (("a", "1"),)
    assert ["(#exec)" in one.text for one in conf.unread] == [True] * unread


@pytest.mark.parametrize("name", ["gone.conf", "gone.d/*.conf"])
def test_a_missing_include_is_reported(folder: Path, name: str) -> None:
    """Asterisk refuses a file that includes a missing file; what stands before is read."""
    conf = read(folder, f"[x]\na = 1\n#include {name}\nb = 2\n")

    why = f"{name} is included, and does not exist, so Asterisk refuses the file"
    assert conf.unread == (Unread("x.conf", f"{folder}/x.conf:3", why),)
    assert conf.refused
    assert conf.section("x").options == (("a", "1"),)


def test_an_error_in_an_included_file_ends_this_file_only(folder: Path) -> None:
    """The main file is read to its end, and the included file is reported."""
    (folder / "y.conf").write_text("b = 1\n[y\nc = 1\n", "utf-8")
    conf = read(folder, "[x]\n#include y.conf\na = 1\n")

    why = "a section has no closing ], so Asterisk ignores the rest of this file"
    assert conf.unread == (Unread("x.conf", f"{folder}/y.conf:2", why),)
    assert not conf.refused
    assert conf.section("x").options == (("b", "1"), ("a", "1"))


@pytest.mark.parametrize("condition", ["type=a+", "type=(a|b)", "type=", "type='auth'", "type=\\a"])
def test_an_unknown_condition_is_reported(folder: Path, condition: str) -> None:
    """A regular expression that ringfence does not know may add to any section of the name."""
    conf = read(folder, f"[a]\ntype = auth\n[a](+{condition})\nx = 1\n[b]\n")

    [unread] = conf.unread
    assert unread.why.startswith("ringfence does not know the condition [a](+")
    assert [section.name for section in conf.sections] == ["a", "a", "b"]
    assert conf.all_of("a").last("x") == "1"


def test_comments_that_are_nested_too_deeply(folder: Path) -> None:
    """Asterisk reads such a line without end."""
    conf = read(folder, "[a]\n" + ";-- " * 128 + "\n;-- x\n")

    assert conf.unread[0].why.startswith("comments are nested too deeply for Asterisk")


@pytest.mark.parametrize("text", ["[x]\n[x](+,x)\na = 1\n", "[x]\na = 1\n[x](+,x)\n"])
def test_a_section_that_inherits_from_itself(folder: Path, text: str) -> None:
    """Asterisk copies its options without end; ringfence reports the line."""
    assert "a section inherits from itself" in read(folder, text).unread[0].why


def test_too_many_braces(folder: Path) -> None:
    """A name with braces may mean very many files."""
    assert "has too many braces" in read(folder, "[x]\n#tryinclude " + "{a,b}" * 12 + "\n").unread[0].why


def test_files_that_include_each_other_have_an_end(folder: Path) -> None:
    """The depth and the number of included files are limited, and so is the work for all of them."""
    conf = read(folder, "[x]\na = 1\n" + "#tryinclude x.conf\n" * 4)
    [large] = conf.unread
    assert large.why == "this file with its includes is too large for ringfence"
    assert 0 < len(conf.sections) <= conf_reader.MOST_FILES


@pytest.mark.parametrize(
    "text",
    ["#tryinclude " + "*/../" * 10 + "x.conf\n", "#tryinclude gone.conf\n" * 20_000],
    ids=["pattern", "lines"],
)
def test_the_search_for_included_files_has_an_end(folder: Path, text: str) -> None:
    """Asterisk's user may write a pattern that fits millions of names, or very many names of no file."""
    for number in range(40):
        (folder / f"{number}").mkdir()
    [large] = read(folder, text).unread
    assert large.why == "this file with its includes is too large for ringfence"


@pytest.mark.parametrize(
    "text",
    [
        "[t](!)\n" + "a = 1\n" * 3_000 + "[x](t)\n" * 3_000,
        "[x]\n" + "".join(f"a{number} += 1\n" for number in range(5_000)),
        "[x]\na = 1\n" + f"a += {'x' * 8_000}\n" * 5_000,
        "[x]\n" * 3_000 + "[x](+type=a)\n" * 3_000,
        "[x]\n" * 400_000,
        "a = 1\n" * 1_100_000,
    ],
)
def test_the_work_for_a_file_is_limited(folder: Path, text: str) -> None:
    """No file makes ringfence copy, compare or keep without end."""
    conf = read(folder, text if text.startswith("[") else f"[x]\n{text}")

    assert conf.unread[-1].where.startswith(f"{folder}/x.conf")


@pytest.mark.parametrize(
    "text",
    [
        ";--\n" + f"{';' * 8_000}\n" * 500,
        f"a = {'a' * 8_000}\n" * 300 + f"[x](+a=.{'a' * 4_000}b)\n",
    ],
    ids=["semicolons", "condition"],
)
def test_the_time_for_a_file_is_limited(folder: Path, text: str) -> None:
    """Lines that need little work, but a long time, end the reading too."""
    (folder / "x.conf").write_text(f"[x]\n{text}", "utf-8")
    conf = AsteriskFiles(folder, most_work=5_000).read("x.conf", lambda _section, _name: True)

    assert conf is not None
    assert [one.why for one in conf.unread] == ["this file with its includes is too large for ringfence"]


def test_the_size_of_all_included_files_is_limited(folder: Path) -> None:
    """A file counts each time that it is included, because its options stay in memory."""
    (folder / "y.conf").write_bytes(bytes(conf_reader.MOST_BYTES))
    assert read(folder, "[x]\n" + "#include y.conf\n" * 3).unread == ()

    [large] = read(folder, "[x]\n" + "#include y.conf\n" * 4).unread
    assert large.why == "this file with its includes is too large for ringfence"


def test_a_value_is_kept_once_for_all_sections_that_inherit_it(folder: Path) -> None:
    """Thousands of sections with a template's long value need no memory for each."""
    first, second = read(folder, "[t](!)\na = b c\n[x](t)\n[y](t)\n").sections

    assert first.options == second.options == (("a", "b c"),)
    assert first.options[0][1] is second.options[0][1]


def test_the_list_of_a_folder_can_end_early(folder: Path) -> None:
    """Another user's folder may have millions of names, so the work for a name counts before the next one."""
    for number in range(5):
        (folder / f"{number}").touch()
    spent: list[int] = []

    def spend(work: int) -> None:
        spent.append(work)
        if len(spent) == 2:
            raise OverflowError

    with pytest.raises(OverflowError):
        names_in(folder, spend=spend)
    assert len(spent) == 2
    assert names_in(folder) == ["0", "1", "2", "3", "4"]


def test_only_wanted_options_are_kept(folder: Path) -> None:
    """A password is not in the result unless the caller wants it; the callback gets names in lower case."""
    (folder / "x.conf").write_text("[Alice]\nPassword = hunter2\nType = auth\n", "utf-8")
    asked: list[tuple[str, str]] = []

    def wanted(section: str, name: str) -> bool:
        asked.append((section, name))
        return name == "type"

    conf = AsteriskFiles(folder).read("x.conf", wanted)
    assert conf == Conf((Section("Alice", (("Type", "auth"),)),))
    assert asked == [("alice", "password"), ("alice", "type")]


def test_a_missing_file(folder: Path) -> None:
    """A missing file is no configuration; a folder or a dangling link is an unreadable one."""
    (folder / "d").mkdir()
    (folder / "link").symlink_to("nowhere")

    assert AsteriskFiles(folder).read("absent", lambda *_: True) is None
    assert AsteriskFiles(folder / "absent").read("x", lambda *_: True) is None
    for name, why in (("d", UNREADABLE), ("link", "it cannot be read: a link that others can replace")):
        conf = AsteriskFiles(folder).read(name, lambda *_: True)
        assert conf is not None
        assert conf.unread == (Unread(name, f"{folder}/{name}", why),)


def test_files_that_may_not_be_read(folder: Path) -> None:
    """An unreadable file, a file in a closed folder, and an include from one are reported as unread."""
    closed = folder / "closed"
    closed.mkdir()
    (closed / "x.conf").write_text("[x]\n", "utf-8")
    (folder / "private.conf").write_text("[x]\n", "utf-8")
    (folder / "x.conf").write_text("#tryinclude closed/*.conf\n[x]\na = 1\n", "utf-8")
    (folder / "private.conf").chmod(0)
    closed.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        private = AsteriskFiles(folder).read("private.conf", lambda *_: True)
        inside = AsteriskFiles(closed).read("x.conf", lambda *_: True)
        including = AsteriskFiles(folder).read("x.conf", lambda *_: True)
    finally:
        if root:
            os.seteuid(0)
        closed.chmod(0o700)

    why = "it cannot be read: Permission denied"
    assert private == Conf(unread=(Unread("private.conf", f"{folder}/private.conf", why, closed=True),))
    assert inside == Conf(unread=(Unread("x.conf", f"{closed}/x.conf", why, closed=True),))
    listed = Unread("x.conf", f"{closed}/*.conf", "its folder cannot be listed", closed=True)
    assert including == Conf((Section("x", (("a", "1"),)),), (listed,))


@pytest.mark.parametrize("text", ["yes", "TRUE", " y ", "t", "1", "on"])
def test_truth(text: str) -> None:
    """These texts are true for Asterisk."""
    assert is_true(text)


@pytest.mark.parametrize("text", ["", "no", "2", "enabled"])
def test_texts_that_are_false(text: str) -> None:
    """Every other text is false."""
    assert not is_true(text)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=2 * settings().max_examples
)
@given(
    st.lists(st.sampled_from([*'[]()+!;-#="\\ \n\x00é', "include x.conf\n", "a", ";--", "--;"]), max_size=60)
)
def test_no_text_raises(pieces: list[str]) -> None:
    """Any file content is read to its end, line by line."""
    folder = Path(tempfile.mkdtemp())
    try:
        conf = read(folder, "".join(pieces))
        assert {section.name for section in conf.sections if "\n" in section.name} == set()
    finally:
        shutil.rmtree(folder)


def test_passwords_are_separate_and_masked(folder: Path) -> None:
    """Wanted passwords are returned masked, with templates and additions, and no repr shows them."""
    (folder / "x.conf").write_text(
        "[t](!)\nsecret = hunter2\n[a](t)\nsecret +=22\n[b]\nsecret = other\nsecret = \nuser = b\n", "utf-8"
    )
    conf = AsteriskFiles(folder).read(
        "x.conf", lambda _, name: name == "user", lambda _, name: name == "secret"
    )
    assert conf is not None
    a, b = conf.sections

    assert (a.options, a.secret("secret")) == ((), Secret("hunter222"))
    assert (b.options, b.secret("secret")) == ((("user", "b"),), None)
    assert b.secret("absent") is None
    assert "hunter" not in repr(conf)


def test_sections_of_one_name_are_added_to_by_a_condition(folder: Path) -> None:
    """``(+type=auth)`` continues the section that has this option."""
    conf = read(folder, "[a]\ntype = endpoint\n[a]\ntype = auth\nx = 1\n[a](+type=auth&x=1)\ny = 2\n")

    assert [section.options for section in conf.sections] == [
        (("type", "endpoint"),),
        (("type", "auth"), ("x", "1"), ("y", "2")),
    ]
