"""A process that has imported ringfence, and forks a copy of itself for each program that a test starts.

It is the server's side of :mod:`tests.support.warm`: ``python -m tests.support.warm_server FD``. With ``all``
as another argument, it imports every module first. Each request on the socket ``FD`` is a JSON object with
the program's arguments and environment, and carries six descriptors: the three standard streams, the network
namespace, the folder, and a pipe. The pipe gets the process id, and the exit status at the end.
"""

import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
import threading
import time
from contextlib import redirect_stderr, suppress
from typing import Any

from tests.support import sip

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_REC, _MS_SLAVE, _MNT_DETACH = 1 << 14, 1 << 19, 2
_FDS = 6
_libc = ctypes.CDLL(None, use_errno=True)

Request = dict[str, Any]


def _load(*, everything: bool) -> None:
    """Import what the daemon, the commands and the SIP client import, or every module."""
    importlib.import_module("ringfence.guard.service")
    for package in ("guard", "firewall", "pages", "sources", "store"):
        _load_all(f"ringfence.{package}")
    for hidden in ("rich", "greenlet"):  # the daemon hides them from its own imports
        del sys.modules[hidden]
    importlib.import_module("rich.table")
    importlib.import_module("ringfence.cli.app")
    present = importlib.import_module("ringfence.street").present()
    _load_all("ringfence.cli")
    for feature in {"audit", "fail2ban", "setup"}.intersection(present):
        _load_all(f"ringfence.features.{feature}")
    if everything:
        _load_all("ringfence")
    # typer imports more when it converts the first argument.
    with redirect_stderr(io.StringIO()), suppress(SystemExit):
        sys.modules["ringfence.cli.app"].app(["status", "--config", f"{os.devnull}/none"])


def _load_all(package: str) -> None:
    """Import every module of a package."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def serve(control: socket.socket) -> None:
    """Fork a process for each request until the other side closes the socket."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    data, fds, _, _ = socket.recv_fds(control, 1 << 20, _FDS)
                    if not data:
                        return
                    _fork(selector, json.loads(data), fds)
                else:
                    selector.unregister(key.fileobj)
                    _report(int(key.fd), *key.data)


def _fork(selector: selectors.BaseSelector, request: Request, fds: list[int]) -> None:
    if request["arguments"][:2] == ["ringfence", "web"]:  # few processes of tests need the live page
        with suppress(ModuleNotFoundError):  # in a copy without it
            importlib.import_module("ringfence.features.web.server")
    pid = os.fork()
    if pid == 0:
        _become(request, fds)
    status = fds.pop()
    for fd in fds:
        os.close(fd)
    os.write(status, f"{pid}\n".encode())
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))


def _report(pidfd: int, pid: int, status: int) -> None:
    os.close(pidfd)
    _, ended = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os.close(status)


def _become(request: Request, fds: list[int]) -> None:
    """Run the program in this forked process, and end it."""
    code = 1
    try:
        _enter(request, fds)
        code = _run(request["arguments"])
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        sys.excepthook(*sys.exc_info())
    finally:
        # The interpreter's last steps, without freeing the memory.
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        with suppress(OSError):
            sys.stderr.flush()
            sys.stdout.flush()
        os._exit(code)


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def _enter(request: Request, fds: list[int]) -> None:
    stdin, stdout, stderr, namespace, folder, _ = fds
    os.fchdir(folder)
    _check(_libc.setns(namespace, _CLONE_NEWNET), "setns")
    if request["namespace"]:
        _enter_named(request["namespace"])
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number)
    os.closerange(3, 256)
    os.umask(request["umask"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    if request["stopped"]:
        os.kill(os.getpid(), signal.SIGSTOP)


def _enter_named(name: str) -> None:
    """Do what ``ip netns exec`` does: enter the namespace, and show its devices in /sys."""
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    _check(_libc.setns(fd, _CLONE_NEWNET), "setns")
    os.close(fd)
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"", b"/", b"none", _MS_SLAVE | _MS_REC, None), "mount /")
    _libc.umount2(b"/sys", _MNT_DETACH)
    _check(_libc.mount(name.encode(), b"/sys", b"sysfs", 0, None), "mount /sys")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _run(arguments: list[str]) -> int:
    """Run ``python -m MODULE ARGUMENT…``; the daemon as its command would replace itself with it."""
    module, *rest = arguments
    sys.argv = [module, *rest]
    if module == "tests.support.sip":
        sip.main()
        return 0
    from ringfence.cli.entry import plain_run  # noqa: PLC0415 - the parent has imported it

    config = plain_run(rest, os.environ)
    if config is not None:
        from ringfence.guard.service import main  # noqa: PLC0415 - as above

        sys.modules["rich"] = sys.modules["greenlet"] = None  # type: ignore[assignment]
        return main(config, "20")
    from ringfence.cli.app import main as commands  # noqa: PLC0415 - as above

    commands()
    return 0


if __name__ == "__main__":
    gc.disable()  # nothing that importing makes is garbage
    _load(everything=sys.argv[2:] == ["all"])
    gc.collect()
    gc.freeze()
    gc.enable()
    serve(socket.socket(fileno=int(sys.argv[1])))
