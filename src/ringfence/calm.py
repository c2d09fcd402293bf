"""How a process that guards collects its garbage: seldom, and never what is there to stay.

Python looks for circles among all that it holds whenever 700 objects more have been made than are gone. With
a hundred thousand bans in memory that look takes longer than all bans of an attack, and finds nothing: what
bans and attempts leave behind is in no circle. So what is there once the process is up is not looked at any
more, and what comes is looked at seldom.
"""

import gc

THRESHOLDS = 20_000, 20, 20
"""Objects more made than gone for a look at the youngest; how many of these looks for one at older ones."""


def calm_collector() -> None:
    """Have the collector on and seldom, and pass over what is there now. May be called again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
