"""What the README prints runs as printed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COMMAND = [str(Path(sys.executable).parent / "ringfence")]


def block(mark: str) -> str:
    """The Python block after an HTML comment that begins with `mark`."""
    found = re.search(rf"<!-- {re.escape(mark)}[^>]*-->\n```python\n(.*?)```", README, re.DOTALL)
    assert found, mark
    return found[1]


@pytest.mark.model
def test_the_lines_of_python_print_a_reply_and_its_account():
    code = block("run by tests/test_readme.py")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Cost(" in done.stdout


@pytest.mark.model
def test_a_client_talks_to_the_server_as_printed():
    code = block("run by tests/test_readme.py against that server")
    command = next(
        line for line in README.splitlines() if line.startswith(".venv/bin/ringfence serve")
    )
    words = shlex.split(command)[1:]
    server = subprocess.Popen(
        [*COMMAND, *words, "--port", "0", "--max-tokens", "24"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert server.stdout is not None
        said = ""
        for line in server.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/v1", line):
                break
        else:
            raise AssertionError(f"the server did not start: {said}")
        done = subprocess.run(
            [sys.executable, "-c", code.replace("http://127.0.0.1:8000/v1", found[0])],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "rewinds" in done.stdout
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0


def test_every_command_of_the_readme_exists():
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    lines = re.findall(r"^ringfence [a-z]+(?: [a-z]+)?", shell, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        words = [word for word in line.split()[1:] if not word.startswith("-")]
        done = subprocess.run(
            [*COMMAND, *words, "--help"], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, line


def test_every_file_that_the_readme_points_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
