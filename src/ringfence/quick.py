"""Values that are made for each event: frozen as the others, and in a third of the time.

attrs keeps a frozen object from being changed by a way of making it that takes three times as long (1.0 µs in
place of 0.3 for an event), and an event is a fifth longer on its way to a judgement. Here the type checker
alone keeps it, which sees every line of ours: at run time ``frozen`` is a class that nobody changes.
"""

from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from attrs import frozen
else:
    frozen = define(unsafe_hash=True)

__all__ = ["frozen"]
