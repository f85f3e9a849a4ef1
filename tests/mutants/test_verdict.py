"""When `make mutants` is content: each guard is missed, by a test that passes while it is there."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from devstack.application import PROJECT
from tests.mutants import __main__ as mutants
from tests.mutants.__main__ import Run
from tests.mutants.catalogue import MUTANTS, Mutant

GUARD = MUTANTS[0].guard
PASSED = Run(3, (), 1.0)
FAILED = Run(3, ("test_it",), 1.0)
BROKEN = Run(0, (), 1.0, fault="pytest ended with 2")


@pytest.mark.parametrize(
    ("unchanged", "without", "status"),
    [
        (PASSED, FAILED, 0),
        (PASSED, PASSED, 1),
        (PASSED, BROKEN, 1),
        (FAILED, FAILED, 1),
        (BROKEN, FAILED, 1),
    ],
    ids=["missed", "survives", "cannot be run", "fails with it too", "cannot be run at all"],
)
def test_only_a_guard_that_is_missed_will_do(
    unchanged: Run,
    without: Run,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(mutant: Mutant | None, profile: str, tests: Iterable[str]) -> Run:
        assert list(tests)
        return without if mutant else unchanged

    monkeypatch.setattr(mutants, "_run", run)
    assert mutants.main([GUARD]) == status
    said = capsys.readouterr().out
    assert GUARD in said or "with every guard" in said


def test_a_name_that_is_no_guards_is_not_success() -> None:
    assert mutants.main(["no such guard"]) == 1


def test_the_tree_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[0]
    before = (PROJECT / mutant.file).read_text()
    changed: list[str] = []

    def tested(tree: Path, profile: str, tests: Iterable[str]) -> Run:
        assert tree != PROJECT
        changed.append((tree / mutant.file).read_text())
        return FAILED

    monkeypatch.setattr(mutants, "_tested", tested)
    mutants._run(mutant, mutant.profile, mutant.tests)
    assert changed == [mutant.applied_to(before)]
    assert (PROJECT / mutant.file).read_text() == before
