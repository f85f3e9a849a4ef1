"""The catalogue of guards fits the code: `make mutants` can take away each of them."""

import ast

import pytest

from devstack.application import PROJECT
from tests.mutants.catalogue import MUTANTS, Mutant
from tests.services_plugin import PROFILES

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard)


@each_mutant
def test_the_guard_is_there_once_and_the_code_without_it_can_be_read(mutant: Mutant) -> None:
    source = (PROJECT / mutant.file).read_text()
    assert ast.dump(ast.parse(mutant.applied_to(source))) != ast.dump(ast.parse(source))


@each_mutant
def test_those_who_have_to_notice_are_there(mutant: Mutant) -> None:
    assert mutant.tests
    assert mutant.profile in PROFILES
    for test in mutant.tests:
        file, *names = test.split("::")
        name = names[-1] if names else ""
        assert (PROJECT / file).exists(), test
        assert not name or f"def {name}(" in (PROJECT / file).read_text(), test


def test_a_guard_that_has_moved_is_said_to_be_missing() -> None:
    moved = Mutant("moved", "somewhere.py", "guard()\n", "", ("tests",))
    with pytest.raises(LookupError, match=r"moved: found 0 times in somewhere\.py"):
        moved.applied_to("nothing here\n")
    with pytest.raises(LookupError, match="found 2 times"):
        moved.applied_to("guard()\nguard()\n")


def test_no_two_guards_have_one_name() -> None:
    assert len({mutant.guard for mutant in MUTANTS}) == len(MUTANTS)
