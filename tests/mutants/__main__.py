"""`make mutants`: take away one guard at a time and see that the tests notice.

Each is taken away in a copy of the tree, never in the tree itself. Before that the same tests run
on a copy as it is: only a test that passes there can notice anything. Ends with 1 when a guard can
go without a test failing, and when one is no longer where the catalogue says.

    python -m tests.mutants [PART OF A GUARD'S NAME ...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.table import Table

from devstack.application import PROJECT, clean_environment
from tests.mutants.catalogue import MUTANTS, Mutant
from tests.services_plugin import PROFILE_VARIABLE, PROFILES

LEFT_OUT = (".git", ".venv", "var", "__pycache__", "*.pyc", ".*_cache", ".hypothesis", ".runs")
#: What one guard's tests may take; without it they may wait in vain for each other.
RUN_SECONDS_MAX = 600.0
RUNS_AT_ONCE = os.cpu_count() or 1
TESTS_FAILED = 1


@dataclass(frozen=True)
class Run:
    """How a run of pytest went; `fault` is why it says nothing, empty when it ran to its end."""

    tests: int
    failed: tuple[str, ...]
    seconds: float
    fault: str = ""


def main(wanted: Collection[str]) -> int:
    """Run the mutants whose guard has one of these words in its name, all without any."""
    chosen = [each for each in MUTANTS if not wanted or any(word in each.guard for word in wanted)]
    console = Console(width=None if sys.stdout.isatty() else 150)
    with ThreadPoolExecutor(RUNS_AT_ONCE) as runs:
        for profile, run in zip(PROFILES, runs.map(_unchanged, _by_profile(chosen)), strict=True):
            if run.fault or run.failed:
                console.print(f"{profile}: {run.fault or f'{run.failed} fail'} with every guard")
                return 1
        table = Table("guard", "file", "tests", "failed", "seconds")
        survivors = 0
        for mutant, run in zip(chosen, runs.map(_without, chosen), strict=True):
            noticed = run.failed and not run.fault
            survivors += not noticed
            failed = str(len(run.failed)) if noticed else f"[red]{run.fault or 'none: it survives'}"
            table.add_row(mutant.guard, mutant.file, str(run.tests), failed, f"{run.seconds:.0f}")
            console.print(f"{'ok ' if noticed else 'NOT'} {mutant.guard}", highlight=False)
    console.print(table)
    console.print(
        f"{len(chosen) - survivors} of {len(chosen)} guards are missed when they are gone"
    )
    return 1 if survivors or not chosen else 0


def _by_profile(mutants: Iterable[Mutant]) -> list[tuple[str, list[str]]]:
    """All tests of these mutants, by profile."""
    mutants = list(mutants)
    return [
        (
            profile,
            sorted({test for each in mutants if each.profile == profile for test in each.tests}),
        )
        for profile in PROFILES
    ]


def _unchanged(tests_of_profile: tuple[str, list[str]]) -> Run:
    profile, tests = tests_of_profile
    return _run(None, profile, tests) if tests else Run(0, (), 0.0)


def _without(mutant: Mutant) -> Run:
    return _run(mutant, mutant.profile, mutant.tests)


def _run(mutant: Mutant | None, profile: str, tests: Iterable[str]) -> Run:
    with tempfile.TemporaryDirectory(prefix="chatledger-mutant-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(PROJECT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
        if mutant:
            try:
                changed = mutant.applied_to((tree / mutant.file).read_text())
            except (LookupError, OSError) as error:
                return Run(0, (), 0.0, fault=str(error))
            (tree / mutant.file).write_text(changed)
        return _tested(tree, profile, tests)


def _tested(tree: Path, profile: str, tests: Iterable[str]) -> Run:
    began = time.monotonic()
    report = tree / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--junitxml", str(report)]
    options = ["-p", "no:cacheprovider", "-o", "faulthandler_timeout=60"]
    try:
        ended = subprocess.run(
            [*command, *options, *tests],
            cwd=tree,
            env=clean_environment() | {PROFILE_VARIABLE: profile},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Run(0, (), RUN_SECONDS_MAX, fault=f"no end within {RUN_SECONDS_MAX:.0f} s")
    seconds = time.monotonic() - began
    if ended.returncode not in (0, TESTS_FAILED) or not report.exists():
        lines = (ended.stdout + ended.stderr).strip().splitlines() or ["no output"]
        return Run(0, (), seconds, fault=f"pytest ended with {ended.returncode}: {lines[-1]}")
    cases = list(ET.parse(report).iter("testcase"))
    failed = tuple(case.get("name", "") for case in cases if case.find("failure") is not None)
    errors = [case.get("name", "") for case in cases if case.find("error") is not None]
    # A test that could not begin has noticed nothing.
    return Run(len(cases), failed, seconds, f"errors in {errors}" if errors and not failed else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
