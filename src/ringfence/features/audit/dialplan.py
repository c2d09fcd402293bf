"""Reachability in the dialplan: whether a call into a context can dial out, or only reach this PBX.

Toll fraud needs a trunk that dials a number of the caller's choice. So a context *dials out* if a pattern
for long numbers dials the number that the caller dialled, through a named trunk:
``Dial(PJSIP/${EXTEN}@carrier)``, ``Dial(DAHDI/g0/${EXTEN:1})``. ``Dial(PJSIP/${EXTEN})`` only rings a
phone.

Included contexts count, and so do contexts that get the number by a jump or as an argument. Values known
only during a call are reported as unclear: variables, scripts (AGI, ARI, Lua), switches, and menus that
let the caller dial. So if a context is reported to dial out, this is reliable. If not, it may still dial
out.

A ``Dial`` may contain a password (``IAX2/user:secret@host``), so only names of contexts and extensions
are returned.
"""

import re
from collections import deque
from collections.abc import Iterator

from attrs import define, evolve, field, frozen

from ringfence.host.console import Console
from ringfence.host.console_tables import rows_of

MAX_CONTEXTS = 100
"""The maximum number of visits in one call of :meth:`Dialplan.reach`.

A visit is a context and how a call reaches it. One context can have several visits.
"""
LONG = 7
"""The minimum number of digits of an outside number.

A pattern matches long numbers if it has this many digits or more, or if it ends with a wildcard.
"""

_CALLED = "\x01"
"""A placeholder for the number that the caller dialled."""
_UNKNOWN = "\x02"
"""A placeholder for a value that is known only during a call."""
_PHONES = frozenset({"SIP", "PJSIP", "IAX2", "SCCP"})
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,80}")
_GLOBAL = re.compile(r"(?:GLOBAL\(([A-Za-z0-9_]{1,80})\)|([A-Za-z0-9_]{1,80}))")
_ARGUMENT = re.compile(r"ARG([1-9][0-9]?)")
_SET = re.compile(r"\[[^\]]{0,80}\]")
_MAX_DEPTH = 5
_JUMPS = frozenset({"goto", "gosub"})
_LENGTHS = (2, 3)
"""How many parts a jump's target has: 2 (extension, priority) or 3 (context, extension, priority)."""
_SCRIPTS = frozenset({"agi", "eagi", "fastagi", "deadagi", "externalivr", "stasis"})
_STEP = re.compile(r" {1,25}(?:\[[^\]]{1,80}\] {1,25})?([0-9]{1,9})\. (.*)")
_TARGET = re.compile(r"  (Include|Alt\. Switch) => +'([^']{1,160})'.*")
_EXTENSION = re.compile(r"  '([^']{1,160})' (?:\(CID match '[^']*'\) )?=> (.*)")
_GLOBAL_LINE = re.compile(r" {1,4}([^= ]{1,80})=(.*)")


@frozen
class Step:
    """A step of the dialplan: its extension or pattern, its priority, the application with its arguments."""

    extension: str
    priority: int
    application: str


@frozen
class Context:
    """A context of the dialplan: its own steps, and the names of included contexts and of switches."""

    steps: tuple[Step, ...] = ()
    includes: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


def context_from(text: str) -> Context | None:
    """Parse ``dialplan show CONTEXT``: return the context; None if the output contains none."""
    steps: list[Step] = []
    includes: list[str] = []
    switches: list[str] = []
    extension, begun = "", False
    for line in rows_of(text):
        if line.startswith("[ Context '"):
            begun = True
        elif target := _TARGET.fullmatch(line):
            (includes if target[1] == "Include" else switches).append(target[2])
        elif begun:
            first = _EXTENSION.fullmatch(line)
            if first:
                extension = first[1]
            step = _STEP.fullmatch(" " + first[2] if first else line)
            if step and extension:
                steps.append(Step(extension, int(step[1]), step[2].rpartition(" [")[0].strip()))
    return Context(tuple(steps), tuple(includes), tuple(switches)) if begun else None


def globals_from(text: str) -> dict[str, str]:
    """Parse ``dialplan show globals``: return the values of global variables by name."""
    return {match[1]: match[2].strip() for line in rows_of(text) if (match := _GLOBAL_LINE.fullmatch(line))}


@frozen
class Reach:
    """The result of :meth:`Dialplan.reach`.

    ``dials``: the patterns that dial out (``_00X. in outbound``). ``unclear``: texts about what could not be
    examined. ``known`` is False if the console does not answer, or if the context does not exist.
    """

    known: bool = True
    dials: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


@frozen
class _Visit:
    """A context to examine, and how a call reaches it.

    If ``extension`` is "", the call arrives with the number that the caller dialled. Otherwise the call goes
    to the fixed ``extension``, with ``arguments``. ``origin`` is the pattern that matched the dialled number,
    for messages; "" until a pattern is known.
    """

    context: str
    extension: str = ""
    arguments: tuple[str, ...] = ()
    origin: str = ""


@define
class Dialplan:
    """The dialplan in force, from the console. The console is asked only once for each context."""

    _console: Console
    _contexts: dict[str, Context | None] = field(factory=dict)
    _globals: dict[str, str] | None = None

    def reach(self, context: str) -> Reach:
        """Return whether a call into ``context`` can dial out, and through which patterns."""
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
                if len(seen) == MAX_CONTEXTS:
                    unclear[f"more than {MAX_CONTEXTS} contexts"] = None
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
        """Yield each application that may run on this visit: its extension, its name and its arguments.

        If the visit has no fixed extension, only patterns that match long numbers count. In the arguments,
        variables are replaced by their values or by placeholders.
        """
        begun = {
            step.extension for step in context.steps if step.priority == 1
        }  # the extensions that a call can enter: it begins at priority 1
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
        """Return the value of ``name``, the text within ``${}``: a variable, or a function.

        Return _CALLED if the value contains the dialled number, and _UNKNOWN if it is known only during a
        call. ``depth`` is the depth of nested ``${}``.
        """
        if "${" in name and depth < _MAX_DEPTH:  # nested, such as ${FILTER(0-9,${EXTEN})}
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
    """Split a text of the dialplan into its variables and the texts between them.

    A variable is ``${...}`` with all that is in it, even other variables.
    """
    start = position = 0
    while (position := text.find("${", start)) >= 0:
        yield text[start:position]
        depth, end = 0, position
        while end < len(text):
            if text.startswith("{", end):
                depth += 1
            elif text[end] == "}":
                depth -= 1
                if not depth:
                    break
            end += 1
        yield text[position : end + 1]
        start = end + 1
    yield text[start:]


def _is_wide(extension: str) -> bool:
    """Whether an extension is a pattern that matches long numbers."""
    pattern = _SET.sub("X", extension)
    return pattern[:1] == "_" and (pattern[-1] in ".!" or len(pattern) > LONG)


def _verdict(name: str, arguments: str) -> bool | None:
    """Whether an application dials the number that the caller dialled, through a trunk.

    Return None if this is unclear: for a script, or if a value is known only during a call. Return False for
    a jump to a known target: the jump itself dials nothing, and ``_jumps`` follows it.
    """
    if name in _SCRIPTS:
        return None
    if name in _JUMPS:
        return None if _UNKNOWN in ",".join(_target(arguments)[:2]) else False
    return _dialled(arguments) if name == "dial" else False


def _dialled(arguments: str) -> bool | None:
    """Whether a Dial calls the number that the caller dialled, through a trunk; None if this is unclear.

    A Local channel dials nothing itself: it leads to another context, which ``_jumps`` returns.
    """
    found: bool | None = False
    for position in arguments.partition(",")[0].split("&"):
        technology, _, rest = position.partition("/")
        if technology == "Local":
            continue
        if _CALLED in rest and _UNKNOWN not in technology:
            named = technology not in _PHONES or "/" in rest or "@" in rest
            found = True if named else found
        elif _UNKNOWN in position or _CALLED in technology:
            found = None if found is False else found
    return found


def _target(arguments: str) -> list[str]:
    """Return the parts of a jump's target: context, extension and priority.

    There are two parts without a context, and one if only the priority is given.
    """
    return [part.strip() for part in arguments.partition("(")[0].split(",")]


def _jumps(name: str, arguments: str, here: str) -> list[_Visit]:
    """Return the visits to which the application ``name`` sends a call next.

    A jump to a fixed extension of another context counts only if an argument has the dialled number. ``here``
    is the context of the application; a jump that names no context stays in it.
    """
    if name == "dial":
        places = [
            position for position in arguments.partition(",")[0].split("&") if position.startswith("Local/")
        ]
        contexts = [
            position.rpartition("@")[2].partition("/")[0] for position in places if _CALLED in position
        ]
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
