"""Settings: what is read, what is refused, and that the refusal is one line without a secret."""

import sys
from pathlib import Path

import pytest

from config.environment import KEY_NAMES, Environment, SettingsError, read_environment
from config.keyfile import new_key
from tests.config.processes import FULL, environment, manage, the_line


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for field in Environment.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    monkeypatch.setenv("VAR_DIR", str(tmp_path / "var"))
    return monkeypatch


def refusal(variables: pytest.MonkeyPatch, **values: str) -> str:
    for name, value in values.items():
        variables.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        read_environment()
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_nothing_set_is_the_embedded_profile_with_the_documented_defaults(
    variables: pytest.MonkeyPatch,
) -> None:
    read = read_environment()

    assert read.embedded
    assert read.redis_url is None
    assert (read.host, read.port, read.allowed_hosts) == ("127.0.0.1", 8000, ("localhost",))
    assert (read.jwt_lifetime_minutes, read.signup_tokens, read.message_price) == (60, 4000, 100)
    assert (read.worker_threads, read.responder) == (8, "dummy")
    assert (read.response_deadline_seconds, read.reply_wait_seconds) == (90, 30)
    assert (read.debug, read.log_level, read.trusted_proxies) == (False, "info", ())


def test_an_empty_variable_counts_as_unset(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("PORT", "")
    variables.setenv("REDIS_URL", "")

    assert read_environment().port == 8000


def test_lists_are_separated_by_commas(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("ALLOWED_HOSTS", "chat.example.org, localhost,")
    variables.setenv("TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.1")

    read = read_environment()

    assert read.allowed_hosts == ("chat.example.org", "localhost")
    assert read.trusted_proxies == ("10.0.0.0/8", "192.0.2.1")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "eight", "0 to 65535"),
        ("PORT", "65536", "0 to 65535"),
        ("MESSAGE_PRICE", "0", "1 to 1000000000"),
        ("SIGNUP_TOKENS", "-1", "0 to 1000000000"),
        ("JWT_LIFETIME_MINUTES", "0", "1 to 525600"),
        ("WORKER_THREADS", "0", "1 to 1024"),
        ("RESPONSE_DEADLINE_SECONDS", "1.5", "1 to 3600"),
        ("REPLY_WAIT_SECONDS", "121", "0 to 120"),
        ("RESPONDER", "parrot", "dummy"),
        ("DEBUG", "perhaps", "on or off"),
        ("LOG_LEVEL", "loud", "debug, info, warning, error or critical"),
        ("TRUSTED_PROXIES", "proxy.example.org", "addresses and networks"),
        ("ALLOWED_HOSTS", "*", "without wildcards"),
        ("ALLOWED_HOSTS", "localhost,*.example.org", "without wildcards"),
        ("DATABASE_URL", "mysql://localhost/x", "sqlite:///path or postgresql://"),
        ("DATABASE_URL", "sqlite://:memory:", "sqlite:///path"),
        ("DATABASE_URL", "sqlite:///:memory:", "sqlite:///path"),
        ("DATABASE_URL", "postgresql://u:p@host:port/x", "sqlite:///path or postgresql://"),
        ("REDIS_URL", "localhost:6379", "redis://"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(
    variables: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    line = refusal(variables, **{name: value})

    assert line.startswith(f"{name} is refused: ")
    assert allowed in line.partition("; allowed: ")[2]


def test_redis_with_sqlite_is_refused(variables: pytest.MonkeyPatch) -> None:
    line = refusal(variables, REDIS_URL=FULL["REDIS_URL"])

    assert line.startswith("REDIS_URL is set but DATABASE_URL is SQLite")


def test_postgresql_without_redis_is_refused(variables: pytest.MonkeyPatch) -> None:
    line = refusal(variables, DATABASE_URL=FULL["DATABASE_URL"])

    assert line.startswith("REDIS_URL is not set but DATABASE_URL is PostgreSQL")


def test_debug_in_the_full_profile_is_refused(variables: pytest.MonkeyPatch) -> None:
    assert refusal(variables, DEBUG="on", **FULL).startswith("DEBUG is on")


@pytest.mark.parametrize(
    "key",
    [
        "short",
        "not base64url at all!",
        "A" * 43,
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "Y2hhbmdlLW1lLXBsZWFzZS10aGlzLWlzLWEta2V5LSE",
        "example-example-example-example-example-exa",
        new_key() + new_key(),
    ],
)
@pytest.mark.parametrize("name", [*KEY_NAMES, "DATA_KEY_PREVIOUS", "JWT_SIGNING_KEYS_PREVIOUS"])
def test_a_key_that_is_short_or_made_up_is_refused_without_being_shown(
    variables: pytest.MonkeyPatch, name: str, key: str
) -> None:
    line = refusal(variables, **{name: key})

    assert line.startswith(f"{name} is refused: ")
    assert "32 random bytes in base64url" in line
    assert key not in line


def test_equal_keys_are_refused_without_being_shown(variables: pytest.MonkeyPatch) -> None:
    key = new_key()

    line = refusal(variables, SECRET_KEY=key, DATA_KEY_PREVIOUS=f"{key}=")

    assert line.startswith("DATA_KEY_PREVIOUS equals SECRET_KEY")
    assert key not in line


def test_secrets_do_not_show_in_a_representation(variables: pytest.MonkeyPatch) -> None:
    keys = {name: new_key() for name in KEY_NAMES}
    for name, value in (keys | FULL).items():
        variables.setenv(name, value)

    shown = repr(read_environment())

    assert not [secret for secret in (*keys.values(), "canary-password") if secret in shown]


def test_missing_keys_are_made_once_and_the_environment_wins_over_the_file(
    variables: pytest.MonkeyPatch,
) -> None:
    first = read_environment()
    again = read_environment()
    mine = new_key()
    variables.setenv("DATA_KEY", mine)
    overridden = read_environment()

    assert all(getattr(first, name.lower()) for name in KEY_NAMES)
    assert again == first
    assert overridden.data_key is not None
    assert overridden.data_key.get_secret_value() == mine
    assert overridden.secret_key == first.secret_key


def test_the_full_profile_makes_no_keys(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in FULL.items():
        variables.setenv(name, value)

    assert read_environment().missing(*KEY_NAMES) == list(KEY_NAMES)
    assert not (tmp_path / "var").exists()


def test_a_var_folder_that_cannot_be_made_is_one_line(
    variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    line = refusal(variables, VAR_DIR=str(tmp_path / "file" / "var"))

    assert line.startswith("VAR_DIR is not usable: ")


@pytest.mark.parametrize("command", ["serve", "runserver", "run_worker", "migrate", "check"])
def test_every_command_refuses_a_bad_value_in_one_line_with_status_2(
    command: str, tmp_path: Path
) -> None:
    result = manage(command, PORT="eight", VAR_DIR=str(tmp_path))

    assert the_line(result).startswith("PORT is refused: ")
    assert result.returncode == 2


def test_a_server_started_without_our_command_refuses_a_bad_value_in_one_line(
    tmp_path: Path,
) -> None:
    import subprocess

    result = subprocess.run(
        [sys.executable, "-m", "uvicorn", "config.asgi:application", "--port", "0"],
        env=environment(DATA_KEY="canary", VAR_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert the_line(result).startswith("DATA_KEY is refused: ")
    assert "canary" not in result.stderr
    assert result.returncode == 2
