"""A Docker engine that goes and comes back, without harm to who else uses it."""

from __future__ import annotations

import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import List

SCHEME = "unix://"


class Gate:
    """A socket that leads to the engine at that address for as long as it is open; with it shut,
    the engine has gone for whoever came this way."""

    def __init__(self, host: str) -> None:
        self._engine = host.removeprefix(SCHEME)
        # A socket's address is short.
        self.path = Path(tempfile.mkdtemp(), "docker.sock")
        self.host = f"{SCHEME}{self.path}"
        self._lock = threading.Lock()
        self._sockets: List[socket.socket] = []

    def open(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(100)
        self._sockets = [listener]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        """Break off all connections and take no more. Repeatable."""
        self.path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            self.path.parent.rmdir()
        with self._lock:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._sockets = []

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError), listener:  # shut
            while True:
                client, engine = listener.accept()[0], socket.socket(socket.AF_UNIX)
                engine.connect(self._engine)
                with self._lock:
                    self._sockets += [client, engine]
                for pair in (client, engine), (engine, client):
                    threading.Thread(target=_pass, args=pair, daemon=True).start()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
