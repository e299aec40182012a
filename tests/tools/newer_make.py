"""Features that GNU make 3.81, which macOS ships, does not have, and where a Makefile uses them.

From the NEWS file of GNU make, versions 3.82 to 4.4. Debian's ckati, which runs the Makefile in the
tests, lets some of them through.
"""

from __future__ import annotations

import re
from typing import List, Tuple

# In a line that is no recipe, or anywhere.
_DIRECTIVES = {
    "define NAME =": r"^\s*(override\s+)?define\s+\S+\s*[:?+!]*=",
    "undefine": r"^\s*(override\s+)?undefine\s",
    "private": r"^([^#=:]*:)?\s*private\s",
    "load": r"^\s*-?load\s",
    "NAME != command": r"^\s*((export|override)\s+)*[\w.-]+\s*!=",
    "NAME ::= value": r"^\s*((export|override)\s+)*[\w.-]+\s*::=",
    "NAME :::= value": r"^\s*((export|override)\s+)*[\w.-]+\s*:::=",
    "grouped targets &:": r"^[^#=]*&::?(\s|$)",
    ".NOTPARALLEL with targets": r"^\.NOTPARALLEL\s*:\s*[^\s#]",
}
_ANYWHERE = {
    "$(file )": r"\$[({]file\s",
    "$(guile )": r"\$[({]guile\s",
    "$(let )": r"\$[({]let\s",
    "$(intcmp )": r"\$[({]intcmp\s",
    "special targets and variables": r"\.(ONESHELL|SHELLFLAGS|RECIPEPREFIX|EXTRA_PREREQS|WAIT"
    r"|NOTINTERMEDIATE|LOADED)\b|\bMAKE_TERM(OUT|ERR)\b",
    "options": r"--(output-sync|trace|shuffle|eval|no-silent|jobserver-style)\b",
}


def newer_features(makefile: str) -> List[Tuple[int, str]]:
    """Return line number and feature, for each use of what came after GNU make 3.81."""
    found = []
    for number, line, is_recipe in _lines(makefile):
        looked_for = _ANYWHERE if is_recipe else {**_DIRECTIVES, **_ANYWHERE}
        found += [(number, name) for name, text in looked_for.items() if re.search(text, line)]
        if not is_recipe and _sharp_in_a_call(line):
            found.append((number, "# in a call"))
    return found


def _lines(makefile: str) -> List[Tuple[int, str, bool]]:
    """Logical lines with the number of their first, and whether make hands them to the shell."""
    lines: List[Tuple[int, str, bool]] = []
    joins = False
    for number, line in enumerate(makefile.splitlines(), 1):
        if joins:
            first, text, is_recipe = lines.pop()
            lines.append((first, f"{text[:-1]} {line.strip()}", is_recipe))
        else:
            lines.append((number, line, line.startswith("\t")))
        joins = line.endswith("\\")
    return lines


def _sharp_in_a_call(line: str) -> bool:
    """A bare # inside $( ) begins a comment in every make before 4.3."""
    depth = 0
    for before, char in zip(" " + line, line):
        if char == "(" and before == "$" or depth and char == "(":
            depth += 1
        elif depth and char == ")":
            depth -= 1
        elif char == "#" and before != "\\":
            return depth > 0
    return False
