"""What the kernel tells of processes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import List, Union


def open_files(pid: Union[int, str] = "self") -> List[str]:
    """Return what a process holds open, paths and `socket:[inode]`; nothing once it has ended."""
    found = []
    with suppress(FileNotFoundError):  # it has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was just closed
                found.append(os.readlink(entry))
    return found
