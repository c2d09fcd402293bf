"""Changes to the text of Asterisk's files: every other byte stays."""

from ipaddress import ip_network

import pytest

from ringfence.features.setup.texts import MARK, appended, includes, with_general, with_host, with_include

SAMPLE = "; a comment\n[general]\nenabled = no ; as delivered\nport = 5038\n\n[admin]\nenabled = no\n"


def test_includes_are_those_that_asterisk_reads() -> None:
    """Both commands and both kinds of brackets count; comments do not."""
    text = '#include "a.conf"\n#tryinclude <b/*.conf>\n;#include c.conf\n#exec d\n;--\n#include e.conf\n--;\n'

    assert includes(text) == ["a.conf", "b/*.conf"]


def test_an_option_of_the_general_section_is_replaced() -> None:
    """Only the option in section [general] changes."""
    assert with_general(SAMPLE, "enabled", "yes") == SAMPLE.replace("enabled = no ;", "enabled = yes ;")


@pytest.mark.parametrize(
    "text",
    [
        "[general]\n%s ;-- off:\n[a]\n--;\nport = 1\n",
        "[general]\n;-- on:\nenabled = on --; %s ;-- off --; ; off\nport = 1\n",
    ],
)
def test_the_comments_beside_a_replaced_option_stay(text: str) -> None:
    """Without its begin or end, what a comment hides would count, or the lines below it would not."""
    assert with_general(text % "enabled = no", "enabled", "yes") == text % "enabled = yes"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("[general]\nport = 1\n", "[general]\nbindaddr = ::1\nport = 1\n"),
        ("", "\n[general]\nbindaddr = ::1\n"),
        ("[a]\nbindaddr = 1\n;[general]", "[a]\nbindaddr = 1\n;[general]\n\n[general]\nbindaddr = ::1\n"),
        ("[general]\nbindaddr = 1\nBindAddr = 2\n", "[general]\nbindaddr = 1\nbindaddr = ::1\n"),
        ("[general]\nbindaddr = ;-- no --; 1\n", "[general]\nbindaddr = ::1\n"),
        ("\ufeff[General]\n", "\ufeff[General]\nbindaddr = ::1\n"),
        ("[general]\n[general]\nbindaddr = 1\n", "[general]\nbindaddr = ::1\n[general]\nbindaddr = 1\n"),
        ("[general]\n[a]\n[general](+)\nbindaddr = 1\n", "[general]\n[a]\n[general](+)\nbindaddr = ::1\n"),
        ("[general](!)\nbindaddr = 1\n", "[general](!)\nbindaddr = 1\n\n[general]\nbindaddr = ::1\n"),
    ],
)
def test_an_option_that_is_missing_is_added(text: str, result: str) -> None:
    """It is added after the section's head, or with a section; of several lines the last one counts."""
    assert with_general(text, "bindaddr", "::1") == result


def test_an_option_of_an_included_section_is_added_to_it() -> None:
    """A second section of the same name would be ignored."""
    text = with_general("#include own.conf\n", "bindaddr", "::1", included=True)
    assert with_general(text, "enabled", "yes", included=True) == (
        "#include own.conf\n\n[general](+)\nenabled = yes\nbindaddr = ::1\n"
    )


def test_an_include_is_a_line_at_the_end() -> None:
    """The line is optional for Asterisk, and a comment names its origin."""
    once = f'[general]\n\n{MARK}\n#tryinclude "x.conf"\n'
    assert with_include("[general]", "x.conf") == once
    assert with_include(once, "x.conf") == once


def test_an_addition_begins_a_new_line() -> None:
    """A last line without an end gets one."""
    assert [appended(text, "b\n") for text in ("", "a", "a\n")] == ["b\n", "a\nb\n", "a\nb\n"]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("127.0.1.1 pbx.example.org", "127.0.1.1 pbx.example.org pbx"),
        ("192.0.2.5\tPBX.example.org  # own\n::1 x\n", "192.0.2.5\tPBX.example.org pbx  # own\n::1 x\n"),
        ("203.0.113.7 pbx.carrier.example\n", "203.0.113.7 pbx.carrier.example\n127.0.1.1 pbx\n"),
        ("127.0.0.1 localhost pbx.example.org\n", "127.0.0.1 localhost pbx.example.org\n127.0.1.1 pbx\n"),
        ("own pbx.example.org\n127.0.0.1\n", "own pbx.example.org\n127.0.0.1\n127.0.1.1 pbx\n"),
        ("#127.0.1.1 pbx.example.org\n", "#127.0.1.1 pbx.example.org\n127.0.1.1 pbx\n"),
        ("", "127.0.1.1 pbx\n"),
        (
            "2001:db8::5 pbx.example.org\n192.0.2.5 pbx.example.org\n",
            "2001:db8::5 pbx.example.org\n192.0.2.5 pbx.example.org pbx\n",
        ),
    ],
)
def test_a_domain_of_this_host_stays_its_domain(text: str, result: str) -> None:
    """The name joins the line that has it with a domain, if the address of this line is of this host."""
    assert with_host(text, "pbx", {ip_network("192.0.2.5"), ip_network("2001:db8::5")}, str) == result
