"""The docs name everything there is: settings, events, endpoints, commands, decisions."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from accounts.api import PAGE_MAX
from accounts.grants import GRANT_TOKENS_MAX, REASON_CHARACTERS_MAX
from accounts.idempotency import IDEMPOTENCY_KEY_CHARACTERS_MAX
from accounts.names import USERNAME_PATTERN
from accounts.rates import parse_rate
from accounts.schemas import PASSWORD_CHARACTERS_MAX, PASSWORD_CHARACTERS_MIN
from config.environment import Environment
from conversations.api import STREAMS_MAX
from conversations.domain import MESSAGE_CHARACTERS_MAX, TITLE_CHARACTERS_MAX
from conversations.prefer import WAIT_SECONDS_MAX
from eventstore.domain import TOPICS
from privacy.api import EXPORTS_MAX

PROJECT = Path(__file__).resolve().parent.parent.parent


def read(path: str) -> str:
    return (PROJECT / path).read_text()


def endpoints() -> list[str]:
    document = json.loads(read("openapi.json"))
    return [
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    ]


def commands() -> list[str]:
    return sorted(
        file.stem
        for file in PROJECT.glob("*/management/commands/*.py")
        if not file.stem.startswith("_")
    )


def test_an_idle_transaction_is_ended_when_the_pages_say() -> None:
    (seconds,) = re.findall(
        r'"idle_in_transaction_session_timeout": "(\d+)s"', read("config/settings.py")
    )
    assert f"idle there is ended by the database after {seconds} s" in read("docs/operations.md")


@pytest.mark.parametrize("name", sorted(Environment.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name.upper()}`" in read("docs/settings.md")


def test_no_setting_is_documented_that_does_not_exist() -> None:
    rows = [line for line in read("docs/settings.md").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row.split("|")[1])}
    assert {name.lower() for name in named} == set(Environment.model_fields)


def examples() -> list[dict[str, str]]:
    """The environments that stand in the pages, one a block of indented lines."""
    found = []
    for page in ("README.md", "docs/operators.md", "docs/prices.md"):
        for block in re.findall(r"(?m)(?:^    .*\n)+", read(page)):
            # What is not exported does not reach a process that is started behind it.
            assert not re.search(r"(?m)^    [A-Z_]+=\S*$", block)
            named = re.findall(r"(?m)^    export ([A-Z0-9_]+)=(\S*)$", block)
            found += [dict(named)] * bool(named)
    return found


@pytest.mark.parametrize("values", examples(), ids=lambda values: "-".join(values.values()))
def test_the_environments_in_the_pages_are_taken(values: dict[str, str]) -> None:
    environment = Environment.model_validate(values)
    assert {name.lower() for name in values} <= environment.model_fields_set
    assert environment.responder == "openai" or environment.pricing == "usage"
    assert environment.unused() == []


@pytest.mark.parametrize("name", sorted(Environment.model_fields))
def test_every_range_of_a_setting_is_documented(name: str) -> None:
    allowed = Environment.model_fields[name].description or ""
    (row,) = [line for line in read("docs/settings.md").splitlines() if documents(line, name)]
    bounds = {
        number
        for bound in re.findall(r"(\d+) to (\d+)|at most (\d+)", allowed)
        for number in filter(None, bound)
    }
    assert bounds <= set(re.findall(r"\d+", row.split(" | ")[2].replace(",", "")))


def documents(line: str, setting: str) -> bool:
    return line.startswith("| `") and f"`{setting.upper()}`" in line.split(" | ", maxsplit=1)[0]


def environment(name: str) -> Any:
    """The default of a setting."""
    return Environment.model_fields[name].default


def test_the_limits_that_a_client_meets_are_those_of_the_code() -> None:
    page = read("docs/developers.md")
    rows = dict(re.findall(r"(?m)^\| (.*?) \| (.*) \|$", page[page.index("## Limits") :]))
    limits = {
        "password": f"{PASSWORD_CHARACTERS_MIN} to {PASSWORD_CHARACTERS_MAX:,} characters",
        "message": f"1 to {MESSAGE_CHARACTERS_MAX:,} characters",
        "title": f"1 to {TITLE_CHARACTERS_MAX} characters",
        "amount of a grant": f"1 to {GRANT_TOKENS_MAX:,} tokens",
        "reason": f"1 to {REASON_CHARACTERS_MAX} characters",
        "`Idempotency-Key`": f"1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} visible ASCII characters",
        "`Prefer: wait=N`": f"up to {WAIT_SECONDS_MAX} seconds",
        "`?limit=`": f"1 to {PAGE_MAX:,}",
        "event streams at a time": f"{STREAMS_MAX} for each user",
        "exports at a time": f"{EXPORTS_MAX} for each user",
        "body": f"{settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024} KiB",
    }
    assert [what for what, limit in limits.items() if not rows[what].startswith(limit)] == []
    for row, rate, each in (
        ("wrong passwords", environment("rate_limit_login"), "name and address"),
        ("registrations", environment("rate_limit_register"), "address"),
        ("sends", environment("rate_limit_send"), "user"),
    ):
        assert re.match(rf"{rate.times} .* for each {each}", rows[row])
        assert (
            parse_rate(
                re.sub(r" (in|an|a) ", "/", rows[row].partition(" for ")[0]).replace(" ", "")
            )
            == rate
        )
    least, most = re.findall(r"\d+", USERNAME_PATTERN.rpartition("{")[2])
    assert rows["username"].startswith(f"{least} to {most} of ")


def test_the_reasons_of_a_failure_are_the_same_on_both_pages() -> None:
    events, page = read("docs/events.md"), read("docs/developers.md")
    sentence = events[events.index("\n`reason` is") :].partition(".")[0]
    table = page[page.index("### Why a message failed") :].partition("\n## ")[0]
    assert re.findall(r"(?m)^\| `([a-z_]+)` \|", table)[1:] == re.findall(r"`(\w+)`", sentence)[1:]


@pytest.mark.parametrize("topic", sorted(TOPICS))
def test_every_event_is_documented_with_its_fields(topic: str) -> None:
    lines = [line for line in read("docs/events.md").splitlines() if f"`{topic}`" in line]
    assert lines
    fields = set(TOPICS[topic].__annotations__) - {"state", "personal"}
    assert [name for name in fields if f"`{name}`" not in lines[0]] == []


@pytest.mark.parametrize("endpoint", endpoints())
def test_every_endpoint_is_in_the_readme(endpoint: str) -> None:
    method, path = endpoint.split()
    plain = re.sub(r"\{\w+\}", "{id}", path)
    assert re.search(rf"`{method} {re.escape(plain)}`", read("README.md"))


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    assert f"`{command}" in read("docs/operators.md")


@pytest.mark.parametrize("page", sorted(path.name for path in PROJECT.glob("docs/decisions/0*.md")))
def test_every_decision_is_listed(page: str) -> None:
    assert f"]({page})" in read("docs/decisions/README.md")


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *PROJECT.glob("docs/**/*.md")]
    dead = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []
