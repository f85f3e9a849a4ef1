"""What becomes of figures: the ratios, the verdicts, the table, and what wrk and py-spy tell."""

import json
from pathlib import Path

import pytest

from benchmarks.load import LoadError, read_summary
from benchmarks.profile import summary, thread_name
from benchmarks.table import (
    at_least,
    at_most,
    line,
    markdown,
    median_ratio,
    reported,
    spread,
    write,
)

SUMMARY = {
    "requests": 210,
    "seconds": 2.0,
    **dict.fromkeys(("not_2xx", "connect", "read", "write", "timeout"), 0),
    **dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "max_ms"), 1.5),
}


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_medians() -> None:
    # The machine was three times as fast in the last round: both contenders were.
    assert median_ratio([100, 110, 360], [100, 100, 300]) == pytest.approx(1.1)


def test_rounds_that_have_no_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([1, 2], [1])


@pytest.mark.parametrize(("a", "held"), [(80, True), (79.9, False)])
def test_a_rate_is_held_from_what_was_asked_on(a: float, *, held: bool) -> None:
    row = at_least("sends", [a], [100], 0.8, unit="/s")
    assert (row.held, row.asked) == (held, "≥ 0.8")


@pytest.mark.parametrize(("a", "held"), [(30, True), (30.1, False)])
def test_a_time_is_held_up_to_what_was_asked(a: float, *, held: bool) -> None:
    row = at_most("median", [a], [10], 3, unit="ms")
    assert (row.held, row.asked) == (held, "≤ 3")


def test_a_figure_by_itself_asks_for_nothing() -> None:
    row = reported("start", [1.25], unit="s")
    assert (row.ratio, row.held) == (None, True)
    assert line(row).split() == ["start", "1.25", "s", "-", "-", "-", "-"]


def test_a_spread_names_the_least_and_the_greatest() -> None:
    assert spread([1234.5, 99.94, 5.126]) == "99.9 (5.13..1,234)"


def test_a_row_that_is_missed_stands_out() -> None:
    row = at_least("sends", [50, 60], [100, 100], 0.8, unit="/s")
    assert line(row).split()[-1] == "NO"
    assert "| sends | 55.0 (50.0..60.0) /s | 100 (100..100) /s |" in markdown([row], {"cores": 2})


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    row = at_least("sends", [90.0], [100.0], 0.8, unit="/s", note="one round")
    files = write(tmp_path / "results", "2026-11-23-abc", [row], {"cores": "2"})
    assert sorted(file.name for file in files) == [
        "2026-11-23-abc.json",
        "2026-11-23-abc.md",
        "latest.json",
        "latest.md",
    ]
    kept = json.loads((tmp_path / "results" / "latest.json").read_text())
    assert kept["about"] == {"cores": "2"}
    (read,) = kept["rows"]
    assert (read["a"], read["b"], read["ratio"], read["held"]) == ([90.0], [100.0], 0.9, True)


def test_what_wrk_saw_is_read_and_failures_are_no_answers() -> None:
    told = SUMMARY | {"not_2xx": 10, "timeout": 2}
    measured = read_summary("Running 2s test\n" + json.dumps(told))
    assert measured.rate == 100
    assert measured.failures == {"not_2xx": 10, "timeout": 2}


def test_a_load_without_figures_says_why() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        read_summary("", "unable to connect to 127.0.0.1:1")


def test_a_profile_tells_threads_apart_and_leaves_waiting_out() -> None:
    text = summary(
        [
            "thread (0x7F01): MainThread;serve (a.py:1);parse (b.py:2) 6",
            "thread (0x7F02): pool_0;work (c.py:3);work (c.py:3) 3",
            "thread (0x7F03): pool_1;work (c.py:3) 1",
            "thread (0x7F03): pool_1;_worker (concurrent/futures/thread.py:69) 90",
        ]
    )
    assert "10 samples" in text
    assert " 40.0%  pool\n" in text
    assert "MainThread, by own time:\n 60.0%  parse (b.py:2)\n" in text
    assert "pool, by cumulative time:\n 40.0%  work (c.py:3)\n" in text


def test_a_thread_goes_by_its_name() -> None:
    assert thread_name("thread (0x7F1): ThreadPoolExecutor-0_12") == "ThreadPoolExecutor"
    assert thread_name("thread (19364): writer") == "writer"
