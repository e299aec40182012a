"""A folder that stands for a user's machine, in which whatever a text does is seen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Tuple

from baking import TEMPLATE

from .texts import CANARY


@dataclass(frozen=True)
class World:
    """Files that nobody may touch stand in the root, the home and the folder that is worked in."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def work(self) -> Path:
        """Deep enough for a few `../`."""
        return self.root / "a" / "b" / "my work"

    def plant(self) -> World:
        for folder in (self.root, self.home, self.work):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "precious").write_text("keep me\n")
        return self

    def files(self, *but: Path) -> Dict[str, Tuple[int, bytes]]:
        """Every file's mode and content, except below the folders named."""
        return {
            path: (os.stat(path, follow_symlinks=False).st_mode, _content(path))
            for path in _walk(self.root, but)
        }

    def canaries(self) -> List[str]:
        """Where a text was executed; cookiecutter works in the template's own folder meanwhile."""
        places = [TEMPLATE, *TEMPLATE.glob("{{*")]
        escaped = [str(place / CANARY) for place in places if (place / CANARY).exists()]
        return escaped + [path for path in _walk(self.root, ()) if os.path.basename(path) == CANARY]


def _walk(root: Path, but: Tuple[Path, ...]) -> List[str]:
    skipped = {str(path) for path in but}
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in skipped]
        found += [os.path.join(folder, name) for name in names]
    return [path for path in found if path not in skipped]


def _content(path: str) -> bytes:
    if os.path.islink(path):
        return os.fsencode(os.readlink(path))
    with open(path, "rb") as file:
        return file.read()
