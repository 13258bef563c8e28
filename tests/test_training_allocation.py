"""Memory that is freed is asked for again without a page from the kernel."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

# Pages that equal tensors of 256 MiB, one after the other, take from the kernel.
PROGRAM = """
import json, resource, sys
import ringfence.training.running, torch
from ringfence.training.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**26).sum()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps(faults))
"""


def faults(mode: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_what_is_freed_is_kept():
    # The heap may have to grow a few times more for a place that is aligned.
    assert min(faults("keep")) < 20
    assert min(faults("give back")) > 100, "also on large pages"
