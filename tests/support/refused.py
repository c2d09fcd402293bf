"""A command whose socket(2) fails for NETLINK_SOCK_DIAG, as on a kernel that lacks it (by seccomp)."""

import sys

_FILTER = """
import ctypes, os, struct, sys
CALL = {"x86_64": 41, "aarch64": 198}[os.uname().machine]  # socket(2)
LOAD, SAME, RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
ALLOW, EPROTONOSUPPORT = 0x7FFF0000, 0x00050000 | 93
code = [
    (LOAD, 0, 0, 0), (SAME, 0, 5, CALL),
    (LOAD, 0, 0, 16), (SAME, 0, 3, 16),  # the family: AF_NETLINK
    (LOAD, 0, 0, 32), (SAME, 0, 1, 4),  # the protocol: NETLINK_SOCK_DIAG
    (RETURN, 0, 0, EPROTONOSUPPORT), (RETURN, 0, 0, ALLOW),
]
packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(packed))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
os.execvp(sys.argv[1], sys.argv[1:])
"""
WITHOUT_SOCK_DIAG = [sys.executable, "-c", _FILTER]
"""The prefix of a command line."""
