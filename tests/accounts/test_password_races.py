"""Two changes of one password at the same time."""

from uuid import UUID

import pytest

from accounts import commands
from accounts.commands import ChangePassword, LogIn, WrongPassword, change_password, log_in
from accounts.passwords import hash_password
from tests.accounts.conftest import CAUSE, PASSWORD


def test_of_two_changes_that_checked_the_same_old_password_one_loses(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken: list[str] = []

    def overtaken_once(password: str) -> str:
        # The old password is checked by now, and nothing is decided yet.
        if not overtaken:
            overtaken.append(password)
            change_password(ChangePassword(alice, PASSWORD, "the first new one"), CAUSE)
        return hash_password(password)

    monkeypatch.setattr(commands, "hash_password", overtaken_once)
    with pytest.raises(WrongPassword):
        change_password(ChangePassword(alice, PASSWORD, "the second new one"), CAUSE)
    assert overtaken
    assert log_in(LogIn("Alice", "the first new one")).user_id == alice
