"""Other users of this host, played by forked children: the kernel reports their ids to the daemon."""

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from tests.support.daemon import Guard

T = TypeVar("T")

PAGE, ALICE, READER = 64_001, 64_002, 64_003
"""The user ids of the live page, of an administrator, and of somebody in the daemon's group."""
VALID: dict[str, dict[str, Any]] = {
    "account": {"account": "204"},
    "account_confirm": {"account": "204"},
    "alarms_dismiss": {"numbers": [999_999]},
    "allow_add": {"what": ["198.18.9.9"]},
    "allow_remove": {"what": ["198.18.9.9"]},
    "ban": {"networks": ["198.18.9.9"], "seconds": 60},
    "bans": {"most": 5},
    "deny_add": {"what": ["198.18.9.9"]},
    "deny_remove": {"what": ["198.18.9.9"]},
    "fence_admit": {"what": "198.18.9.9", "seconds": 60},
    "fence_enforce": {"force": True},
    "fence_link": {"seconds": 60, "valid": 60},
    "fence_link_lasting": {"account": "204", "seconds": 60},
    "fence_unlink": {"account": "204"},
    "friends": {"networks": ["198.18.9.9"]},
    "friends_forget": {"address": "198.18.9.9"},
    "friends_import": {"friends": [], "transfer": "x", "more": False},
    "lists": {"side": "allow"},
    "locations": {"networks": ["198.18.9.9"]},
    "tops": {"kind": "accounts"},
    "unban": {"networks": ["198.18.9.9"]},
    "why": {"network": "198.18.9.9"},
    "why_account": {"account": "204"},
}
"""The fields of a valid request, by its name; the others need none."""
_PASSWD = f"""\
ringfence-web:x:{PAGE}:{PAGE}::/:/usr/sbin/nologin
alice:x:{ALICE}:{ALICE}::/:/usr/sbin/nologin
"""
_WITH_USERS = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'


@contextmanager
def guard_with_users(**settings: object) -> Iterator[Guard]:
    """Run a daemon on a host that has the users above; all of them can reach its socket by their group."""
    with TemporaryDirectory(prefix="users-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        users = folder / "passwd"
        users.write_text(Path("/etc/passwd").read_text("utf-8") + _PASSWD, "utf-8")
        prefix = ["unshare", "--mount", "sh", "-c", _WITH_USERS, "sh", str(users)]
        guard = Guard(folder, prefix=prefix)
        guard.configure(control={"socket": str(folder / "control.sock"), "admins": ["alice"]}, **settings)
        with guard:
            yield guard


def as_user(user: int, action: Callable[[], T]) -> T:
    """Run ``action`` in a child with this user id and the daemon's group; return its result."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.setgroups([])
            os.setgid(0)  # in the tests, the daemon and its socket have the group 0
            os.setuid(user)
            result: object = action()
        except BaseException as error:  # noqa: BLE001 - passed on to the parent
            result = error
        with suppress(OSError), os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pickle.load(pipe)  # noqa: S301 - our own child wrote it
    os.waitpid(child, 0)
    if isinstance(answer, BaseException):
        raise answer
    return answer  # type: ignore[no-any-return]
