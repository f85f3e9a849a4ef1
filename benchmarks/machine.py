"""What figures depend on: the machine, the versions, and the state of the code."""

import importlib.metadata
import os
import platform
import sqlite3
import subprocess
from pathlib import Path

from devstack import postgres_install
from devstack.application import PROJECT
from devstack.services import redis_server

PACKAGES = ("Django", "django-ninja", "uvicorn", "gunicorn", "psycopg", "dramatiq")
DURABILITY = "fsync and synchronous_commit on; SQLite in WAL with synchronous=FULL"


def about() -> dict[str, str]:
    """What stands above the figures of a run, for whoever compares them."""
    return {
        "commit": commit(),
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "memory": f"{_memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "PostgreSQL": _told(str(postgres_install.find().binary("postgres")), "--version"),
        "Redis": _told(str(redis_server()), "--version"),
        "packages": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        "durability": DURABILITY,
    }


def commit() -> str:
    """The short name of the commit, with a mark when the files are others."""
    changed = _told("git", "status", "--porcelain", "--untracked-files=no")
    return _told("git", "rev-parse", "--short", "HEAD") + ("-changed" if changed else "")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


def _told(*command: str) -> str:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
