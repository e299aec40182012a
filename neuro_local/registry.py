"""The registry server that keeps pushed images: Debian's docker-registry (CNCF Distribution).

It is a child of neuro-local that listens on a socket in the state folder, which only that folder's
owner can enter, and it ends with neuro-local, whatever ends that. Users reach it through
neuro-local's own port, which asks for the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
from pathlib import Path
from typing import List, Mapping, Optional

from .durable import write_whole

PROGRAM = "docker-registry"
INSTALL = f"install {PROGRAM} (on Debian: apt-get install {PROGRAM}) and restart neuro-local"

START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0

SOCKET = "socket"
CONFIG = "config.json"
IMAGES = "images"

logger = logging.getLogger(__name__)


class RegistryServer:
    """`folder` holds the images, `log` what the server says, `environ` tells where programs are."""

    def __init__(self, folder: Path, *, log: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._log = log
        self._path = environ.get("PATH", os.defpath)
        self._process: Optional[asyncio.subprocess.Process] = None
        self._descriptor: Optional[int] = None
        self._failure: Optional[str] = "the registry server has not been started"

    @property
    def missing(self) -> Optional[str]:
        """Why there is no registry, as the end of a sentence, with what to do; None if there is."""
        if self._failure is None and self._process and self._process.returncode is not None:
            return f"its registry server has ended; its log is {self._log}; restart neuro-local"
        return self._failure

    @property
    def socket(self) -> str:
        """The path to connect to, of a length that a socket's address can have (about a hundred
        bytes): state folders lie anywhere."""
        through = f"/proc/self/fd/{self._descriptor}"
        folder = through if os.path.exists(through) else str(self._folder)
        return f"{folder}/{SOCKET}"

    async def start(self) -> None:
        """Start the server; return once it answers.

        What prevents that raises nothing, for jobs run without it: `missing` tells.
        """
        program = shutil.which(PROGRAM, path=self._path)
        if program is None:
            self._failure = f"it keeps Docker images once there is a registry server: {INSTALL}"
            return
        try:
            await self._run(program)
            self._failure = None
        except (OSError, asyncio.TimeoutError) as error:
            await self.close()
            self._failure = f"its registry server does not start ({error}); its log is {self._log}"
            logger.warning("no registry: %s", self._failure)

    async def close(self) -> None:
        """Stop the server. Repeatable."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
            except asyncio.TimeoutError:
                self._process.kill()
                await self._process.wait()
            self._process = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._failure = "the registry server has been stopped"

    async def _run(self, program: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        (self._folder / SOCKET).unlink(missing_ok=True)  # what a killed one left
        write_whole(self._folder / CONFIG, json.dumps(_configuration()))
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        if (self._folder / IMAGES).exists():
            await self._free(program)
        self._process = await self._call(program, "serve", CONFIG)
        await asyncio.wait_for(self._answering(self._process), START_TIMEOUT)

    async def _free(self, program: str) -> None:
        """Delete the layers that no image has any more. The server itself never does, and it must
        not be running meanwhile. Measured with a hundred images: 0.04 s."""
        cleaner = await self._call(program, "garbage-collect", CONFIG)
        try:
            await asyncio.wait_for(cleaner.wait(), START_TIMEOUT)
        except asyncio.TimeoutError:  # so many images: their layers may stay
            cleaner.kill()
            await cleaner.wait()

    async def _call(self, program: str, *words: str) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._with_parent(),
                program,
                *words,
                cwd=self._folder,
                # Its settings could be overruled by variables.
                env={},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,  # names every layer that is cleaned or kept
                stderr=log,
            )

    async def _answering(self, process: asyncio.subprocess.Process) -> None:
        while process.returncode is None:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                _, writer = await asyncio.open_unix_connection(self.socket)
                writer.close()
                return
            await asyncio.sleep(0.01)
        raise OSError(f"it ended with exit code {process.returncode}")

    def _with_parent(self) -> List[str]:
        """Return the words that make a command die with us, where the system knows how."""
        setpriv = shutil.which("setpriv", path=self._path)
        return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _configuration() -> Mapping[str, object]:
    """Return the server's settings: https://distribution.github.io/distribution/about/configuration

    All paths are relative to its folder. JSON is YAML as well.
    """
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": IMAGES}, "delete": {"enabled": True}},
        "http": {
            "net": "unix",
            "addr": SOCKET,
            # It does not know the address that clients see.
            "relativeurls": True,
            # Signs what it tells uploaders to send back.
            "secret": secrets.token_hex(16),
        },
    }
