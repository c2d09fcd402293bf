"""A self-signed certificate for the servers of tests."""

import subprocess
from pathlib import Path


def certificate_in(folder: Path) -> Path:
    """Write a key and its self-signed certificate for 127.0.0.1 into one file, and return it."""
    file, key = folder / "ami.pem", folder / "key.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=pbx "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {file}".split(),
        check=True,
        capture_output=True,
    )
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file
