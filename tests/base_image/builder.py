"""A copy of base_image/ and its Makefile as a user calls it; docker and neuro are recorders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from baking import TEMPLATE, Reply, plant_recorder

SOURCE = TEMPLATE / "base_image"
IGNORED = shutil.ignore_patterns("build")


def pins(variant: str) -> Dict[str, str]:
    """Return the version of each package that our Dockerfile installs."""
    lines = (SOURCE / f"constraints-{variant}.txt").read_text().splitlines()
    wanted = [line.split("==") for line in lines if not line.startswith("#")]
    return {name: version for name, version in wanted}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line that make itself did not write."""
        lines = (line for line in self.err.splitlines() if "*** " not in line)
        return [line for line in lines if line.strip()][-1]


@dataclass
class Builder:
    """`bin` is the folder of each recorder, in folders of the programs' names."""

    path: Path
    bin: Path
    shell: str = "sh"
    maker: str = "make"
    environment: Dict[str, str] = field(default_factory=dict)

    def plant(self, *programs: str) -> None:
        for program in programs:
            plant_recorder(self.bin / program, program)

    def reply(self, program: str, *replies: Reply) -> None:
        table: List[Mapping[str, Any]] = [
            {**vars(reply), "words": reply.words.split()} for reply in replies
        ]
        (self.bin / program / "replies").write_text(json.dumps(table))

    def command(self, *words: str) -> Tuple[List[str], Dict[str, str]]:
        folders = [*sorted(map(str, self.bin.iterdir())), os.environ["PATH"]]
        environ = {"PATH": os.pathsep.join(folders), "HOME": str(self.bin), "LC_ALL": "C.UTF-8"}
        command = [str(shutil.which(self.maker)), f"SHELL={shutil.which(self.shell)}", *words]
        return command, {**environ, **self.environment}

    def make(self, *words: str) -> Result:
        command, environ = self.command(*words)
        done = subprocess.run(
            command, cwd=self.path, env=environ, capture_output=True, text=True, timeout=60
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def fails(self, *words: str, says: str) -> Result:
        """Make, and expect its failure with a sentence that tells the user what to do."""
        result = self.make(*words)
        assert result.code == 2, result
        assert says in result.sentence, result
        return result

    def calls(self, program: str) -> List[List[str]]:
        lines = (self.bin / program / "calls").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def dockerfile(self) -> Path:
        return self.path / "build" / "deepo" / "generator" / "Dockerfile"

    @property
    def left_behind(self) -> Sequence[str]:
        build = self.path / "build"
        return sorted(path.name for path in build.iterdir()) if build.exists() else []
