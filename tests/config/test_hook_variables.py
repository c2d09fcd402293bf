"""The variables of a hook: none of them sets a key."""

from ringfence.config.environment import PREFIX, key_of, overridden
from ringfence.config.hook_variables import HOOK_VARIABLES


def test_no_variable_of_a_hook_sets_a_key() -> None:
    """A command of ringfence in a hook ignores them, and reports any other unknown variable."""
    assert all(name.startswith(PREFIX) and key_of(name) is None for name in HOOK_VARIABLES)
    assert overridden({}, dict.fromkeys(HOOK_VARIABLES, "x")).problems == ()
    assert len(overridden({}, {"RINGFENCE_EVENTS": "x"}).problems) == 1
