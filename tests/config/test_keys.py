"""The keys of the configuration: every key once, and the tables in which they are."""

from ringfence.config.converters import Ladder, Paths, SipPort
from ringfence.config.schema import (
    ROOT,
    AsteriskSettings,
    Key,
    RuleSettings,
    children_of,
    keys_of,
    text_of_key,
)


def test_every_key_is_listed_once() -> None:
    """Keys of tables, of repeated tables and of rules are listed; tables are not."""
    keys = [text_of_key(key.path) for key in keys_of()]

    assert len(keys) == len({*keys})
    assert {
        "asterisk[0].name",
        "asterisk[0].ami.secret_file",
        "asterisk[0].logs.custom[0].pattern",
        "firewall.sip_ports",
        "firewall.limit.rate",
        "rules.guess.friends",
        "control.socket",
    } <= {*keys}
    assert not {"asterisk", "asterisk[0]", "asterisk[0].ami", "rules.guess", "firewall.limit"} & {*keys}


def test_a_rule_has_only_its_own_keys() -> None:
    """A key that a rule does not have is not listed for it."""
    decoy = [key.path[-1] for key in children_of(Key(("rules", "decoy"), RuleSettings))]

    assert "accounts" in decoy
    assert "addresses" not in decoy


def test_a_repeated_table_has_entries() -> None:
    """A repeated table yields as many entries as requested; a list of values is a key."""
    asterisk = next(children_of(ROOT))

    assert asterisk.entries is AsteriskSettings
    assert [key.path for key in children_of(asterisk, entries=2)] == [("asterisk", 0), ("asterisk", 1)]
    assert Key(("firewall", "sip_ports"), tuple[SipPort, ...] | None).entries is None
    assert not Key(("firewall", "sip_ports"), tuple[SipPort, ...]).is_table


def test_the_plain_kind_is_that_of_python() -> None:
    """The type of a value is found behind None and behind the names that the converters use."""
    assert Key((), Ladder).plain_kind == tuple[float, ...]
    assert Key((), Paths | None).plain_kind.__name__ == "tuple"
    assert Key((), int).plain_kind is int


def test_a_path_is_written_as_in_error_messages() -> None:
    """Numbers stand in brackets, names behind dots."""
    assert text_of_key(("asterisk", 1, "ami", "port")) == "asterisk[1].ami.port"
