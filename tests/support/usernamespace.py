"""Python code run as the root of a user namespace, as in an unprivileged container (LXC, rootless Podman).

That root has every capability in its own network namespace, and none in the initial user namespace: the
kernel grants it no socket buffer beyond ``net.core.wmem_max`` and ``rmem_max``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ringfence

_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount")


def why_no_user_namespace() -> str:
    """Return why no user namespace can be made here; empty if it can."""
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    return f"no user namespace can be made here: {tried.stderr.strip()}" if tried.returncode else ""


def in_user_namespace(code: str, *, timeout: float = 120.0) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Run ``code`` in new user, network and mount namespaces; return the JSON that it printed."""
    source = Path(str(ringfence.__file__)).parent.parent
    script = f'ip link set lo up\nexec "{sys.executable}" -c "$1"'
    done = subprocess.run(
        [*_UNSHARE, "sh", "-euc", script, "sh", code],
        env=os.environ | {"PYTHONPATH": f"{source}:{source.parent}"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
