"""Rows of figures: what a scenario returns, and how it is shown, judged and kept.

A scenario is a function `(options) -> list[Row]`. It measures contender A and contender B in turn,
a figure a round each, and makes its rows with `at_least`, `at_most` and `reported`.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

NOTHING = "-"
HEAD = ("what", "A", "B", "A / B", "asked", "held")
#: How wide a column is on the terminal; a longer text moves what is right of it.
WIDTHS = (44, 30, 30, 20, 8, 4)


@dataclass(frozen=True)
class Row:
    """One figure of each round of A and of B, in order; their ratio, and what was asked of it.

    `b` is empty and `ratio` None where A stands for itself. `asked` reads as in the table: "≥ 0.8".
    """

    name: str
    a: Sequence[float]
    b: Sequence[float]
    ratio: float | None
    asked: str
    unit: str
    held: bool
    note: str = ""


def at_least(
    name: str, a: Sequence[float], b: Sequence[float], asked: float, *, unit: str, note: str = ""
) -> Row:
    """A row of which the ratio A / B has to be `asked` or more."""
    ratio = median_ratio(a, b)
    return Row(name, a, b, ratio, f"≥ {asked:g}", unit, ratio >= asked, note)


def at_most(
    name: str, a: Sequence[float], b: Sequence[float], asked: float, *, unit: str, note: str = ""
) -> Row:
    """A row of which the ratio A / B has to be `asked` or less."""
    ratio = median_ratio(a, b)
    return Row(name, a, b, ratio, f"≤ {asked:g}", unit, ratio <= asked, note)


def reported(
    name: str, a: Sequence[float], b: Sequence[float] = (), *, unit: str, note: str = ""
) -> Row:
    """A row that asks for nothing."""
    return Row(name, a, b, median_ratio(a, b) if b else None, NOTHING, unit, held=True, note=note)


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median of the ratios round by round: what the machine does meanwhile falls out."""
    return statistics.median(ratios(a, b))


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """A / B for each round."""
    return [each / other for each, other in zip(a, b, strict=True)]


def line(row: Row) -> str:
    """The row as the terminal shows it."""
    return _in_columns(_cells(row))


def head() -> str:
    """What stands above the rows on the terminal."""
    return f"{_in_columns(HEAD)}\n{'-' * (sum(WIDTHS) + 2 * (len(WIDTHS) - 1))}"


def markdown(rows: Sequence[Row], about: Mapping[str, object]) -> str:
    """The table with what is known about the run, for a person to read."""
    head_line = "| " + " | ".join((*HEAD, "note")) + " |"
    rule = "|---" * (len(HEAD) + 1) + "|"
    lines = ["| " + " | ".join((*_cells(row), row.note)) + " |" for row in rows]
    facts = [f"- {name}: {value}" for name, value in about.items()]
    return "\n".join(["# Figures", "", *facts, "", head_line, rule, *lines, ""])


def write(folder: Path, name: str, rows: Sequence[Row], about: Mapping[str, object]) -> list[Path]:
    """Write the table as JSON and as Markdown under this name, and as the latest one."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"about": about, "rows": [asdict(row) for row in rows]}
    texts = {
        ".json": json.dumps(kept, indent=2, ensure_ascii=False) + "\n",
        ".md": markdown(rows, about),
    }
    files = []
    for suffix, text in texts.items():
        for stem in (name, "latest"):
            file = folder / f"{stem}{suffix}"
            file.write_text(text)
            files.append(file)
    return files


def spread(values: Sequence[float]) -> str:
    """The median and, where there are several, the least and the greatest."""
    if not values:
        return NOTHING
    if len(values) == 1:
        return number(values[0])
    return f"{number(statistics.median(values))} ({number(min(values))}..{number(max(values))})"


def number(value: float) -> str:
    """Three digits of weight at least, thousands apart."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _cells(row: Row) -> tuple[str, ...]:
    unit = f" {row.unit}" if row.unit else ""
    return (
        row.name,
        spread(row.a) + unit,
        spread(row.b) + unit if row.b else NOTHING,
        NOTHING if row.ratio is None else spread(ratios(row.a, row.b)),
        row.asked,
        NOTHING if row.asked == NOTHING else "yes" if row.held else "NO",
    )


def _in_columns(cells: Sequence[str]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()
