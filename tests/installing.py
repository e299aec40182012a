"""requirements/install.sh, with a recording apt-get and python in place of the real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import List

from baking import plant_recorder

UPDATE = ["apt-get", "update"]
INSTALL = ["apt-get", "install", "--yes", "--no-install-recommends"]
PIP = ["python", "-m", "pip", "install", "--quiet", "--requirement", "pip.txt"]


@dataclass
class Script:
    """`run` writes both lists and runs the script as this user; `calls` tells what that called."""

    requirements: Path
    bin: Path
    shell: str
    user: int = 0

    def run(
        self, apt: bytes, pip: bytes, failing: str = "", task: str = ""
    ) -> subprocess.CompletedProcess[str]:
        (self.requirements / "apt.txt").write_bytes(apt)
        (self.requirements / "pip.txt").write_bytes(pip)
        for name in ("apt-get", "python"):
            plant_recorder(self.bin / name, name)
            reply = {"words": [failing], "code": 9, "out": "", "err": "", "sh": ""}
            (self.bin / name / "replies").write_text(json.dumps([reply] if failing else []))
        (self.bin / "id").write_text(f"#!/bin/sh\necho {self.user}\n")
        (self.bin / "id").chmod(0o755)
        folders = [self.bin, self.bin / "apt-get", self.bin / "python", os.environ["PATH"]]
        return subprocess.run(
            [str(shutil.which(self.shell)), str(self.requirements / "install.sh"), *task.split()],
            env={"PATH": os.pathsep.join(map(str, folders))},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            timeout=60,
        )

    def calls(self) -> List[List[str]]:
        return [
            [name, *json.loads(line)]
            for name in ("apt-get", "python")
            for line in (self.bin / name / "calls").read_text().splitlines()
        ]
