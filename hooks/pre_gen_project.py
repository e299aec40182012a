"""Refuses a bad answer before anything is written. Standard library only, Python 3.9 or newer."""

import json
import re
import sys
import unicodedata

# The answers arrive as data: `tojson` escapes what could end the string or the file.
ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# With --no-input cookiecutter takes answers for templates: this is what they were before. Versions
# before 2.2 do not say; the default of the slug is a template itself.
GIVEN = json.loads(r"""{{ _cookiecutter | default({}) | tojson }}""")

# The platform's rule for job names, 40 characters at most; the longest prefix is `tensorboard-`.
JOB_NAME = re.compile(r"[a-z](-?[a-z0-9])*")
LONGEST_SLUG = 40 - len("tensorboard-")

# A Docker reference or an `image:` URI, of characters that mean nothing to make, sh or Markdown.
IMAGE = re.compile(r"(image:/{0,2})?[A-Za-z0-9]+([._/:@-]+[A-Za-z0-9]+)*")
PRESET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name):
    if not name.strip():
        return "must not be empty"
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") for char in name):
        return "must be one line without control characters"
    if any(mark in name for mark in ("{{ '{{' }}", "{{ '{%' }}", "{{ '{#' }}")):
        return "must not hold the marks of the template language"
    return ""


def check_slug(slug):
    if JOB_NAME.fullmatch(slug) and 3 <= len(slug) <= LONGEST_SLUG:
        return ""
    return (
        f"must have 3 to {LONGEST_SLUG} lower-case letters, digits and single inner hyphens, "
        "a letter first"
    )


def check_image(image):
    if IMAGE.fullmatch(image) and len(image) <= 255:
        return ""
    return "must be a Docker image or an image: URI"


def check_preset(preset):
    if PRESET.fullmatch(preset):
        return ""
    return "must have up to 64 letters, digits, dots, hyphens and underscores"


CHECKS = (
    ("project_name", check_name, "Street Signs"),
    ("project_slug", check_slug, "street-signs"),
    ("base_image", check_image, "python:3.12-slim-bookworm"),
    ("preset", check_preset, "cpu-small"),
)


def refusals(answers):
    for question, check, example in CHECKS:
        rule = check(str(answers[question])) if question in answers else ""
        if rule:
            yield f"{question} {answers[question]!a} {rule}, for example {example!r}."


def main():
    given = {question: GIVEN[question] for question in GIVEN if question != "project_slug"}
    problems = list(refusals(given)) or list(refusals(ANSWERS))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
