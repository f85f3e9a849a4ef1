"""The commands: what they say when they start, when they cannot, and how they stop."""

import ast
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from config.environment import KEY_NAMES, PROJECT_DIR
from config.keyfile import new_key, read_keys
from tests.config.processes import FULL, environment, manage, running, the_line

SOURCES = (
    *("accounts", "audit", "config", "conversations", "eventstore", "privacy", "projections"),
    *("manage.py", "openapi.json"),
)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `var` folder with keys and tables, as the embedded profile leaves it."""
    folder = str(tmp_path_factory.mktemp("embedded") / "var")
    assert manage("migrate", "--verbosity", "0", VAR_DIR=folder).returncode == 0
    return folder


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def url_of(process: subprocess.Popen[str]) -> str:
    """Wait until the process says where it serves and what to paste."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("  curl "):
            url = said.partition("Chatledger serves on ")[2].split()[0]
            assert f" {url}/users/register/ " in line
            return url
    raise AssertionError(said)


def status(url: str, body: dict[str, str] | None = None) -> int:
    data = json.dumps(body).encode() if body else None
    try:
        with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=30) as got:
            return int(got.status)
    except HTTPError as error:
        return error.code


class TestMakeKeys:
    def test_it_writes_every_key_and_says_which(self, tmp_path: Path) -> None:
        result = manage("make_keys", VAR_DIR=str(tmp_path / "var"))

        file = tmp_path / "var" / "keys.env"
        assert result.stdout == f"{file}: wrote {', '.join(KEY_NAMES)}\n"
        assert read_keys(file).keys() == set(KEY_NAMES)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert not [key for key in read_keys(file).values() if key in result.stdout]

    def test_a_file_for_docker_compose_gets_a_database_password_too(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text(f"PORT=80\nDATA_KEY={new_key()}\n")

        result = manage("make_keys", "--file", str(file), **FULL)

        assert result.stdout.endswith(
            ": wrote SECRET_KEY, JWT_SIGNING_KEY, SEAL_KEY, POSTGRES_PASSWORD\n"
        )
        assert read_keys(file).keys() == {*KEY_NAMES, "PORT", "POSTGRES_PASSWORD"}

    def test_a_second_run_changes_nothing(self, tmp_path: Path) -> None:
        file = tmp_path / "keys"
        manage("make_keys", "--file", str(file))
        before = file.read_bytes()

        assert manage("make_keys", "--file", str(file)).stdout == f"{file}: nothing was missing\n"
        assert file.read_bytes() == before

    def test_another_file_than_var_leaves_var_alone(self, tmp_path: Path) -> None:
        manage("make_keys", "--file", str(tmp_path / "keys"), VAR_DIR=str(tmp_path / "var"))

        assert not (tmp_path / "var").exists()

    def test_a_file_that_cannot_be_written_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        result = manage("make_keys", "--file", str(tmp_path / "file" / "keys"))

        assert "cannot be written" in the_line(result)
        assert result.returncode == 1


class TestCheck:
    def test_djangos_own_checks_for_a_deployment_find_nothing(self, migrated: str) -> None:
        result = manage("check", "--deploy", "--fail-level", "DEBUG", VAR_DIR=migrated)

        assert result.stdout.startswith("System check identified no issues (4 silenced)")
        assert result.returncode == 0


class TestServe:
    @pytest.mark.parametrize("command", ["serve", "runserver"])
    def test_a_port_in_use_is_one_line(self, command: str, migrated: str, taken_port: int) -> None:
        result = manage(command, VAR_DIR=migrated, PORT=str(taken_port))

        assert f"Port {taken_port} is in use on 127.0.0.1" in the_line(result)
        assert result.returncode == 1

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
    def test_an_address_of_another_machine_is_one_line(self, host: str, migrated: str) -> None:
        result = manage("serve", "--host", host, "--port", "0", VAR_DIR=migrated)

        assert f"Cannot listen on {host}:0: " in the_line(result)
        assert result.returncode == 1

    @pytest.mark.parametrize("command", ["serve", "runserver"])
    def test_debugging_before_other_machines_is_refused_in_one_line(
        self, command: str, migrated: str
    ) -> None:
        result = manage(command, VAR_DIR=migrated, PORT="0", HOST="0.0.0.0", DEBUG="on")

        line = "DEBUG is on and HOST is 0.0.0.0; allowed with DEBUG: a loopback address"
        assert line in the_line(result)
        assert result.returncode == 1

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_debugging_on_this_machine_is_allowed(self, host: str, migrated: str) -> None:
        with running("serve", "--port", "0", HOST=host, DEBUG="on", VAR_DIR=migrated) as process:
            assert status(f"{url_of(process)}/livez/") == 200

    def test_a_port_that_does_not_exist_is_one_line(self, migrated: str) -> None:
        result = manage("serve", "--port", "65536", VAR_DIR=migrated)

        assert "Port 65536 does not exist; allowed: 0 to 65535" in the_line(result)

    @pytest.mark.parametrize("command", ["serve", "runserver"])
    def test_a_database_without_tables_is_one_line(self, command: str, tmp_path: Path) -> None:
        result = manage(command, VAR_DIR=str(tmp_path))

        assert the_line(result).endswith("run: python manage.py migrate")
        assert result.returncode == 1

    @pytest.mark.parametrize("command", ["serve", "migrate"])
    def test_a_database_that_does_not_answer_is_one_line_without_its_password(
        self, command: str
    ) -> None:
        keys = {name: new_key() for name in KEY_NAMES}

        result = manage(command, **FULL, **keys)

        assert "The database cannot be used: " in the_line(result)
        assert "canary" not in result.stderr
        assert result.returncode == 1

    @pytest.mark.parametrize("missing", ["SECRET_KEY", "JWT_SIGNING_KEY", "DATA_KEY"])
    def test_a_missing_key_is_one_line(self, missing: str) -> None:
        keys = {name: new_key() for name in KEY_NAMES if name != missing}

        result = manage("serve", **FULL, **keys)

        assert f"{missing} is missing; allowed: 32 random bytes in base64url" in the_line(result)
        assert result.returncode == 2

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_makes_its_tables_serves_and_stops_cleanly(
        self, number: signal.Signals, tmp_path: Path
    ) -> None:
        with running("serve", "--migrate", "--port", "0", VAR_DIR=str(tmp_path)) as process:
            url = url_of(process)
            alice = {"username": "alice", "password": "a-long-passphrase"}
            assert status(f"{url}/users/register/", alice) == 201
            process.send_signal(number)
            said, _ = process.communicate(timeout=20)

        assert process.returncode == 0
        assert "Traceback" not in said


class TestRunserver:
    def test_it_starts_anew_when_a_file_changes_and_stops_cleanly(
        self, migrated: str, tmp_path: Path
    ) -> None:
        for name in SOURCES:
            source = PROJECT_DIR / name
            if source.is_dir():
                shutil.copytree(source, tmp_path / name)
            elif source.exists():
                shutil.copy(source, tmp_path / name)
        with running("runserver", "0", folder=tmp_path, VAR_DIR=migrated) as process:
            url = url_of(process)
            assert status(f"{url}/livez/") == 200

            module = tmp_path / "config" / "logs.py"
            os.utime(module, (module.stat().st_atime, module.stat().st_mtime + 10))
            assert url_of(process) == url
            assert status(f"{url}/livez/") == 200

            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=20)

        assert process.returncode == 0
        assert "Traceback" not in said

    def test_an_argument_that_is_no_address_is_one_line(self, migrated: str) -> None:
        assert "allowed: 8000 or 127.0.0.1:8000" in the_line(
            manage("runserver", "nonsense", VAR_DIR=migrated)
        )


class TestBackgroundProcesses:
    @pytest.mark.parametrize("command", ["run_worker", "run_followers"])
    def test_the_embedded_profile_refuses_them_in_one_line(
        self, command: str, migrated: str
    ) -> None:
        line = the_line(manage(command, VAR_DIR=migrated))

        assert f"{command} needs PostgreSQL and Redis" in line

    @pytest.mark.parametrize("command", ["run_worker", "run_followers"])
    def test_they_want_no_key_for_jwts(self, command: str) -> None:
        keys = {"SECRET_KEY": new_key(), "DATA_KEY": new_key()}
        if command == "run_followers":
            keys["SEAL_KEY"] = new_key()

        assert "The database cannot be used: " in the_line(manage(command, **FULL, **keys))

    @pytest.mark.parametrize("command", ["run_worker", "run_followers"])
    def test_they_want_the_key_of_the_data(self, command: str) -> None:
        result = manage(command, **FULL, SECRET_KEY=new_key())

        assert "DATA_KEY is missing" in the_line(result)
        assert result.returncode == 2

    def test_the_followers_want_the_key_that_seals(self) -> None:
        keys = {"SECRET_KEY": new_key(), "DATA_KEY": new_key()}

        result = manage("run_followers", **FULL, **keys)

        assert "SEAL_KEY is missing" in the_line(result)
        assert result.returncode == 2


class TestAsgi:
    def test_a_server_of_the_users_own_choice_refuses_a_database_without_tables(
        self, tmp_path: Path
    ) -> None:
        result = subprocess.run(
            [sys.executable, "-m", "uvicorn", "config.asgi:application", "--port", "0"],
            cwd=PROJECT_DIR,
            env=environment(VAR_DIR=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert result.returncode != 0
        assert "run: python manage.py migrate" in result.stderr
        assert "Traceback" not in result.stderr


class TestOlderPythons:
    def test_manage_py_parses_on_python_3_6(self) -> None:
        ast.parse((PROJECT_DIR / "manage.py").read_text(), feature_version=(3, 6))

    def test_manage_py_refuses_them_in_one_line(self) -> None:
        code = (
            "import runpy, sys; sys.version_info = (3, 8, 10);"
            "sys.argv = ['manage.py', 'serve']; runpy.run_path('manage.py', run_name='__main__')"
        )

        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=PROJECT_DIR,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert "needs Python 3.11 or newer; this is Python 3.8" in the_line(result)
        assert result.returncode == 2


class TestMake:
    def make(self, folder: Path, python: str) -> list[str]:
        """What `make run` says with this interpreter, without make's own line."""
        shutil.copy(PROJECT_DIR / "Makefile", folder)
        (folder / "requirements.txt").touch()
        result = subprocess.run(
            ["make", "run", f"PYTHON={python}"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert result.returncode == 2
        return [line for line in result.stderr.splitlines() if not line.startswith("make")]

    def fake_python(self, folder: Path, script: str) -> str:
        file = folder / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return str(file)

    def test_an_older_python_is_one_line(self, tmp_path: Path) -> None:
        old = self.fake_python(tmp_path, 'case "$1" in -V) echo Python 3.8.10;; *) exit 1;; esac')

        [line] = self.make(tmp_path, old)

        assert line.startswith(f"Chatledger needs Python 3.11 or newer, and {old} is Python 3.8.10")

    def test_a_python_without_venv_is_one_line(self, tmp_path: Path) -> None:
        bare = self.fake_python(tmp_path, 'case "$*" in *venv*) exit 1;; esac')

        [line] = self.make(tmp_path, bare)

        assert "apt install python3-venv" in line

    def test_no_python_is_one_line(self, tmp_path: Path) -> None:
        [line] = self.make(tmp_path, "python-that-is-not-there")

        assert "finds no python-that-is-not-there" in line
