"""A repository of Deepo's layout, with a generator that takes the same command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

# It writes down how it was called, too.
GENERATE = """
import argparse, json, os, sys

MODULES = ("python", "tensorflow", "pytorch", "jupyter", "jupyterlab")

parser = argparse.ArgumentParser()
parser.add_argument("path")
parser.add_argument("modules", nargs="*")
parser.add_argument("--cuda-ver")
parser.add_argument("--cudnn-ver")
parser.add_argument("--ubuntu-ver", default={ubuntu!r})
given = parser.parse_args()
for module in given.modules:
    name = module.partition("==")[0]
    if name not in MODULES:
        raise ImportError("No module named 'modules.%s'" % name)
with open(given.path, "w") as file:
    file.write("# in %s\\n" % os.path.basename(os.getcwd()))
    file.write("# %s\\n" % json.dumps(sys.argv))
    file.write({dockerfile!r})
"""


class Deepo:
    """The repository; `old` is the last revision for Ubuntu 18.04, `new` for 20.04. Like the real
    ones, both take any version of Python: what is wrong with it shows when the image is built."""

    def __init__(self, path: Path, dockerfile: str) -> None:
        self.path = path
        (path / "generator").mkdir(parents=True)
        self._git("init", "--quiet")
        self.old = self.commit(GENERATE.format(ubuntu="18.04", dockerfile=dockerfile))
        self.new = self.commit(GENERATE.format(ubuntu="20.04", dockerfile=dockerfile))

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
