"""The first program of the child process: it drops the daemon's ambient capabilities, and becomes the sender.

Ambient capabilities pass to every program that a process executes. They are cleared by prctl(2), and are gone
at the next execve(2). The program setpriv of util-linux cannot be used for this, because it also calls
capset(2), and the filter of system calls of ringfence's systemd unit forbids that call.
"""

import ctypes
import os
import sys

_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def main() -> None:
    """Drop the ambient capabilities, and execute the program that sends a message instead of this one."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0):
        sys.exit(f"the capabilities cannot be dropped: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.executable, [sys.executable, "-P", "-m", "ringfence.features.notify.sender"])  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
