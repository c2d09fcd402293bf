"""The service that runs programs of channels, started for each connection as systemd does it."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Here the program may run as the user of the test. tests/e2e/test_notify_service.py has the real users.
_RUNNER = "import ringfence.features.notify.runner as r; r.refuse_wrong_user = lambda _: None; r.main()"


@contextmanager
def program_service(folder: Path) -> Iterator[str]:
    """Yield the path of a socket, and run the program of each client that connects to it."""
    path, stop = folder / "notify.socket", threading.Event()
    processes: list[subprocess.Popen[bytes]] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.05)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.setblocking(True)  # noqa: FBT003 - a positional parameter
                    command = [sys.executable, "-c", _RUNNER]
                    end = connection.fileno()
                    processes.append(subprocess.Popen(command, stdin=end, stdout=end))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path)
        finally:
            stop.set()
            thread.join()
            path.unlink()
            for process in processes:
                process.kill()
                process.wait()
