"""How the shared layers are made: the plain base, and what the catalogue has on top of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Optional, Sequence, Tuple

from ..base import Mount
from .catalogue import FILES, Entry
from .python import VENV, Python

INSIDE = "/run/neuro-local/images"


@dataclass(frozen=True)
class Recipe:
    """A command that writes a layer in a sandbox on the layers below it."""

    layer: str
    what: str
    command: Sequence[str]
    below: Tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    programs: Mapping[str, Path] = field(default_factory=dict)
    advice: str = ""

    @property
    def layers(self) -> Tuple[str, ...]:
        """The layers of an image that is made so, lowest first."""
        return (*self.below, self.layer)

    def failure(self, output: str) -> str:
        """Return the sentence for a command that failed with this output."""
        return f"{self.what} could not be made: {_point(output)} {self.advice}".strip()


def plain(python: Python) -> Recipe:
    """A virtual environment that `python` and `pip` mean."""
    command = [str(python.executable), "-I", "-m", "venv", VENV]
    return Recipe(python.layer, "The plain base of all images", command)


def of(entry: Entry, base: str) -> Recipe:
    """Return how the layer of a catalogue's image is made with pip, on the layer `base`."""
    requirements = f"{INSIDE}/{entry.requirements}"
    return Recipe(
        entry.layer(base),
        f"The image {entry.repository} ({entry.holds}, from PyPI)",
        ["pip", "install", "--quiet", "--no-input", "--requirement", requirements],
        below=(base,),
        # In place of the user's own constraints, which may contradict our pins.
        env={"PIP_CONSTRAINT": os.devnull},
        mounts=[Mount(FILES, INSIDE, read_only=True)],
        programs={path: FILES / file for path, file in entry.programs.items()},
        advice="Run the job again when this machine reaches PyPI, or keep a job that has what you"
        " need with `neuro save` and run that image.",
    )


def _point(output: str) -> str:
    """Return the line that says what went wrong: pip's last error, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last: Optional[str] = next(reversed(errors or lines), None)
    return f"{last.rstrip('.')}." if last else "its command failed and said nothing."
