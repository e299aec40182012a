"""With all services running: who reaches them, and where their credentials can be read."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set
from urllib.parse import urlsplit

import pytest

from neuro_local.admission import TICKET
from neuro_local.api.config import PUBLIC
from neuro_local.api.routes import all_routes

from .commands import Command, run, wait_until
from .conftest import DOCKER, Render, no_client
from .platform import Job, Platform, is_root, processes_with
from .project import Project
from .sockets import addresses, answers, family, listeners, networks, read_table, sockets_of

KINDS = ("jupyter", "tensorboard", "filebrowser")
METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND PURGE".split()
# Forms of a request without a path, and a method that nobody knows.
ODD_REQUESTS = (
    "OPTIONS *",
    "CONNECT 127.0.0.1:80",
    "CONNECT /",
    "GET *",
    "BREW /",
    "GET http://x/",
)
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
REFUSED = (401, 403)
NOBODY = 65534

# Listens on every address of its network, as the services do, at a port that no one else has.
LISTEN = """
import socket, sys, time
address = ("0.0.0.0", int(sys.argv[1]))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(address)
with socket.create_server(address):
    time.sleep(600)
"""


@dataclass(frozen=True)
class Page:
    """A job's page, the address that the browser was told, and the cookie that it was given."""

    job: Job
    opened: str
    cookie: str

    @property
    def port(self) -> int:
        return port_of(self.opened)

    @property
    def ticket(self) -> str:
        return ticket_of(self.opened)


@dataclass(frozen=True)
class Services:
    """Everything that neuro-local runs for a project, with a home of its own for the client."""

    project: Project
    engine: str
    home: Path
    pages: Dict[str, Page]
    listener: Job
    inner_port: int
    outer_port: int
    seen: Set[bytes]

    @property
    def platform(self) -> Platform:
        return self.project.platform

    @property
    def port(self) -> int:
        """Where the server listens."""
        return port_of(self.platform.url)

    @property
    def ports(self) -> Set[int]:
        """Where the pages listen."""
        return {page.port for page in self.pages.values()}

    @property
    def credentials(self) -> Dict[str, str]:
        """All that lets somebody in, present and past, by what it is."""
        found = {"the token": self.platform.token}
        for kind, page in self.pages.items():
            found[f"the ticket that the browser was told for {kind}"] = page.ticket
            found[f"the present ticket of {kind}"] = ticket_of(self.address(kind))
            found[f"the cookie of {kind}"] = page.cookie.partition("=")[2]
        return found

    @property
    def hides_processes(self) -> bool:
        """Whether the jobs' processes are root's, and we are not."""
        return self.engine == DOCKER and not is_root()

    def said(self, job: Job, command: str) -> str:
        """Return what a command prints in a job."""
        return self.platform.neuro("exec", "--no-tty", job.id, command).stdout

    def address(self, kind: str) -> str:
        """Return the page's address as the platform shows it now."""
        url = self.project.job(kind).http_url
        assert url is not None
        return url


@contextmanager
def watching_command_lines() -> Iterator[Set[bytes]]:
    """Collect the command lines of all processes of the machine that live meanwhile."""
    seen: Set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(file.read_bytes())
                except OSError:  # gone
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.fixture(scope="module")
def services(
    render: Render, built: Project, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("home")
    rendered = render()
    platform = rendered.platform
    variables = {"IMAGE": f"image:{built.slug}"}
    project = replace(
        rendered, variables=variables, environment={**platform.env, "HOME": str(home)}
    )
    project.mark_set_up()
    told = len(platform.browser.opened)
    with watching_command_lines() as seen:
        project.make(*(f"run_{kind}" for kind in KINDS))
        opened = platform.browser.opened[told:]
        assert len(opened) == len(KINDS)
        pages = {
            kind: Page(project.job(kind), url, entered(url)) for kind, url in zip(KINDS, opened)
        }
        neuro = platform.client.command
        run([*neuro, "status", pages["jupyter"].job.id], cwd=home, env=project.env)
    inner, outer = free_port(), free_port()
    project.store("listen.py", LISTEN)
    listener = platform.start_job(
        f"python3 /listen/listen.py {inner}",
        tags=[project.tag],
        volumes=[
            {
                "src_storage_uri": f"storage://local/neuro-local/user/{project.slug}",
                "dst_path": "/listen",
                "read_only": True,
            }
        ],
    )
    words = [*neuro, "port-forward", listener.id, f"{outer}:{inner}"]
    with Command(words, cwd=home, env=project.env):
        wait_until(lambda: answers("127.0.0.1", outer), "the forwarded port answers")
        yield Services(project, engine, home, pages, listener, inner, outer, seen)
    project.end_jobs()


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("", 0))
        return int(made.getsockname()[1])


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None, url
    return port


def ticket_of(address: str) -> str:
    match = re.search(rf"{TICKET}=([\w-]+)", address)
    assert match, address
    return match[1]


def entered(address: str) -> str:
    """Open a page as a browser does, and return its cookie once the job behind it answers."""
    parts, port = urlsplit(address), port_of(address)
    answer = ask(port, "GET", f"{parts.path}?{parts.query}")
    assert answer.status == 303, answer
    cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def answers_itself() -> bool:
        return ask(port, "GET", "/", {"Cookie": cookie}).status != 502

    wait_until(answers_itself, f"the job behind port {port} answers", timeout=60)
    return cookie


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(port: int, method: str, path: str, headers: Optional[Dict[str, str]] = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection):
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        upgraded = answer.status == 101  # what follows is no body, and has no end
        return Answer(answer.status, dict(answer.headers), b"" if upgraded else answer.read())


def ask_oddly(port: int, request_line: str) -> int:
    """Send a request that no client's library would, and return the status."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{request_line} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        answer = connection.recv(65536)
    return int(answer.split()[1])


# Who reaches them


def test_nothing_listens_beyond_loopback(services: Services) -> None:
    # Other programs of the machine may listen where they like: whose a socket is, is told by who
    # holds it. Ours are the server and the tests, with all that they started.
    ours = sockets_of(family(services.platform.pid, os.getpid()))

    found = [listener for listener in listeners() if listener.inode in ours]

    assert [listener for listener in found if not listener.is_local] == []
    ports = {listener.port for listener in found}
    assert {services.port, services.outer_port, *services.ports} <= ports


def test_jobs_listen_in_networks_of_their_own(services: Services) -> None:
    here = networks({os.getpid()})

    def ports(job: Job) -> Set[int]:
        inside = networks(set(processes_with(f"NEURO_JOB_ID={job.id}")))
        elsewhere = [pid for network, pid in inside.items() if network not in here]
        found = [listener for pid in elsewhere for listener in listeners(pid)]
        if services.hides_processes:
            assert services.said(job, "readlink /proc/self/ns/net").strip() not in here
            found = list(read_table("tcp", services.said(job, "sh -c 'cat /proc/net/tcp*'")))
        return {listener.port for listener in found if not listener.is_local}

    assert all(80 in ports(page.job) for page in services.pages.values())
    assert services.inner_port in ports(services.listener)
    assert services.inner_port not in {listener.port for listener in listeners()}


def test_what_a_job_listens_on_is_reached_only_through_the_platform(services: Services) -> None:
    here = sorted(addresses())

    assert "127.0.0.1" in here
    assert [host for host in here if answers(host, services.inner_port)] == []
    assert answers("127.0.0.1", services.outer_port)


@no_client
@pytest.mark.parametrize("token", [None, "wrong", "a.b.c"])
def test_server_refuses_who_has_no_token(services: Services, token: Optional[str]) -> None:
    credential = {"Authorization": f"Bearer {token}"} if token else {}
    names = {"job": services.listener.id, "port": "80", "exec": "0123", "path": "no/such/route"}
    names.update(name="user/image", key="secret")
    paths = {
        re.sub(r"\{(\w+)[^}]*\}", lambda match: names[match[1]], route.path)
        for route in all_routes()
    }

    let_in = [
        (method, path, sorted(extra))
        for path in sorted(paths - set(PUBLIC))
        for method, extra in [*((method, {}) for method in METHODS), ("GET", UPGRADE)]
        if ask(services.port, method, path, {**credential, **extra}).status not in REFUSED
    ]

    assert len(paths - set(PUBLIC)) > 15
    assert let_in == []
    assert services.platform.job(services.listener.id).status == "running"


@no_client
def test_server_tells_strangers_nothing_that_lets_them_in(services: Services) -> None:
    for path in PUBLIC:
        for method in METHODS:
            answer = ask(services.port, method, path)
            assert services.platform.token not in f"{answer.headers} {answer.body!r}"


@no_client
def test_odd_requests_get_nowhere(services: Services) -> None:
    for port in (services.port, *services.ports):
        answered = {line: ask_oddly(port, line) for line in ODD_REQUESTS}
        # 400: no request at all, by the rules of HTTP.
        assert set(answered.values()) <= {400, *REFUSED}, answered


@no_client
def test_malformed_request_is_not_quoted_in_the_log(services: Services) -> None:
    for port in (services.port, *services.ports):
        assert ask_oddly(port, f"GET http://[/{services.platform.token}") == 400

    assert services.platform.token not in (services.platform.state / "server.log").read_text()


@no_client
@pytest.mark.parametrize("kind", KINDS)
def test_page_refuses_who_was_not_let_in(services: Services, kind: str) -> None:
    page = services.pages[kind]
    other = services.pages[KINDS[KINDS.index(kind) - 1]]
    name, _, value = page.cookie.partition("=")
    credentials = {
        "nothing": ("", {}),
        "the ticket that the browser has used": (f"?{TICKET}={page.ticket}", {}),
        "a wrong ticket": (f"?{TICKET}=wrong", {}),
        "a wrong cookie": ("", {"Cookie": f"{name}={value[::-1]}"}),
        "another page's cookie": ("", {"Cookie": other.cookie}),
        "another page's key": ("", {"Cookie": f"{name}={other.cookie.partition('=')[2]}"}),
        "the platform's token": ("", {"Authorization": f"Bearer {services.platform.token}"}),
    }

    let_in = [
        (what, method, path)
        for what, (query, headers) in credentials.items()
        for path in ("/", "/api/kernels")
        for method, extra in [*((method, {}) for method in METHODS), ("GET", UPGRADE)]
        if ask(page.port, method, path + query, {**headers, **extra}).status not in REFUSED
    ]

    assert let_in == []
    assert ask(page.port, "GET", "/", {"Cookie": page.cookie}).status in (200, 302)


@no_client
def test_page_refuses_the_pages_of_others(services: Services) -> None:
    # A browser sends the cookies of 127.0.0.1 whatever port asks, here for TensorBoard's page.
    page = services.pages["jupyter"]
    other = services.pages["tensorboard"]
    foreign = {"Cookie": page.cookie, "Origin": f"http://127.0.0.1:{other.port}"}
    own = {**foreign, "Origin": f"http://127.0.0.1:{page.port}"}
    socket_path = "/api/events/subscribe"

    assert ask(page.port, "GET", socket_path, {**own, **UPGRADE}).status == 101
    assert ask(page.port, "GET", socket_path, {**foreign, **UPGRADE}).status == 403
    assert ask(page.port, "POST", "/api/kernels", foreign).status == 403
    assert ask(page.port, "GET", "/api", {**own, "Host": "example.com"}).status == 403


# Where their credentials can be read


def test_credentials_are_in_no_log(services: Services) -> None:
    state = services.platform.state
    meant_for_them = [state / "token", state / "client"]
    logs = {state / "logs", state / "server.log", state / "jobs.db"}
    if notes := services.platform.client.logs:
        logs.add(services.home / notes)
    assert all(log.exists() for log in logs)

    found = files_with(services.credentials.values(), services.home, services.project.path, state)

    assert state / "token" in found, "the search finds what is there"
    wrong = [path for path in found if not any(path.is_relative_to(m) for m in meant_for_them)]
    assert wrong == []


def files_with(texts: Iterable[str], *folders: Path) -> List[Path]:
    """Return the files below the folders that hold any of the texts."""
    # On standard input, since a command line is what must not hold them.
    words = ["grep", "-rlaFs", "-D", "skip", "-f", "-", *map(str, folders)]
    said = subprocess.run(words, input="\n".join(texts), stdout=subprocess.PIPE, text=True).stdout
    return [Path(line) for line in said.splitlines()]


def test_credentials_are_on_no_command_line(services: Services) -> None:
    lines = b"\n".join(services.seen)
    assert f"--name\0jupyter-{services.project.slug}".encode() in lines, "the client was seen"

    # The browser is started with a ticket, which is worth nothing any more: see above.
    told = {page.ticket for page in services.pages.values()}
    for what, secret in services.credentials.items():
        assert secret in told or secret.encode() not in lines, what


def test_other_users_read_nothing(services: Services) -> None:
    state = services.platform.state
    client = next(pid for pid in family(os.getpid()) if b"port-forward" in command_line(pid))
    processes = (services.platform.pid, client)

    assert (state.stat().st_mode & 0o777, state.stat().st_uid) == (0o700, os.geteuid())
    for pid in processes:
        environment = Path(f"/proc/{pid}/environ").stat()
        assert (environment.st_mode & 0o777, environment.st_uid) == (0o400, os.geteuid())
    if is_root():  # nobody else can become another user, to try it
        login = f"client/{services.platform.client.config}/db"
        for name in ("token", "port", "jobs.db", "server.log", login):
            assert (state / name).exists()
            assert "Permission denied" in read_as_nobody(state, name)
        for pid in processes:
            assert "Permission denied" in read_as_nobody(Path("/proc"), f"{pid}/environ")
        assert "Linux" in read_as_nobody(Path("/proc"), "version"), "it can read other files"


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def read_as_nobody(folder: Path, name: str) -> str:
    """Return what another user reads there, or is told. The way to the folder is left out: the
    folders above it must not be what keeps others away."""
    handle = os.open(folder, os.O_PATH)
    try:
        return said_as_nobody(["cat", f"/proc/self/fd/{handle}/{name}"], handle)
    finally:
        os.close(handle)


def said_as_nobody(command: Sequence[str], *handles: int) -> str:
    return subprocess.run(
        command,
        cwd="/",
        env={"LC_ALL": "C", "PATH": os.defpath},
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
        pass_fds=handles,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=10,
    ).stdout
