"""The values of the configuration and their limits. test_loader shows most of them with whole files."""

from zoneinfo import ZoneInfo

import pytest

from ringfence.config.converters import (
    HOOKS,
    Interface,
    ListenAddress,
    SipPort,
    list_only,
    parse_duration,
    text_from,
    text_of_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("90s", 90.0),
        ("10m", 600.0),
        ("2h", 7_200.0),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
        ("3650d", 315_360_000.0),
        ("1h30m", 5_400.0),
        ("1d 12h", 129_600.0),
        ("1w1d1h1m1s", 694_861.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a whole number and a unit, followed by smaller units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.0, "1s"), (90.0, "1m30s"), (5_400.0, "1h30m"), (1_209_600.0, "14d")]
)
def test_a_duration_is_written_as_it_is_read(seconds: float, text: str) -> None:
    """The text of a duration has each unit once, without weeks, and is read as the same duration."""
    assert text_of_duration(seconds) == text
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "s",
        "1.5h",
        "-1s",
        "1 h",
        "1h ",
        "1H",
        "30m1h",
        "1h1h",
        " 1h",
        "1w  5s",
        "1h  30m",
        "0d",
        "3651d",
        "٣s",
        "9999999999s",
        60,
        None,
        True,
    ],
)
def test_what_is_no_duration(text: object) -> None:
    """Anything else is refused with a message that describes the format."""
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_duration(text)


def test_a_zone_is_one_that_this_host_knows() -> None:
    """A zone is a name of the time zone database; unknown names and paths out of it are refused."""
    hook = HOOKS[ZoneInfo | None]

    assert hook("UTC", None) == ZoneInfo("UTC")
    for wrong in ("Mars/Olympus", "../etc/passwd", "", 5):
        with pytest.raises(ValueError, match="must be a t"):
            hook(wrong, None)


def test_a_text_is_no_list_and_no_line_end() -> None:
    """A text has no control characters, and is not converted to a list of its letters."""
    assert text_from("a b") == "a b"
    with pytest.raises(ValueError, match="control characters"):
        text_from("a\r\nSecret: x")
    with pytest.raises(ValueError, match="must be a list"):
        list_only(lambda value, _: value)("abc", list)


def test_a_sip_port_is_of_one_protocol_or_both() -> None:
    """A port without a protocol is for both protocols."""
    hook = HOOKS[SipPort]

    assert hook("5060", None) == SipPort(5060, udp=True, tcp=True)
    assert hook("5060/udp", None) == SipPort(5060, udp=True, tcp=False)
    assert hook("65535/tcp", None) == SipPort(65_535, udp=False, tcp=True)


@pytest.mark.parametrize("name", ["eth0", "br-1a2b3c4d5e6f", "enp0s31f6", "wg_office.7", "veth@if3"])
def test_an_interface_is_named_as_the_kernel_allows(name: str) -> None:
    """An interface name has up to 15 characters, and none that rules read as a pattern."""
    assert HOOKS[Interface](name, None) == name


@pytest.mark.parametrize("text", ["127.0.0.1:9721", "[::1]:1", "[2001:db8::1]:65535"])
def test_an_address_to_listen_on_is_written_as_it_is_read(text: str) -> None:
    """An address to listen on has a port, and brackets if it is IPv6."""
    assert str(HOOKS[ListenAddress | None](text, None)) == text


@pytest.mark.parametrize(
    "text",
    ["", "9721", "127.0.0.1", "::1:9721", "localhost:1", "127.0.0.1:0", "127.0.0.1:65536", "[]:1", 1],
)
def test_an_address_to_listen_on_is_no_name_and_has_a_port(text: object) -> None:
    """A name, a missing port and an impossible port are refused."""
    with pytest.raises(ValueError, match="must be an address and a port"):
        HOOKS[ListenAddress | None](text, None)
