"""A baked project, and a `neuro` that records how it is called."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

TEMPLATE = Path(__file__).resolve().parent.parent

RECORDER = """#!{python} -IS
import json, os, sys

folder = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
with open(folder + "/calls", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
with open(folder + "/replies") as replies:
    for reply in json.load(replies):
        if all(word in words for word in reply["words"]):
            sys.stdout.write(reply["out"])
            sys.stderr.write(reply["err"])
            if reply["sh"]:
                os.system(reply["sh"])
            sys.exit(reply["code"])
"""

CONFIG = """User Configuration:
 User Name            alice
 Current Cluster      local
Resource Presets:

 Name        #CPU   Memory
----------------------------
 cpu-small      1   1.0 GB
 gpu-small      7   4.0 GB
"""


@dataclass(frozen=True)
class Reply:
    """What the recorder answers to a call that holds all of `words`."""

    words: str
    code: int = 0
    out: str = ""
    err: str = ""
    sh: str = ""


USUAL_REPLIES = (
    Reply("--version", out="Apolo Platform Client 26.9.0\n"),
    Reply("config show", out=CONFIG),
    Reply("ps --all", out="job-trained\n"),
    Reply("status", out=" Status      succeeded\n Exit code   0\n"),
)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str
    calls: List[List[str]]

    @property
    def commands(self) -> List[str]:
        """The subcommand of each call."""
        return [next(word for word in call if word != "--quiet") for call in self.calls]


def option(call: Sequence[str], name: str) -> str:
    """The last value of an option, which is the one that counts."""
    return call[len(call) - 1 - list(reversed(call)).index(name) + 1]


def options(call: Sequence[str], name: str) -> List[str]:
    return [value for word, value in zip(call, call[1:]) if word == name]


def leave_stamp(project: Path, given: Mapping[str, str]) -> None:
    """Leave the stamp of `make setup`, as if it had just built the image with these variables."""
    text = (project / "Makefile").read_text(encoding="utf-8")
    default = dict(re.findall(r"^(PROJECT|BASE_IMAGE) \??= (.*)$", text, re.MULTILINE))
    base = given.get("BASE_IMAGE", default["BASE_IMAGE"])
    image = given.get("IMAGE", f"image:{default['PROJECT']}")
    (project / ".setup_done").write_text(f"{base} {image} {given.get('APOLO_CONFIG', '')}\n")


@dataclass(frozen=True)
class Project:
    path: Path
    bin: Path
    shell: str = "sh"
    maker: str = "make"
    env: Dict[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def files(self) -> Dict[str, bytes]:
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and ".git" not in path.relative_to(self.path).parts
        }

    @property
    def stamp(self) -> Path:
        return self.path / ".setup_done"

    def mark_set_up(self) -> None:
        leave_stamp(self.path, self.env)

    def command(self, *arguments: str) -> Tuple[List[str], Dict[str, str]]:
        environment = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.bin),
            "LC_ALL": "C.UTF-8",
            **self.env,
        }
        return [self.maker, f"SHELL={shutil.which(self.shell)}", *arguments], environment

    def reply(self, *replies: Reply) -> None:
        """Set what the recorder answers, before its usual answers, and forget earlier calls."""
        table: List[Mapping[str, Any]] = [
            {**vars(reply), "words": reply.words.split()} for reply in (*replies, *USUAL_REPLIES)
        ]
        (self.bin / "replies").write_text(json.dumps(table))
        (self.bin / "calls").write_text("")

    def make(self, *arguments: str, replies: Sequence[Reply] = (), stdin: int = -3) -> Result:
        """Run make with the recording `neuro`; the default stdin is the null device."""
        self.reply(*replies)
        command, environment = self.command(*arguments)
        done = subprocess.run(
            command,
            cwd=self.path,
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            timeout=60,
        )
        return Result(done.returncode, done.stdout, done.stderr, self.calls())

    def calls(self) -> List[List[str]]:
        return [json.loads(line) for line in (self.bin / "calls").read_text().splitlines()]


def plant_recorder(folder: Path, name: str = "neuro") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    client = folder / name
    client.write_text(RECORDER.format(python=sys.executable))
    client.chmod(0o755)
    (folder / "replies").write_text("[]")
    (folder / "calls").write_text("")


def render(
    folder: Path,
    answers: Optional[Mapping[str, str]] = None,
    *options: str,
    **environment: str,
) -> Any:
    """Run the real cookiecutter command, as a user does; returns the finished process."""
    extra = [f"{question}={answer}" for question, answer in (answers or {}).items()]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "cookiecutter",
            "--no-input",
            *options,
            "-o",
            str(folder),
            str(TEMPLATE),
            *extra,
        ],
        env={"HOME": str(folder), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
