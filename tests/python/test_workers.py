# SPDX-License-Identifier: Apache-2.0
"""A job whose rows several worker processes share: whatever becomes of them, its output is that of one process."""

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
from conftest import ROOT, read_rows
from openai_stub import Server, answer_of, completion, text_of

BINARY = ROOT / "build/release/bin/millstream"
STEPS = "steps: [{generate: {model: big, prompt: 'Say {{ text }}', as: answer}}]\n"


def write_job(folder, model="", steps="steps: [{set: {twice: '{{ text }}{{ text }}'}}]\n", rows=400, more=""):
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(rows)))
    (folder / "job.yaml").write_text(
        f"{model}{steps}input: rows.jsonl\noutput: {{path: out, rows: [ok, error, skipped]}}\nsplit_rows: 40\n{more}"
    )
    return folder / "job.yaml"


def served(server, settings=""):
    return f"models: {{big: {{engine: openai, base_url: '{server.url}', model: m/1, dialect: openai{settings}}}}}\n"


def slowly(body):
    """An answer that takes so long that a job of 400 rows can be disturbed."""
    time.sleep(0.05)
    return 200, {}, json.dumps(completion(body, answer_of(text_of(body)))).encode()


def digest(millstream, output):
    return millstream("verify", output, "--deep", "--digest").stdout.splitlines()[-1]


def workers_of(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task")
    found = []
    for task in tasks.iterdir() if tasks.exists() else []:
        children = task / "children"
        found += [int(child) for child in children.read_text().split()] if children.exists() else []
    return found


def await_requests(server, count, process):
    while len(server.bodies) < count:
        assert process.poll() is None, "it ended before"
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("output", ["out", "out.jsonl", "out.csv"])
def test_the_output_is_that_of_one_process(millstream, tmp_path, workers, output):
    job = write_job(tmp_path)
    millstream("run", job, "--output", tmp_path / "one" / output)
    millstream("run", job, "--output", tmp_path / "many" / output, "--workers", workers)
    assert digest(millstream, tmp_path / "many" / output) == digest(millstream, tmp_path / "one" / output)
    said = millstream("run", job, "--output", tmp_path / "many" / output, "--workers", workers).stderr
    assert "nothing to do" in said


def test_workers_that_are_killed_cost_no_row_and_no_answer_twice(millstream, tmp_path):
    with Server(script=slowly) as server:
        job = write_job(tmp_path, served(server, ", max_in_flight: 4"), STEPS)
        process = subprocess.Popen([BINARY, "run", job, "--workers", "2"], stderr=subprocess.PIPE, text=True)
        killed = 0
        for count in (40, 120, 200):
            await_requests(server, count, process)
            for worker in workers_of(process.pid)[:1]:
                os.kill(worker, signal.SIGKILL)
                killed += 1
        said = process.communicate()[1]
        assert process.returncode == 0, said
        answered = len(server.bodies)
    assert killed == 3 and said.count("a worker died of signal 9") == 3
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [answer_of(f"Say row {i}") for i in range(400)]
    assert answered <= 400 + 3 * 8  # those in flight at a kill, and just answered, once more


def test_a_job_that_is_stopped_goes_on_with_any_number_of_workers(millstream, tmp_path):
    with Server(script=slowly) as server:
        job = write_job(tmp_path, served(server, ", max_in_flight: 4"), STEPS, rows=1000)
        for how, workers in ((signal.SIGINT, "2"), (signal.SIGTERM, "3"), (signal.SIGKILL, "2")):
            before = len(server.bodies)
            process = subprocess.Popen([BINARY, "run", job, "--workers", workers], stderr=subprocess.PIPE, text=True)
            await_requests(server, before + 60, process)
            children = workers_of(process.pid)
            process.send_signal(how)
            said = process.communicate()[1]
            assert process.returncode == (-9 if how == signal.SIGKILL else 75), said
            deadline = time.monotonic() + 20
            while any(os.path.exists(f"/proc/{child}") for child in children) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not any(os.path.exists(f"/proc/{child}") for child in children)
        millstream("run", job)
        answered = len(server.bodies)
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [answer_of(f"Say row {i}") for i in range(1000)]
    assert answered <= 1000 + 8 * 8


def test_a_model_that_fails_each_row_stops_the_job(millstream, tmp_path):
    refusal = json.dumps({"error": {"message": "no such thing", "code": None}}).encode()
    with Server(script=lambda body: (400, {}, refusal)) as server:
        job = write_job(tmp_path, served(server), STEPS)
        assert "no such thing" in millstream("run", job, "--workers", 2, exit_code=3).stderr
    with Server() as server:
        millstream("run", write_job(tmp_path, served(server), STEPS), "--workers", 2)
    assert all(row["_status"] == "ok" for row in read_rows(tmp_path / "out"))


def test_the_same_answers_come_of_the_real_model(millstream, tmp_path):
    model = "models: {big: {path: smollm2-135m-instruct}}\n"
    steps = "steps: [{generate: {model: big, prompt: 'Say {{ text }}', as: answer, max_tokens: 4}}]\n"
    job = write_job(tmp_path, model, steps, rows=24, more="")
    sets = ["--set", "split_rows=6"]
    millstream("run", job, "--output", tmp_path / "one", *sets)
    millstream("run", job, "--output", tmp_path / "two", "--workers", 2, *sets)
    assert digest(millstream, tmp_path / "two") == digest(millstream, tmp_path / "one")
