"""Files that contain a secret."""

from pathlib import Path

from ringfence.config.converters import text_from
from ringfence.model import Secret

MAX_SECRET_BYTES = 1024


def is_there(path: Path) -> bool:
    """Whether the file exists. Return False if this user is not allowed to know it."""
    try:
        return path.exists()
    except OSError:  # systemd's folder of credentials is for another user only
        return False


def read_secret(path: Path, key: str) -> Secret:
    """Read a secret. If that fails, raise ValueError with a text that begins with ``key``."""
    line_end = len("\r\n")
    try:
        with path.open("rb") as file:
            whole = file.read(MAX_SECRET_BYTES + line_end + 1)
        clear = whole.strip(b"\r\n").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{key}: {path} cannot be read: {reason}") from None
    if len(whole) > MAX_SECRET_BYTES + line_end or len(clear.encode()) > MAX_SECRET_BYTES:
        raise ValueError(f"{key}: {path} holds more than {MAX_SECRET_BYTES} bytes")
    try:
        return Secret(text_from(clear))
    except ValueError as error:
        raise ValueError(f"{key}: {path}: {error}") from None
