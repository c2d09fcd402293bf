"""Reachability in the dialplan: ways out, phones, and unclear steps."""

import pytest
from tests.support.console import ScriptedConsole

from ringfence.features.audit import dialplan
from ringfence.features.audit.dialplan import Dialplan, Reach


class Shown:
    """A console that shows a dialplan: ``{context: [(extension, application), ...]}``, as Asterisk prints it.

    ``include => x`` and ``switch => x`` are written so. ``asked`` counts the commands.
    """

    def __init__(self, contexts: dict[str, list[tuple[str, str]]], **variables: str) -> None:
        self.contexts = contexts
        self.variables = variables
        self.asked: list[str] = []
        self.problem = ""

    def show(self, what: str) -> str | None:
        """Answer as Asterisk does."""
        self.asked.append(what)
        name = what.removeprefix("dialplan show ")
        if name == "globals":
            return "".join(f"   {name}={value}\n" for name, value in self.variables.items())
        if name not in self.contexts:
            return f"There is no existence of '{name}' context\n"
        return f"[ Context '{name}' created by 'pbx_config' ]\n" + "".join(
            self._row(*step) for step in self.contexts[name]
        )

    def _row(self, extension: str, application: str) -> str:
        if extension in {"include", "switch"}:
            word = {"include": "Include", "switch": "Alt. Switch"}[extension]
            return f"  {word} =>        '{application}'     [pbx_config]\n"
        head = f"'{extension}' =>"
        return f"  {head:18}1. {application}     [extensions.conf:9]\n"


def reach(*steps: tuple[str, str], **variables: str) -> Reach:
    """Return where a context with these steps leads."""
    return Dialplan(Shown({"in": list(steps)}, **variables)).reach("in")


@pytest.mark.parametrize(
    "application",
    [
        "Dial(PJSIP/${EXTEN}@carrier)",
        "Dial(PJSIP/carrier/sip:${EXTEN}@203.0.113.5,60,T)",
        "Dial(SIP/trunk/${EXTEN:1},30)",
        "Dial(DAHDI/g0/${EXTEN})",
        "Dial(SIP/100&IAX2/user:secret@host/${FILTER(0-9,${EXTEN:2})})",
        "Dial(${GLOBAL(TRUNK)}/${EXTEN})",
        "Dial(${TRUNK}/${EXTEN})",
    ],
)
def test_a_number_of_the_callers_choosing_through_a_trunk(application: str) -> None:
    """A pattern for long numbers that dials through something with a name dials out."""
    assert reach(("_00X.", application), TRUNK="DAHDI/G2") == Reach(dials=("_00X. in in",))


@pytest.mark.parametrize(
    ("extension", "application"),
    [
        ("_X.", "Dial(PJSIP/${EXTEN})"),
        ("_X.", "Dial(${PJSIP_DIAL_CONTACTS(${EXTEN})},20)"),
        ("_X.", "Dial(SIP/${EXTEN}&SIP/${EXTEN}-mobile)"),
        ("_X.", "Dial(PJSIP/+4912345@carrier)"),
        ("_X.", "Dial(Console/dsp)"),
        ("_1XX", "Dial(PJSIP/${EXTEN}@other-office)"),
        ("_[1-9]XX", "Dial(PJSIP/${EXTEN}@other-office)"),
        ("100", "Dial(PJSIP/${EXTEN}@carrier)"),
        ("_X.", "NoOp(Dial(PJSIP/${EXTEN}@carrier))"),
    ],
)
def test_phones_fixed_numbers_and_short_ones_are_not_the_world(extension: str, application: str) -> None:
    """Phones, fixed numbers and three-digit patterns neither dial out nor are unclear."""
    assert reach((extension, application)) == Reach()


@pytest.mark.parametrize(
    "application", ["Dial(${DESTINATION})", "Dial(${TECH}/${EXTEN})", "Dial(${DB(a/b)})"]
)
def test_variables_and_scripts_are_unclear(application: str) -> None:
    """If a variable or a script decides, the result is unclear."""
    assert reach(("_X.", application)) == Reach(unclear=("_X. in in",))


def test_includes_and_jumps_are_followed() -> None:
    """Include, Goto with the number, Gosub, Macro and Local channels are followed; a menu's jump is not."""
    out = [("_X.", "Dial(PJSIP/${EXTEN}@carrier)")]
    ways: list[list[tuple[str, str]]] = [
        [("include", "out")],
        [("_X.", "Goto(out,${EXTEN},1)")],
        [("_X.", "Gosub(call,s,1(PJSIP/${EXTEN}@carrier,60))")],
        [("_X.", "Macro(call,PJSIP/${EXTEN}@carrier)")],
        [("_X.", "Dial(Local/${EXTEN}@out/n)")],
    ]
    call = [("s", "Dial(${ARG1})")]
    for way in ways:
        shown = Shown({"in": way, "out": out, "call": call, "macro-call": call})
        assert Dialplan(shown).reach("in").dials == (("_X. in out",) if way == ways[0] else ("_X. in in",))

    inner = Shown(
        {"in": [("_X.", "Gosub(call,s,1(SIP/${EXTEN}))")], "call": [("s", "Dial(${ARG1},${ARG2})")]}
    )
    assert Dialplan(inner).reach("in") == Reach()
    menu = Shown({"in": [("_X.", "Goto(out,s,1)"), ("_1XX", "Goto(out,${EXTEN},1)")], "out": out})
    assert Dialplan(menu).reach("in") == Reach()
    own = Shown({"in": [("_X.", "Goto(s,1)"), ("s", "Dial(SIP/trunk/${NUMBER})")]})
    assert Dialplan(own).reach("in") == Reach(unclear=("_X. in in",))


def test_only_the_kind_of_a_switch_is_returned() -> None:
    """A switch may contain a password; only its kind is returned."""
    assert reach(("switch", "IAX2/user:secret@host/context")) == Reach(unclear=("the switch IAX2",))


def test_an_extension_without_first_step() -> None:
    """An extension without a first step cannot be dialled."""
    shown = "[ Context 'in' created by 'x' ]\n  '_X.' =>   5. Dial(SIP/t/${EXTEN})   [e:1]\n"

    assert Dialplan(ScriptedConsole(lambda _: shown)).reach("in") == Reach()


def test_an_unknown_context() -> None:
    """An unknown context has no result, and an invalid name is not sent to the console."""
    shown = Shown({})

    assert Dialplan(shown).reach("gone") == Reach(known=False)
    assert Dialplan(shown).reach("a b") == Reach(known=False)
    assert shown.asked == ["dialplan show gone"]


def test_loops_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each context is read once even in a loop, and a dialplan that is too large is reported as unclear."""
    ring = Shown({"in": [("include", "b")], "b": [("include", "in"), ("_X.", "Goto(in,${EXTEN},1)")]})
    assert Dialplan(ring).reach("in") == Reach()
    assert sorted(ring.asked) == ["dialplan show b", "dialplan show in"]

    monkeypatch.setattr(dialplan, "MAX_CONTEXTS", 10)
    chain = Shown({"in": [("include", f"c{n}") for n in range(50)], "c1": [("include", "in")]})
    assert Dialplan(chain).reach("in").unclear == ("more than 10 contexts",)
    deep = "${" * 2000 + "EXTEN" + "}" * 2000
    assert reach(("_X.", f"Dial(SIP/t/{deep})")).known
    assert reach(("_X.", "Dial(SIP/t/${EXTEN")).known
