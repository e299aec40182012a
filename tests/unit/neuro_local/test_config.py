"""What an instance is told, by options and by the environment."""

from __future__ import annotations

import pytest

from neuro_local import cli, config
from neuro_local.errors import UsageError


def test_jobs_run_in_sandboxes_unless_told_otherwise() -> None:
    assert config.load(None, {}).engine == "sandbox"


def test_the_option_goes_before_the_variable() -> None:
    environ = {"NEURO_LOCAL_ENGINE": "docker"}

    assert config.load(None, environ).engine == "docker"
    assert config.load(None, environ, "auto").engine == "auto"


@pytest.mark.parametrize("option", [True, False])
def test_unknown_engine_is_refused_with_those_that_there_are(option: bool) -> None:
    environ = {} if option else {"NEURO_LOCAL_ENGINE": "dokcer"}

    with pytest.raises(UsageError, match="'dokcer'.*sandbox, docker, auto"):
        config.load(None, environ, "dokcer" if option else None)


def test_every_engine_says_at_the_start_what_it_runs() -> None:
    assert set(cli.RUNS) == set(config.ENGINES) - {config.AUTO}
