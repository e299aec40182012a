"""What the tests' images are made of, where no registry can be reached."""

from __future__ import annotations

import hashlib
import io
import os
import ssl
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

from calling import CommandFailed, call

from neuro_local.engines.sandbox import catalogue

CONSTRAINTS = Path(__file__).with_name("project-constraints.txt")
LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")
PACKAGES = "ca-certificates,python3,python3-venv"

# Where pip finds packages, if this machine has its own ways to them; what its own files are named
# by would mean nothing in a container.
PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")

# Where the sandbox's base has its packages, which its programs name.
LIKE_THE_SANDBOX = "RUN [ -e /opt/venv ] || ln -s /usr/local /opt/venv"


@dataclass(frozen=True)
class Recipe:
    """Files, and what `docker build` makes of them."""

    dockerfile: str
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest(self.dockerfile, *(f"{path} {data!r}" for path, data in self.files.items()))

    @property
    def context(self) -> bytes:
        """What `docker build -` reads."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path, data in {"Dockerfile": self.dockerfile.encode(), **self.files}.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(data), 0o755
                archive.addfile(entry, io.BytesIO(data))
        return packed.getvalue()


@dataclass(frozen=True)
class Debian:
    """A release, where it comes from, and the lines that apt needs for it and its updates."""

    release: str
    mirror: str
    sources: Sequence[str]

    @property
    def digest(self) -> str:
        return digest(self.release, self.mirror, PACKAGES)

    def bootstrap(self, folder: Path) -> List[str]:
        """Return the command that makes its root folder."""
        options = ["--variant=minbase", f"--include={PACKAGES}"]
        return ["debootstrap", *options, self.release, str(folder), self.mirror]


def this_debian() -> Debian:
    """Return the release that this machine runs. Raises CommandFailed."""
    release = call("sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"').strip()
    words = "--format=$(REPO_URI) $(RELEASE) $(COMPONENT)"
    lines = call("apt-get", "indextargets", words, "Created-By: Packages").splitlines()
    targets = [line.split() for line in lines]
    # Others' archives may call their releases the same, but not their components.
    own = [(uri, name) for uri, name, component in targets if component == "main"]
    mirrors = [uri for uri, name in own if name == release]
    if not mirrors:
        raise CommandFailed(f"apt-get knows no source of this machine's release, {release!r}")
    sources = [f"deb {uri} {name} main" for uri, name in own if name.startswith(release)]
    return Debian(release, mirrors[0], sources)


def base(root: str, debian: Debian) -> Recipe:
    """Return how that image becomes one like `python` that has this machine's ways to the net."""
    files = {"etc/pip-constraints.txt": CONSTRAINTS.read_bytes(), "etc/pip.conf": _pip()}
    files["etc/apt/sources.list"] = "".join(f"{line}\n" for line in debian.sources).encode()
    files["etc/apt/apt.conf.d/90proxy"] = _apt()
    # Once as apt-get would find it, once as it would make it.
    for certificate in sorted(LOCAL_AUTHORITIES.glob("**/*.crt")):
        files[str(certificate.relative_to("/"))] = certificate.read_bytes()
    files["etc/ssl/certs/ca-certificates.crt"] = _authorities().read_bytes()
    lines = [f"FROM {root}", *(f"COPY {path} /{path}" for path in files)]
    # Packages come after Debian's own, and to the same places as in the real image.
    lines += ["RUN python3 -m venv /usr/local", LIKE_THE_SANDBOX, 'CMD ["python3"]']
    return Recipe("\n".join(lines), files)


def of(entry: catalogue.Entry, base: str, made: str) -> Recipe:
    """Return how an entry of the catalogue becomes an image; `made` is the base's id."""
    folder = catalogue.FILES
    files = {"requirements.txt": (folder / entry.requirements).read_bytes()}
    lines = [
        f"# {made}",
        f"FROM {base}",
        LIKE_THE_SANDBOX,
        "COPY requirements.txt /tmp/",
        "RUN PIP_CONSTRAINT=/dev/null pip install --no-cache-dir -r /tmp/requirements.txt",
    ]
    for path, file in entry.programs.items():
        files[file] = (folder / file).read_bytes()
        lines.append(f"COPY {file} {path}")
    if entry.entrypoint:
        words = ", ".join(f'"{word}"' for word in entry.entrypoint)
        lines.append(f"ENTRYPOINT [{words}]")
    return Recipe("\n".join(lines), files)


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _authorities() -> Path:
    usual = ssl.get_default_verify_paths()
    candidates = [os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), usual.cafile]
    return next(Path(path) for path in candidates if path and Path(path).is_file())


def _pip() -> bytes:
    """Return pip's configuration, without what only this machine has."""
    told: Dict[str, str] = {}
    for line in call(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        told[name.rpartition(".")[2]] = value.strip("'")  # later ones win
    lines = ["[global]", "cert = /etc/ssl/certs/ca-certificates.crt"]
    lines.append("constraint = /etc/pip-constraints.txt")
    for name in PIP_OPTIONS:
        words = [word for word in told.get(name, "").split() if not word.startswith("file:")]
        if words:
            lines.append(f"{name} = {' '.join(words)}")
    return "\n".join([*lines, ""]).encode()


def _apt() -> bytes:
    """Return apt's proxies."""
    told = call("apt-config", "dump", "--no-empty", '--format=%f "%v";%n', "Acquire")
    lines = [line for line in told.splitlines() if "proxy" in line.partition(" ")[0].lower()]
    return "".join(f"{line}\n" for line in lines).encode()
