"""The images that tests run on: pulled where a registry can be reached, else made here.

What is made starts from a minimal Debian of this machine's own release and mirror. An image says in
a label what it was made of, and is made anew when that has changed.
"""

from __future__ import annotations

import os
import re
import shutil
from functools import cached_property
from pathlib import Path
from typing import Optional

import recipes
from baking import TEMPLATE
from calling import PATH, CommandFailed, call
from dockerd import cache
from locking import locked
from machine import impossible, untimed
from recipes import Debian, Recipe

from neuro_local.engines.sandbox import catalogue

LABEL = "neuro-local-tests"
ROOT = f"{LABEL}/debian"

# The template's own base image, and other names that tests have for it.
BASE = "python:3.12-slim-bookworm"
ALIASES = ("python:latest", "plain:latest")


def web_image(name: str) -> str:
    """Return what the template has as TENSORBOARD_IMAGE or FILEBROWSER_IMAGE."""
    makefile = (TEMPLATE / "{{cookiecutter.project_slug}}" / "Makefile").read_text()
    found = re.search(rf"^{name} \?= (\S+)$", makefile, re.MULTILINE)
    assert found, name
    return found[1]


TENSORBOARD = web_image("TENSORBOARD_IMAGE")
FILEBROWSER = web_image("FILEBROWSER_IMAGE")
# What neuro-local's catalogue has for the latter, under a name that cannot be pulled: for tests
# that work its page, and know no other.
STAND_IN = f"{LABEL}/filebrowser:latest"
ALL = (BASE, *ALIASES, TENSORBOARD, FILEBROWSER, STAND_IN)


def is_kept(image: str) -> bool:
    """Whether it is kept for the next run; names below neuro-local-tests/ are free for tests."""
    return image in ALL or image.startswith(f"{LABEL}/")


class Images:
    """The images of the engine at that address."""

    def __init__(self, host: str) -> None:
        self.host = host

    def ensure(self, *names: str) -> None:
        """See to it that the engine has these of ALL."""
        try:
            for name in names:
                if not self._is_current(name):
                    cache().mkdir(parents=True, exist_ok=True)
                    with untimed(), locked(cache() / "images"):
                        self._get(name)
        except CommandFailed as error:
            impossible(f"There is no image {name} for the tests: {error}")

    def _get(self, name: str) -> None:
        if self._is_current(name):  # another process was faster
            return
        if name != BASE:
            self._get(BASE)
        if name in ALIASES:
            self._docker("tag", BASE, name)
            return
        try:
            if name == STAND_IN:
                raise CommandFailed("it is never pulled")
            self._docker("pull", "--quiet", name)
        except CommandFailed:
            self._build(name)

    def _build(self, name: str) -> None:
        if name == BASE:
            self._make_root()
        recipe = self._recipe(name)
        label = f"--label={LABEL}={recipe.digest}"
        self._docker("build", "--quiet", label, f"--tag={name}", "-", data=recipe.context)

    def _is_current(self, name: str) -> bool:
        label = self._inspect(name, f'{{{{index .Config.Labels "{LABEL}"}}}}')
        # Without a label, it was pulled or is the user's own.
        return label == "" or label is not None and label == self._recipe(name).digest

    def _recipe(self, name: str) -> Recipe:
        if name == BASE or name in ALIASES:
            return self._base
        entry = catalogue.find(FILEBROWSER if name == STAND_IN else name)
        assert entry, name
        return recipes.of(entry, BASE, self._inspect(BASE, "{{.Id}}") or "")

    @cached_property
    def _debian(self) -> Debian:
        return recipes.this_debian()

    @cached_property
    def _base(self) -> Recipe:
        return recipes.base(self._root, self._debian)

    @property
    def _root(self) -> str:
        return f"{ROOT}:{self._debian.digest}"

    def _make_root(self) -> None:
        """Make the image that the base starts from, once."""
        if self._inspect(self._root, "{{.Id}}"):
            return
        if os.geteuid() != 0 or not shutil.which("debootstrap", path=PATH):
            raise CommandFailed("it cannot be pulled, and only root makes images, with debootstrap")
        folder = cache() / "root"
        _discard(folder)
        call(*self._debian.bootstrap(folder))
        packed = cache() / "root.tar"
        call("tar", "--create", "--one-file-system", "--numeric-owner", f"--file={packed}",
             "--exclude=./var/cache/apt/archives/*.deb", f"--directory={folder}", ".")  # fmt: skip
        self._docker("import", str(packed), self._root)
        packed.unlink()
        _discard(folder)

    def _inspect(self, name: str, what: str) -> Optional[str]:
        """Return a detail of an image, None if the engine does not have it."""
        try:
            return self._docker("image", "inspect", f"--format={what}", name).strip()
        except CommandFailed:
            return None

    def _docker(self, *words: str, data: bytes = b"") -> str:
        return call("docker", "--host", self.host, *words, data=data)


def _discard(root: Path) -> None:
    """Remove a root folder, in which debootstrap, if it was killed, has left things mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        mounted = line.split()[1]
        if mounted.startswith(f"{root}/"):
            call("umount", mounted)
    shutil.rmtree(root, ignore_errors=True)
