"""What the operators' page says to do, done with its own commands: backups, restores, keys."""

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import httpx

from tests.stack.client import PASSWORD, User
from tests.stack.procedures import Shell, block, sending, start, stop
from tests.stack.services import EmbeddedService, Service, wait_for

WAIT_SECONDS = 60
BACKUP = {"embedded": '".backup ', "full": "pg_dump -Fc"}
RESTORE = {"embedded": "cp copy.sqlite3", "full": "pg_restore --no-owner"}
SENT_BEFORE = 10


def log_in(service: Service, name: str) -> httpx.Response:
    body = {"username": name, "password": PASSWORD}
    return httpx.post(f"{service.url}/users/login/", json=body, timeout=WAIT_SECONDS)


def all_sealed(service: EmbeddedService) -> bool:
    file = service.process.folder / "chatledger.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        (sealed,) = database.execute("SELECT max(last) FROM eventstore_checkpoint").fetchone()
    return bool(sealed == len(service.ledger().lines))


def test_a_backup_made_under_load_is_restored_without_what_was_erased_since(
    service: Service, tmp_path: Path
) -> None:
    shell = Shell(service, tmp_path)
    alice, bob = service.user("alice"), service.user("bob")
    shell.run("python manage.py grant_tokens alice 1000000 --reason load")
    assert bob.send("forget me").status_code == 201
    with sending(alice) as accepted:
        wait_for(lambda: len(accepted) > SENT_BEFORE, WAIT_SECONDS, "the load")
        before = set(accepted)
        shell.run(block(BACKUP[service.profile]))
        assert len(accepted) > len(before)

    assert bob.delete("/users/me/", {"password": PASSWORD}).status_code == 204
    listed = tmp_path / "var" / "erasures.jsonl"
    wait_for(
        lambda: listed.exists() and bob.id in listed.read_text(), WAIT_SECONDS, "the erasure's line"
    )
    (tmp_path / "erasures.jsonl").write_text(listed.read_text())
    after = alice.send("hello").headers["location"].split("/")[2]
    stop(service)
    said = shell.run(block(RESTORE[service.profile]))
    start(service)

    assert "1 users and 0 conversations were erased again" in said
    assert "seals: no difference" in said
    ledger = service.at_rest()
    assert {UUID(each) for each in before} <= {UUID(each) for each in ledger.messages}
    assert UUID(after) not in {UUID(each) for each in ledger.messages}
    assert log_in(service, "bob").status_code == 401
    again = User(service.url, "alice", alice.id, log_in(service, "alice").json()["token"])
    assert again.tokens() == 1_004_000 - 100 * (len(ledger.messages) - 1)
    assert again.send("bye").json() == {"response": "Goodbye! Have a great day!"}

    # The dump of the same moment goes into new databases: one that serves, one that checks it.
    new = tmp_path / "new"
    new.mkdir()
    (new / "keys.env").write_bytes((tmp_path / "var" / "keys.env").read_bytes())
    loaded = shell.run(
        f"export VAR_DIR='{new}'\n" + block("load_log backup.dump --erasures"),
        without=("DATABASE_URL", "REDIS_URL"),
    )
    assert "1 users and 0 conversations were erased again" in loaded
    assert "read models: no difference" in loaded
    check = block("/tmp/check/keys.env").replace("/tmp/check", str(tmp_path / "check"))
    checked = shell.run(check, without=("DATABASE_URL", "REDIS_URL"))
    assert "differences" not in checked
    assert "read models: no difference" in checked
    assert not (tmp_path / "check").exists()


def test_every_key_is_replaced_and_nobody_is_logged_out_before_the_overlap_ends(
    embedded: EmbeddedService, tmp_path: Path
) -> None:
    shell = Shell(embedded, tmp_path)
    keys = tmp_path / "var" / "keys.env"
    first = keys.read_text()
    alice = embedded.user("alice")
    message = alice.send("hello").headers["location"].split("/")[2]
    wait_for(lambda: all_sealed(embedded), WAIT_SECONDS, "the first key's seals")

    shell.run(block("^JWT_SIGNING_KEYS_PREVIOUS=' "))
    shell.run(block("^DATA_KEY_PREVIOUS=' "))
    shell.run(block("-e '/^SEAL_KEY=/d'"))
    assert keys.stat().st_mode & 0o777 == 0o600
    assert {line.split("=")[0] for line in first.splitlines()} | {
        "JWT_SIGNING_KEYS_PREVIOUS",
        "DATA_KEY_PREVIOUS",
    } == {line.split("=")[0] for line in keys.read_text().splitlines()}
    kept = {line for line in keys.read_text().splitlines() if "PREVIOUS" not in line}
    assert not kept & set(first.splitlines())

    embedded.restart_web()
    assert alice.message(message)["message"] == "hello"
    later = User(embedded.url, "alice", alice.id, log_in(embedded, "alice").json()["token"])
    assert later.send("bye").status_code == 201
    rewrap = "python manage.py rewrap_keys"
    assert "0 keys" not in shell.run(rewrap)
    assert "0 keys" in shell.run(rewrap)

    shell.run(block("/^JWT_SIGNING_KEYS_PREVIOUS=/d"))
    shell.run(block("/^DATA_KEY_PREVIOUS=/d"))
    embedded.restart_web()
    assert "PREVIOUS" not in keys.read_text()
    assert alice.get("/token/").status_code == 401
    assert later.message(message)["message"] == "hello"
    assert later.tokens() == 3800
    wait_for(lambda: all_sealed(embedded), WAIT_SECONDS, "the second key's seals")
    said = shell.run("python manage.py verify")
    assert "differences" not in said
    assert said.partition("signed by ")[2].splitlines()[0].count(", ") == 1
    embedded.at_rest()
