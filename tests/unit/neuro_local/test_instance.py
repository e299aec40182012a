"""What an instance keeps: for its owner only, and the same from run to run."""

import base64
import json
import shlex
import socket
from pathlib import Path
from typing import Dict

import pytest

from neuro_local import config, instance
from neuro_local.config import Settings
from neuro_local.errors import UsageError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(state=tmp_path / "state", cache=tmp_path / "cache")
    instance.prepare(made)
    return made


def exports(settings: Settings) -> Dict[str, str]:
    words = shlex.split(instance.shell_exports(settings))
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_state_and_token_are_the_owners_only(settings: Settings) -> None:
    instance.token(settings)

    assert settings.state.stat().st_mode & 0o777 == 0o700
    assert settings.token_file.stat().st_mode & 0o777 == 0o600


def test_token_stays_and_differs_between_instances(settings: Settings, tmp_path: Path) -> None:
    other = Settings(state=tmp_path / "other", cache=tmp_path)
    instance.prepare(other)

    assert instance.token(settings) == instance.token(settings)
    assert instance.token(settings) != instance.token(other)


def test_token_names_the_user_in_its_claims(settings: Settings) -> None:
    claims = instance.token(settings).split(".")[1]

    decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert decoded["identity"] == "user"


def test_port_stays_between_runs(settings: Settings) -> None:
    with instance.listen(settings) as first:
        port = first.getsockname()[1]

    with instance.listen(settings) as second:
        assert second.getsockname() == ("127.0.0.1", port)


def test_taken_port_is_replaced_and_logins_are_dropped(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        settings.port_file.write_text(str(taken))
        stale = settings.client_config / "apolo" / "db"
        stale.parent.mkdir(parents=True)
        stale.touch()

        with instance.listen(settings) as listener:
            assert listener.getsockname()[1] != taken

    assert instance.stored_port(settings) != taken
    assert not stale.exists()


def test_exports_point_the_client_into_the_state_folder(settings: Settings) -> None:
    instance.listen(settings).close()

    found = exports(settings)

    for variable in ("APOLO_CONFIG", "NEUROMATION_CONFIG"):
        folder = Path(found[variable])
        assert folder.is_relative_to(settings.state)
        assert folder.stat().st_mode & 0o777 == 0o700
    passed = json.loads(base64.b64decode(found["NEURO_PASSED_CONFIG"]))
    assert passed["token"] == instance.token(settings)
    assert passed["url"] == found["LOGIN_URL"] == instance.api_url(settings)


def test_exports_survive_a_folder_with_quotes_and_spaces(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "it's $HOME", cache=tmp_path)
    instance.prepare(settings)

    assert exports(settings)["APOLO_CONFIG"] == str(settings.client_config / "apolo")


@pytest.mark.parametrize(
    "flag, environ, expected",
    [
        ("/flag", {"NEURO_LOCAL_STATE_DIR": "/env"}, "/flag"),
        (None, {"NEURO_LOCAL_STATE_DIR": "/env", "XDG_DATA_HOME": "/xdg"}, "/env"),
        (None, {"XDG_DATA_HOME": "/xdg"}, "/xdg/neuro-local"),
        (None, {"XDG_DATA_HOME": "relative"}, str(Path.home() / ".local/share/neuro-local")),
        (None, {}, str(Path.home() / ".local/share/neuro-local")),
    ],
)
def test_flag_wins_over_environment_over_default(
    flag: str, environ: Dict[str, str], expected: str
) -> None:
    assert config.load(flag, environ).state == Path(expected)


def test_state_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(UsageError, match="is not a folder"):
        config.load(str(file), {})


def test_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(UsageError, match="cannot use the state folder"):
        instance.prepare(Settings(state=file / "below", cache=tmp_path))


def test_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "letter").touch()

    with pytest.raises(UsageError, match="holds other files"):
        instance.prepare(Settings(state=home, cache=tmp_path))

    assert home.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in home.iterdir()] == ["letter"]


def test_folder_that_is_empty_or_an_instances_own_is_used(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "state", cache=tmp_path)
    settings.state.mkdir()

    instance.prepare(settings)
    instance.token(settings)
    (settings.state / "storage").mkdir()
    instance.prepare(settings)

    assert settings.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("value", ["fast", "0", "-1"])
def test_length_of_a_minute_must_be_a_number_above_zero(value: str) -> None:
    with pytest.raises(UsageError, match="NEURO_LOCAL_MINUTE"):
        config.load(None, {"NEURO_LOCAL_MINUTE": value})
