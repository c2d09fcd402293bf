"""The child process that sends one message: ``python -m ringfence.features.notify.sender``.

It reads a request of :mod:`ringfence.features.notify.delivery` from standard input and prints its result.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from types import FrameType
from typing import Any

from ringfence.features.notify import mail, programs

Content = dict[str, Any]
CHANNELS: Mapping[str, Callable[[Mapping[str, Any], Content, str], str]] = {
    "mail": mail.send,
    "apprise": programs.send_by_apprise,
    "hook": programs.run_hook,
}
"""The function that sends a message, for each kind of channel.

It returns a text about the result, and raises OSError or ValueError if the message cannot be sent.
"""
MAX_TEXT = 1_000
"""The maximum number of characters of the text about the result of sending a message.

The text may contain what servers and programs answered.
"""


def main() -> None:
    """Read the daemon's request (JSON) from standard input, send its message, and print the result as JSON.

    The result has ``ok``, whether the channel accepted the message, and a ``text`` about it.
    """
    _become_ordinary()
    request = json.loads(sys.stdin.buffer.read())
    channel, content = request["channel"], request["content"]
    signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, channel["timeout"])
    try:
        add_locations(content, [Path(path) for path in request["databases"]])
        text = CHANNELS[channel["kind"]](channel, content, request["host"])
        result = {"ok": True, "text": text}
    except TimeoutError:
        result = {"ok": False, "text": f"no answer within {channel['timeout']:.0f} s"}
    except (OSError, ValueError) as error:
        result = {"ok": False, "text": getattr(error, "strerror", None) or str(error)}
    except Exception as error:  # noqa: BLE001 - the daemon logs the reason, and tries again
        result = {"ok": False, "text": f"a defect in ringfence: {type(error).__name__}"}
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout.write(json.dumps({**result, "text": str(result["text"])[:MAX_TEXT]}))


def add_locations(content: Content, databases: list[Path]) -> None:
    """Add to each ban where its address is, as far as that is known (``values/location.py``)."""
    if not databases:
        return
    from ringfence.lists.regions import known_locations  # noqa: PLC0415 - loaded if there is a database

    bans = [event for event in content["events"] if event["event"] == "ban"]
    locations = known_locations(databases, [ip_network(event["subject"]).network_address for event in bans])
    for event, location in zip(bans, locations, strict=True):
        event.update(location)


def _become_ordinary() -> None:
    """Try to lower the priority of this process, and end its protection from the kernel's OOM killer.

    The daemon has a high priority and is protected from the OOM killer. The child process inherits both.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0", "ascii")
    with suppress(OSError):  # ringfence's systemd unit forbids this call
        os.setpriority(os.PRIO_PROCESS, 0, 10)


def _end(_: int, __: FrameType | None) -> None:
    raise TimeoutError("no answer in time")


if __name__ == "__main__":
    main()
