"""Where a context of the dialplan leads who calls into it: to the world, or no further than this PBX.

A toll fraud begins with a number of the caller's own choosing that is dialled on through a trunk. So a
context reaches the world where a pattern for long numbers dials what the caller dialled through something
that is named: ``Dial(PJSIP/${EXTEN}@carrier)``, ``Dial(DAHDI/g0/${EXTEN:1})``. ``Dial(PJSIP/${EXTEN})`` rings
a phone.

What is included counts, and so does what is jumped to with the number, or called with it as an argument.
Not seen is what only a call shows: a variable's value, a script (AGI, ARI, Lua), a switch, what a menu lets
dial. That is told as unclear. So "dials out" is sure as far as such things are, and its opposite is not.

A ``Dial`` may hold a password (``IAX2/user:secret@host``): of what is read nothing is given but the names of
contexts and extensions.
"""

import re
from collections import deque
from collections.abc import Iterator

from attrs import define, evolve, field, frozen

from ringfence.host.console import Console
from ringfence.host.shown import Context, context_from, globals_from

MOST_CONTEXTS = 100
"""So many contexts are looked at from one on."""
LONG = 7
"""A pattern of so many digits, or of any number, may be a number of the world's."""

_CALLED = "\x01"
"""Stands for what the caller dialled."""
_UNKNOWN = "\x02"
"""Stands for what only a call shows."""
_PHONES = frozenset({"SIP", "PJSIP", "IAX2", "SCCP"})
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,80}")
_GLOBAL = re.compile(r"(?:GLOBAL\(([A-Za-z0-9_]{1,80})\)|([A-Za-z0-9_]{1,80}))")
_ARGUMENT = re.compile(r"ARG([1-9][0-9]?)")
_SET = re.compile(r"\[[^\]]{0,80}\]")
_DEEPEST = 5
_JUMPS = frozenset({"goto", "gosub"})
_LENGTHS = (2, 3)
"""A jump has an extension and a priority, and most often a context before them."""
_SCRIPTS = frozenset({"agi", "eagi", "fastagi", "deadagi", "externalivr", "stasis"})


@frozen
class Reach:
    """What is found. ``dials``: patterns that dial out (``_00X. in outbound``). ``unclear``: not seen.

    ``known`` is false where the console does not answer, or there is no such context.
    """

    known: bool = True
    dials: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


@frozen
class _Visit:
    """A context and how it is come to: by any number, or at one extension with arguments.

    ``origin`` is what led there, for people: the pattern that the caller dialled.
    """

    context: str
    extension: str = ""
    arguments: tuple[str, ...] = ()
    origin: str = ""


@define
class Dialplan:
    """The dialplan in force, asked context by context, each once."""

    _console: Console
    _contexts: dict[str, Context | None] = field(factory=dict)
    _globals: dict[str, str] | None = None

    def reach(self, context: str) -> Reach:
        """Say where a call into ``context`` can lead."""
        first = self._context(context)
        if first is None:
            return Reach(known=False)
        dials: dict[str, None] = {}
        unclear: dict[str, None] = {}
        visits, seen = deque([_Visit(context)]), {_Visit(context)}
        while visits:
            visit = visits.popleft()
            found = self._context(visit.context)
            if found is None:
                continue
            unclear |= {f"the switch {switch.partition('/')[0]}": None for switch in found.switches}
            nexts = [evolve(visit, context=name) for name in found.includes]
            for extension, name, arguments in self._applications(found, visit):
                origin = visit.origin or f"{extension} in {visit.context}"
                verdict = _verdict(name, arguments)
                if verdict is not False:
                    (dials if verdict else unclear)[origin] = None
                nexts += (evolve(jump, origin=origin) for jump in _jumps(name, arguments, visit.context))
            for new in nexts:
                if new in seen:
                    continue
                if len(seen) == MOST_CONTEXTS:
                    unclear[f"more than {MOST_CONTEXTS} contexts"] = None
                    break
                seen.add(new)
                visits.append(new)
        return Reach(dials=tuple(dials), unclear=tuple(unclear))

    def _context(self, name: str) -> Context | None:
        if name not in self._contexts:
            shown = self._console.show(f"dialplan show {name}") if _NAME.fullmatch(name) else None
            self._contexts[name] = context_from(shown) if shown else None
        return self._contexts[name]

    def _applications(self, context: Context, visit: _Visit) -> Iterator[tuple[str, str, str]]:
        """Give the steps that long numbers come to: extension, application, arguments as far as known."""
        begun = {step.extension for step in context.steps if step.priority == 1}  # the others take no call
        for step in context.steps:
            if visit.extension:
                fits = step.extension == visit.extension
            else:
                fits = step.extension in begun and _is_wide(step.extension)
            if not fits:
                continue
            name, _, arguments = step.application.partition("(")
            yield step.extension, name.strip().lower(), self._filled(arguments.removesuffix(")"), visit)

    def _filled(self, text: str, visit: _Visit) -> str:
        return "".join(
            self._value(part[2:-1], visit, 0) if part[:2] == "${" else part for part in _parts(text)
        )

    def _value(self, name: str, visit: _Visit, depth: int) -> str:
        """Give what a variable is known to hold."""
        if "${" in name and depth < _DEEPEST:  # ${FILTER(0-9,${EXTEN})}, ${GLOBAL(TRUNK)}
            inner = "".join(
                self._value(part[2:-1], visit, depth + 1) if part[:2] == "${" else "" for part in _parts(name)
            )
            contacts = name.startswith("PJSIP_DIAL_CONTACTS(")
            return f"PJSIP/{_CALLED}" if contacts else _CALLED if _CALLED in inner else _UNKNOWN
        base = name.partition(":")[0]
        argument = _ARGUMENT.fullmatch(base)
        if base == "EXTEN":
            return visit.extension or _CALLED
        if argument:
            number = int(argument[1])
            return visit.arguments[number - 1] if number <= len(visit.arguments) else _UNKNOWN
        known = _GLOBAL.fullmatch(base)
        if self._globals is None:
            self._globals = globals_from(self._console.show("dialplan show globals") or "")
        value = self._globals.get(known[1] or known[2], "") if known else ""
        return value if value and "${" not in value else _UNKNOWN


def _parts(text: str) -> Iterator[str]:
    """Cut a text into variables, ``${...}`` with what is in them, and what is between."""
    start = place = 0
    while (place := text.find("${", start)) >= 0:
        yield text[start:place]
        depth, end = 0, place
        while end < len(text):
            if text.startswith("{", end):
                depth += 1
            elif text[end] == "}":
                depth -= 1
                if not depth:
                    break
            end += 1
        yield text[place : end + 1]
        start = end + 1
    yield text[start:]


def _is_wide(extension: str) -> bool:
    """Say whether an extension is a pattern that long numbers fit."""
    pattern = _SET.sub("X", extension)
    return pattern[:1] == "_" and (pattern[-1] in ".!" or len(pattern) > LONG)


def _verdict(name: str, arguments: str) -> bool | None:
    """Say whether an application calls through a trunk what the caller chose; None where that is not seen."""
    if name in _SCRIPTS:
        return None
    if name in _JUMPS:
        return None if _UNKNOWN in ",".join(_target(arguments)[:2]) else False
    return _dialled(arguments) if name == "dial" else False


def _dialled(arguments: str) -> bool | None:
    """Say the same of a Dial."""
    found: bool | None = False
    for place in arguments.partition(",")[0].split("&"):
        technology, _, rest = place.partition("/")
        if technology == "Local":
            continue
        if _CALLED in rest and _UNKNOWN not in technology:
            named = technology not in _PHONES or "/" in rest or "@" in rest
            found = True if named else found
        elif _UNKNOWN in place or _CALLED in technology:
            found = None if found is False else found
    return found


def _target(arguments: str) -> list[str]:
    """Give context, extension and priority of a jump; the first, or the first two, may be left out."""
    return [part.strip() for part in arguments.partition("(")[0].split(",")]


def _jumps(name: str, arguments: str, here: str) -> list[_Visit]:
    """Give the contexts that a call goes on to with the caller's number, or at an extension of its own."""
    if name == "dial":
        places = [place for place in arguments.partition(",")[0].split("&") if place.startswith("Local/")]
        contexts = [place.rpartition("@")[2].partition("/")[0] for place in places if _CALLED in place]
        return [_Visit(context) for context in contexts]
    if name == "macro":
        macro, *words = arguments.split(",")
        return [_Visit(f"macro-{macro}", "s", tuple(words))] if _CALLED in "".join(words) else []
    target = _target(arguments)
    if name not in _JUMPS or len(target) not in _LENGTHS:
        return []
    context, extension, _ = target if len(target) == max(_LENGTHS) else (here, *target)
    if _CALLED in extension:
        return [_Visit(context)]
    text = arguments.partition("(")[2].removesuffix(")")
    return [_Visit(context, extension, tuple(text.split(",")))] if _CALLED in text or context == here else []
