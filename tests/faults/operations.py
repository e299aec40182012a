"""What a user has in hand when the connection breaks: each operation by its target, where in it a
fault strikes, and how one sees that it has been completed."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import Dict, List, Tuple

from e2e.commands import Result
from e2e.conftest import PLAIN_IMAGE
from e2e.project import Project

LARGE = 3 * 2**20
LINES = 20_000


class Operation(ABC):
    """`pattern` finds the exchange that is hit (proxy.py), `span` the bytes of it that may be."""

    target: str
    pattern: str
    span: Tuple[int, int]
    variables: Dict[str, str] = {}

    def __str__(self) -> str:
        return type(self).__name__.lower()

    def prepare(self, project: Project) -> None:
        """Bring about what the target needs."""

    def proceed(self, project: Project) -> None:
        """Let go on what has waited for the target to break."""

    @abstractmethod
    def check(self, project: Project, done: Result) -> None:
        """Fail unless the target's work is done, and done right, by what is there and what it
        showed."""


class Upload(Operation):
    target = "upload_data"
    pattern = r"^(PUT|PATCH) /storage/.*large.*op=(CREATE|WRITE)"
    span = (1, 2**20)

    def prepare(self, project: Project) -> None:
        project.write("data/large.bin", random.Random(1).randbytes(LARGE))
        project.write("data/deep/small", "small")

    def check(self, project: Project, done: Result) -> None:
        for name in ("data/large.bin", "data/deep/small"):
            assert project.storage(name).read_bytes() == (project.path / name).read_bytes()


class Download(Operation):
    target = "download_results"
    pattern = r"^GET /storage/.*large.*op=OPEN"
    span = (1, LARGE)

    def prepare(self, project: Project) -> None:
        project.store("results/large.bin", random.Random(2).randbytes(LARGE))
        project.store("results/deep/small", "small")

    def check(self, project: Project, done: Result) -> None:
        for name in ("results/large.bin", "results/deep/small"):
            assert (project.path / name).read_bytes() == project.storage(name).read_bytes()


class Setup(Operation):
    target = "setup"
    pattern = r"^POST /api/v1/jobs"
    span = (1, 1500)

    def prepare(self, project: Project) -> None:
        # Make asks it here, before any job, whether it likes apt.txt.
        script = '[ "${1:-}" = check ] || { seq 1 3000; echo installed >/opt/venv/installed; }\n'
        project.write("requirements/install.sh", script)

    def check(self, project: Project, done: Result) -> None:
        assert project.stamp.exists()
        registry = project.platform.url.removeprefix("http://")
        job = project.platform.run_job(
            "grep -qx installed /opt/venv/installed",
            image=f"{registry}/user/{project.slug}:latest",
        )
        assert job.status == "succeeded", job


class Exec(Setup):
    pattern = r"/exec(_start)?(\?|$)"
    span = (1, 2000)


class Save(Setup):
    pattern = r"^POST .*/save"
    span = (1, 600)


class Run(Operation):
    """The start of a training."""

    target = "run_training"
    pattern = r"^POST /api/v1/jobs"
    span = (1, 1500)
    variables = {
        "IMAGE": PLAIN_IMAGE,
        "UPLOAD_CODE": "no",
        "TRAIN_CMD": "sh -c 'seq 1 1000; sleep 2; echo done >>../results/done'",
    }

    def prepare(self, project: Project) -> None:
        project.mark_set_up()

    def check(self, project: Project, done: Result) -> None:
        assert project.job("training").status == "succeeded"
        assert project.storage("results/done").read_text().endswith("done\n")
        assert numbers(done) == list(range(1, 1001))


class Watch(Run):
    """The log of a training that shows it while it runs."""

    pattern = r"/log(_ws)?(\?|$)"
    span = (1, 2000)


class Logs(Operation):
    """The log of a job that runs for as long as the connection may break."""

    target = "logs_training"
    pattern = r"/log(_ws)?(\?|$)"
    span = (1, 100_000)

    def prepare(self, project: Project) -> None:
        wait = "while [ ! -e /tmp/go ]; do sleep 0.1; done"
        project.start_job("training", f"sh -c 'seq 1 {LINES}; {wait}'")

    def proceed(self, project: Project) -> None:
        job = project.job("training")
        if job.is_active:
            # With any code: the job may end, and take this along, as soon as the file is there.
            project.platform.neuro("exec", "-T", job.id, "touch /tmp/go", code=None)

    def check(self, project: Project, done: Result) -> None:
        assert numbers(done) == list(range(1, LINES + 1))


class EndedLogs(Logs):
    """The log of a job that has ended, which is all that is there of it."""

    def prepare(self, project: Project) -> None:
        job = project.platform.run_job(f"seq 1 {LINES}", **project.named("training"))
        assert job.status == "succeeded", job


class Kill(Operation):
    target = "kill_training"
    pattern = r"^DELETE /api/v1/jobs/"
    span = (1, 400)

    def prepare(self, project: Project) -> None:
        project.start_job("training")

    def check(self, project: Project, done: Result) -> None:
        assert not project.job("training").is_active


def numbers(done: Result) -> List[int]:
    """Return the lines of a log that are numbers."""
    return [int(line) for line in done.stdout.splitlines() if line.isdecimal()]


OPERATIONS: List[Operation] = [
    Upload(),
    Download(),
    Setup(),
    Exec(),
    Save(),
    Run(),
    Watch(),
    Logs(),
    EndedLogs(),
    Kill(),
]
