"""What the real client does with secrets."""

from __future__ import annotations

from .conftest import PLAIN_IMAGE, no_job
from .platform import Platform

READ = "sh -c 'echo $TOKEN; cat /secrets/token'"


def listed(platform: Platform) -> list[str]:
    words = platform.neuro("-q", "secret", "ls").stdout.split()
    return [word.removeprefix("secret:") for word in words]


def test_job_gets_a_secret_until_it_is_removed(platform: Platform) -> None:
    platform.neuro("secret", "add", "token", "5$ é")

    given = ("-T", "--env", "TOKEN=secret:token", "--volume", "secret:token:/secrets/token")
    result = platform.neuro("run", *given, "--entrypoint", READ, PLAIN_IMAGE)

    assert result.stdout.count("5$ é") == 2
    assert "token" in listed(platform)

    platform.neuro("secret", "rm", "token")
    assert "token" not in listed(platform)
    platform.neuro("secret", "rm", "token", code=72)
    again = platform.neuro("run", *given, "--entrypoint", READ, PLAIN_IMAGE, code=None)
    assert again.code != 0
    assert "Missing secrets: 'token'" in again.stdout + again.stderr


@no_job
def test_secret_of_a_name_that_cannot_be_is_refused(platform: Platform) -> None:
    platform.neuro("secret", "add", "a b", "value", code=65).explains("invalid secret key")
