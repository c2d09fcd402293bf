"""Metrics for Prometheus: ``[metrics]``."""

from collections.abc import Mapping

from ringfence.street import Command

COMMANDS: Mapping[str, Command] = {}
