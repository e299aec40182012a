"""The Python that jobs run, and the environment that leads them to it."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

VENV = "/opt/venv"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LAYOUT = "1"  # raise it when environments that were made earlier no longer do

# How pip and those who verify certificates reach the world from this machine.
PASSED_ON = (
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_RETRIES",
    "PIP_TRUSTED_HOST",
)
# The same, as paths, which jobs see where they are.
PASSED_ON_PATHS = (
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "PIP_CONSTRAINT",
    "PIP_FIND_LINKS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)


@dataclass(frozen=True)
class Python:
    """A Python installation of this machine."""

    executable: Path
    prefix: Path

    @classmethod
    def running(cls) -> Python:
        """Return the one that runs us, looked at behind a virtual environment."""
        executable = getattr(sys, "_base_executable", None) or sys.executable
        return cls(Path(executable).resolve(), Path(sys.base_prefix).resolve())

    @property
    def layer(self) -> str:
        """Name of the layer with this Python's plain virtual environment."""
        described = f"{LAYOUT} {self.executable} {sys.version}"
        return "base-" + hashlib.sha256(described.encode()).hexdigest()[:8]

    def outside(self, roots: Sequence[Path]) -> List[Path]:
        """Return what of this installation lies outside `roots`."""
        if is_below(self.executable, [*roots, self.prefix]):
            paths = [self.prefix]
        else:
            paths = [self.prefix, self.executable]
        return [path for path in paths if not is_below(path, roots)]


def is_below(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path is one of the roots or inside one, by their names alone: links count as they
    are."""
    return any(root == path or root in path.parents for root in roots)


def passed_on_paths(environ: Mapping[str, str], roots: Sequence[Path]) -> List[Path]:
    """Return the paths in what is passed on that lie outside `roots`: jobs must be shown them."""
    named = {Path(environ[name]) for name in PASSED_ON_PATHS if environ.get(name)}
    there = (path for path in named if path.is_absolute() and path.exists())
    # pip is told /dev/null for none; jobs have devices of their own, and could not use a bound one.
    seen = [*roots, Path("/dev")]
    return [path for path in there if not is_below(path.resolve(), seen)]


def base_environment(environ: Mapping[str, str], pip_cache: str, proxy: str) -> Dict[str, str]:
    """Return what every process of a job finds in its environment, unless its job says else."""
    env = {
        "PATH": f"{VENV}/bin:{SYSTEM_PATH}",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PIP_CACHE_DIR": pip_cache,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        env[name] = env[name.upper()] = "localhost,127.0.0.1,::1" if name == "no_proxy" else proxy
    env.update((name, environ[name]) for name in PASSED_ON if name in environ)
    env.update((name, environ[name]) for name in PASSED_ON_PATHS if environ.get(name))
    return env
