"""A rendered project, and its Makefile as a user calls it."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from baking import leave_stamp

from .commands import Command, Result, Terminal, run
from .platform import Job, Platform


@dataclass(frozen=True)
class Project:
    """`variables` are given to every make, as on its command line."""

    path: Path
    platform: Platform
    variables: Dict[str, str] = field(default_factory=dict)
    environment: Optional[Mapping[str, str]] = None

    @property
    def slug(self) -> str:
        return self.path.name

    @property
    def env(self) -> Mapping[str, str]:
        return self.platform.env if self.environment is None else self.environment

    def make(
        self, *targets: str, code: Optional[int] = 0, timeout: float = 90.0, **variables: str
    ) -> Result:
        words = self._words(*targets, **variables)
        return run(words, cwd=self.path, env=self.env, code=code, timeout=timeout)

    def fails(self, *targets: str, says: str, **variables: str) -> Result:
        """Make, and expect its failure with a sentence that tells the user what to do."""
        return self.make(*targets, code=2, timeout=90.0, **variables).explains(says)

    def start(self, *targets: str, **variables: str) -> Command:
        return Command(self._words(*targets, **variables), cwd=self.path, env=self.env)

    def at_terminal(self, *targets: str, **variables: str) -> Terminal:
        return Terminal(self._words(*targets, **variables), cwd=self.path, env=self.env)

    def write(self, name: str, content: "str | bytes") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def storage(self, name: str = "") -> Path:
        """Where a file of the project's folder on storage lies on disk."""
        return self.platform.storage(self.slug) / name

    def store(self, name: str, content: "str | bytes") -> Path:
        """Put a file on storage, past the platform."""
        path = self.storage(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    @property
    def tag(self) -> str:
        """What all jobs of the project are found by."""
        return f"project:{self.slug}"

    def named(self, kind: str, run: str = "") -> Dict[str, Any]:
        """What makes a job this one of the project."""
        name = f"{kind}-{self.slug}" + (f"-{run}" if run else "")
        return {"name": name, "tags": [self.tag]}

    def start_job(self, kind: str, command: str = "sleep 600", run: str = "") -> Job:
        """Start a job of the project, past its Makefile."""
        return self.platform.start_job(command, **self.named(kind, run))

    def active_jobs(self) -> List[Job]:
        return [job for job in self.platform.jobs(tag=self.tag) if job.is_active]

    def end_jobs(self) -> None:
        self.platform.end_jobs(tag=self.tag)

    def job(self, kind: str, run: str = "") -> Job:
        return self.platform.job(self.named(kind, run)["name"])

    def wait_for(self, kind: str, status: str = "running") -> Job:
        return self.platform.wait_for(f"{kind}-{self.slug}", status)

    @property
    def stamp(self) -> Path:
        return self.path / ".setup_done"

    def mark_set_up(self) -> None:
        """Leave the stamp of `make setup` as if it had just built the image."""
        leave_stamp(self.path, {**self.env, **self.variables})

    def _words(self, *targets: str, **variables: str) -> list[str]:
        given = {**self.variables, **variables}
        return ["make", *targets, *(f"{name}={value}" for name, value in given.items())]


def printed_address(said: Result) -> str:
    """The address that a target printed instead of opening it."""
    marker = "Open in a browser: "
    return next(line[len(marker) :] for line in said.stdout.splitlines() if line.startswith(marker))


def make_wheel(folder: Path, name: str = "tiny", version: str = "1.0") -> Path:
    """Write a wheel of one empty module, so that pip has something to install without network."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path
