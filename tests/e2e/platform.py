"""A real neuro-local of the tests' own, and the real `neuro` pointed at it."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlencode

from clients import APOLO, BIN, OPTIONS, Client

from .commands import Command, Result, Terminal, run, wait_until

CONSTRAINTS = Path(__file__).parents[1] / "project-constraints.txt"


@dataclass(frozen=True)
class Job:
    """A job as the platform's API tells of it."""

    id: str
    name: str
    status: str
    reason: Optional[str]
    exit_code: Optional[int]
    tags: Tuple[str, ...]
    http_url: Optional[str]
    run_time: float

    @property
    def is_active(self) -> bool:
        return self.status in ("pending", "running")

    @classmethod
    def parse(cls, payload: Mapping[str, Any]) -> Job:
        history = payload["history"]
        return cls(
            id=payload["id"],
            name=payload.get("name", ""),
            status=payload["status"],
            reason=history.get("reason"),
            exit_code=history.get("exit_code"),
            tags=tuple(payload.get("tags", ())),
            http_url=payload.get("http_url"),
            run_time=history["run_time_seconds"],
        )


class Platform:
    """One instance of neuro-local, and the client that is used with it. `wrapper` is a command
    that its own commands run under."""

    def __init__(
        self,
        folder: Path,
        *,
        client: Client = APOLO,
        settings: Optional[Mapping[str, str]] = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.client = client
        self.state = folder / "state folder"
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.browser = Browser(folder / "browser")
        self.wrapper = tuple(wrapper)
        self._base = {**scratch_environment(self.home, self.browser, client), **(settings or {})}
        self._exports: Dict[str, str] = {}

    @property
    def env(self) -> Dict[str, str]:
        """The environment of a shell that has sourced `neuro-local env`."""
        return self._exports or self._base

    @property
    def plain_env(self) -> Dict[str, str]:
        """The environment of a user who is not logged in anywhere."""
        return self._base

    def set(self, name: str, value: str) -> None:
        """Change a variable that neuro-local's own commands see."""
        self._base[name] = value

    def up(self) -> Result:
        result = self.neuro_local("up")
        # As a user's shell does it: the exports must not stand on a command line.
        script = 'eval "$("$@")" && env -0'
        command = ["sh", "-c", script, "sh", *self._neuro_local("env")]
        environment = run(command, cwd=self.home, env=self._base)
        pairs = environment.stdout.rstrip("\0").split("\0")
        self._exports = dict(pair.split("=", 1) for pair in pairs)
        return result

    def with_old_login(self) -> Platform:
        """Return this instance for a client that keeps its present login, whatever comes."""
        kept = self.home / "old login"
        (self.state / "client").rename(kept)
        old = copy.copy(self)
        old._exports = {
            **self._exports,
            "APOLO_CONFIG": str(kept / "apolo"),
            "NEUROMATION_CONFIG": str(kept / "neuromation"),
        }
        return old

    def down(self) -> Result:
        return self.neuro_local("down")

    def kill(self) -> None:
        """End the server as a crash does."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the server is gone")

    @property
    def pid(self) -> int:
        return int((self.state / "lock").read_text().split()[0])  # the engine stands behind it

    @property
    def answers(self) -> bool:
        try:
            return self.request("/api/v1/config")[0] == 200
        except OSError:
            return False

    @property
    def token(self) -> str:
        return (self.state / "token").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{(self.state / 'port').read_text()}"

    def neuro_local(self, *words: str, code: int = 0) -> Result:
        return run(self._neuro_local(*words), cwd=self.home, env=self._base, code=code)

    def start_neuro_local(self, *words: str) -> Command:
        return Command(self._neuro_local(*words), cwd=self.home, env=self._base)

    def neuro_local_at_terminal(self, *words: str) -> Terminal:
        return Terminal(self._neuro_local(*words), cwd=self.home, env=self._base)

    def _neuro_local(self, *words: str) -> List[str]:
        command = [*self.wrapper, sys.executable, "-m", "neuro_local"]
        return [*command, "--state-dir", str(self.state), *words]

    def neuro(self, *words: str, code: Optional[int] = 0, timeout: float = 60.0) -> Result:
        command = [*self.client.command, *words]
        return run(command, cwd=self.home, env=self.env, code=code, timeout=timeout)

    def start_neuro(self, *words: str) -> Command:
        return Command([*self.client.command, *words], cwd=self.home, env=self.env)

    def neuro_at_terminal(self, *words: str, height: int = 24, width: int = 80) -> Terminal:
        command = [*self.client.command, *words]
        return Terminal(command, cwd=self.home, env=self.env, height=height, width=width)

    def storage(self, path: str = "") -> Path:
        """Where storage:PATH lies on disk."""
        return self.state / "storage" / "user" / path

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        token: Optional[str] = None,
        body: Optional[bytes] = None,
    ) -> Tuple[int, bytes]:
        """Ask the server itself; the right token unless told otherwise, none for ''."""
        token = self.token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return fetch(f"{self.url}{path}", method=method, headers=headers, body=body)

    def jobs(self, **query: str) -> List[Job]:
        status, body = self.request(f"/api/v1/jobs?{urlencode(query)}")
        assert status == 200, body
        return [Job.parse(payload) for payload in json.loads(body)["jobs"]]

    def job(self, id_or_name: str) -> Job:
        found = self.find_job(id_or_name)
        assert found is not None, f"there is no job {id_or_name}"
        return found

    def find_job(self, id_or_name: str) -> Optional[Job]:
        """Return a job by its id, or the newest one of that name."""
        status, body = self.request(f"/api/v1/jobs/{id_or_name}")
        return Job.parse(json.loads(body)) if status == 200 else None

    def wait_for(self, id_or_name: str, status: str, timeout: float = 30.0) -> Job:
        def has_status() -> Optional[Job]:
            job = self.find_job(id_or_name)
            return job if job is not None and job.status == status else None

        found = wait_until(has_status, f"job {id_or_name} is {status}", timeout)
        assert found is not None
        return found

    def start_job(self, command: str, **more: Any) -> Job:
        """Submit a job, and return once it runs."""
        return self.wait_for(self.submit_job(command, **more), "running")

    def run_job(self, command: str, **more: Any) -> Job:
        """Submit a job, and return once it has ended."""
        id = self.submit_job(command, **more)
        wait_until(lambda: not self.job(id).is_active, f"job {id} has ended")
        return self.job(id)

    def submit_job(
        self, command: str, *, name: str = "", tags: Sequence[str] = (), **more: object
    ) -> str:
        """Ask for a job of the plain base, past the client; return its id."""
        body = {"image": "python", "preset_name": "cpu-small", "entrypoint": command, **more}
        body.update({"tags": list(tags)}, **({"name": name} if name else {}))
        status, answer = self.request(
            "/api/v1/jobs?from_preset", method="POST", body=json.dumps(body).encode()
        )
        assert status == 202, answer
        return str(json.loads(answer)["id"])

    def end_job(self, job_id: str) -> None:
        self.request(f"/api/v1/jobs/{job_id}", method="DELETE")

    def end_jobs(self, **query: str) -> None:
        for job in self.jobs(**query):
            if job.is_active:
                self.end_job(job.id)


class Browser:
    """Stands in for the user's browser: notes what it is told to open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened_file = path.with_name("opened")
        path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$1\" >>'{self.opened_file}'\n")
        path.chmod(0o755)

    @property
    def opened(self) -> List[str]:
        return self.opened_file.read_text().splitlines() if self.opened_file.exists() else []


def scratch_environment(home: Path, browser: Browser, client: Client = APOLO) -> Dict[str, str]:
    """This environment with just this `neuro`; without the user's own configuration, but with
    the user's own caches."""
    ours = ("NEURO", "APOLO", "MAKE", "MFLAGS", "LOGIN_URL", "BROWSER", "XDG_", "COLUMNS", "LINES")
    inherited = {name: v for name, v in os.environ.items() if not name.startswith(ours)}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return {
        **inherited,
        "PATH": os.pathsep.join([str(client.program.parent), str(BIN), os.environ["PATH"]]),
        "HOME": str(home),
        "XDG_CACHE_HOME": cache,
        "BROWSER": str(browser.path),
        # What a project's requirements bring changes with time; the tests shall not.
        "PIP_CONSTRAINT": str(CONSTRAINTS),
        "NEURO": " ".join(["neuro", *OPTIONS]),  # for the Makefile
        "LC_ALL": "C.UTF-8",
    }


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Optional[Mapping[str, str]] = None,
    body: Optional[bytes] = None,
) -> Tuple[int, bytes]:
    """Return status and body; a redirection is not followed."""
    # The environment's proxy is none of loopback's business.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    request = urllib.request.Request(url, body, method=method, headers=dict(headers or {}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def processes_with(text: str) -> List[int]:
    """Return the processes of this machine whose command line or environment holds the text; other
    users' environments cannot be seen."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            if text.encode() in _content(folder / "cmdline") + _content(folder / "environ"):
                found.append(int(folder.name))
    return found


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # gone, or another user's
        return b""


def is_root() -> bool:
    return os.geteuid() == 0


def available(*words: str) -> bool:
    """Whether this machine can run the command."""
    try:
        return subprocess.run(words, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False
