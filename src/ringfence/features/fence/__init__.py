"""The fence before the SIP ports: only friends, the allow list, and named networks and regions reach them.

``firewall`` decides whether it drops, ``links`` lets a person admit the address where they are.
"""

from ringfence.street import Command

COMMANDS = {
    "fence": Command(
        f"{__name__}.command",
        "Show, start and keep the fence: only phones, trunks and named networks reach SIP.",
    ),
}
