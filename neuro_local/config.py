"""Settings of an instance: where its files are, and what it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

from .errors import UsageError
from .models import Preset

HOST = "127.0.0.1"

SANDBOX, DOCKER, AUTO = "sandbox", "docker", "auto"
ENGINES = (SANDBOX, DOCKER, AUTO)

# The first is the default of `neuro run`.
PRESETS = (
    Preset("cpu-small", cpu=1, memory_mb=2048),
    Preset("cpu-large", cpu=2, memory_mb=8192),
)


@dataclass(frozen=True)
class Settings:
    """Settings of one instance. `minute` is the length of a life span's minute in seconds, which
    only tests change; `engine` is one of ENGINES."""

    state: Path
    cache: Path
    minute: float = 60.0
    engine: str = SANDBOX

    @property
    def token_file(self) -> Path:
        return self.state / "token"

    @property
    def port_file(self) -> Path:
        """The port of the last run, which clients remember: it is taken again if it is free."""
        return self.state / "port"

    @property
    def lock_file(self) -> Path:
        """Locked by the server for as long as it lives; holds its process id and its engine's
        name."""
        return self.state / "lock"

    @property
    def traces_file(self) -> Path:
        """The Docker engines that may hold containers of this instance
        (engines/docker/leftovers.py)."""
        return self.state / "containers"

    @property
    def log_file(self) -> Path:
        """The server's own log; jobs have theirs elsewhere."""
        return self.state / "server.log"

    @property
    def client_config(self) -> Path:
        """Holds a configuration folder for each client; deleted when another port is chosen."""
        return self.state / "client"

    @property
    def storage(self) -> Path:
        return self.state / "storage"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets"


def load(
    state_dir: Optional[str], environ: Mapping[str, str], engine: Optional[str] = None
) -> Settings:
    """Return the settings: the flag, then the variable (NEURO_LOCAL_STATE_DIR,
    NEURO_LOCAL_ENGINE), then the XDG folders and the sandbox.

    Raises UsageError for a value that cannot work.
    """
    state = state_dir or environ.get("NEURO_LOCAL_STATE_DIR")
    return Settings(
        state=_folder(state) if state else _xdg(environ, "XDG_DATA_HOME", ".local/share"),
        cache=_xdg(environ, "XDG_CACHE_HOME", ".cache"),
        minute=_seconds(environ, "NEURO_LOCAL_MINUTE", 60.0),
        engine=_engine(asked_engine(engine, environ) or SANDBOX),
    )


def asked_engine(engine: Optional[str], environ: Mapping[str, str]) -> Optional[str]:
    """Return which engine the user asks for, by the flag or the variable; None for any."""
    return engine or environ.get("NEURO_LOCAL_ENGINE") or None


def _xdg(environ: Mapping[str, str], variable: str, default: str) -> Path:
    # The specification has relative values ignored.
    value = environ.get(variable, "")
    base = Path(value) if value.startswith("/") else Path.home() / default
    return base / "neuro-local"


def _folder(value: str) -> Path:
    path = Path(value).expanduser()
    if path.exists() and not path.is_dir():
        raise UsageError(f"state folder {value!r} is not a folder; name another with --state-dir")
    return path.resolve()


def _engine(value: str) -> str:
    if value not in ENGINES:
        raise UsageError(f"there is no engine {value!r}; there are {', '.join(ENGINES)}")
    return value


def _seconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    try:
        seconds = float(environ.get(variable) or default)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise UsageError(f"{variable}={environ[variable]!r} is not a number of seconds above 0")
    return seconds
