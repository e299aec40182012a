"""A repository of Deepo's layout, with a generator that takes the same command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

# It writes down how it was called, too.
GENERATE = """
import argparse, json, os, sys

MODULES = ("python", "tensorflow", "pytorch", "jupyter", "jupyterlab")
PYTHON = {versions!r}

parser = argparse.ArgumentParser()
parser.add_argument("path")
parser.add_argument("modules", nargs="*")
parser.add_argument("--cuda-ver")
parser.add_argument("--cudnn-ver")
parser.add_argument("--ubuntu-ver", default="20.04")
given = parser.parse_args()
for module in given.modules:
    name, _, version = module.partition("==")
    if name not in MODULES or name == "python" and version not in PYTHON:
        raise NotImplementedError("unsupported: " + module)
with open(given.path, "w") as file:
    file.write("# in %s\\n" % os.path.basename(os.getcwd()))
    file.write("# %s\\n" % json.dumps(sys.argv))
    file.write({dockerfile!r})
"""


class Deepo:
    """The repository; revision `old` knows Python 3.6 alone, `new` refuses it."""

    def __init__(self, path: Path, dockerfile: str) -> None:
        self.path = path
        (path / "generator").mkdir(parents=True)
        self._git("init", "--quiet")
        self.old = self.commit(GENERATE.format(versions=["3.6"], dockerfile=dockerfile))
        self.new = self.commit(GENERATE.format(versions=["3.8", "3.10"], dockerfile=dockerfile))

    def commit(self, generator: str) -> str:
        (self.path / "generator" / "generate.py").write_text(generator)
        self._git("add", ".")
        self._git("commit", "--quiet", "--message", "A generator")
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *words: str) -> str:
        me = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        command = ["git", *me, *words]
        return subprocess.run(
            command, cwd=self.path, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
