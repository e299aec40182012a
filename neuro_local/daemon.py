"""Starts the server in the background, tells whether it runs, and stops it.

Whether an instance runs is told by a lock that its server holds for as long as it lives: unlike
a process id in a file, it cannot be stale.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from typing import IO, List, Optional

from aiohttp import http_exceptions, web
from aiohttp.log import server_logger

from . import instance
from .app import clear, create_app, create_engine, create_registry
from .config import Settings
from .errors import NeuroLocalError, UsageError

# How long the server may take to stop its jobs and itself. Seconds. An image that is just being
# saved is copied to its end first, and on a busy disk an environment of 40,000 files takes long.
DOWN_TIMEOUT = 120.0

# How long a server may take to end that is still starting: it has no jobs yet. Seconds.
STARTING_TIMEOUT = 10.0

READY = b"ready"

# No more than that, for jobs inherit it, and some programs close all that they might have open.
MANY_FILES = 2**16

logger = logging.getLogger(__name__)


def running_pid(settings: Settings) -> Optional[int]:
    """Return the process id of the instance's server, or None when it does not run."""
    words = _running(settings)
    return int(words[0]) if words else None


def running_engine(settings: Settings) -> Optional[str]:
    """Return the name of the engine that the instance's server runs jobs on, None without one."""
    words = _running(settings)
    return words[1] if len(words) > 1 else None


def _running(settings: Settings) -> List[str]:
    """Return what the server has written into the file that it locks: process id, engine."""
    try:
        with settings.lock_file.open() as lock:
            return [] if _try_lock(lock, shared=True) else lock.read().split()
    except FileNotFoundError:
        return []


def up(settings: Settings) -> bool:
    """Start the server in the background; return once it answers.

    Returns False when it ran already. Raises UsageError with the server's own reason. Interrupted,
    it starts none.
    """
    instance.prepare(settings)
    if running_pid(settings):
        return False
    reader, writer = os.pipe()
    with settings.log_file.open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "neuro_local", "--state-dir", str(settings.state)]
            + ["serve", "--engine", settings.engine, "--ready-fd", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writer],
            start_new_session=True,
        )
    os.close(writer)
    try:
        with open(reader, "rb") as pipe:
            answer = pipe.read()
    except KeyboardInterrupt:  # which does not reach the server: its session is its own
        _end(server)
        raise
    if answer != READY:
        server.wait()
        reason = answer.decode(errors="replace") or "the server died while it started"
        raise UsageError(reason, f"Its log is {settings.log_file}")
    return True


def down(settings: Settings) -> bool:
    """Stop the server and all its jobs; return once it is gone, False when it did not run.

    Of servers that were killed, it ends what was left.
    """
    pid = running_pid(settings)
    if pid is not None:
        _stop(settings, pid)
    asyncio.run(clear(settings))
    return pid is not None


def _stop(settings: Settings, pid: int) -> None:
    """End the server as a user does; return once it is gone. Raises UsageError."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT
    while running_pid(settings) == pid:
        if time.monotonic() > deadline:
            raise UsageError(f"the server, process {pid}, does not stop; end it with kill -9 {pid}")
        time.sleep(0.05)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End a server that is still starting."""
    server.terminate()
    try:
        server.wait(STARTING_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def serve(settings: Settings, ready_fd: Optional[int] = None) -> None:
    """Run the server until SIGTERM or SIGINT. Tells `ready_fd`, once, that it answers, or why it
    cannot. Raises UsageError or EngineUnavailable."""
    server_logger.addFilter(_is_no_quotation)
    _allow_many_files()
    # Later ones need no thread for each job either; other systems than Linux have none of this.
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    try:
        asyncio.run(_serve(settings, ready_fd))
    except (NeuroLocalError, OSError) as error:  # a full disk among them
        _tell(ready_fd, str(error).encode())
        raise


async def _serve(settings: Settings, ready_fd: Optional[int]) -> None:
    os.umask(0o077)
    instance.prepare(settings)
    with settings.lock_file.open("a+") as lock:
        if not await _lock(lock):
            raise UsageError(f"an instance already runs in {str(settings.state)!r}")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        listener = instance.listen(settings)
        port, token = listener.getsockname()[1], instance.token(settings)
        await clear(settings)  # of an earlier server, which may have had another engine
        engine = await create_engine(settings, port=port, token=token)
        lock.write(f" {engine.name}")
        lock.flush()
        app = create_app(
            settings,
            engine=engine,
            registry=create_registry(settings, engine),
            port=port,
            token=token,
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            await runner.setup()
            await web.SockSite(runner, listener).start()
            _tell(ready_fd, READY)
            await stop.wait()
        finally:
            await runner.cleanup()


def _allow_many_files() -> None:
    """Open as many files as this machine allows: of the usual 1,024, each job takes eight and each
    who follows a log two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = MANY_FILES if hard == resource.RLIM_INFINITY else min(MANY_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        with contextlib.suppress(ValueError, OSError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _is_no_quotation(record: logging.LogRecord) -> bool:
    """Leave out malformed requests: aiohttp quotes them, with the credential that they hold, and
    anybody on this machine could fill the log with them."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, http_exceptions.HttpProcessingError)


def _tell(ready_fd: Optional[int], message: bytes) -> None:
    if ready_fd is not None:
        try:
            os.write(ready_fd, message)
            os.close(ready_fd)
        except OSError:  # told already, or nobody waits any more
            pass


async def _lock(file: IO[str]) -> bool:
    """Take the lock, past the moments in which `running_pid` holds it."""
    for _ in range(20):
        if _try_lock(file):
            return True
        await asyncio.sleep(0.05)
    return False


def _try_lock(file: IO[str], *, shared: bool = False) -> bool:
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
