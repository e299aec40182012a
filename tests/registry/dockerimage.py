"""Images that tests make of little, in a Docker engine."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path
from typing import List, Mapping

from dockercli import Docker


def make_image(docker: Docker, image: str, content: bytes) -> str:
    """Make an image of one file, and return its id."""
    return _load(docker, image, {"content": content})


def make_runnable_image(docker: Docker, image: str, content: bytes) -> str:
    """Make an image of that file, a shell and `cat`, and return its id."""
    files = {"content": content}
    for program in "/bin/sh", "/bin/cat":
        for path in (program, *_libraries(program)):
            files[path.lstrip("/")] = Path(path).read_bytes()
    return _load(docker, image, files)


def _load(docker: Docker, image: str, files: Mapping[str, bytes]) -> str:
    """Make an image of files, and return its id."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    docker.forget_later(image)
    return docker("import", "-", image, data=packed.getvalue())


def content_of(docker: Docker, image: str) -> bytes:
    """Return what the file in an image holds."""
    container = docker("create", image, "none")
    packed = docker.read("cp", f"{container}:/content", "-")
    docker("rm", container)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        file = archive.extractfile("content")
        assert file is not None
        return file.read()


def _libraries(program: str) -> List[str]:
    """Return what a program of this machine needs to run."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(/\S+) \(0x", told)
