"""What must hold of hostile values on their way through a real client to a real neuro-local."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Mapping

from e2e.project import Project
from hypothesis import strategies as st

from .texts import CANARY, TRAPS, one_line, texts
from .variables import splits

# Writes down the words it was given, in the job.
DUMP = 'python -c \'import json, sys; json.dump(sys.argv[1:], open("../results/argv", "w"))\''

ARGUMENTS = texts("'a b'", '"a b"', "--").map(one_line)


def file_name(text: str) -> str:
    """The text as a name that a folder can hold."""
    name = text.replace("/", "_").encode(errors="surrogateescape")[:255]
    return name.decode(errors="ignore") or "empty"


NAMES = texts("data.csv", "a").map(file_name).filter(lambda name: name not in (".", "..", CANARY))
TREES = st.dictionaries(NAMES, st.binary(max_size=20), min_size=1, max_size=6)


@dataclass(frozen=True)
class Platform:
    """A project of a real platform, and how its hostile calls ended."""

    project: Project
    ended: Counter[str] = field(default_factory=Counter)

    def argument_holds(self, value: str) -> None:
        """Refused before anything happened, or the job got the words that a shell would make."""
        argv = self.project.storage("results/argv")
        argv.unlink(missing_ok=True)

        done = self.project.make(
            "run_training", code=None, TRAIN_CMD=DUMP, TRAIN_ARGS=value, RUN_EXTRA=""
        )

        self._nothing_ran()
        if splits(f"{DUMP} {value}"):
            done.expect(0)
            self.ended["used"] += 1
            # Make drops the white space that a value on its command line begins with.
            assert json.loads(argv.read_text()) == shlex.split(f"{DUMP} {value}")[3:]
        else:
            done.explains("must be words in which each quote is closed")
            self.ended["refused"] += 1
            assert not argv.exists()

    def tree_holds(self, tree: Mapping[str, bytes]) -> None:
        """These files go to storage and come home as they are, or a sentence says they did not."""
        data, results = self.project.path / "data", self.project.path / "results"
        there = self.project.storage("results")
        for folder in (data, results, there):
            shutil.rmtree(folder, ignore_errors=True)
        for number, (name, content) in enumerate(tree.items()):
            path = data / name if number % 2 else data / "deep er" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

        up = self.project.make(
            "upload_data", code=None, FULL="1", DATA_STORAGE=f"storage:{self.project.slug}/results"
        )
        if up.code:
            self.ended["refused"] += 1
            up.explains("upload_data: the upload is not complete")
            return
        assert content_of(there) == content_of(data)
        self.project.make("download_results", FULL="1")
        assert content_of(results) == content_of(data)
        self.ended["used"] += 1
        self._nothing_ran()

    def _nothing_ran(self) -> None:
        home = Path(self.project.env["HOME"])
        for root in (self.project.path, self.project.platform.state / "storage", home):
            assert not list(root.rglob(CANARY))


def content_of(folder: Path) -> Dict[str, bytes]:
    return {
        os.path.relpath(os.path.join(path, name), folder): Path(path, name).read_bytes()
        for path, _, names in os.walk(folder)
        for name in names
    }


# As many traps in one tree as there are: names cost little, calls of a client half a second.
TRAP_TREE = {f"{file_name(trap)}{number}": b"x" for number, trap in enumerate(TRAPS)}
# All traps as one word each.
TRAP_ARGUMENTS = " ".join(shlex.quote(one_line(trap)) for trap in TRAPS)
