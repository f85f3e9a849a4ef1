"""Requests made from the served OpenAPI document, good ones and bad ones, to a service of its own.

    python -m tests.attacks.fuzz --requests 20000 --seed 1

Every answer has to be one that the document allows, by its status, content type, headers and body,
and none may be a 500. The same seed makes the same requests, but for ids and JWTs.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from accounts.domain import STAFF
from tests.attacks.serving import unlimited
from tests.stack.client import PASSWORD, TIMEOUT_SECONDS, User
from tests.stack.services import Service

#: Requests that one strategy makes in a row; fewer where each may cost a hash of a password.
EXAMPLES_MAX = 12
HASHING_EXAMPLES_MAX = 2
HASHING = {"register_user", "log_in", "change_password", "erase_own_account"}
load_all_checks()
CHECKED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)
#: How often an id or a body is one with which the request gets through.
REAL = {"erase_user": 0.05, "deactivate_user": 0.2, "log_in": 0.1}
REAL_DEFAULT = 0.7
OF_THE_CONNECTION = ("Host", "Transfer-Encoding")
WITHOUT_JWT = 0.05


@dataclass
class People:
    """Who the requests come from and what they are about, made anew when a request ends it."""

    service: Service
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.member = self.somebody()
        self.staff = self.somebody()
        self.victim = self.somebody()
        done = self.service.run("manage.py", "set_role", self.staff.name, STAFF)
        assert done.returncode == 0, done.stderr
        self.renew_ids()

    def somebody(self) -> User:
        return self.service.user(f"fuzz-{next(self.numbers)}")

    def renew_ids(self) -> None:
        started = self.member.post("/conversations/", {"title": "fuzz"}).json()
        sent = self.member.post(f"/conversations/{started['id']}/messages/", {"message": "hello"})
        self.ids = {
            "conversation_id": started["id"],
            "message_id": sent.headers["location"].split("/")[2],
            "user_id": self.victim.id,
            "position": 3,
        }

    def renew_jwt(self, user: User) -> None:
        body = {"username": user.name, "password": PASSWORD}
        answer = requests.post(f"{user.url}/users/login/", json=body, timeout=TIMEOUT_SECONDS)
        user.jwt = answer.json()["token"]


@dataclass
class Fuzz:
    """A run; `answers` counts the statuses by operation."""

    service: Service
    seed: int
    examples_max: int = EXAMPLES_MAX
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.people = People(self.service)
        self.session = requests.Session()
        schema = schemathesis.openapi.from_url(f"{self.service.url}/openapi.json")
        found: list[Any] = list(schema.get_all_operations())
        self.operations = [each.ok() for each in found]

    def run(self, wanted: int) -> None:
        """Send at least so many requests; raises what the first wrong answer does."""
        while self.answers.total() < wanted:
            for operation in self.operations:
                for mode in GenerationMode:
                    self._run(operation, mode)

    def _run(self, operation: Any, mode: GenerationMode) -> None:
        @hypothesis.seed(self.random.getrandbits(32))
        @hypothesis.settings(
            max_examples=HASHING_EXAMPLES_MAX if _name(operation) in HASHING else self.examples_max,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            self._send(case)

        try:
            send()
        except Unsatisfiable:
            # There is nothing that could be wrong with a request without parameters.
            assert mode is GenerationMode.NEGATIVE

    def _send(self, case: Any) -> None:
        name = _name(case.operation)
        tags = case.operation.definition.raw["tags"]
        user = self.people.staff if {"staff", "audit"} & set(tags) else self.people.member
        real = self.random.random() < REAL.get(name, REAL_DEFAULT)
        if real:
            ids = self.people.ids
            case.path_parameters = {
                each: ids.get(each, value) for each, value in (case.path_parameters or {}).items()
            }
            if name == "log_in":
                case.body = {"username": user.name, "password": PASSWORD}
        # Set on what is sent: from the headers of a bad request the library takes the JWT away.
        jwt = "" if self.random.random() < WITHOUT_JWT else user.jwt
        answer = case.call(session=self.session, auth=_sent_with(jwt), timeout=TIMEOUT_SECONDS)
        self.answers[name, answer.status_code] += 1
        # The library takes the schema of a stream for that of each of its events.
        events = answer.headers.get("content-type", [""])[0].startswith("text/event-stream")
        case.validate_response(answer, checks=CHECKED[:-1] if events else CHECKED)
        if answer.status_code == 204:
            self._renew(name)

    def _renew(self, name: str) -> None:
        """Undo what a request has ended."""
        if name == "erase_user":
            self.people.victim = self.people.somebody()
        if name in ("erase_user", "delete_conversation"):
            self.people.renew_ids()
        if name in ("log_out", "change_password"):
            self.people.renew_jwt(self.people.member)


def _sent_with(jwt: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    def add(request: requests.PreparedRequest) -> requests.PreparedRequest:
        for name in OF_THE_CONNECTION:
            # Made up, it is refused before it is a request of any operation: `test_raw_bytes.py`.
            request.headers.pop(name, None)
        if jwt:
            request.headers["Authorization"] = f"Bearer {jwt}"
        return request

    return add


def _name(operation: Any) -> str:
    return str(operation.definition.raw["operationId"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=20261122)
    options = parser.parse_args()
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        unlimited(Path(folder)) as service,
    ):
        fuzz = Fuzz(service, options.seed)
        try:
            fuzz.run(options.requests)
        finally:
            report(fuzz, time.monotonic() - began)
        service.at_rest()


def report(fuzz: Fuzz, seconds: float) -> None:
    """What was answered, by operation."""
    statuses = sorted({status for _, status in fuzz.answers})
    lines = [["operation", *map(str, statuses)]]
    lines += [
        [name, *(str(fuzz.answers[name, status] or "") for status in statuses)]
        for name in sorted({name for name, _ in fuzz.answers})
    ]
    for first, *rest in lines:
        sys.stdout.write(f"{first:30}" + "".join(f"{each:>7}" for each in rest) + "\n")
    sys.stdout.write(
        f"{fuzz.answers.total()} requests of {len(lines) - 1} operations in {seconds:.0f} s,"
        f" seed {fuzz.seed}\n"
    )


if __name__ == "__main__":
    main()
