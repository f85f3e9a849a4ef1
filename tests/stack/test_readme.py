"""The README's session, run as it stands: the output is what the service says today."""

import re
import subprocess
from pathlib import Path

from tests.stack.services import EmbeddedService

README = Path(__file__).resolve().parent.parent.parent / "README.md"
#: What differs from run to run: ids, times, and the server's names for requests.
VARIABLE = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|[0-9a-f]{32}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
)


def session() -> list[tuple[str, str]]:
    """The commands of the README's session, each with the output that stands below it."""
    block = README.read_text().split("```console\n")[1].split("```")[0]
    steps = [step.partition("\n") for step in re.split(r"(?m)^\$ ", block)[1:]]
    return [(command, output.strip()) for command, _, output in steps]


def test_the_session_in_the_readme_is_what_happens(embedded: EmbeddedService) -> None:
    steps = session()
    assert len(steps) >= 8
    script = "\n".join(f"{command}\necho; echo ---" for command, _ in steps)
    ran = subprocess.run(
        ["bash", "-c", script.replace("http://localhost:8000", embedded.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    outputs = [output.strip() for output in ran.stdout.split("---")[:-1]]
    assert [VARIABLE.sub("…", output) for output in outputs] == [
        VARIABLE.sub("…", output) for _, output in steps
    ]
