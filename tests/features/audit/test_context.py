"""Contexts and global variables of the dialplan, as versions 16 and 22 print them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.features.audit.dialplan import Context, Step, context_from, globals_from

DIALPLAN = """\
[ Context 'demo' created by 'pbx_lua' ]
  '#' =>            1. Playback(demo-thanks)                      [extensions.conf:595]
                    2. Hangup()                                   [extensions.conf:596]
  '1000' =>         hint: SIP/1000                                [pbx_lua]
                    1. Goto(default,s,1)                          [extensions.conf:577]
  's' =>            1. Wait(1)                                    [extensions.conf:563]
     [restart]      2. BackGround(demo [x])                       [extensions.conf:567]
  '_7XXX' =>        50000. Gosub(page,s,1(SIP/${EXTEN}))          [extensions.conf:616]
  Include =>        'stdexten'                                    [pbx_config]
  Ignore pattern => '9'                                           [pbx_config]
  Alt. Switch =>    'Lua/'                                        [pbx_lua]

-= 4 extensions (6 priorities) in 1 context. =-
"""


def test_a_context_has_steps_includes_and_switches() -> None:
    """Labels, hints and the origin of a step are left out; brackets in arguments are kept."""
    assert context_from(DIALPLAN) == Context(
        steps=(
            Step("#", 1, "Playback(demo-thanks)"),
            Step("#", 2, "Hangup()"),
            Step("1000", 1, "Goto(default,s,1)"),
            Step("s", 1, "Wait(1)"),
            Step("s", 2, "BackGround(demo [x])"),
            Step("_7XXX", 50000, "Gosub(page,s,1(SIP/${EXTEN}))"),
        ),
        includes=("stdexten",),
        switches=("Lua/",),
    )
    assert context_from("There is no existence of 'x' context\n") is None


def test_globals() -> None:
    """Each variable has its value, which may contain "="."""
    assert globals_from("   TRUNK=DAHDI/G2\n   A=b=c\n\n    -- 2 variable(s)\n") == {
        "TRUNK": "DAHDI/G2",
        "A": "b=c",
    }


@settings(max_examples=2 * settings().max_examples)
@given(st.text(alphabet="\n []'=>.()/:0129abIncludeMatch", max_size=400))
def test_whatever_is_printed_is_read(text: str) -> None:
    """An unknown or missing table gives fewer results and raises nothing."""
    assert isinstance(context_from(f"[ Context 'x' created by 'y' ]\n{text}"), Context)
