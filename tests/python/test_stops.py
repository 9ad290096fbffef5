# SPDX-License-Identifier: Apache-2.0
"""Suites 3 and 12 of docs/reliability.md with the real binary and the real model: killed, stopped and drained at random
times, it ends in time, computes nothing twice that it had kept, and in the end gives the undisturbed output."""

import json
import signal
import subprocess
import time

import pytest
from conftest import ROOT
from torture import MILLSTREAM, Clock, choices, report, stop

ROWS = 12
JOB = """\
models: {small: {path: smollm2-135m-instruct}}
input: {path: rows.jsonl}
split_rows: 4
steps:
  - generate: {model: small, prompt: "Explain: {{ text }}", as: a, max_tokens: 12, temperature: TEMPERATURE}
output: {path: out, format: jsonl}
"""
SLACK_SECONDS = 4.0  # of a machine that has other work: the limit is met where the run is alone


class Job:
    """A job, and the account of its undisturbed run."""

    def __init__(self, folder, temperature):
        self.folder = folder
        self.runs = 0
        lines = (ROOT / "tests/data/glosses.jsonl").read_text().splitlines()[:ROWS]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "job.yaml").write_text(JOB.replace("TEMPERATURE", str(temperature)))
        start = time.monotonic()
        self.tokens, _ = self.finish(self.start(self.fresh()), 0)
        self.seconds = time.monotonic() - start
        self.digest = self.verify()

    def fresh(self):
        """A new output."""
        self.runs += 1
        self.output = self.folder / f"out-{self.runs}"
        return self.output

    def start(self, output, *arguments):
        # Few rows at a time, so that a stop finds some done, some under way and some not begun.
        command = [MILLSTREAM, "run", self.folder / "job.yaml", "--output", output, "--progress", "json"]
        command += ["--set", "models.small.memory=16MiB", *arguments]
        return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)

    @staticmethod
    def finish(process, *exit_codes):
        """The tokens that a run gave, and its exit code."""
        _, err = process.communicate(timeout=120)
        assert process.returncode in exit_codes, err
        events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        ends = [event for event in events if event["event"] == "end"]
        return ends[0]["completion_tokens"] if ends else 0, process.returncode

    def verify(self):
        done = subprocess.run([MILLSTREAM, "verify", self.output, "--digest"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=[0, 0.8])
def job(request, tmp_path_factory):
    return Job(tmp_path_factory.mktemp("stops"), request.param)


def wait(process, seconds):
    """Whether a process still runs after so long."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


# What is sent, and in how many seconds the run must have ended.
STOPS = {
    "drain in 2 s": (["--drain-seconds", "2"], [signal.SIGTERM], 2),
    "drain in 5 s": (["--drain-seconds", "5"], [signal.SIGTERM], 5),
    "a second SIGTERM": ([], [signal.SIGTERM, signal.SIGTERM], 2),
    "SIGINT": ([], [signal.SIGINT], 2),
}


def test_a_stop_is_in_time_and_computes_nothing_twice(job):
    random = choices("stops", job.digest)
    clock = Clock(10)
    runs = stopped = 0
    while clock.goes_on(runs):
        arguments, signals, limit = list(STOPS.values())[runs % len(STOPS)]
        runs += 1
        job.fresh()
        process = job.start(job.output, *arguments)
        tokens = 0
        if wait(process, random.uniform(0.3, 0.9) * job.seconds):
            sent = time.monotonic()
            for number in signals:
                process.send_signal(number)
                wait(process, 0.2)
            tokens, exit_code = job.finish(process, 0, 75)
            assert time.monotonic() - sent < limit + SLACK_SECONDS
            stopped += exit_code == 75
        else:
            tokens, _ = job.finish(process, 0)
        again, _ = job.finish(job.start(job.output), 0)
        assert job.verify() == job.digest
        assert tokens + again == job.tokens, "tokens that were kept were computed again"
    report("drain", stops=stopped, jobs=runs, wrong=0)


def test_a_kill_at_a_random_time_costs_no_row(job):
    random = choices("model kills", job.digest)
    clock = Clock(20)
    kills = jobs = 0
    while clock.goes_on(kills):
        job.fresh()
        jobs += 1
        while True:
            process = job.start(job.output)
            if not wait(process, random.uniform(0.1, 0.8) * job.seconds):
                break
            process.kill()
            process.communicate(timeout=60)
            kills += 1
        job.finish(process, 0)
        assert job.verify() == job.digest
    report("kill, real model", kills=kills, jobs=jobs, wrong=0)


def test_a_run_that_is_stopped_for_a_while_goes_on(job):
    random = choices("pauses", job.digest)
    job.fresh()
    process = job.start(job.output)
    for _ in range(3):
        if wait(process, random.uniform(0.1, 0.3) * job.seconds):
            stop(process)
            wait(process, 0.5)
            process.send_signal(signal.SIGCONT)
    tokens, _ = job.finish(process, 0)
    assert tokens == job.tokens and job.verify() == job.digest
