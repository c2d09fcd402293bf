"""Loads the configuration of a running daemon again, on request."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog
from attrs import evolve, frozen

from ringfence import street
from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.config import loader
from ringfence.config.schema import AsteriskSettings, Settings
from ringfence.detect.friends import Friends
from ringfence.detect.rules import Rule
from ringfence.errors import ConfigError, RingfenceError
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.pipeline import Pipeline
from ringfence.guard.source_manager import SourceManager
from ringfence.values.text import printable


@frozen
class Reloaded:
    """The result of reloading the configuration file ``where``.

    ``refused`` are the errors in the file. If there are any, the old configuration stays in force, and there
    are no ``notes``. Notes are remarks on the new configuration.
    """

    where: str
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decoy_alarms(rules: Iterable[Rule], friends: Friends) -> list[Alarm]:
    """Return an alarm for each decoy account of ``rules`` that is a real account.

    A decoy is an account in the list of a rule such as ``decoy``. One attempt on it causes a ban, so no phone
    may use it. An account is real if ``friends`` know that it has ever authenticated.
    """
    named = {account for rule in rules if rule.enabled for account in rule.accounts or ()}
    text = (
        "is a real account, so one mistyped password is a ban; fix: take it out of accounts in [rules.decoy]"
    )
    return [
        Alarm(AlarmCode.CONFIGURATION_DECOY, printable(account), text)
        for account in sorted(named)
        if friends.knows_account(account)
    ]


class Reloader:
    """Loads the configuration file ``path`` again, and applies it. ``settings`` are in force now."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        pipeline: Pipeline,
        side: FirewallSide,
        sources: SourceManager,
    ) -> None:
        self.settings = settings
        self.path = path
        self._pipeline = pipeline
        self._side = side
        self._sources = sources
        self._started_with = settings
        self._latest: tuple[Alarm, ...] = ()
        self._log = structlog.get_logger()

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms about the latest load, and those of :func:`decoy_alarms`."""
        return [*self._latest, *self._decoys()]

    def reload(self) -> Reloaded:
        """Load the configuration again and apply it. Return the result.

        If it is invalid, or if a source of it cannot be made, keep the old one.
        Some settings take effect only after a restart. The result and alarms name those that changed.
        """
        try:
            new = loader.load(self.path)
            self._sources.configure(new.asterisk_with_logs())  # before all others, because it may fail
        except ConfigError as error:
            return self._refuse(error)
        except RingfenceError as error:
            return self._refuse(ConfigError(str(self.path), [str(error)]))
        except (ImportError, OSError) as error:
            problem = (
                f"cannot load what this configuration needs: {error}; fix: restore the file, or raise the "
                "limit of open files (LimitNOFILE=); then ringfence reload"
            )
            return self._refuse(ConfigError(str(self.path), [problem]))
        kept = [key for key in _FIXED if getattr(new, key) != getattr(self.settings, key)]
        later = [f"[{key}]" for key in kept]
        at_start = _at_start(self._started_with)
        later += [table for table, value in _at_start(new).items() if value != at_start[table]]
        backend = self._started_with.firewall.backend
        later += ["[firewall] backend"] if new.firewall.backend != backend else []
        self._latest = tuple(Alarm(AlarmCode.CONFIGURATION_RESTART, key, _CHANGED) for key in later)
        self.settings = evolve(
            new,
            asterisk=_until_restart(new, self._started_with),
            **{key: getattr(self.settings, key) for key in kept},
        )
        self._pipeline.configure(self.settings)
        self._side.configure(self.settings)
        self._log.info("configuration.loaded", restart_for=later)
        notes = [f"{', '.join(later)} {_CHANGED}"] if later else []
        return Reloaded(str(self.path), notes=(*notes, *self.warn_of_decoys()))

    def _refuse(self, error: ConfigError) -> Reloaded:
        text = "the new configuration is refused, the old one stays: " + "; ".join(error.problems)
        self._latest = (Alarm(AlarmCode.CONFIGURATION_REFUSED, error.where, text),)
        for problem in error.problems:
            self._log.error("configuration.refused", problem=problem)
        return Reloaded(where=error.where, refused=tuple(error.problems))

    def warn_of_decoys(self) -> Sequence[str]:
        """Log a warning about each decoy that is a real account, and return the warnings."""
        found = [f"decoy {alarm.subject} {alarm.text}" for alarm in self._decoys()]
        for text in found:
            self._log.warning("configuration.decoy", problem=text)
        return found

    def _decoys(self) -> list[Alarm]:
        return decoy_alarms(self.settings.rule_table(), self._side.exempt.friends.friends)


def _at_start(settings: Settings) -> dict[str, object]:
    """Return values of ``[[asterisk]]`` that take effect only at a start, by table (``[asterisk.wire]``)."""
    features = street.settings("asterisk").items()
    return {
        "[asterisk.wire]": settings.wire,
        **{f"[asterisk.{table}]": module.at_start(settings) for table, module in features},
    }


def _until_restart(new: Settings, started_with: Settings) -> tuple[AsteriskSettings, ...]:
    """Return the ``[[asterisk]]`` tables of ``new``; what needs a restart is as in ``started_with``.

    ``started_with`` are the settings of the start. The rules in the kernel follow the settings, and the
    readers do not. So without this, a reload that switches a reader off would remove the rules that copy
    packets for it. The reader would then be silent, and that would disprove true lines.
    """
    before = {pbx.name: pbx for pbx in started_with.asterisk}
    features = [
        (table, type(getattr(new.asterisk[0], table)))
        for table, module in street.settings("asterisk").items()
        if module.at_start(new) != module.at_start(started_with)
    ]
    found = []
    for pbx in new.asterisk:
        wire = pbx.wire
        if new.wire != started_with.wire:
            wire = evolve(wire, enabled=started_with.wire)
        tables = {
            table: getattr(before[pbx.name], table) if pbx.name in before else kind()
            for table, kind in features
        }
        found.append(evolve(pbx, wire=wire, **tables))
    return tuple(found)


_FIXED = (
    "store",
    "control",
    *(table for table, module in street.settings().items() if getattr(module, "RESTART", False)),
)
"""Tables of the configuration that take effect only at the start of the daemon."""
_CHANGED = "changed: restart ringfence"
