"""The blocks that replace a key, pasted where they should not be: no key is lost by it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.keyfile import read_keys
from devstack.application import PROJECT
from tests.stack.procedures import block

RUN_SECONDS = 60
MAKE_KEYS = "python manage.py make_keys"
REPLACED = {
    "DATA_KEY": "DATA_KEY_PREVIOUS",
    "JWT_SIGNING_KEY": "JWT_SIGNING_KEYS_PREVIOUS",
}


class Keys:
    """An operator's folder with a key file, and the shell that the blocks are pasted into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "var" / "keys.env"
        self.before = folder / "var" / "keys.env.before"
        (folder / "manage.py").symlink_to(PROJECT / "manage.py")
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(sys.executable)
        self.paste(MAKE_KEYS)

    def paste(self, commands: str) -> int:
        """Run commands as a terminal does, which goes on behind a line that fails."""
        folders = (Path(sys.executable).parent, self._folder / "bin", os.environ["PATH"])
        ran = subprocess.run(
            ["bash", "-c", commands],
            cwd=self._folder,
            env={"PATH": os.pathsep.join(map(str, folders)), "VAR_DIR": str(self.file.parent)},
            capture_output=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        return ran.returncode


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.mark.parametrize(("name", "previous"), REPLACED.items())
def test_a_block_that_is_pasted_twice_replaces_its_key_once(
    keys: Keys, name: str, previous: str
) -> None:
    first = read_keys(keys.file)[name]
    written = keys.file.read_bytes()
    replacing = block(f"^{previous}=' ")
    assert keys.paste(replacing) == 0
    assert keys.before.read_bytes() == written
    assert keys.before.stat().st_mode & 0o777 == keys.file.stat().st_mode & 0o777 == 0o600
    replaced = keys.file.read_bytes()
    assert read_keys(keys.file)[previous] == first != read_keys(keys.file)[name]

    assert keys.paste(replacing) != 0
    assert keys.file.read_bytes() == replaced
    assert keys.before.read_bytes() == written


@pytest.mark.parametrize(("name", "previous"), REPLACED.items())
def test_a_block_whose_last_line_failed_keeps_the_key_when_it_is_pasted_again(
    keys: Keys, name: str, previous: str
) -> None:
    first = read_keys(keys.file)[name]
    replacing = block(f"^{previous}=' ")
    assert keys.paste(replacing.replace(MAKE_KEYS, "false")) != 0
    assert read_keys(keys.file)[previous] == first
    for _ in range(2):
        assert keys.paste(replacing) != 0
        assert read_keys(keys.file)[previous] == first
    assert name not in read_keys(keys.file)

    assert keys.paste(f"{MAKE_KEYS} --file var/keys.env") == 0
    assert read_keys(keys.file)[previous] == first
    assert name in read_keys(keys.file)


@pytest.mark.parametrize("name", REPLACED)
def test_a_block_changes_no_file_that_does_not_hold_its_key(keys: Keys, name: str) -> None:
    keys.paste(f"sed -i '/^{name}=/d' var/keys.env")
    written = keys.file.read_bytes()
    assert keys.paste(block(f"^{REPLACED[name]}=' ")) != 0
    assert keys.file.read_bytes() == written
    assert not keys.before.exists()


def test_the_keys_that_nothing_lasting_needs_may_be_replaced_again(keys: Keys) -> None:
    first = read_keys(keys.file)
    replacing = block("-e '/^SEAL_KEY=/d'")
    keys.paste(replacing.replace(MAKE_KEYS, "false"))
    assert keys.paste(replacing) == 0
    now = read_keys(keys.file)
    assert now.keys() == first.keys()
    assert {name for name in now if now[name] != first[name]} == {"SECRET_KEY", "SEAL_KEY"}
