"""What an instance keeps between its runs: token, port, and the client's way in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import shlex
import shutil
import socket
from pathlib import Path
from typing import Optional

from .config import HOST, Settings
from .durable import write_whole
from .errors import UsageError
from .models import Identity


def prepare(settings: Settings) -> None:
    """Make the state folder, for its owner only. Raises UsageError if that is impossible, and for
    a folder that holds something else."""
    try:
        if not _may_be_ours(settings):
            raise UsageError(
                f"{str(settings.state)!r} holds other files than those of neuro-local, and its"
                " state folder is closed to all others",
                "Name an empty or a new one with --state-dir.",
            )
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.state.chmod(0o700)
    except OSError as error:
        raise UsageError(
            f"cannot use the state folder {str(settings.state)!r}: {error.strerror}",
            "Name another with --state-dir.",
        ) from None


def _may_be_ours(settings: Settings) -> bool:
    """Whether the state folder is empty, new, or that of an instance. Raises OSError."""
    ours = (settings.lock_file, settings.token_file, settings.log_file)
    folder = settings.state
    return not folder.exists() or not any(folder.iterdir()) or any(file.exists() for file in ours)


def token(settings: Settings) -> str:
    """Return the instance's token, made at first use and readable by its owner only."""
    file = settings.token_file
    if not file.exists():
        write_whole(file, _new_token(Identity().user))
    return file.read_text()


def instance_id(settings: Settings) -> str:
    """Return the instance's own random name, made at first use: what marks, in an engine that it
    shares with others, what belongs to it."""
    file = settings.state / "instance"
    if not file.exists():
        write_whole(file, secrets.token_hex(6))
    return file.read_text()


def listen(settings: Settings) -> socket.socket:
    """Return a socket bound to the instance's port.

    The clients store the address when they log in, so it stays the same as long as it can; when
    another program has taken the port, a new one is chosen and the clients' logins are dropped.
    """
    previous = stored_port(settings)
    listener = _bind(previous) if previous else None
    if listener is None:
        listener = _bind(0)
        assert listener is not None
        shutil.rmtree(settings.client_config, ignore_errors=True)
        write_whole(settings.port_file, str(listener.getsockname()[1]))
    return listener


def stored_port(settings: Settings) -> Optional[int]:
    """Return the port that the instance had last, None if none is known."""
    try:
        return int(settings.port_file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def api_url(settings: Settings) -> str:
    """Return the API's address, at the port that the instance had last; there must be one."""
    return f"http://{HOST}:{stored_port(settings)}/api/v1"


def shell_exports(settings: Settings) -> str:
    """Return the lines that make every `neuro` of a POSIX shell talk to this instance.

    The clients log in by themselves from NEURO_PASSED_CONFIG (their own format: base64 of JSON),
    into configuration folders of this instance.
    """
    identity = Identity()
    passed = {
        "token": token(settings),
        "cluster": identity.cluster,
        "url": api_url(settings),
        "org_name": identity.org,
        "project_name": identity.project,
    }
    variables = {
        "APOLO_CONFIG": str(_private_folder(settings.client_config / "apolo")),
        "NEUROMATION_CONFIG": str(_private_folder(settings.client_config / "neuromation")),
        "NEURO_PASSED_CONFIG": base64.b64encode(json.dumps(passed).encode()).decode(),
        "NEURO_CLI_DISABLE_PYPI_VERSION_CHECK": "true",
        "LOGIN_URL": api_url(settings),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # It would win over NEURO_PASSED_CONFIG.
    return "\n".join([*lines, "unset APOLO_PASSED_CONFIG"])


def _private_folder(path: Path) -> Path:
    # The clients refuse a configuration folder that others can read.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _bind(port: int) -> Optional[socket.socket]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        return None
    return listener


def _new_token(user: str) -> str:
    """Return a random token in the form of a JWT, since the clients read the user's name out of
    its claims. Nobody verifies the signature: the server compares the whole token."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"identity": user, "jti": secrets.token_hex(16)}]
    signed = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
    signature = hmac.new(secrets.token_bytes(32), signed, hashlib.sha256).digest()
    return (signed + b"." + _base64url(signature)).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
