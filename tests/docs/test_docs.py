"""The docs name everything there is: settings, events, endpoints, commands, decisions."""

import json
import re
from pathlib import Path

import pytest

from config.environment import Environment
from eventstore.domain import TOPICS

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
    for page in ("README.md", "docs/operators.md"):
        for block in re.findall(r"(?m)(?:^    .*\n)+", read(page)):
            named = re.findall(r"(?m)^    (?:export )?([A-Z_]+)=(\S*)$", block)
            found += [dict(named)] * bool(named)
    return found


@pytest.mark.parametrize("values", examples(), ids=lambda values: values.get("OPENAI_BASE_URL"))
def test_the_environments_in_the_pages_are_taken(values: dict[str, str]) -> None:
    environment = Environment.model_validate(values)
    assert {name.lower() for name in values} <= environment.model_fields_set
    assert environment.responder == "openai"


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
