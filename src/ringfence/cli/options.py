"""Options that features add to a command of the guard or of another feature.

The module ``options`` of a feature has a function with the name of the command. The parameters of the
function are the options, and its result is what the command gets.
"""

from collections.abc import Callable, Iterator, Mapping
from inspect import Signature, signature
from typing import Any

from ringfence import street


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of features to ``command``, which gets them by name (``**``); return it."""
    own = [one for one in signature(command).parameters.values() if one.kind is not one.VAR_KEYWORD]
    parts = street.functions("options", command.__name__)
    more = [one for part in parts for one in signature(part).parameters.values()]
    vars(command)["__signature__"] = Signature([*own, *more])
    return command


def read_options(command: str, options: Mapping[str, Any]) -> Iterator[Any]:
    """Call the function of each feature with its options of ``command``; yield the results.

    ``options`` are the values of all options of features, by name.
    """
    for part in street.functions("options", command):
        yield part(**{name: options[name] for name in signature(part).parameters})
