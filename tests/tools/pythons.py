"""The Pythons of this machine that hooks and local targets may run on."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from typing import Dict, List

OLDEST = (3, 9)
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


def pythons() -> Dict[str, str]:
    """Version to program, from the hooks' oldest on; the running one is among them."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    named = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 40)]
    candidates: List[str] = [
        sys.executable,
        *filter(None, named),
        *sorted(glob.glob(f"{root}/versions/3.*/bin/python3")),
    ]
    found: Dict[str, str] = {}
    for program in candidates:
        version = _version(program)
        if version and tuple(map(int, version.split("."))) >= OLDEST:
            found.setdefault(version, program)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def _version(program: str) -> str:
    """'' where there is none, as behind a stub that only says which versions there are."""
    command = [program, "-ISc", "import sys; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
