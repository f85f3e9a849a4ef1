"""What real processes tell Prometheus, against the docs, the alarms and the dashboard."""

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from devstack.application import PROJECT
from tests.stack.services import EmbeddedService, FullService, Service, wait_for

DOCS = (PROJECT / "docs" / "operations.md").read_text()
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROJECT / "deploy" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = [
    panel
    for panel in json.loads((PROJECT / "deploy" / "grafana.json").read_text())["panels"]
    if panel["type"] != "row"
]
EXPRESSIONS = {f"alarm {rule['alert']}": rule["expr"] for rule in RULES} | {
    f"panel {panel['title']}, {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
#: What Prometheus itself adds to a series, by deploy/prometheus.yml.
TARGET_LABELS = {"job", "instance", "process"}
#: Two scrapes, each of which gives up after three seconds, on a machine that is busy.
SCRAPES_SECONDS_MAX = 15
PROCESSES = {"web": "web-1", "worker": "worker-1", "followers": "followers-1"}


@dataclass
class Told:
    """What the processes of a service tell, by process."""

    by_process: dict[str, list[Sample]]

    @property
    def samples(self) -> list[Sample]:
        return [sample for samples in self.by_process.values() for sample in samples]

    def total(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels_of(self, name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for sample in self.samples:
            if sample.name == name:
                for label, value in sample.labels.items():
                    found.setdefault(label, set()).add(value)
        return found


def told(service: Service) -> Told:
    if isinstance(service, EmbeddedService):
        addresses = {"serve": service.process.child.metrics}
    else:
        assert isinstance(service, FullService)
        addresses = {
            name: child.metrics
            for name, child in service.stack.processes.items()
            if name not in ("postgres", "redis")
        }
    return Told({name: scrape(address) for name, address in addresses.items()})


def scrape(address: str) -> list[Sample]:
    answer = httpx.get(f"http://{address}/metrics", timeout=10)
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return [sample for family in families for sample in family.samples]


@dataclass
class Used:
    """A service that has answered and refused something, and what it told before and after."""

    service: Service
    before: Told
    after: Told

    def gained(self, name: str, **labels: str) -> float:
        return self.after.total(name, **labels) - self.before.total(name, **labels)


@pytest.fixture(scope="module")
def used(service: Service) -> Used:
    before = counted(service)
    user = service.user("measured")
    for key in ("one", "two", "two"):
        assert user.send("private text", key=key).status_code == 201
    assert user.send("another text", key="two").status_code == 422
    assert user.get("/nowhere").status_code == 404
    service.at_rest()
    return Used(service, before, counted(service))


def counted(service: Service) -> Told:
    """What they tell once all of the log is counted and sealed."""

    def settled() -> Told | None:
        now = told(service)
        sealed = now.total("chatledger_follower_lag_events", follower="sealer") == 0
        last = now.total("chatledger_log_position")
        return now if sealed and now.total("chatledger_metered_position") == last else None

    found: Told = wait_for(settled, 15, "the meter and the sealer to come to the end of the log")
    return found


def test_the_counters_agree_with_the_ledger(used: Used) -> None:
    sends = {
        outcome: used.gained("chatledger_sends_total", outcome=outcome)
        for outcome in ("accepted", "repeated", "refused_422")
    }
    assert sends == {"accepted": 2, "repeated": 1, "refused_422": 1}
    assert used.gained("chatledger_tokens_total", kind="granted") == 4000
    assert used.gained("chatledger_tokens_total", kind="debited") == 200
    messages = len(used.service.ledger().messages)
    assert used.gained("chatledger_messages_ended_total", status="done") == messages == 2
    assert used.gained("chatledger_response_seconds_count") == 2
    assert used.gained("chatledger_generation_seconds_count") == 2
    requests = "chatledger_requests_total"
    assert used.gained(requests, method="POST", route="/send/", status="201") == 3
    assert used.gained(requests, route="unmatched", status="404") == 1
    after = used.after
    assert after.total("chatledger_sealed_position") == after.total("chatledger_log_position") > 0
    assert after.total("chatledger_service_up") == 2


def test_nothing_of_a_user_is_in_a_label(used: Used) -> None:
    values = [value for sample in used.after.samples for value in sample.labels.values()]
    assert [
        value for value in values if re.search("[0-9a-f]{8}|measured|text|nowhere", value)
    ] == []


def documented() -> dict[str, str]:
    """The metrics of the table, and the process that each is from."""
    table = DOCS[DOCS.index("| metric | from |") : DOCS.index("\n## Alarms")]
    return dict(re.findall(r"(?m)^\| `(chatledger_\w+)` \| (\w+) \|", table))


def base(name: str) -> str:
    """The name of a histogram whose sample it is, or its own."""
    return re.sub(r"(?<=_seconds|..._jobs)_(bucket|count|sum)$", "", name)


def test_the_docs_name_each_metric_and_the_process_that_tells_it(used: Used) -> None:
    names = {
        process: {base(sample.name) for sample in samples}
        for process, samples in used.after.by_process.items()
    }
    ours = {name for told in names.values() for name in told if name.startswith("chatledger_")}
    assert ours == set(documented())
    if used.service.profile == "full":
        for name, process in documented().items():
            if process != "all":
                assert name in names[PROCESSES[process]], f"{name} is not from {process}"


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_each_expression_names_what_is_told(used: Used, where: str) -> None:
    expression, now = EXPRESSIONS[where], used.after
    there = {sample.name for sample in now.samples}
    named = set(re.findall(r"\b(?:chatledger|process|python)_\w+", expression))
    assert named <= there, named - there
    assert named or re.search(r"\bup\{", expression)
    for name, selectors in re.findall(r"(\w+)\{([^}]*)\}", expression):
        for label, operator, value in re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', selectors):
            if label in TARGET_LABELS:
                continue
            assert label in now.labels_of(name), f"{name} has no {label}"
            # A status is there from its first answer on.
            if operator == "=" and (name, label) != ("chatledger_requests_total", "status"):
                assert value in now.labels_of(name)[label], f"{name} has no {label}={value}"
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        known = set().union(*(now.labels_of(name) for name in named)) | TARGET_LABELS
        assert set(labels.split(", ")) <= known


def test_each_alarm_says_what_to_do_under_a_heading_of_its_own() -> None:
    alarms = [rule["alert"] for rule in RULES]
    assert len(set(alarms)) == len(alarms)
    headings = re.findall(r"(?m)^### (\w+)$", DOCS[DOCS.index("\n## Alarms") :])
    assert headings == alarms
    for rule in RULES:
        page = f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == page
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize("process", ["web", "worker"])
def test_an_alarm_misses_each_kind_of_process_that_nobody_answers_for(process: str) -> None:
    missing = f'absent(up{{process="{process}"}} == 1)'
    assert [rule["for"] for rule in RULES if rule["expr"].startswith(missing)] == ["2m"]
    described = yaml.safe_load((PROJECT / "deploy" / "prometheus.yml").read_text())
    labels = [job["relabel_configs"][0] for job in described["scrape_configs"]]
    assert [label["target_label"] for label in labels] == ["process", "process"]
    assert process in described["scrape_configs"][0]["dns_sd_configs"][0]["names"]
    assert PROCESSES[process].startswith(f"{process}-")


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_what_each_followers_process_counts_is_never_added_up(where: str) -> None:
    counted_by_each = "events_total|tokens_total|messages_ended_total|response_seconds_bucket"
    added = rf"sum(?: by \([^)]*\))? ?\((?:rate|increase)\(chatledger_(?:{counted_by_each})"
    assert not re.search(added, EXPRESSIONS[where])
    alone = rf"(?:^|[ (])(?<!\) \()(?<!max\()(?:rate|increase)\(chatledger_(?:{counted_by_each})"
    assert not re.search(alone, EXPRESSIONS[where])


def test_prometheus_finds_the_processes_of_compose_and_of_the_stack() -> None:
    described = yaml.safe_load((PROJECT / "deploy" / "prometheus.yml").read_text())
    for file in described["rule_files"]:
        assert (PROJECT / "deploy" / file).exists()
    compose, stack = described["scrape_configs"]
    services = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    (names,) = compose["dns_sd_configs"]
    for name in names["names"]:
        assert services[name]["environment"]["METRICS_PORT"] == str(names["port"])
    (files,) = stack["file_sd_configs"]
    (file,) = files["files"]
    assert (PROJECT / "deploy" / file).resolve() == PROJECT / "var" / "stack" / "metrics.json"


def test_the_dashboard_has_its_panels_side_by_side() -> None:
    places = [tuple(panel["gridPos"].values()) for panel in PANELS]
    assert len(set(places)) == len(PANELS)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_services_that_are_away_are_told_as_away_within_the_time_of_a_scrape(
    full: FullService,
) -> None:
    def up() -> dict[str, float]:
        return {
            sample.labels["service"]: sample.value
            for sample in scrape(full.stack.processes["followers-1"].metrics)
            if sample.name == "chatledger_service_up"
        }

    wait_for(lambda: up() == {"database": 1, "broker": 1}, 10, "both to be there")
    # Frozen, not ended: it takes connections and answers nothing.
    frozen = family(full.stack.postgres.pid)
    for pid in frozen:
        os.kill(pid, Signals.SIGSTOP)
    try:
        full.stack.redis.stop()
        began = time.monotonic()
        assert up() == {"database": 0, "broker": 0}
        assert up() == {"database": 0, "broker": 0}
        assert time.monotonic() - began < SCRAPES_SECONDS_MAX
    finally:
        for pid in frozen:
            os.kill(pid, Signals.SIGCONT)
    full.stack.redis.start()
    wait_for(lambda: up() == {"database": 1, "broker": 1}, 30, "both to be back")


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]
