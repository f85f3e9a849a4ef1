"""`examples/check_proof.py`, run as an auditor runs it: away from our code."""

import os
import subprocess
import sys
from pathlib import Path

from config.environment import PROJECT_DIR
from tests.config.processes import TIMEOUT_SECONDS

SCRIPT = PROJECT_DIR / "examples" / "check_proof.py"


def check(proof: str, keys: Path | str) -> subprocess.CompletedProcess[str]:
    """Give the script a proof and the keys, in a file or as digits."""
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT), "-", str(keys)],
        input=proof,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
    )
