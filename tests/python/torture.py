# SPDX-License-Identifier: Apache-2.0
"""What the tests that kill processes share: a job whose answers name the attempt that gave them, and its oracle."""

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import time

from conftest import ROOT

DRIVER = ROOT / "build/release/bin/torture_driver"
MILLSTREAM = ROOT / "build/release/bin/millstream"
ROWS = 60
JOB = """\
models: {tiny: {path: ../tiny.gguf}}
input: {path: rows.jsonl}
split_rows: 9
output: {path: OUTPUT, format: jsonl, rows: [ok, error, skipped]}
steps:
  - filter: "{{ id % 3 != 0 }}"
  - check: {that: "{{ id % 5 != 0 }}"}
  - generate: {model: tiny, raw_prompt: "{{ text }}", as: answer, max_tokens: 8}
"""

SEED = int(os.environ.get("MS_TORTURE_SEED", "1"))
SECONDS = float(os.environ.get("MS_TORTURE_SECONDS", "0"))


def report(suite, **numbers):
    print("\nTORTURE", json.dumps({"suite": suite, "seed": SEED, **numbers}))


class Clock:
    """Whether a random part goes on: for so many repetitions, or for MS_TORTURE_SECONDS."""

    def __init__(self, enough):
        self.enough = enough
        self.end = time.monotonic() + SECONDS

    def goes_on(self, done):
        return time.monotonic() < self.end if SECONDS else done < self.enough


def status_of(record):
    if record % 8 == 4:
        return "error bad_json"
    if record % 3 == 0:
        return "skipped"
    return "error check_failed" if record % 5 == 0 else "ok"


def asked_in(file):
    """The records that are named in what an engine was asked."""
    return {int(row) for row in re.findall(r"row (\d+)\n", file.read_text())}


class KilledJob:
    """A job in a folder of its own, run by processes that are killed; `look` judges what each left."""

    def __init__(self, folder, output=None):
        self.folder = folder
        self.output = output or folder / "out"
        self.state = folder / f"{self.output}.millstream"
        self.environment = None  # this process's
        self.had_two_drivers = False  # then a row may be asked for by both
        self.taken_for_dead = set()  # workers that may begin on rows that others have committed
        self.names_attempts = True  # in its answers; else they are those of any undisturbed run
        self.attempts = 0
        self.parts = {}  # by name, as they were first seen
        self.logged = {}  # by record: the attempts whose answer was durable
        self.asked = []  # records, by attempt
        folder.mkdir()
        (folder / "rows.jsonl").write_text(
            "".join(
                "{broken\n" if record % 8 == 4 else json.dumps({"id": record, "text": f"row {record}"}) + "\n"
                for record in range(1, ROWS + 1)
            )
        )
        (folder / "job.yaml").write_text(JOB.replace("OUTPUT", str(self.output)))

    def start(self, kill_at=0, row_ms=0, workers=0, silence_ms=0):
        """A new attempt."""
        self.attempts += 1
        command = [DRIVER, "run", self.folder / "job.yaml", self.attempts if self.names_attempts else 0]
        command += [self.folder / f"asked-{self.attempts}", kill_at, row_ms, workers, silence_ms]
        return subprocess.Popen(
            list(map(str, command)), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _asked(self, attempt):
        """The records that an attempt asked the engine for, or its workers."""
        files = self.folder.glob(f"asked-{attempt}*")
        return set().union(*(asked_in(file) for file in files if file.name.split("-")[1] == str(attempt)))

    def asked_by_zombies(self):
        files = self.folder.glob("asked-*-*")
        return set().union(*(asked_in(file) for file in files if int(file.name.split("-")[2]) in self.taken_for_dead))

    def part_files(self):
        return {part.name: part.read_bytes() for part in self.output.glob("*")}

    def row_logs(self):
        found = []
        for folder, _, logs in os.walk(self.state / "rows"):  # passes over what is gone
            for log in logs:
                with contextlib.suppress(FileNotFoundError):  # who is at work has just published its split
                    found.append(pathlib.Path(folder, log).read_bytes())
        return found

    def manifest(self):
        return json.loads((self.state / "success.json").read_text())

    def look(self):
        """After an attempt's end: nothing that stood has changed, and no durable answer was computed again."""
        self.asked = [self._asked(attempt) for attempt in range(1, self.attempts + 1)]
        again = self.asked[-1] & set(self.logged) - self.asked_by_zombies()
        assert self.had_two_drivers or not again, f"rows {again} were durable and are computed again"
        found = self.part_files()
        for name, content in found.items():
            assert re.fullmatch(r"part-\d{6}\.jsonl", name), name
            assert self.parts.setdefault(name, content) == content, f"{name} changed after it was seen"
        assert set(self.parts) == set(found), "a part is gone"
        for record, attempt in self.durable():
            self.logged.setdefault(record, set()).add(attempt)

    def durable(self):
        """Answers that stand, in parts and in row logs: records, each with the attempt that gave it."""
        bytes_that_stand = b"".join([*self.row_logs(), *self.part_files().values()])  # a log goes after its part came
        return {(int(record), int(attempt)) for record, attempt in re.findall(rb"row (\d+) @(\d+)@", bytes_that_stand)}

    def run_to_end(self):
        """Without a kill: exit code 0, and all is whole. Returns the calls to the disk."""
        process = self.start()
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        self.look()
        self.check_whole()
        return int(out)

    def check_whole(self):
        rows = [json.loads(line) for name in sorted(self.parts) for line in self.parts[name].splitlines()]
        assert [row["_source"]["record"] for row in rows] == list(range(1, ROWS + 1))
        counts = {"ok": 0, "error": 0, "skipped": 0}
        for row in rows:
            record = row["_source"]["record"]
            status = row["_status"] + (f" {row['_error']['code']}" if row["_error"] else "")
            assert status == status_of(record), row
            counts[row["_status"]] += 1
            if status != "ok":
                continue
            found = re.fullmatch(rf"row {record} @(\d+)@", row["answer"])
            assert found, row
            attempt = int(found[1])
            if not self.names_attempts:
                assert attempt == 0 and any(record in asked for asked in self.asked), row
                continue
            assert record in self.asked[attempt - 1], (
                f"record {record} has an answer that attempt {attempt} did not give"
            )
            assert attempt in self.logged[record], f"record {record} has another answer than was durable"
        manifest = self.manifest()
        assert {key: manifest[key] for key in counts} == counts and manifest["rows"] == ROWS
        verify = [MILLSTREAM, "verify", self.output, "--deep"]
        verified = subprocess.run(verify, env=self.environment, capture_output=True, text=True, timeout=120)
        said = f"{ROWS} rows: {counts['ok']} ok, {counts['error']} error, {counts['skipped']} skipped"
        assert verified.returncode == 0 and verified.stdout.startswith(said), verified.stdout + verified.stderr


def kill_after(process, seconds, once=lambda: True):
    """Waits so long for a process, from the moment that `once` holds, then kills it. Whether it was killed."""
    while not once() and process.poll() is None:
        pass  # it may be over in a millisecond
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, -9), err
    return process.returncode != 0


def stop(process):
    """Stops a process with SIGSTOP, and waits until each of its threads stands still. False if it has ended."""
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGSTOP)
    return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_STOPPED


def workers_of(pid):
    """The processes that a driver has started."""
    found = []
    with contextlib.suppress(OSError):  # it has ended
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def choices(*what):
    """Random choices that a seed repeats."""
    return random.Random("-".join(map(str, (SEED, *what))))
