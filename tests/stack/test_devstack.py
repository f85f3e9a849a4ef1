"""The development stack: real servers from wheels, processes that never outlive their parent."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx
import psycopg
import pytest
import redis

from config.environment import Environment
from devstack import __main__ as command
from devstack import postgres_install, server, services
from devstack.application import KEYS, PROJECT, Embedded, clean_environment, is_ready
from devstack.processes import Child, DevstackError, free_port, wait_until_ready
from devstack.services import Postgres, Redis, start_postgres, start_redis
from devstack.stack import RESTARTS_MAX, Stack

WAIT_SECONDS = 30.0
PYTHON = [sys.executable, "-S", "-E", "-c"]
SLEEPER = [*PYTHON, "import time; time.sleep(600)"]
TINY_SERVER = """
import http.server, os
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Ready).serve_forever()
"""
TINY = {
    "web": [*PYTHON, TINY_SERVER],
    "worker": SLEEPER,
    "followers": SLEEPER,
    "migrate": [*PYTHON, ""],
}
FAMILY = """
import sys
from pathlib import Path
from devstack.processes import Child, os
from devstack.services import start_postgres, start_redis
folder = Path(sys.argv[1])
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = Child("child", sleep, dict(os.environ), folder / "child.log", folder)
child.start()
print(start_postgres(folder).pid, start_redis(folder).pid, child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        yield Path(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Removed at once, unlike `tmp_path`: a database cluster takes 70 MB."""
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def postgres(shared_folder: Path) -> Iterator[Postgres]:
    with start_postgres(shared_folder) as running:
        yield running


@pytest.fixture(scope="module")
def redis_server(shared_folder: Path) -> Iterator[Redis]:
    with start_redis(shared_folder) as running:
        yield running


def test_postgres_keeps_what_was_committed_however_it_ends(postgres: Postgres) -> None:
    execute(postgres.url, "CREATE TABLE kept (how text)")
    ways: dict[str, Callable[[], None]] = {
        "fast": postgres.stop,
        "immediate": lambda: postgres.stop("immediate"),
        "killed": postgres.kill,
    }
    url, pids = postgres.url, {postgres.pid}
    for how, end in ways.items():
        execute(url, f"INSERT INTO kept VALUES ('{how}')")
        end()
        assert not postgres.child.running
        postgres.start()
        pids.add(postgres.pid)

    assert postgres.url == url
    assert len(pids) == 1 + len(ways)
    assert execute(url, "SELECT how FROM kept") == [(how,) for how in ways]


def test_postgres_is_as_durable_and_as_closed_as_in_production(postgres: Postgres) -> None:
    for name, value in {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "127.0.0.1",
    }.items():
        assert execute(postgres.url, f"SHOW {name}") == [(value,)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url, password="a wrong one")


def test_postgres_makes_a_further_database_once(postgres: Postgres) -> None:
    url = postgres.create_database("one-more")

    assert postgres.create_database("one-more") == url
    assert execute(url, "SELECT current_database()") == [("one-more",)]


def test_a_folder_too_long_for_a_unix_socket_will_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.chmod(0o711)
    deep = folder / ("deep " * 12) / ("down " * 12)
    deep.mkdir(parents=True)
    # Root's data lies in the temporary folder, everybody else's in the given one.
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with start_postgres(deep / "stack") as postgres:
        assert execute(postgres.url, "SHOW unix_socket_directories") == [("",)]


def test_a_home_that_another_process_removes_meanwhile_is_no_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    gone = folder / f"{postgres_install.PREFIX}postgres-gone"
    gone.mkdir()
    (gone / "folder").write_text(str(folder / "no more"))
    lstat = Path.lstat

    def removed_meanwhile(path: Path) -> os.stat_result:
        if path == gone:
            shutil.rmtree(gone)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", removed_meanwhile)
    postgres_install._remove_homes_without_folder()
    assert not gone.exists()


def test_redis_comes_back_empty_on_the_same_port(redis_server: Redis) -> None:
    url, pid = redis_server.url, redis_server.pid
    with redis.Redis.from_url(url) as client:
        client.set("name", "value")
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        redis_server.restart_empty()
        assert client.get("name") is None

    assert redis_server.url == url
    assert redis_server.pid != pid


def test_a_port_in_use_is_said_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STARTS_PAUSE_SECONDS", 0)
    with OccupiedPort() as port:
        with pytest.raises(DevstackError, match=r"in use") as postgres_failed:
            start_postgres(folder, port)
        with pytest.raises(DevstackError, match=r"in use") as redis_failed:
            start_redis(folder, port)
        with pytest.raises(DevstackError, match=rf"port {port}: .* in use") as stack_failed:
            Stack(folder, port=port, commands=TINY).open()
    for failed in (postgres_failed, redis_failed, stack_failed):
        assert "\n" not in str(failed.value)


def test_without_a_redis_server_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(services, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(DevstackError, match="install Redis"):
        start_redis(folder)

    own = folder / "redis-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert services.redis_server() == own


def test_a_folder_that_cannot_be_written_is_said_in_one_line(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(DevstackError, match="cannot write to"):
        Stack(folder / "file" / "stack", commands=TINY).open()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
def test_no_child_outlives_a_parent_that_is_killed(folder: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FAMILY, str(folder)],
        cwd=PROJECT,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pids = [int(pid) for pid in line_of(parent).split()]
        assert all(lives(pid) for pid in pids)
        parent.kill()
        wait_for(lambda: not any(lives(pid) for pid in pids))
    assert len(pids) == 3


def test_a_child_outlives_the_thread_that_asked_for_it(folder: Path) -> None:
    child = Child("child", SLEEPER, clean_environment(), folder / "log", folder)
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()

    assert not child.wait(timeout_seconds=0.3)
    child.kill()
    assert child.how_it_ended == "SIGKILL"


def test_the_last_line_of_a_child_that_ended_is_what_is_reported(folder: Path) -> None:
    failing = [*PYTHON, "print('first'); print('PORT is refused'); raise SystemExit(2)"]
    child = Child("web-1", failing, clean_environment(), folder / "log", folder)
    child.start()
    with pytest.raises(DevstackError, match=r"^web-1 ended \(exit 2\): PORT is refused$"):
        wait_until_ready([child], lambda: False, timeout_seconds=WAIT_SECONDS, what="web-1")


def test_the_stack_hands_out_addresses_and_only_the_keys_that_a_process_uses(
    folder: Path,
) -> None:
    show = [*PYTHON, "import os; print(sorted(os.environ), flush=True); import time; time.sleep(9)"]
    commands = TINY | {"worker": show, "followers": show}
    with Stack(folder, workers=2, extra_env={"MESSAGE_PRICE": "7"}, commands=commands) as stack:
        names = ["postgres", "redis", "web-1", "worker-1", "worker-2", "followers-1"]
        assert list(stack.processes) == names
        listed = json.loads((stack.folder / "processes.json").read_text())
        assert [row["name"] for row in listed] == names
        assert [row["pid"] for row in listed] == [child.pid for child in stack.processes.values()]
        assert stack.url.endswith(listed[2]["address"])
        targets = json.loads((stack.folder / "metrics.json").read_text())
        assert [target["labels"]["process"] for target in targets] == names[2:]
        told = [target["targets"][0] for target in targets]
        assert told == [row["metrics"] for row in listed[2:]]
        assert len(set(told)) == len(told)
        assert execute(stack.postgres.url, "SELECT 1") == [(1,)]
        for name in ("worker-1", "followers-1"):
            child = stack.processes[name]
            wait_for(lambda child=child: child.log_tail().endswith("]\n"))  # type: ignore[misc]
            given = set(json.loads(child.log_tail().replace("'", '"')))
            settings = {field.upper() for field in Environment.model_fields}
            kind = name.partition("-")[0]
            addresses = {"DATABASE_URL", "REDIS_URL", "VAR_DIR", "METRICS_HOST", "METRICS_PORT"}
            assert given & settings == {*KEYS[kind], *addresses, "MESSAGE_PRICE"}
        with pytest.raises(DevstackError, match="a stack runs in"):
            Stack(folder, commands=TINY).open()
        pids = [child.pid for child in stack.processes.values()]
    assert not (stack.folder / "processes.json").exists()
    assert not any(lives(pid) for pid in pids)


def test_a_process_that_dies_is_started_again_within_a_bound(folder: Path) -> None:
    lines: list[str] = []
    with Stack(folder, commands=TINY, supervise=True, report=lines.append) as stack:
        worker = stack.processes["worker-1"]
        for number in range(1, RESTARTS_MAX + 1):
            pid = worker.pid
            stack.kill("worker-1")
            wait_for(lambda number=number: len(lines) == number)  # type: ignore[misc]
            assert lines[-1] == (
                f"worker-1 (pid {pid}) ended (SIGKILL); started again as pid {worker.pid}"
            )
        listed = json.loads((stack.folder / "processes.json").read_text())
        assert [row["pid"] for row in listed] == [child.pid for child in stack.processes.values()]
        assert not stack.gave_up.is_set()
        stack.kill("worker-1")
        assert stack.gave_up.wait(WAIT_SECONDS)
    assert not worker.running


def test_without_supervision_a_killed_process_waits_to_be_started(folder: Path) -> None:
    with Stack(folder, commands=TINY) as stack:
        for name in ("postgres", "redis", "web-1", "worker-1"):
            before = stack.processes[name].pid
            stack.kill(name)
            assert not stack.processes[name].running
            stack.start(name)
            assert stack.processes[name].pid != before
        listed = json.loads((stack.folder / "processes.json").read_text())
        assert [row["pid"] for row in listed] == [child.pid for child in stack.processes.values()]
        assert is_ready(stack.web_ports[0])


def test_what_the_command_passes_on_are_known_settings() -> None:
    assert set(command.PASSED_ON) <= {field.upper() for field in Environment.model_fields}


def test_make_stack_serves_and_stops_at_a_signal(folder: Path) -> None:
    folder /= "of alice"  # a shell would take this for two words
    port = free_port()
    run = [sys.executable, "-m", "devstack", "--folder", str(folder), "--port", str(port)]
    stack = subprocess.Popen(
        run, cwd=PROJECT, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        said = ""
        for line in output_of(stack):
            said += line
            if "curl" in line:
                assert f"http://localhost:{port}/users/register/" in line
                break
        assert is_ready(port)
        listed = json.loads((folder / "processes.json").read_text())
        assert (folder / "keys.env").stat().st_mode & 0o777 == 0o600
        environment = folder / "environment.env"
        assert environment.stat().st_mode & 0o777 == 0o600
        (one_line,) = re.findall(r"^Commands against it: \((.*)\)$", said, re.MULTILINE)
        assert shlex.quote(str(environment)) in one_line
        one_line = one_line.replace(".venv/bin/python", sys.executable)
        # It is the stack's own log, and its texts can be read.
        register(port, "alice")
        for line in (one_line, one_line.replace("verify", "audit alice")):
            result = in_a_shell(line)
            assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith("alice (")
        again = subprocess.run(
            run, cwd=PROJECT, env=clean_environment(), capture_output=True, check=False
        )
        assert (again.returncode, again.stderr.count(b"\n")) == (1, 1)
        asked_at = time.monotonic()
        stack.send_signal(signal.SIGTERM)
        assert stack.wait(WAIT_SECONDS) == 0
        assert time.monotonic() - asked_at < 10
        assert not any(lives(row["pid"]) for row in listed)
        assert not environment.exists()
    finally:
        stack.kill()
        stack.communicate()


def test_the_embedded_profile_comes_back_on_its_data_after_a_kill(folder: Path) -> None:
    with Embedded(folder) as service:
        first = service.pid
        service.kill()
        service.start()
        assert service.pid != first
        assert is_ready(service.port)
    assert (folder / "chatledger.sqlite3").exists()


def register(port: int, username: str) -> None:
    body = {"username": username, "password": "correct horse battery"}
    answer = httpx.post(f"http://localhost:{port}/users/register/", json=body)
    assert answer.status_code == 201, answer.text


def in_a_shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


class OccupiedPort:
    """A loopback port that somebody listens on."""

    def __enter__(self) -> int:
        self.listener = socket.create_server(("127.0.0.1", 0))
        return int(self.listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self.listener.close()


def output_of(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def line_of(process: subprocess.Popen[str]) -> str:
    return output_of(process).readline()


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    # Somebody else has to reap an orphan; it does nothing any more.
    return state not in "ZX"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
