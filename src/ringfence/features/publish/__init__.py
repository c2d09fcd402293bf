"""The list of banned networks for routers: ``[publish]``, served with the metrics."""

from collections.abc import Mapping

from ringfence.street import Command

COMMANDS: Mapping[str, Command] = {}
