"""fail2ban's files: order, includes, references, and errors."""

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.fail2ban import Fail2ban, why_no_fail2ban
from tests.support.unprivileged import unprivileged

from ringfence.errors import ConfigError
from ringfence.fail2ban.jails import DATABASE, MAX_FILE, Configuration, Jail, read_configuration


def read(folder: Path, files: Mapping[str, str | bytes]) -> Configuration:
    """Write files into a folder, and read it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_configuration(folder)


def jail(configuration: Configuration, name: str = "asterisk") -> Jail:
    """Return the jail of that name."""
    [found] = [jail for jail in configuration.jails if jail.name == name]
    return found


def option(folder: Path, text: str, name: str = "logpath") -> str:
    """Return an option of jail asterisk, resolved from this jail.local."""
    return jail(read(folder, {"jail.local": text})).options[name]


# -- files ------------------------------------------------------------------------------------------------


def test_later_files_win(tmp_path: Path) -> None:
    """jail.conf, jail.d/*.conf, jail.local, jail.d/*.local: each overrides the files before."""
    files = {
        "jail.conf": "[asterisk]\na=1\nb=1\nc=1\nd=1\ne=1\n",
        "jail.d/10.conf": "[asterisk]\nb=2\nc=2\nd=2\ne=2\n",
        "jail.d/20.conf": "[asterisk]\nc=3\nd=3\ne=3\n",
        "jail.local": "[asterisk]\nd=4\ne=4\n",
        "jail.d/10.local": "[asterisk]\ne=5\n",
        "jail.d/30.bak": "[asterisk]\ne=6\n",
        "jail.d/.40.conf": "[asterisk]\na=7\n",
    }

    options = jail(read(tmp_path, files)).options

    assert "".join(options[name] for name in "abcde") == "12345"


def test_a_jails_own_option_wins_over_a_later_default(tmp_path: Path) -> None:
    """The last [DEFAULT] counts for jails without an option of their own."""
    files = {
        "jail.conf": "[DEFAULT]\nmaxretry=5\nbantime=10m\n[asterisk]\nmaxretry=10\n",
        "jail.local": "[DEFAULT]\nmaxretry=3\nbantime=1h\n",
    }

    options = jail(read(tmp_path, files)).options

    assert (options["maxretry"], options["bantime"]) == ("10", "1h")


def test_includes_stand_before_and_after(tmp_path: Path) -> None:
    """[INCLUDES] names files relative to its own; they may include others, each with its .local."""
    files = {
        "jail.conf": "[INCLUDES]\nbefore=a.conf\n  sub/b.conf\n  none.conf\nafter=z.conf\n"
        "[asterisk]\nx=jail\ny=jail\n",
        "a.conf": "[DEFAULT]\nx=a\ny=a\nz=a\nw=a\n",
        "a.local": "[DEFAULT]\nw=local\n",
        "sub/b.conf": "[INCLUDES]\nbefore=c.conf\n[DEFAULT]\nz=b\n",
        "sub/c.conf": "[DEFAULT]\nz=c\nv=c\n",
        "z.conf": "[asterisk]\ny=z\n",
    }

    found = read(tmp_path, files)

    assert "".join(jail(found).options[name] + " " for name in "xyzwv") == "jail z b local c "
    assert found.problems == ()


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    """A loop of includes is read once."""
    files = {
        "jail.conf": "[INCLUDES]\nbefore=a.conf\n[asterisk]\nx=jail\n",
        "a.conf": "[INCLUDES]\nafter=jail.conf\n[asterisk]\nx=a\ny=a\n",
    }

    assert jail(read(tmp_path, files)).options.items() >= {"x": "jail", "y": "a"}.items()


def test_includes_that_lead_ever_deeper_are_left_out(tmp_path: Path) -> None:
    """A long chain of includes is cut, and reported."""
    files = {f"{number}.conf": f"[INCLUDES]\nbefore={number + 1}.conf\n" for number in range(20)}

    found = read(tmp_path, files | {"jail.conf": "[INCLUDES]\nbefore=0.conf\n[asterisk]\n"})

    assert [problem.partition(": ")[2] for problem in found.problems] == ["is included too deeply; left out"]


def test_one_file_is_read_alone(tmp_path: Path) -> None:
    """A single file is read with its includes and no other file."""
    read(tmp_path, {"jail.conf": "[sshd]\n", "copy.local": "[asterisk]\nenabled=true\n"})

    assert [jail.name for jail in read_configuration(tmp_path / "copy.local").jails] == ["asterisk"]


def test_comments_and_long_values(tmp_path: Path) -> None:
    """Comment lines, comments after a semicolon, and multi-line values are read as in fail2ban."""
    text = "[asterisk]\n# one\nlogpath = /a ; two\n  # three\n  /b#4\n\tc;5\n; six\nother : 7\n"

    assert option(tmp_path, text) == "/a\n/b#4\nc;5"


def test_the_last_of_two_counts(tmp_path: Path) -> None:
    """If an option or section occurs twice in a file, the last one counts."""
    text = "[asterisk]\na=1\na=2\nb=1\n[sshd]\n[asterisk]\nb=2\n"

    assert [option(tmp_path, text, name) for name in "ab"] == ["2", "2"]


# -- references -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[DEFAULT]\nlogs=/v\n[asterisk]\nlogpath=%(logs)s/m\n", "/v/m"),
        ("[DEFAULT]\nlogpath=/v/%(__name__)s\n[asterisk]\n", "/v/asterisk"),
        ("[DEFAULT]\nlogpath=%(x)s\n[asterisk]\nx=%(y)s\ny=z\n", "z"),
        ("[DEFAULT]\nx=1\n[asterisk]\nx=2\nlogpath=%(default/x)s%(x)s\n", "12"),
        ("[other]\nx=1\n[asterisk]\nx=2\nlogpath=%(other/x)s%(asterisk/x)s\n", "12"),
        ("[DEFAULT]\nx=1\n[asterisk]\nlogpath=%(known/x)s\n", "1"),
        ("[asterisk]\nlogpath=100%%\n", "100%"),
        ("[asterisk]\nlogpath=100%\n", "100%"),
        ("[asterisk]\nlogpath=%(FAIL2BAN_confpath)s%(fail2ban_version)s\n", None),
    ],
)
def test_references_are_followed(tmp_path: Path, text: str, value: str | None) -> None:
    """References to the section, another section, the defaults or earlier files are resolved."""
    assert option(tmp_path, text) == (value or str(tmp_path))


def test_known_references_are_the_overridden_values(tmp_path: Path) -> None:
    """%(known/…)s is the value of earlier files, so that a list can be extended."""
    files = {
        "jail.conf": "[asterisk]\nignoreip=::1\n",
        "jail.local": "[asterisk]\nignoreip=%(known/ignoreip)s 192.0.2.1\n",
    }

    assert jail(read(tmp_path, files)).options["ignoreip"] == "::1 192.0.2.1"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("%(nowhere)s", "refers to %(nowhere)s, which does not exist"),
        ("%(nobody/x)s", "refers to %(nobody/x)s, which does not exist"),
        ("%(logpath)s", "its references form a loop"),
        ("%(a)s%(a)s%(a)s%(a)s", "is longer than 65536 characters"),
    ],
)
def test_a_reference_that_leads_nowhere_is_a_fault_of_its_option(
    tmp_path: Path, value: str, fault: str
) -> None:
    """An unresolvable reference is a fault of its option; the other options are resolved."""
    text = f"[DEFAULT]\na={'x' * 20_000}\n[asterisk]\nlogpath={value}\nmaxretry=7\n"

    found = jail(read(tmp_path, {"jail.local": text}))

    assert found.faults == {"logpath": fault}
    assert found.options["maxretry"] == "7"


# -- faults -----------------------------------------------------------------------------------------------


def test_a_file_with_an_error(tmp_path: Path) -> None:
    """An invalid line is reported; the lines around it and other files are read."""
    files = {
        "jail.conf": "[asterisk]\na=1\nno line at all\nb=2\n",
        "jail.local": "a=headless\n",
        "jail.d/x.conf": "[asterisk]\nc=3\n",
    }

    found = read(tmp_path, files)

    assert [jail(found).options[name] for name in "abc"] == ["1", "2", "3"]
    assert [problem.split(":")[0] for problem in found.problems] == [
        str(tmp_path / "jail.conf"),
        str(tmp_path / "jail.local"),
    ]
    assert all("has an error" in problem and "\n" not in problem for problem in found.problems)


def test_bytes_that_are_no_text_hide_nothing(tmp_path: Path) -> None:
    """A comment in another encoding, and a byte order mark, are not errors."""
    content = b"\xef\xbb\xbf# B\xfcro\n[asterisk]\na=\xff\n"

    found = read(tmp_path, {"jail.local": content})

    assert (jail(found).options["a"], found.problems) == ("\\xff", ())


def test_no_regular_file(tmp_path: Path) -> None:
    """A FIFO, a folder and an endless file are reported, and do not stop the import."""
    os.mkfifo(tmp_path / "jail.conf")
    (tmp_path / "jail.d" / "a.conf").mkdir(parents=True)
    (tmp_path / "jail.d" / "b.conf").write_bytes(b"#" * (MAX_FILE + 1))

    found = read(tmp_path, {"jail.local": "[asterisk]\n"})

    assert [problem.partition(": ")[2] for problem in found.problems] == [
        "cannot be read: it is not a file",
        "cannot be read: it is not a file",
        "cannot be read: it is longer than 1048576 bytes",
    ]
    assert jail(found).name == "asterisk"


def test_a_file_without_permission() -> None:
    """An unreadable file is reported and does not stop the import; an unreadable folder is a ConfigError."""
    with unprivileged() as folder:
        (folder / "jail.conf").touch(0o000)
        found = read(folder, {"jail.local": "[asterisk]\n"})
        assert found.problems == (f"{folder}/jail.conf: cannot be read: Permission denied",)
        assert jail(found).name == "asterisk"

        folder.chmod(0o000)
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            read_configuration(folder / "etc")


def test_jail_d_is_not_a_folder(tmp_path: Path) -> None:
    """jail.d may be missing, or something that cannot be listed."""
    found = read(tmp_path, {"jail.local": "[asterisk]\n", "jail.d": "a file"})

    assert found.problems == (f"{tmp_path}/jail.d: cannot be read: Not a directory",)


def test_without_a_configuration_nothing_is_imported(tmp_path: Path) -> None:
    """A missing folder is a ConfigError."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_configuration(tmp_path / "missing")


def test_a_folder_without_jails_is_refused(tmp_path: Path) -> None:
    """A folder that is not fail2ban's is a ConfigError."""
    with pytest.raises(ConfigError, match="contains no jail"):
        read_configuration(tmp_path)


# -- which jails, which database --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[asterisk]\nenabled=true\n", ["asterisk"]),
        (
            "[DEFAULT]\nfilter=%(__name__)s[mode=x]\n[asterisk]\nenabled=yes\n[sshd]\nenabled=1\n",
            ["asterisk"],
        ),
        (
            "[a-tcp]\nfilter=asterisk\nenabled=on\n[sip]\nfilter=asterisk-security\nenabled=TRUE\n",
            ["a-tcp", "sip"],
        ),
        ("[asterisk]\nenabled=false\n[pbx]\nfilter = asterisk\nenabled=true\n", ["pbx"]),
        (
            "[DEFAULT]\nenabled=true\n[INCLUDES]\nbefore=x\n[Definition]\n[asterisk]\n[gui]\nfilter=freepbx\n",
            ["asterisk"],
        ),
    ],
)
def test_the_jails_that_guard_asterisk_are_found(tmp_path: Path, text: str, names: list[str]) -> None:
    """Enabled jails are found by name or filter, also several."""
    assert [jail.name for jail in read(tmp_path, {"jail.local": text}).chosen([])] == names


def test_jails_that_are_named_are_taken(tmp_path: Path) -> None:
    """A named jail is returned even if it is disabled, or not recognized as Asterisk's."""
    found = read(tmp_path, {"jail.local": "[asterisk]\nenabled=false\n[pbx]\n"})

    assert [jail.name for jail in found.chosen(["pbx", "asterisk", "pbx"])] == ["pbx", "asterisk"]


def test_without_an_asterisk_jail_the_others_are_named(tmp_path: Path) -> None:
    """The error lists the jails, and the option for a disabled one."""
    found = read(tmp_path, {"jail.local": "[sshd]\nenabled=true\n[asterisk]\nenabled=false\n"})

    with pytest.raises(ConfigError) as caught:
        found.chosen([])
    assert caught.value.problems == [
        "no enabled jail guards Asterisk (by its name, or a filter asterisk…)",
        "jail asterisk would, but is disabled; to import it anyway: --jail asterisk",
        "enabled jails: sshd; disabled: asterisk",
    ]


def test_an_unknown_jail(tmp_path: Path) -> None:
    """The error lists it, the other jails and read errors; many disabled jails are only counted."""
    text = "headless\n" + "[asterisk]\n" + "".join(f"[jail{number}]\n" for number in range(30))

    found = read(tmp_path, {"jail.conf": text.partition("\n")[2], "jail.local": "headless=1\n"})

    with pytest.raises(ConfigError) as caught:
        found.chosen(["sip\x1b"])
    assert caught.value.problems[:2] == [
        "there is no jail sip\\x1b",
        "enabled jails: none; disabled: 31 others",
    ]
    assert caught.value.problems[2] == found.problems[0]


@pytest.mark.parametrize(
    ("files", "database"),
    [
        ({}, DATABASE),
        ({"fail2ban.conf": "[DEFAULT]\ndbfile = /a.sqlite3\n[Definition]\n"}, "/a.sqlite3"),
        ({"fail2ban.conf": "[Definition]\ndbfile=/a\n", "fail2ban.local": "[Definition]\ndbfile=/b\n"}, "/b"),
        ({"fail2ban.d/x.conf": "[Definition]\ndbfile = None\n"}, "None"),
    ],
)
def test_the_database_is_where_fail2ban_has_it(tmp_path: Path, files: dict[str, str], database: str) -> None:
    """The path is dbfile of fail2ban.conf and its overrides, else Debian's default."""
    assert read(tmp_path, {"jail.local": "[asterisk]\n", **files}).database == database


# -- fail2ban itself --------------------------------------------------------------------------------------

HARD = {
    "jail.local": """
[INCLUDES]
before = own/before.conf
after = own/after.conf

[DEFAULT]
office = 192.0.2.0/24
ignoreip = 127.0.0.1/8 ::1
    # a comment in between
    %(office)s, 198.51.100.7/32
findtime = 1d12h
maxretry = 4 ; inline
logs = {folder}/logs

[sshd]
maxretry = 33

[asterisk]
enabled = true
maxretry = 1%(maxretry_tail)s
bantime = %(known/bantime)s
logpath = %(logs)s/%(__name__)s*.log
          %(logs)s/second tail

[pbx]
enabled = on
filter = asterisk[mode=normal]
maxretry = %(sshd/maxretry)s
bantime = %(default/bantime)s
action = %(banaction_allports)s[name=pbx]
""",
    "own/before.conf": "[DEFAULT]\nmaxretry_tail = 7\nbantime = 2h\n[asterisk]\nbantime = 3h\n",
    "own/before.local": "[DEFAULT]\nmaxretry_tail = 8\n",
    "own/after.conf": "[pbx]\nlogpath = %(logs)s/after\n",
    "jail.d/20.conf": "[asterisk]\nbantime = 4h\nmaxretry = 2\n",
    "jail.d/10.local": "[DEFAULT]\noffice = 203.0.113.0/24\n",
}


@pytest.mark.skipif(bool(why_no_fail2ban()), reason=why_no_fail2ban())
def test_fail2ban_itself_reads_the_same(tmp_path: Path) -> None:
    """For a difficult configuration the result equals that of fail2ban 1.0.2, jail by jail."""
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("asterisk1.log", "asterisk2.log", "second", "after"):
        (logs / name).touch()
    files = {name: text.replace("{folder}", str(tmp_path)) for name, text in HARD.items()}
    fail2ban = Fail2ban(tmp_path, files)
    done = fail2ban.client("-d")
    commands: list[list[Any]] = [
        ast.literal_eval(line) for line in done.stdout.splitlines() if line.startswith("['")
    ]

    found = read_configuration(fail2ban.etc)

    assert (done.returncode, found.problems) == (0, ())
    assert sorted(jail.name for jail in found.jails if jail.enabled) == ["asterisk", "pbx"]
    for jail in found.chosen([]):
        said = {command[2]: command[3:] for command in commands if command[:2] == ["set", jail.name]}
        for name in ("findtime", "bantime", "maxretry"):
            assert said[name] == [int(jail.options[name]) if name == "maxretry" else jail.options[name]]
        assert said["addignoreip"] == jail.options["ignoreip"].replace(",", " ").split()
    assert found.database == str(fail2ban.database)
    assert [jail.options["logpath"] for jail in found.chosen([])] == [
        f"{logs}/asterisk*.log\n{logs}/second tail",
        f"{logs}/after",
    ]
