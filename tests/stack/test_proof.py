"""What the log proves of a running service: past balances, seals, and that a user is gone."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import redis
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config.keyfile import decode_key
from devstack.application import PROJECT
from tests.stack.client import PASSWORD, User
from tests.stack.services import EmbeddedService, FullService, Service, wait_for

#: A failing choice of instants can be made again.
SEED = int(os.environ.get("CHATLEDGER_INSTANTS_SEED") or random.randrange(2**32))
INSTANTS = 50
#: Of the instants, those at which the slow command is asked too.
AUDITED = 5
CANARY = "canary-7f3d"
#: How soon the bytes of a destroyed key must have left the files.
CLEAN_SECONDS = 60.0


def rows(service: Service, sql: str) -> list[tuple[Any, ...]]:
    """What the service's database answers, by a client that shares no code with it."""
    if isinstance(service, FullService):
        with psycopg.connect(service.stack.postgres.url) as postgres:
            return postgres.execute(sql.encode()).fetchall()
    assert isinstance(service, EmbeddedService)
    file = service.process.folder / "chatledger.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


def files(service: Service) -> Iterator[Path]:
    """Every file of the database, but PostgreSQL's write-ahead log."""
    if isinstance(service, FullService):
        folder = service.stack.postgres.data
        for file in folder.rglob("*"):
            if "pg_wal" not in file.parts and file.is_file():
                yield file
    elif isinstance(service, EmbeddedService):
        yield from service.process.folder.glob("chatledger.sqlite3*")


def holds(service: Service, wanted: list[bytes]) -> bool:
    if isinstance(service, FullService):
        with psycopg.connect(service.stack.postgres.url, autocommit=True) as postgres:
            postgres.execute("CHECKPOINT")
    for file in files(service):
        with suppress(FileNotFoundError):
            content = file.read_bytes()
            if any(each in content for each in wanted):
                return True
    return False


def wrapped(service: Service) -> dict[UUID, tuple[UUID | None, bytes]]:
    """Every key that is not destroyed: what wraps it, and its wrapped bytes."""
    found = rows(service, "SELECT id, wrapped_by, wrapped FROM eventstore_datakey")
    return {
        UUID(str(id_)): (UUID(str(by)) if by else None, bytes(secret))
        for id_, by, secret in found
        if secret is not None
    }


def readable(service: Service, data_key: bytes, keys: dict[UUID, Any]) -> list[str]:
    """Every text that somebody reads who has the database, `DATA_KEY` and these wrapped keys."""
    opened: dict[UUID, bytes] = {}
    for outer in (True, False):
        for id_, (by, secret) in keys.items():
            if (by is None) == outer and (outer or by in opened):
                outer_key = data_key if by is None else opened[by]
                with suppress(InvalidTag):
                    opened[id_] = AESGCM(outer_key).decrypt(secret[:12], secret[12:], id_.bytes)
    texts = []
    for stream, version, topic, data in rows(
        service, "SELECT stream_id, version, topic, data FROM eventstore_event"
    ):
        for field, mark in json.loads(bytes(data)).items():
            if isinstance(mark, dict) and "box" in mark and UUID(mark["key"]) in opened:
                box, place = b64decode(mark["box"]), UUID(str(stream)).hex
                cipher = AESGCM(opened[UUID(mark["key"])])
                bound = f"{place}|{version}|{topic}|{field}".encode()
                texts.append(cipher.decrypt(box[:12], box[12:], bound).decode())
    return texts


def manage(service: Service, *command: str) -> str:
    """What a command says that succeeds."""
    result = service.run("manage.py", *command)
    assert result.returncode == 0, (command, result.stdout, result.stderr)
    return result.stdout


def balance_by_the_script(exported: str, user: User, at: str) -> int:
    script = [sys.executable, str(PROJECT / "examples" / "balance_at.py"), user.id, at]
    done = subprocess.run(script, input=exported, capture_output=True, text=True, check=True)
    return int(done.stdout)


def instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def test_the_balance_of_every_past_instant_is_the_sum_of_the_exported_events(
    service: Service,
) -> None:
    alice = service.user("historian")
    manage(service, "grant_tokens", "historian", "250", "--reason", "for the record")
    for number in range(12):
        alice.send(f"message {number}", prefer="respond-async" if number % 3 else "wait=30")
    cancelled = alice.send("one more", prefer="respond-async").json()["id"]
    alice.post(f"/messages/{cancelled}/cancel/")
    service.at_rest()
    statement = alice.get("/token/statement/?limit=1000").json()
    began = datetime.fromisoformat(alice.get("/users/me/").json()["created_at"]).timestamp()
    chosen = random.Random(SEED)
    # Half of them at any time, half right at a movement, where being off by one would show.
    at_movements = [chosen.choice(statement)["at"] for _ in range(INSTANTS // 2)]
    between = [
        instant(chosen.uniform(began, time.time())) for _ in range(INSTANTS - len(at_movements))
    ]
    exported = manage(service, "export_events")
    instants = at_movements + between
    shown = [alice.get(f"/token/?at={at}").json()["tokens"] for at in instants]
    summed = [balance_by_the_script(exported, alice, at) for at in instants]
    assert shown == summed, f"CHATLEDGER_INSTANTS_SEED={SEED}"
    assert len(set(shown)) > 3
    for at, tokens in chosen.sample(list(zip(instants, shown, strict=True)), AUDITED):
        audited = json.loads(manage(service, "audit", "historian", "--at", at, "--json"))
        assert audited["balance"] == tokens


def test_the_log_of_a_running_service_is_sealed_and_verifies(service: Service) -> None:
    alice = service.user("sealed")
    assert alice.send("hello").status_code == 201
    ledger = service.at_rest()
    end = ledger.lines[-1].position

    def sealed() -> bool:
        ((last,),) = rows(service, "SELECT max(last) FROM eventstore_checkpoint")
        return last is not None and last >= end

    wait_for(sealed, 10, "the end of the log to be sealed")
    manage(service, "verify")


def test_an_erased_user_leaves_nothing_that_can_be_opened(service: Service, tmp_path: Path) -> None:
    gone, stays = service.user("gone"), service.user("stays")
    for user in (gone, stays):
        talk = user.post("/conversations/", {"title": f"{CANARY} title"}).json()["id"]
        assert user.send(f"{CANARY} {user.id}").status_code == 201
        assert user.post(f"/conversations/{talk}/messages/", {"message": CANARY}).status_code == 201
    service.at_rest()
    data_key = (
        decode_key(service.environment()["DATA_KEY"])
        if isinstance(service, FullService)
        else _data_key_of(service)
    )
    before = wrapped(service)
    of_gone = {id_: found for id_, found in before.items() if UUID(gone.id) in (id_, found[0])}
    assert len(of_gone) == 3
    assert f"{CANARY} {gone.id}" in readable(service, data_key, before)
    kept = tmp_path / "head.json"
    wait_for(lambda: service.run("manage.py", "export_head").returncode == 0, 10, "a head")
    kept.write_text(manage(service, "export_head"))
    manage(service, "verify", "--head", str(kept))

    assert gone.delete("/users/me/", {"password": PASSWORD}).status_code == 204

    bytes_of_gone = [secret for _, secret in of_gone.values()]
    wait_for(lambda: not holds(service, bytes_of_gone), CLEAN_SECONDS, "the files to be clean")
    after = wrapped(service)
    assert set(after) == set(before) - set(of_gone)
    texts = readable(service, data_key, after)
    assert f"{CANARY} {stays.id}" in texts
    assert not any(gone.id in text for text in texts)
    assert "gone" not in texts
    assert _redis_texts(service, gone.id) == []
    service.at_rest()
    manage(service, "verify", "--head", str(kept))
    listed = [json.loads(line) for line in _erasures(service).read_text().splitlines()]
    assert gone.id in {line["user_id"] for line in listed}


def test_a_backup_from_before_an_erasure_brings_nothing_back(
    embedded: EmbeddedService, tmp_path: Path
) -> None:
    alice = embedded.user("returner")
    assert alice.send(CANARY).status_code == 201
    embedded.at_rest()
    folder = embedded.process.folder
    database, backup = folder / "chatledger.sqlite3", tmp_path / "backup.sqlite3"
    with (
        closing(sqlite3.connect(database)) as live,
        closing(sqlite3.connect(backup)) as copy,
    ):
        live.backup(copy)
    assert alice.delete("/users/me/", {"password": PASSWORD}).status_code == 204
    wait_for(lambda: _erasures(embedded).exists(), CLEAN_SECONDS, "the list of erasures")
    embedded.process.stop()
    for file in folder.glob("chatledger.sqlite3*"):
        file.unlink()
    database.write_bytes(backup.read_bytes())
    assert CANARY in readable(embedded, _data_key_of(embedded), wrapped(embedded))

    said = manage(embedded, "apply_erasures", str(_erasures(embedded)))

    assert said == "1 users and 0 conversations were erased again\n"
    embedded.process.start()
    assert CANARY not in readable(embedded, _data_key_of(embedded), wrapped(embedded))
    assert alice.get("/token/").status_code == 401
    embedded.at_rest()
    manage(embedded, "verify")


def test_what_was_edited_is_named(embedded: EmbeddedService) -> None:
    embedded.user("edited")
    embedded.at_rest()
    wait_for(
        lambda: rows(embedded, "SELECT count(*) FROM eventstore_checkpoint")[0][0], 10, "a seal"
    )
    with closing(sqlite3.connect(embedded.process.folder / "chatledger.sqlite3")) as database:
        database.execute("UPDATE eventstore_event SET actor = 'nobody' WHERE position = 1")
        database.commit()
    result = embedded.run("manage.py", "verify", "--seals")
    assert result.returncode == 1
    assert "checkpoint 1, event 1: changed\n" in result.stdout


def _data_key_of(service: Service) -> bytes:
    assert isinstance(service, EmbeddedService)
    lines = (service.process.folder / "keys.env").read_text().splitlines()
    (key,) = [line.partition("=")[2] for line in lines if line.startswith("DATA_KEY=")]
    return decode_key(key)


def _erasures(service: Service) -> Path:
    folder = (
        service.stack.folder if isinstance(service, FullService) else service.process.folder  # type: ignore[attr-defined]  # the embedded one
    )
    return Path(folder) / "erasures.jsonl"


def _redis_texts(service: Service, wanted: str) -> list[bytes]:
    """The values in Redis that hold a text; the broker's and the streams'."""
    if not isinstance(service, FullService):
        return []
    with closing(redis.Redis.from_url(service.stack.redis.url)) as client:
        return [key for key in client.scan_iter() if wanted.encode() in (client.dump(key) or b"")]
