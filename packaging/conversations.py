"""Prompts and the replies of `ringfence generate` → conversations to train on.

    python packaging/conversations.py PROMPTS.jsonl REPLIES.jsonl OUT.jsonl

Replies that were cut short are left out: half a reply teaches to stop in the middle.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Write OUT, whole or not at all."""
    prompts, replies, out = map(Path, sys.argv[1:4])
    asked = {
        item["id"]: item["messages"] for item in map(json.loads, prompts.open(encoding="utf-8"))
    }
    partial, kept, seen = out.with_suffix(".partial"), 0, 0
    with partial.open("w", encoding="utf-8") as file:
        for item in map(json.loads, replies.open(encoding="utf-8")):
            seen += 1
            if item["reason"] != "stop" or not item["reply"].strip():
                continue
            reply = {"role": "assistant", "content": item["reply"].strip()}
            line = {"id": item["id"], "messages": [*asked[item["id"]], reply]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            kept += 1
    os.replace(partial, out)
    print(f"{out}: {kept} of {seen} replies, the others were cut short")


if __name__ == "__main__":
    main()
