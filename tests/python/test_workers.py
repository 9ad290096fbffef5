# SPDX-License-Identifier: Apache-2.0
"""A job whose rows several worker processes share: whatever becomes of them, its output is that of one process."""

import json
import os
import signal
import subprocess
import threading

import pytest
from conftest import ROOT, read_rows
from openai_stub import Server, answer_of
from torture import DRIVER, workers_of

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


class Disturbance:
    """A script for a server: as the requests of these numbers come, something is done, in their order."""

    def __init__(self, numbers, act):
        self.numbers, self.act = list(numbers), act
        self.lock = threading.Lock()
        self.num_requests = 0

    def __call__(self, body):
        with self.lock:
            self.num_requests += 1
            if self.numbers and self.num_requests >= self.numbers[0]:
                self.numbers.pop(0)
                self.act()


def digest(millstream, output):
    return millstream("verify", output, "--deep", "--digest").stdout.splitlines()[-1]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("output", ["out", "out.jsonl", "out.csv"])
def test_the_output_is_that_of_one_process(millstream, tmp_path, workers, output):
    job = write_job(tmp_path)
    millstream("run", job, "--output", tmp_path / "one" / output)
    millstream("run", job, "--output", tmp_path / "many" / output, "--workers", workers)
    assert digest(millstream, tmp_path / "many" / output) == digest(millstream, tmp_path / "one" / output)
    said = millstream("run", job, "--output", tmp_path / "many" / output, "--workers", workers).stderr
    assert "nothing to do" in said


def start(job, workers):
    return subprocess.Popen([BINARY, "run", job, "--workers", str(workers)], stderr=subprocess.PIPE, text=True)


def test_workers_that_are_killed_cost_no_row_and_no_answer_twice(tmp_path):
    def kill():
        os.kill(workers_of(processes[0].pid)[0], signal.SIGKILL)

    processes = []
    with Server(script=Disturbance([40, 120, 200], kill)) as server:
        processes.append(start(write_job(tmp_path, served(server, ", max_in_flight: 4"), STEPS), 2))
        said = processes[0].communicate()[1]
        assert processes[0].returncode == 0, said
        answered = sum(server.answered.values())
    assert said.count("a worker died (SIGKILL)") == 3
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [answer_of(f"Say row {i}") for i in range(400)]
    assert answered <= 400 + 3 * 24  # those in flight at a kill, and just answered, once more


def test_a_job_that_is_stopped_goes_on_with_any_number_of_workers(millstream, tmp_path):
    processes = []
    disturbance = Disturbance([], lambda: processes[-1].send_signal(how))
    with Server(script=disturbance) as server:
        job = write_job(tmp_path, served(server, ", max_in_flight: 4"), STEPS, rows=1000)
        for how, workers in ((signal.SIGINT, 2), (signal.SIGTERM, 3), (signal.SIGKILL, 2)):
            disturbance.numbers = [disturbance.num_requests + 60]
            processes.append(start(job, workers))
            said = processes[-1].communicate()[1]  # until its workers have ended as well
            assert processes[-1].returncode == (-9 if how == signal.SIGKILL else 75), said
        millstream("run", job)
        answered = sum(server.answered.values())
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [answer_of(f"Say row {i}") for i in range(1000)]
    assert answered <= 1000 + 8 * 24


def test_a_model_that_fails_each_row_stops_the_job(millstream, tmp_path):
    refusal = json.dumps({"error": {"message": "no such thing", "code": None}}).encode()
    with Server(script=lambda body: (400, {}, refusal)) as server:
        job = write_job(tmp_path, served(server), STEPS)
        assert "no such thing" in millstream("run", job, "--workers", 2, exit_code=3).stderr
    with Server() as server:
        millstream("run", write_job(tmp_path, served(server), STEPS), "--workers", 2)
    assert all(row["_status"] == "ok" for row in read_rows(tmp_path / "out"))


def run_with_a_row_that_kills(folder, signal_number):
    subprocess.run([DRIVER, "model", folder / "tiny.gguf"], check=True)
    steps = "steps: [{generate: {model: big, raw_prompt: '{{ text }}', as: answer, max_tokens: 8}}]\n"
    job = write_job(folder, "models: {big: {path: tiny.gguf}}\n", steps)
    rows = folder / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"row 57"', f'"kill {int(signal_number)}"'))
    command = [DRIVER, "run", job, "1", folder / "asked", "0", "0", "2"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("how", ["SIGSEGV", "SIGABRT"])
def test_a_row_that_kills_workers_fails_alone(millstream, tmp_path, how):
    ran = run_with_a_row_that_kills(tmp_path, signal.Signals[how])
    assert ran.returncode == 0, ran.stderr
    assert (
        f"rows.jsonl:58 fails with the code crash: 3 workers died with this row alone (the last: {how})" in ran.stderr
    )
    found = read_rows(tmp_path / "out")
    failed = found.pop(57)
    assert failed["_error"] == {
        "step": "read",
        "code": "crash",
        "message": f"workers die of this row alone: {how}",
    }
    assert failed["text"] is None
    assert [row["answer"] for row in found] == [f"row {row} @1@" for row in range(400) if row != 57]
    assert "400 rows: 399 ok, 1 error" in millstream("verify", tmp_path / "out", "--deep").stdout


def test_workers_that_somebody_kills_are_no_rows_fault(tmp_path):
    ran = run_with_a_row_that_kills(tmp_path, signal.SIGKILL)
    assert ran.returncode == 3, ran.stderr
    assert "stopped: 30 workers in a row died (the last: SIGKILL) and no row was finished" in ran.stderr
    assert "crash" not in ran.stderr


def test_the_same_answers_come_of_the_real_model(millstream, tmp_path):
    model = "models: {big: {path: smollm2-135m-instruct}}\n"
    steps = "steps: [{generate: {model: big, prompt: 'Say {{ text }}', as: answer, max_tokens: 4}}]\n"
    job = write_job(tmp_path, model, steps, rows=24, more="")
    sets = ["--set", "split_rows=6"]
    millstream("run", job, "--output", tmp_path / "one", *sets)
    millstream("run", job, "--output", tmp_path / "two", "--workers", 2, *sets)
    assert digest(millstream, tmp_path / "two") == digest(millstream, tmp_path / "one")
