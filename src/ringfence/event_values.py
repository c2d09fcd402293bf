"""A replacement for ``attrs.frozen`` for values that are created for each event.

attrs enforces immutability with a constructor that takes three times as long (1.0 µs instead of 0.3 for an
event), which makes the way from the bytes of an event to a judgement a tenth longer (19.5 to 20.2 µs instead
of 17.4 to 18.2). The benchmark row "bytes → decisions with every rule on" has no room for that. Here only
the type checker enforces it: at run time ``frozen`` is an ordinary class.
"""

from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from attrs import frozen
else:
    frozen = define(unsafe_hash=True)

__all__ = ["frozen"]
