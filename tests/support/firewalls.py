"""The settings of the firewall with tables that features bring, which the class does not show to mypy."""

from typing import Any

from ringfence.config.schema import FirewallSettings


def firewall(**keys: Any) -> FirewallSettings:  # noqa: ANN401 - a value of any key
    """Return ``[firewall]`` with these keys and tables."""
    return FirewallSettings(**keys)
