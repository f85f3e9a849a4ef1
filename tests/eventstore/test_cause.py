"""Who a command in a shell is in the log."""

import os
import pwd
import re
from types import SimpleNamespace

import pytest

from eventstore.cause import Cause, shell_cause


@pytest.mark.parametrize(
    ("login", "actor"),
    [
        ("alice", "shell:alice"),
        ("CORP\\al ice\n", "shell:CORP_al_ice_"),
        ("jürgen", "shell:j_rgen"),
        ("x" * 100, "shell:" + "x" * 64),
    ],
)
def test_it_is_named_by_what_is_plain_in_the_login_name(
    monkeypatch: pytest.MonkeyPatch, login: str, actor: str
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name=login))
    assert shell_cause() == Cause(actor)


def test_a_user_without_a_name_is_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert shell_cause() == Cause(f"shell:{os.getuid()}")


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "mallory")
    assert re.fullmatch(r"shell:[A-Za-z0-9_.-]{1,64}", shell_cause().actor)
    assert shell_cause().actor != "shell:mallory"
