"""The fence before the SIP ports: only friends, the allow list, and named networks and regions reach them.

``firewall`` has the state of the fence: whether it drops packets, and which addresses it admits for a time.
``links`` makes links for people: opening a link in a browser admits the address of that browser.
"""

from ringfence.street import Command

COMMANDS = {
    "fence": Command(
        f"{__name__}.command",
        "Show, start and keep the fence: only phones, trunks and named networks reach SIP.",
    ),
}
