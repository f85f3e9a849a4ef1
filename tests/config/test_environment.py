"""Settings: what is read, what is refused, and that the refusal is one line without a secret."""

import sys
from pathlib import Path

import pytest

from accounts.rates import Rate
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
    assert (read.threads, read.responder, read.pricing) == (8, "dummy", "message")
    assert (read.context_tokens_max, read.response_tokens_max) == (8000, 1024)
    assert read.openai_api_key is None
    assert read.system_prompt == ""
    assert read.openai_connect_seconds == 5
    assert read.openai_first_byte_seconds == 60
    assert read.openai_silence_seconds == 20
    assert (read.response_deadline_seconds, read.reply_wait_seconds) == (90, 30)
    assert (read.debug, read.log_level, read.trusted_proxies) == (False, "info", ())
    assert (read.rate_limit_login, read.rate_limit_register) == (Rate(10, 300), Rate(60, 3_600))
    assert read.rate_limit_send == Rate(600, 60)


def test_origins_are_taken_as_browsers_send_them(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("CORS_ALLOWED_ORIGINS", "https://app.example.org, http://[::1]:3000")

    assert read_environment().cors_allowed_origins == (
        "https://app.example.org",
        "http://[::1]:3000",
    )


def test_a_limit_can_be_switched_off(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("RATE_LIMIT_LOGIN", "off")
    variables.setenv("RATE_LIMIT_SEND", "5/second")

    read = read_environment()

    assert (read.rate_limit_login, read.rate_limit_send) == (None, Rate(5, 1))


def test_a_network_is_one_whatever_address_in_it_is_named(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("TRUSTED_PROXIES", "10.1.2.3/8,2001:db8::7/64")

    assert read_environment().trusted_proxies == ("10.0.0.0/8", "2001:db8::/64")


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
        ("RESPONDER", "parrot", "dummy or openai"),
        ("OPENAI_BASE_URL", "localhost:11434", "http:// or https://"),
        ("OPENAI_BASE_URL", "ftp://localhost/v1", "http:// or https://"),
        ("OPENAI_BASE_URL", "http://", "http:// or https://"),
        ("OPENAI_BASE_URL", "http:///v1", "http:// or https://"),
        ("OPENAI_BASE_URL", "http://localhost:port/v1", "http:// or https://"),
        ("OPENAI_BASE_URL", "http://[::1/v1", "http:// or https://"),
        ("OPENAI_BASE_URL", "http://local host/v1", "http:// or https://"),
        ("OPENAI_BASE_URL", "http://localhost/v1?key=1", "http:// or https://"),
        ("OPENAI_MODEL", "m" * 201, "1 to 200 characters"),
        ("OPENAI_CONNECT_SECONDS", "0", "more than 0"),
        ("OPENAI_FIRST_BYTE_SECONDS", "inf", "more than 0, at most 3600"),
        ("OPENAI_SILENCE_SECONDS", "nan", "more than 0, at most 3600"),
        ("SYSTEM_PROMPT", "\udcff", "UTF-8"),
        ("CONTEXT_TOKENS_MAX", "255", "256 to 2000000"),
        ("CONTEXT_TOKENS_MAX", "2000001", "256 to 2000000"),
        ("RESPONSE_TOKENS_MAX", "0", "1 to 1000000"),
        ("PRICING", "free", "message or usage"),
        ("PROMPT_PRICE_PER_1000", "-1", "0 to 1000000000"),
        ("COMPLETION_PRICE_PER_1000", "0.5", "0 to 1000000000"),
        ("RATE_LIMIT_LOGIN", "often", "off, or a number in a time"),
        ("RATE_LIMIT_REGISTER", "0/hour", "off, or a number in a time"),
        ("RATE_LIMIT_SEND", "600", "off, or a number in a time"),
        ("CORS_ALLOWED_ORIGINS", "*", "origins as https://app.example.org"),
        ("CORS_ALLOWED_ORIGINS", "null", "origins as https://app.example.org"),
        ("CORS_ALLOWED_ORIGINS", "app.example.org", "origins as https://app.example.org"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example.org/", "origins as https://app.example.org"),
        ("CORS_ALLOWED_ORIGINS", "https://*.example.org", "origins as https://app.example.org"),
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


UPSTREAM = {
    "RESPONDER": "openai",
    "OPENAI_BASE_URL": "http://localhost:11434/v1",
    "OPENAI_MODEL": "scripted",
}
BY_USAGE = {"PRICING": "usage", "PROMPT_PRICE_PER_1000": "10", "COMPLETION_PRICE_PER_1000": "0"}


def test_openai_needs_an_address_and_a_model_and_no_key(variables: pytest.MonkeyPatch) -> None:
    for name, value in UPSTREAM.items():
        variables.setenv(name, value)

    read = read_environment()

    assert read.openai_base_url == UPSTREAM["OPENAI_BASE_URL"]
    assert read.openai_model == "scripted"
    assert read.threads == 64


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_MODEL"])
def test_openai_without_an_address_or_a_model_is_refused(
    variables: pytest.MonkeyPatch, name: str
) -> None:
    line = refusal(variables, **(UPSTREAM | {name: ""}))

    assert line.startswith(f"{name} is not set but RESPONDER is openai; allowed: ")


def test_the_number_of_threads_that_was_asked_for_wins(variables: pytest.MonkeyPatch) -> None:
    for name, value in (UPSTREAM | {"WORKER_THREADS": "3"}).items():
        variables.setenv(name, value)

    assert read_environment().threads == 3


def test_an_address_with_credentials_is_refused_without_them(
    variables: pytest.MonkeyPatch,
) -> None:
    line = refusal(variables, OPENAI_BASE_URL="https://canary:canary@localhost/v1")

    assert line.startswith("OPENAI_BASE_URL is refused: it holds credentials")
    assert "canary" not in line


@pytest.mark.parametrize("key", ["canary key", "canary\n", "canaryé", "canary\x7f"])
def test_an_upstream_key_that_no_header_carries_is_refused_without_being_shown(
    variables: pytest.MonkeyPatch, key: str
) -> None:
    line = refusal(variables, OPENAI_API_KEY=key)

    assert line.startswith("OPENAI_API_KEY is refused: ")
    assert "canary" not in line


def test_an_upstream_key_does_not_show_in_a_representation(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("OPENAI_API_KEY", "sk-canary")

    assert "canary" not in repr(read_environment())


def test_a_system_prompt_that_leaves_no_room_is_refused(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("CONTEXT_TOKENS_MAX", "256")
    variables.setenv("SYSTEM_PROMPT", "x" * 239)
    assert read_environment().system_prompt == "x" * 239

    line = refusal(variables, SYSTEM_PROMPT="x" * 240)

    assert line.startswith("SYSTEM_PROMPT may take 256 tokens of the model and CONTEXT_TOKENS_MAX")
    assert "; allowed: " in line


@pytest.mark.parametrize("name", ["PROMPT_PRICE_PER_1000", "COMPLETION_PRICE_PER_1000"])
def test_pricing_by_usage_needs_both_prices(variables: pytest.MonkeyPatch, name: str) -> None:
    line = refusal(variables, **(BY_USAGE | {name: ""}))

    assert line.startswith(f"{name} is not set but PRICING is usage; allowed: ")


def test_pricing_by_usage_needs_a_price_above_0(variables: pytest.MonkeyPatch) -> None:
    line = refusal(variables, **(BY_USAGE | {"PROMPT_PRICE_PER_1000": "0"}))

    assert line.startswith("PROMPT_PRICE_PER_1000 and COMPLETION_PRICE_PER_1000 are both 0; ")


def test_a_message_that_could_cost_too_much_is_refused(variables: pytest.MonkeyPatch) -> None:
    line = refusal(variables, **(BY_USAGE | {"PROMPT_PRICE_PER_1000": "50000000"}))

    assert line.startswith("PRICING is usage and the longest message could cost ")
    assert "; allowed: " in line


def test_prices_of_usage_do_not_matter_where_messages_have_one(
    variables: pytest.MonkeyPatch,
) -> None:
    for name in ("PROMPT_PRICE_PER_1000", "COMPLETION_PRICE_PER_1000"):
        variables.setenv(name, "0")

    assert read_environment().pricing == "message"


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
        pytest.param(new_key() + new_key(), id="two keys"),
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


def test_keys_that_were_replaced_are_read_from_the_file_too(
    variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "var" / "keys.env"
    first = read_environment().data_key
    old, older, data = new_key(), new_key(), new_key()
    with file.open("a") as keys:
        keys.write(f"JWT_SIGNING_KEYS_PREVIOUS={old},{older}\nDATA_KEY_PREVIOUS={data}\n")
    read = read_environment()
    assert [key.get_secret_value() for key in read.jwt_signing_keys_previous] == [old, older]
    assert read.data_key_previous is not None
    assert read.data_key_previous.get_secret_value() == data
    assert read.data_key == first

    variables.setenv("JWT_SIGNING_KEYS_PREVIOUS", other := new_key())
    (only,) = read_environment().jwt_signing_keys_previous
    assert only.get_secret_value() == other


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


def test_what_has_no_effect_is_said(variables: pytest.MonkeyPatch) -> None:
    assert read_environment().unused() == []
    for name in ("OPENAI_MODEL", "OPENAI_API_KEY", "PROMPT_PRICE_PER_1000"):
        variables.setenv(name, "1")

    assert read_environment().unused() == [
        "OPENAI_MODEL has no effect while RESPONDER is dummy",
        "OPENAI_API_KEY has no effect while RESPONDER is dummy",
        "PROMPT_PRICE_PER_1000 has no effect while PRICING is message",
    ]


def test_a_choice_is_taken_in_any_case(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("RESPONDER", "Dummy")
    variables.setenv("PRICING", "MESSAGE")

    assert (read_environment().responder, read_environment().pricing) == ("dummy", "message")
