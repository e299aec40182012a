"""The modules import one way: API, services, engines; below the API nothing knows HTTP."""

import ast
from pathlib import Path
from typing import Iterator, Set, Tuple

import pytest

import neuro_local

ROOT = Path(neuro_local.__file__).parent
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))

# Where aiohttp may be seen: HTTP is the API's and the web pages' business, and what a Docker engine
# speaks.
HTTP = (
    *("api/", "app.py", "daemon.py", "ingress.py", "admission.py", "passing.py"),
    "engines/docker/client.py",
)

# What a group of modules must not import, and why.
FORBIDDEN: Tuple[Tuple[str, Set[str], str], ...] = (
    ("engines/", {"api", "services", "app", "store", "joblog", "ingress"}, "engines only run jobs"),
    ("engines/docker/", {"engines.sandbox"}, "engines know nothing of each other"),
    ("engines/sandbox/", {"engines.docker"}, "engines know nothing of each other"),
    ("services/", {"api", "app", "ingress", "admission"}, "services decide, whoever asks"),
    ("services/", {"engines.sandbox", "engines.docker"}, "services know the interface only"),
    ("models", {"api", "services", "engines", "app", "store"}, "values depend on nothing"),
    ("errors", {"api", "services", "engines", "app", "store", "models"}, "errors come first"),
    (
        "api/",
        {"app", "daemon", "cli", "engines.sandbox", "engines.docker"},
        "only app.py joins the parts",
    ),
)


def imports(module: str) -> Iterator[str]:
    """Yield what a module imports, our own modules as dotted names below the package."""
    package = ("neuro_local." + module.removesuffix(".py").replace("/", ".")).split(".")[:-1]
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{stem}.{alias.name}".removeprefix("neuro_local.")


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    for group, forbidden, reason in FORBIDDEN:
        if module.startswith(group):
            for name in imports(module):
                for other in forbidden:
                    assert not f"{name}.".startswith(f"{other}."), f"{module}: {reason}"


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(HTTP)])
def test_below_the_api_nothing_knows_http(module: str) -> None:
    assert not any(name.split(".")[0] == "aiohttp" for name in imports(module))
