"""Texts nobody foresaw, and texts that do something wherever anything expands them.

What does something leaves a file named CANARY where it is run.
"""

from __future__ import annotations

from typing import List

from hypothesis import strategies as st

CANARY = "CANARY"
TOUCH = f"touch {CANARY}"
JINJA_MARKS = ("{{", "{%", "{#")

# Each is text to one of make, sh, Python, Jinja, awk, sed, printf, apt-get, the client or Markdown.
TRAPS = (
    f"$({TOUCH})",
    f"`{TOUCH}`",
    f"$(shell {TOUCH})",
    f"${{shell {TOUCH}}}",
    f"$$({TOUCH})",
    f"$(eval $(shell {TOUCH}))",
    f"$(file >{CANARY})",
    f"; {TOUCH};",
    f"& {TOUCH} &",
    f"| {TOUCH} #",
    f"\n{TOUCH}\n",
    f"\r\n\t{TOUCH}\r\n",
    f"'; {TOUCH}; '",
    f'"; {TOUCH}; "',
    f"'$({TOUCH})'",
    f"\\'; {TOUCH}; \\'",
    f"';$({TOUCH});'",
    f">{CANARY}",
    f'"""; open("{CANARY}", "w"); r"""',
    f"'''; open('{CANARY}', 'w'); r'''",
    f"{{{{ cycler.__init__.__globals__.os.system('{TOUCH}') }}}}",
    f"{{% if cycler.__init__.__globals__.os.system('{TOUCH}') %}}{{% endif %}}",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{%- endraw %}",
    "{#",
    "#}",
    f'}} END {{ system("{TOUCH}") }}',
    f"-oDPkg::Pre-Invoke::={TOUCH}",
    f"--post-file={CANARY}",
    "$(error stop)",
    "$(RUN)",
    "$(MAKEFLAGS)",
    "${HOME}",
    "$HOME",
    "$$",
    "$",
    "\\",
    "\\c",
    "\\\\",
    "'",
    '"',
    "`",
    "%s%n",
    "%",
    "#",
    ";",
    "&&",
    "*",
    "?",
    "[a-z]",
    "~",
    "!!",
    "-",
    "--",
    "--help",
    "-rf",
    "..",
    "../",
    "/",
    ":",
    ",",
    "=",
    "(",
    ")",
    "{",
    "}",
    "<b>",
    "\t",
    " ",
    "\x1b[31m",
    "\x07",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "\ufeff",
    "e\u0301",
    "é",
    "名前",
    "😀",
)

# A byte that is no UTF-8, as Python writes it in a command line or an environment.
_BAD_BYTES = st.sampled_from(["\udc80", "\udcff"])
_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")


def texts(*more: str, bad_bytes: bool = False) -> st.SearchStrategy[str]:
    """Any text an argument can hold, mostly around a trap; pieces of it may be one of `more`."""
    pieces: List[st.SearchStrategy[str]] = [
        st.just(""),
        st.text(_CHARACTERS, max_size=12),
        st.text("abcxyz019-._ ", max_size=12),
        st.sampled_from(TRAPS),
        st.sampled_from((*more, "a")),
    ]
    if bad_bytes:
        pieces.append(_BAD_BYTES)
    piece = st.one_of(pieces)
    around_a_trap = st.tuples(piece, st.sampled_from(TRAPS), piece).map("".join)
    return st.one_of(around_a_trap, around_a_trap, st.lists(piece, max_size=3).map("".join))


def one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def has_jinja_marks(text: str) -> bool:
    return any(mark in text for mark in JINJA_MARKS)
