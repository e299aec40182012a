"""Deletes trees in the background: on a busy disk an environment of 40,000 files takes a minute."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from pathlib import Path
from typing import Optional, Set

WORKER = "neuro-local trash"


class Trash:
    """A folder that empties itself. What the end of the process interrupts, `empty` takes up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._worker: Optional[threading.Thread] = None

    def throw(self, tree: Path) -> None:
        """Take a tree of the same file system out of the way at once."""
        self._folder.mkdir(parents=True, exist_ok=True)
        tree.rename(self._folder / uuid.uuid4().hex)
        self.empty()

    def empty(self) -> None:
        """See to it that somebody deletes what is there."""
        with self._lock:
            if self._worker is None and self._folder.exists():
                # A daemon: neither the end of an engine nor that of the process waits for it.
                self._worker = threading.Thread(target=self._work, name=WORKER, daemon=True)
                self._worker.start()

    def _work(self) -> None:
        done: Set[str] = set()
        while True:
            with self._lock:  # whoever throws after this look starts a new worker
                entries = self._entries()
                done &= entries  # what could not be deleted is not tried again and again
                left = entries - done
                if not left:
                    self._worker = None
                    return
            for name in left:
                delete(self._folder / name)
            done |= left

    def _entries(self) -> Set[str]:
        try:
            return set(os.listdir(self._folder))
        except OSError:  # the whole instance was deleted
            return set()


def delete(tree: Path) -> None:
    """Delete a tree as far as that is possible, also locked folders, as overlays leave them."""
    if os.geteuid() != 0:
        for path, names, _ in os.walk(tree):
            for name in names:
                if not os.path.islink(os.path.join(path, name)):
                    with contextlib.suppress(OSError):  # somebody else deletes it too
                        os.chmod(os.path.join(path, name), 0o700)
    shutil.rmtree(tree, ignore_errors=True)
