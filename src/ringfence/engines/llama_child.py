"""The child process of `embedded`: a llama.cpp server that lives no longer than its parent.

Reads one line of JSON from stdin, loads the model, writes one line of JSON to stdout (`address`, or
`error`), and serves until stdin ends. Knows nothing of the rest of ringfence.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that happens.

    Linux only; elsewhere the end of stdin does it, but not before the model is loaded.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the call above
        os._exit(1)


def _serve(settings: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["cells"]
    # One pool of cells for all slots: drafts of one prefix share the prefix's cells.
    params.kv_unified = True
    # A smaller batch than the default of 2048 lets drafts go on, and cancelled calls end, while a
    # long prompt is processed. What is computed at once (n_ubatch) is 512 in any case.
    params.n_batch = 512
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    if settings["adapter"]:
        # At start, not by request: no request can then go without it, or share a cached prefix
        # with one that has another.
        lora = xllamacpp.CommonAdapterLoraInfo(settings["adapter"], settings["strength"])
        params.lora_adapters = [lora]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["key"]]
    params.ui = False
    # Attention runs over the cells of all slots, also of those whose prompts nobody asks for any
    # more. With a cache beside the pool, slots are emptied into it when they fall idle, and what
    # runs is a third faster (48 prompts of 350 tokens, 4 side by side).
    params.cache_ram_mib = 512
    params.cache_idle_slots = True
    params.fit_params = False
    params.verbosity = 0
    return xllamacpp.Server(params)


def main() -> None:
    """Serve until stdin ends."""
    settings = json.loads(sys.stdin.buffer.readline())
    _die_with(settings["parent"])
    # What the library prints must not get into the conversation with the parent.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as parent:
        os.dup2(2, 1)
        try:
            server = _serve(settings)
            answer = {"address": server.listening_address}
        except Exception as error:  # xllamacpp raises bare exceptions
            answer = {"error": str(error) or repr(error)}
        print(json.dumps(answer), file=parent, flush=True)
    if "error" in answer:
        sys.exit(1)
    sys.stdin.buffer.read()
    os._exit(0)  # without waiting for requests in flight: nobody is left to read the answers


if __name__ == "__main__":
    main()
