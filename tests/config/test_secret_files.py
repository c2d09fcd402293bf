"""Files with a secret: what they may contain is tested with the configuration; here the bare functions."""

from pathlib import Path

import pytest

from ringfence.config.converters import is_visible, read_secret
from ringfence.values.secret import Secret


def test_a_secret_is_read_without_its_line_end(tmp_path: Path) -> None:
    """The file's content is the secret, except line ends."""
    file = tmp_path / "secret"
    assert not is_visible(file)
    file.write_bytes(b"correct horse\n")

    assert is_visible(file)
    assert read_secret(file, "key") == Secret("correct horse")


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    """The error begins with the key and names the file."""
    with pytest.raises(ValueError, match=rf"^key: {tmp_path}/none cannot be read: No such file"):
        read_secret(tmp_path / "none", "key")
