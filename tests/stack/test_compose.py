"""docker-compose.yml against the code; and each of its processes started, without containers."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import Signals
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from django.apps import apps
from django.core.management import get_commands
from psycopg import sql

from config import checks
from config.environment import KEY_NAMES, Environment
from config.keyfile import read_keys
from devstack.application import PROJECT, clean_environment, run_once, wait_until_serving
from devstack.processes import Child, free_port
from devstack.services import Postgres, Redis, start_postgres, start_redis

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
APPLICATION = ("migrate", "web", "worker", "followers")
RUNNING = ("web", "worker", "followers")
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
IMAGE_SETTINGS = {"postgres": {"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"}}
ADDRESSES = {"DATABASE_URL", "REDIS_URL"}
REQUIRED = {
    "migrate": ADDRESSES,
    "web": ADDRESSES | {*checks.WEB_KEYS, "HOST", "PORT"},
    "worker": ADDRESSES | {*checks.BACKGROUND_KEYS},
    "followers": ADDRESSES | {*checks.FOLLOWERS_KEYS},
}
SECRETS = {*KEY_NAMES, "JWT_SIGNING_KEYS_PREVIOUS", "DATA_KEY_PREVIOUS", "POSTGRES_PASSWORD"}
REFERENCE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\}")
ALICE = {"username": "alice", "password": "correct horse battery staple"}
HELLO = "Hi there! How can I help you today?"


def variables(service: str, secrets: dict[str, str]) -> dict[str, str]:
    """The service's environment as compose makes it of the file and of `.env`."""
    given: dict[str, str | None] = SERVICES[service].get("environment", {})
    values = {
        name: secrets.get(name) if text is None else interpolate(text, secrets)
        for name, text in given.items()
    }
    return {name: value for name, value in values.items() if value is not None}


def interpolate(text: str, secrets: dict[str, str]) -> str:
    def value_of(reference: re.Match[str]) -> str:
        value = secrets.get(reference["name"])
        if value:
            return value
        if reference["kind"] == ":?":
            raise LookupError(f"{reference['name']}: {reference['rest']}")
        return reference["rest"] or ""

    return REFERENCE.sub(value_of, text)


def test_the_services_are_those_of_the_full_stack() -> None:
    assert set(SERVICES) == {"postgres", "redis", *APPLICATION}


@pytest.mark.parametrize("service", APPLICATION)
def test_every_command_is_one_of_manage_py(service: str) -> None:
    assert 'ENTRYPOINT ["python", "manage.py"]' in DOCKERFILE
    assert SERVICES[service]["command"][0] in get_commands()
    assert "entrypoint" not in SERVICES[service]


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_is_a_known_setting(service: str) -> None:
    known = {field.upper() for field in Environment.model_fields}
    assert set(SERVICES[service].get("environment", {})) <= IMAGE_SETTINGS.get(service, known)


def test_every_setting_can_be_given_in_env_but_those_of_the_embedded_profile() -> None:
    given = {name for service in APPLICATION for name in SERVICES[service].get("environment", {})}
    assert {field.upper() for field in Environment.model_fields} - given == {"DEBUG", "VAR_DIR"}


@pytest.mark.parametrize("service", APPLICATION)
def test_every_process_gets_what_it_requires_and_no_other_secret(
    service: str, secrets: dict[str, str]
) -> None:
    assert set(variables(service, secrets)) >= REQUIRED[service]
    given = set(SERVICES[service]["environment"])
    previous = {name for name in SECRETS if name.endswith("_PREVIOUS")}
    assert (given & SECRETS) - previous == REQUIRED[service] & SECRETS


def test_the_file_holds_no_secret_and_says_how_to_make_them(secrets: dict[str, str]) -> None:
    for service, description in SERVICES.items():
        for name, text in description.get("environment", {}).items():
            if text is not None and (name in SECRETS or "password" in str(text).lower()):
                for missing in {match["name"] for match in REFERENCE.finditer(text)}:
                    some = {key: value for key, value in secrets.items() if key != missing}
                    with pytest.raises(LookupError, match=f"{missing}: run: make keys"):
                        interpolate(text, some)
            if name in SECRETS and text is not None:
                assert REFERENCE.fullmatch(text), f"{service} holds {name}"
    assert (
        "postgresql://chatledger:${POSTGRES_PASSWORD"
        in SERVICES["web"]["environment"]["DATABASE_URL"]
    )


def test_only_web_publishes_a_port_and_on_loopback_alone() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["web"]
    assert [interpolate(port, {}) for port in SERVICES["web"]["ports"]] == ["127.0.0.1:8000:8000"]
    assert COMPOSE["networks"]["data"]["internal"] is True
    for name, service in SERVICES.items():
        assert service["networks"] == {
            "web": ["data", "public"],
            "worker": ["data", "model"],
        }.get(name, ["data"])


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"migrate"}))
def test_every_lasting_service_has_a_health_check_and_comes_back(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", RUNNING)
def test_the_application_starts_after_its_migration(service: str) -> None:
    assert SERVICES[service]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "postgres": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
    }
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert SERVICES["migrate"]["restart"] == "no"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_runs_without_privileges(service: str) -> None:
    description = SERVICES[service]
    assert description["cap_drop"] == ["ALL"]
    assert description["security_opt"] == ["no-new-privileges:true"]
    if service in APPLICATION:
        assert description["read_only"] is True
        assert "user" not in description
    else:
        assert description["user"] == service
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.MULTILINE)


def test_what_must_last_is_in_a_volume_and_redis_keeps_nothing() -> None:
    assert SERVICES["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql/data"]
    assert "postgres-data" in COMPOSE["volumes"]
    redis_command = ["redis-server", "--save", "", "--appendonly", "no"]
    assert SERVICES["redis"]["command"] == redis_command
    assert "volumes" not in SERVICES["redis"]


def test_the_image_holds_the_locked_packages_and_every_app_and_nothing_else() -> None:
    assert "--require-hashes -r requirements.txt" in DOCKERFILE
    rules = (PROJECT / ".dockerignore").read_text().split("\n")
    assert next(rule for rule in rules if rule and not rule.startswith("#")) == "*"
    ours = {Path(app.path).name for app in apps.get_app_configs() if is_ours(Path(app.path))}
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {
        *ours,
        "manage.py",
        "requirements.txt",
    }


def is_ours(path: Path) -> bool:
    return path.parent == PROJECT


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def secrets(folder: Path) -> dict[str, str]:
    file = folder / ".env"
    command = [sys.executable, "manage.py", "make_keys", "--file", str(file)]
    run_once("make_keys", command, clean_environment() | {"VAR_DIR": str(folder)}, folder)
    return read_keys(file)


@pytest.fixture(scope="module")
def postgres(folder: Path, secrets: dict[str, str]) -> Iterator[Postgres]:
    with start_postgres(folder) as running:
        # As the image does with POSTGRES_USER and POSTGRES_PASSWORD.
        image = variables("postgres", secrets)
        role = sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
            sql.Identifier(image["POSTGRES_USER"]), sql.Literal(image["POSTGRES_PASSWORD"])
        )
        with psycopg.connect(running.create_database(image["POSTGRES_DB"])) as connection:
            connection.execute(role)
        yield running


@pytest.fixture(scope="module")
def redis_server(folder: Path) -> Iterator[Redis]:
    with start_redis(folder) as running:
        yield running


@pytest.fixture(scope="module")
def processes(
    folder: Path, secrets: dict[str, str], postgres: Postgres, redis_server: Redis
) -> Iterator[dict[str, Child]]:
    """The application's processes with the file's commands and environments, on real services."""
    local = {
        "@postgres:5432/": f"@127.0.0.1:{postgres.port}/",
        "redis://redis:6379/0": redis_server.url,
    }
    children: dict[str, Child] = {}
    with ExitStack() as running:
        for service in APPLICATION:
            env = clean_environment() | variables(service, secrets)
            for there, here in local.items():
                env = {name: value.replace(there, here) for name, value in env.items()}
            if service == "web":
                env["PORT"] = str(free_port())
            if service in RUNNING:
                env |= {"METRICS_HOST": "127.0.0.1", "METRICS_PORT": str(free_port())}
            command = [sys.executable, "manage.py", *SERVICES[service]["command"]]
            child = Child(service, command, env, folder / f"{service}.log", PROJECT)
            children[service] = child
            child.start()
            running.callback(child.kill)
            if service == "migrate":
                assert child.wait(timeout_seconds=60)
                assert child.exit_code == 0, child.log_tail()
        lasting = [children[service] for service in RUNNING]
        wait_until_serving(lasting, int(children["web"].env["PORT"]))
        yield children


def test_the_processes_of_the_file_answer_a_message(processes: dict[str, Child]) -> None:
    url = f"http://127.0.0.1:{processes['web'].env['PORT']}"
    with httpx.Client(base_url=url, timeout=35, trust_env=False) as client:
        registered = client.post("/users/register/", json=ALICE)
        assert registered.status_code == 201, registered.text
        login = client.post("/users/login/", json=ALICE)
        client.headers["Authorization"] = f"Bearer {login.json()['token']}"
        sent = client.post("/send/", json={"message": "hello"})
        assert (sent.status_code, sent.json()) == (201, {"response": HELLO})
        assert client.get("/token/").json() == {"tokens": 3900}


@pytest.mark.parametrize("service", RUNNING)
def test_each_lasting_process_tells_its_metrics(
    processes: dict[str, Child], secrets: dict[str, str], service: str
) -> None:
    given = variables(service, secrets)
    assert (given["METRICS_HOST"], given["METRICS_PORT"]) == ("0.0.0.0", "9100")
    port = processes[service].env["METRICS_PORT"]
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    assert "chatledger_commit_seconds" in answer.text


@pytest.mark.parametrize("service", RUNNING)
def test_each_lasting_process_logs_lines_of_json_alone(
    processes: dict[str, Child], service: str
) -> None:
    lines = processes[service].log_tail().splitlines()
    assert lines
    for line in lines:
        said = json.loads(line)
        assert {"at", "level", "logger", "message"} <= said.keys()


@pytest.mark.parametrize("service", RUNNING)
def test_the_health_check_passes_while_its_service_is_there(
    processes: dict[str, Child], service: str
) -> None:
    marker, python, *arguments = SERVICES[service]["healthcheck"]["test"]
    assert (marker, python) == ("CMD", "python")
    command = [sys.executable, *arguments]
    env = processes[service].env
    assert subprocess.run(command, env=env, timeout=30, check=False).returncode == 0

    away = {"PORT": str(free_port()), "REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "host=/"}
    failed = subprocess.run(command, env=env | away, timeout=30, check=False, capture_output=True)
    assert failed.returncode != 0


def test_the_processes_stop_in_order_within_their_grace(processes: dict[str, Child]) -> None:
    for service in reversed(RUNNING):
        child = processes[service]
        grace_seconds = float(SERVICES[service]["stop_grace_period"].removesuffix("s"))
        child.send(Signals.SIGTERM)
        assert child.wait(grace_seconds), child.log_tail()
        assert child.exit_code == 0, child.log_tail()
        assert "Traceback" not in child.log_tail()
