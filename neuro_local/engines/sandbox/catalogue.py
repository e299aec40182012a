"""Well-known images that have no registry to come from: built here on first use, from PyPI.

Each is one layer on the plain base: pinned packages, and programs at the paths that the real image
has them at. Their files are in `images/`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Optional, Tuple

FILES = Path(__file__).with_name("images")


@dataclass(frozen=True)
class Entry:
    """An image of the catalogue, whatever its tag. `programs` says which file of ours is where."""

    repository: str
    holds: str
    requirements: str
    programs: Mapping[str, str] = field(default_factory=dict)
    entrypoint: Tuple[str, ...] = ()

    def layer(self, base: str) -> str:
        """Name of its layer on a base; another one whenever what it is made of changes."""
        files = [self.requirements, *self.programs.values()]
        made_of = [base, *map(str, self.programs), *((FILES / file).read_text() for file in files)]
        digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()
        return f"{Path(self.requirements).stem}-{digest[:8]}"


CATALOGUE = (
    Entry("tensorflow/tensorflow", "TensorBoard alone", "tensorboard.txt"),
    Entry(
        "filebrowser/filebrowser",
        "a stand-in, copyparty",
        "filebrowser.txt",
        programs={path: "filebrowser.py" for path in ("/filebrowser", "/opt/venv/bin/filebrowser")},
        entrypoint=("/filebrowser",),
    ),
)


def find(reference: str) -> Optional[Entry]:
    """Return the entry that a docker reference means, if there is one."""
    repository = reference.removeprefix("docker.io/").partition("@")[0]
    folder, slash, name = repository.rpartition("/")
    repository = folder + slash + name.partition(":")[0]
    return next((entry for entry in CATALOGUE if entry.repository == repository), None)
