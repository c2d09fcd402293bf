"""Where each account logs in: the places of its logins, and an alarm if somebody else may have its password.

``places`` has the places and grades each login by them. It is pure: time is an argument.
"""

from ringfence.street import Command

COMMANDS = {
    "account": Command(f"{__name__}.command", "Show where an account logs in, and confirm these places."),
}
