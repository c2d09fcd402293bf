"""Settings with tables of features, whose types a type checker does not know."""

from typing import Any

from attrs import evolve

from ringfence.config.schema import Settings

_DEFAULTS = Settings()


def with_tables(settings: Settings = _DEFAULTS, **tables: Any) -> Settings:  # noqa: ANN401 - of any type
    """Return ``settings`` with these tables."""
    return evolve(settings, **tables)
