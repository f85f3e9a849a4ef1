"""Figures that tests measure: one table at the end of the run, and a file for whoever asks.

`figure("recovery seconds", values)` notes them; `CHATLEDGER_FIGURES=FILE` appends one JSON line
for each figure, so that what the documentation says can be measured again.
"""

import json
import os
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

PROPERTY = "figure"
COLUMNS = ("value", "count", "median", "p95", "max")

#: Note values that were measured under a name that ends in their unit.
Figure = Callable[[str, Iterable[float]], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Note what a test has measured."""

    def note(name: str, values: Iterable[float]) -> None:
        # As a property it finds its way out of pytest-xdist's workers too.
        record_property(PROPERTY, [name, [float(value) for value in values]])

    return note


def summary(values: list[float]) -> dict[str, float]:
    """The figures of a list of values; a single one stands for itself."""
    if len(values) <= 1:
        return {"value": values[0]} if values else {"count": 0}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "median": statistics.median(ordered),
        "p95": ordered[-(-len(ordered) * 95 // 100) - 1],
        "max": ordered[-1],
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write the file that was asked for."""
    rows: list[dict[str, Any]] = [
        {"test": report.nodeid, "figure": name, **summary(values)}
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, values in _noted(report)
    ]
    if not rows:
        return
    terminalreporter.section("figures")
    for row in rows:
        numbers = "  ".join(f"{name} {row[name]:.4g}" for name in COLUMNS if name in row)
        terminalreporter.write_line(f"{row['test']}  {row['figure']}: {numbers}")
    if file := os.environ.get("CHATLEDGER_FIGURES"):
        with Path(file).open("a") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)


def _noted(report: pytest.TestReport) -> list[tuple[str, list[float]]]:
    properties: list[tuple[str, Any]] = report.user_properties
    return [(value[0], value[1]) for name, value in properties if name == PROPERTY]
