"""promptfoo really asks our server with the configuration that we write."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from server_parts import serving

from ringfence.reports.exports import exported

PROMPTFOO = os.environ.get("RINGFENCE_PROMPTFOO", "")


@pytest.mark.slow
@pytest.mark.skipif(not PROMPTFOO, reason="RINGFENCE_PROMPTFOO names no promptfoo program")
def test_promptfoo_asks_the_server_with_our_configuration(tmp_path: Path) -> None:
    with serving() as running:
        config = yaml.safe_load(exported("promptfoo", f"{running.url}/v1", "tiny").text)
        file, out = tmp_path / "promptfoo.yaml", tmp_path / "out.json"
        file.write_text(yaml.safe_dump(config), "utf-8")
        environment = os.environ | {
            "HOME": str(tmp_path),
            "PROMPTFOO_CONFIG_DIR": str(tmp_path / "config"),
            "PROMPTFOO_DISABLE_TELEMETRY": "1",
            "PROMPTFOO_DISABLE_UPDATE": "1",
            "RINGFENCE_SERVE_KEY": "none",
        }
        done = subprocess.run(
            [PROMPTFOO, "eval", "-c", str(file), "--no-cache", "--no-progress-bar", "-o", str(out)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert out.is_file(), done.stdout[-3000:] + done.stderr[-3000:]
        results = json.loads(out.read_text("utf-8"))["results"]["results"]
        # The scripted model of these tests tells no secret, and nothing else either.
        assert [one["success"] for one in results] == [True, False]
        assert all(one["response"]["output"].startswith("Hello, wörld!") for one in results)
