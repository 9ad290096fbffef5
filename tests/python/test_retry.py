# SPDX-License-Identifier: Apache-2.0
"""`millstream retry` with the real binary: which rows it takes, what it says, and kills in its midst."""

import shlex
import subprocess
import threading

import pytest
from conftest import ROOT
from tiny import TinyJob
from torture import Clock, choices, kill_after

# A third is skipped; of the others a fifth fails the check, and most of what is left is cut.
STEPS = [
    {"filter": "{{ id % 3 != 0 }}"},
    {"check": {"that": "{{ id % 5 != 0 }}", "code": "fifth"}},
    {
        "generate": {
            "model": "tiny",
            "raw_prompt": "{{ text }}",
            "as": "answer",
            "max_tokens": 6,
            "temperature": 0.9,
            "on_length": "error",
        }
    },
]
ROWS = range(1, 41)
MEND = ["--set", "steps.answer.on_length=keep", "--set", "steps.check1.that='{{ true }}'"]


@pytest.fixture
def job(tmp_path):
    job = TinyJob(tmp_path, STEPS, max_errors="10%")
    job.write("rows.jsonl", ROWS)
    return job


def codes_of(rows):
    return {row["id"]: row["_error"]["code"] if row["_error"] else row["_status"] for row in rows}


def test_too_many_errors_print_a_line_that_mends_them_once_it_is_filled_in(millstream, job):
    said = millstream("run", job.file, exit_code=2).stderr
    line = next(line for line in said.splitlines() if line.strip().startswith("millstream retry "))
    assert line.endswith("--set PATH=VALUE")
    pasted = shlex.split(line.removesuffix("--set PATH=VALUE"))[1:]
    millstream(*pasted, *MEND)
    millstream("verify", job.output, "--deep")
    millstream("run", job.file, "--output", job.folder / "mended", *MEND)
    assert job.rows() == job.rows(job.folder / "mended")
    # The job's own file is another than the rows' now, and says so.
    assert "made by another spec" in millstream("run", job.file, exit_code=1).stderr


def test_a_retry_names_its_rows_before_it_runs_them(millstream, job):
    millstream("run", job.file, exit_code=2)
    codes = codes_of(job.rows())
    before = (job.parts(), sorted(job.state.rglob("*")))
    failed = {code: list(codes.values()).count(code) for code in ("fifth", "max_tokens_reached")}
    assert all(failed.values())

    said = millstream("retry", job.output, "--dry-run", *MEND).stderr
    assert said.startswith(f"{sum(failed.values())} rows chosen (")
    assert f"{failed['fifth']} x fifth, {failed['max_tokens_reached']} x max_tokens_reached" in said
    said = millstream("retry", job.output, "--dry-run", "--where", "fifth", *MEND).stderr
    assert said.startswith(f"{failed['fifth']} rows chosen ({failed['fifth']} x fifth)")
    said = millstream("retry", job.output, "--dry-run", "--where", "{{ id < 3 }}", *MEND).stderr
    assert said.startswith("2 rows chosen (")
    said = millstream("retry", job.output, "--where", "{{ id == 3 }}", *MEND).stderr
    assert "no row is chosen" in said  # it is skipped
    assert "nothing changed that could change these rows" in millstream("retry", job.output).stderr
    assert (job.parts(), sorted(job.state.rglob("*"))) == before, "something was written"


def test_a_retry_by_code_or_expression_changes_those_rows_alone(millstream, job):
    millstream("run", job.file, exit_code=2)
    old = {row["id"]: row for row in job.rows()}
    millstream("retry", job.output, "--where", "max_tokens_reached", *MEND, exit_code=None)
    new = {row["id"]: row for row in job.rows()}
    codes = codes_of(old.values())
    for id in ROWS:
        if codes[id] == "max_tokens_reached":
            assert new[id]["_status"] == "ok"
        else:
            assert new[id] == old[id]
    millstream("retry", job.output, "--where", "{{ id == 5 }}", *MEND, exit_code=None)
    assert {id for id, row in enumerate(job.rows(), 1) if row != new[id]} == {5}
    millstream("verify", job.output, "--deep")


def test_other_draws_give_other_answers_and_never_take_one_away(millstream, job):
    job.write("rows.jsonl", range(41, 301))
    millstream("run", job.file, exit_code=2)
    old = {row["id"]: row for row in job.rows()}
    millstream("retry", job.output, "--reseed", "--where", "{{ id > 0 }}", exit_code=None)
    new = {row["id"]: row for row in job.rows()}
    for id, code in codes_of(old.values()).items():
        if code in ("skipped", "fifth"):
            assert new[id] == old[id]
        if code == "ok":
            assert new[id]["_status"] == "ok"
    assert new != old, "all draws were the same"


class Reader(threading.Thread):
    """Reads all parts over and over: at every moment each is whole, and one of the versions that it may have."""

    def __init__(self, job, versions):
        super().__init__()
        self.job, self.versions = job, versions
        self.wrong, self.reads, self.over = [], 0, threading.Event()

    def run(self):
        while not self.over.is_set():
            for name, old in self.versions.items():
                seen = (self.job.output / name).read_bytes()
                self.reads += 1
                if seen not in old:
                    self.wrong.append(f"{name}: {seen[:200]}")

    def __exit__(self, *_):
        self.over.set()
        self.join()
        assert self.reads and not self.wrong, self.wrong

    def __enter__(self):
        self.start()
        return self


def test_a_retry_that_is_killed_keeps_all_parts_readable_and_the_next_one_ends_it(millstream, job):
    job.write("rows.jsonl", range(41, 401))
    millstream("run", job.file, exit_code=2)
    old = job.parts()
    mended = job.folder / "mended"
    # Its rows' version is 2 there too, so that its parts have the bytes that a retry's must have.
    millstream("run", job.file, "--output", mended, exit_code=2)
    millstream("retry", mended, *MEND)
    versions = {name: {bytes, job.parts(mended)[name]} for name, bytes in old.items()}

    random = choices("retry")
    clock = Clock(5)
    kills = 0
    with Reader(job, versions):
        while clock.goes_on(kills):
            begun = len(list(job.state.glob("journal-*")))
            process = job.start("retry", job.output, *MEND)
            if not kill_after(
                process, random.uniform(0, 0.1), once=lambda n=begun: len(list(job.state.glob("journal-*"))) > n
            ):
                break  # all is mended
            kills += 1
            millstream("verify", job.output, "--deep")
        millstream("retry", job.output, *MEND)
    assert kills and job.parts() == job.parts(mended)
    # A kill may leave an unfinished copy behind, under a name that says so.
    kept = {part.read_bytes() for part in (job.state / "superseded").iterdir() if part.suffix != ".tmp"}
    assert kept == {bytes for name, bytes in old.items() if job.parts()[name] != bytes}
    assert not (job.state / "retry").exists()

    millstream("retry", job.output, "--prune")
    assert not (job.state / "superseded").exists()
    millstream("verify", job.output, "--deep")
    assert "nothing to do" in millstream("run", job.file, *MEND).stderr


def test_a_path_with_a_blank_is_printed_so_that_a_shell_reads_one_word(tmp_path):
    job = TinyJob(tmp_path, STEPS, max_errors="10%")
    job.write("rows.jsonl", ROWS)
    output = tmp_path / "it's an output"
    words = [ROOT / "build/release/bin/millstream", "run", job.file, "--output", output]
    said = subprocess.run(list(map(str, words)), capture_output=True, text=True).stderr
    line = next(line for line in said.splitlines() if line.strip().startswith("millstream retry "))
    assert shlex.split(line) == ["millstream", "retry", str(output), "--set", "PATH=VALUE"]
