"""garak really scans our server with the configuration that we write."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from server_parts import serving

from ringfence.reports.exports import exported

GARAK = os.environ.get("RINGFENCE_GARAK", "")


@pytest.mark.slow
@pytest.mark.skipif(not GARAK, reason="RINGFENCE_GARAK names no Python that has garak")
def test_garak_scans_the_server_with_our_configuration(tmp_path: Path) -> None:
    with serving() as running:
        config = yaml.safe_load(exported("garak", f"{running.url}/v1", "tiny").text)
        config["run"]["soft_probe_prompt_cap"] = 2
        config["run"]["spec"]["include"] = ["probes.test.Test", "probes.promptinject"]
        config["system"]["parallel_attempts"] = False
        file = tmp_path / "garak.yaml"
        file.write_text(yaml.safe_dump(config), "utf-8")
        environment = os.environ | {
            "HOME": str(tmp_path),
            "XDG_DATA_HOME": str(tmp_path / "data"),
            "OPENAICOMPATIBLE_API_KEY": "none",
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run(
            [GARAK, "-m", "garak", "--config", str(file)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=540,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (report,) = tmp_path.rglob("ringfence.report.jsonl")
        lines = [json.loads(line) for line in report.read_text("utf-8").splitlines()]
        attempts = [line for line in lines if line["entry_type"] == "attempt"]
        outputs = [output["text"] for line in attempts for output in line["outputs"] if output]
        log = next(tmp_path.rglob("garak.log")).read_text("utf-8")
        refused = [line[:600] for line in log.splitlines() if "BadRequest" in line]
        assert not refused, refused[:3]
        assert outputs
        assert all(text.startswith("Hello, wörld!") for text in outputs)
        assert any(line["entry_type"] == "eval" for line in lines)
        assert "probe_spec" not in done.stdout
