# SPDX-License-Identifier: Apache-2.0
"""The promise, with the real model: the same rows come out whatever the run's shape, and whatever stops it."""

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess

import pytest
from conftest import ROOT

ROWS = 24
JOB = """\
models: {small: {path: smollm2-135m-instruct, compute: f32}}  # slow enough to be stopped on the way
input: {path: rows.jsonl}
split_rows: 2
steps:
  - filter: "{{ id % 7 != 3 }}"
  - generate: {model: small, prompt: "Explain: {{ text }}", as: a, max_tokens: 8, temperature: 0.9}
  - set: {letters: "{{ a|length }}"}
output: {path: out}
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    lines = (ROOT / "tests/data/glosses.jsonl").read_text().splitlines()[:ROWS]
    lines[5] = "{broken"
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "job.yaml").write_text(JOB)
    return folder / "job.yaml"


@pytest.fixture(scope="module")
def account(millstream):
    """What `verify` says of an output: its counts and its digest."""

    def verify(output):
        counts, digest = millstream("verify", output, "--digest").stdout.splitlines()
        return counts.split(" in ")[0], digest

    return verify


@pytest.fixture(scope="module")
def whole(millstream, job, account):
    """The account of an undisturbed run."""
    millstream("run", job)
    return account(job.parent / "out")


def test_counts_are_plain_arithmetic(whole):
    skipped = sum(1 for row in range(ROWS) if row % 7 == 3 and row != 5)
    assert whole[0] == f"{ROWS} rows: {ROWS - skipped - 1} ok, 1 error, {skipped} skipped"


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("thread", ["--set", "models.small.threads=1"]),
        ("batches", ["--batch-rows", "3"]),
        ("splits", ["--set", "split_rows=4096"]),
        ("memory", ["--set", "models.small.memory=32MiB"]),
        ("isolated", ["--set", "models.small.isolate=true"]),
        ("jsonl", ["--set", "output.format=jsonl"]),
        ("csv", ["--set", "output.format=csv"]),
        ("arrow", ["--set", "output.format=arrow"]),
        ("one.parquet", []),
    ],
)
def test_the_digest_does_not_depend_on_how_a_job_runs(millstream, job, account, whole, name, arguments):
    output = job.parent / name
    millstream("run", job, "--output", output, *arguments)
    assert account(output) == whole


@pytest.mark.parametrize("name, number, code", [("killed", signal.SIGKILL, -9), ("stopped", signal.SIGINT, 75)])
def test_a_rerun_after_a_stop_gives_the_undisturbed_output(millstream, job, account, whole, name, number, code):
    output = job.parent / name
    # Two rows at a time in the engine's cache, so that parts come one after the other.
    arguments = ["run", job, "--output", output, "--progress", "json", "--set", "models.small.memory=16MiB"]
    process = subprocess.Popen(
        [ROOT / "build/release/bin/millstream", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:  # until some parts stand
        if line.startswith("{") and json.loads(line)["ok"] > 0:
            break
    process.send_signal(number)
    process.communicate(timeout=60)
    if process.returncode != 0:  # 0: it was done before the signal came
        assert process.returncode == code
    millstream("run", job, "--output", output)
    assert account(output) == whole


def children_of(pid):
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                yield int(stat.parent.name)
        except OSError:  # it ended meanwhile
            pass


def test_an_isolated_engine_dies_with_its_run(job, whole):
    arguments = ["run", job, "--output", job.parent / "orphan", "--progress", "json"]
    arguments += ["--set", "models.small.memory=16MiB", "--set", "models.small.isolate=true"]
    process = subprocess.Popen(
        [ROOT / "build/release/bin/millstream", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["ok"] > 0:
            break
    engines = [os.pidfd_open(engine) for engine in children_of(process.pid)]
    assert len(engines) == 1 or process.wait(timeout=120) == 0  # it was done before
    process.kill()
    process.communicate()
    for engine in engines:
        end = select.poll()
        end.register(engine, select.POLLIN)
        assert end.poll(60_000)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_an_isolated_engine_that_dies_costs_no_row(job, account, whole, number):
    output = job.parent / f"isolated-{number}"
    arguments = ["run", job, "--output", output, "--progress", "json"]
    arguments += ["--set", "models.small.memory=16MiB", "--set", "models.small.isolate=true"]
    process = subprocess.Popen(
        [ROOT / "build/release/bin/millstream", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["ok"] > 0:
            break
    engines = list(children_of(process.pid))
    assert len(engines) == 1 or process.wait(timeout=120) == 0  # it was done before
    for engine in engines:
        with contextlib.suppress(ProcessLookupError):  # the run was done before
            os.kill(engine, number)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert account(output) == whole


def test_a_committed_part_that_was_taken_away_or_changed_stops_a_rerun(millstream, job, account, whole):
    output = job.parent / "holes"
    millstream("run", job, "--output", output)
    part = sorted(output.iterdir())[0]
    aside = job.parent / "aside"
    part.rename(aside)
    assert "part-000000.parquet is gone" in millstream("run", job, "--output", output, exit_code=4).stderr
    part.write_bytes(aside.read_bytes() + b"x")
    assert "was changed" in millstream("run", job, "--output", output, exit_code=4).stderr
    aside.rename(part)
    assert "nothing to do" in millstream("run", job, "--output", output).stderr
    assert account(output) == whole


def test_another_spec_is_refused_with_the_difference(millstream, job, whole):
    said = millstream("run", job, "--set", "steps.a.max_tokens=9", exit_code=1).stderr
    assert "max_tokens: 8 -> 9" in said
    assert "--output" in said and "--restart" in said
    # Also where there is an --output already: the last holds.
    elsewhere = ["--output", job.parent / "out", "--output", job.parent / "elsewhere"]
    millstream("run", job, "--set", "steps.a.max_tokens=9", *elsewhere, "--dry-run")
    millstream("run", job, "--set", "split_rows=7", "--set", "max_errors=5")  # what changes no row may change


def test_restart_moves_the_old_output_aside(millstream, job, account, whole):
    output = job.parent / "again"
    millstream("run", job, "--output", output)
    millstream("run", job, "--output", output, "--restart", "--set", "steps.a.max_tokens=2")
    assert account(output)[1] != whole[1]
    assert len(list((job.parent / "again.old-1").iterdir())) == ROWS // 2


def test_verify_sees_a_part_that_was_exchanged(millstream, job, whole):
    output = job.parent / "mixed"
    millstream("run", job, "--output", output)
    first, second = sorted(output.iterdir())[:2]
    first.write_bytes(second.read_bytes())
    assert str(first) in millstream("verify", output, exit_code=4).stderr


def test_exit_codes_tell_what_to_do(millstream, job, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    (tmp_path / "job.yaml").write_text(
        'input: {path: rows.jsonl}\nsteps:\n  - check: {that: "{{ id > 1 }}"}\noutput: {path: out}\nmax_errors: 10%\n'
    )
    millstream("run", tmp_path / "job.yaml", exit_code=2)
    with (tmp_path / "rows.jsonl").open("a") as rows:
        rows.write('{"id": 3}\n')
    assert "rows.jsonl was changed" in millstream("run", tmp_path / "job.yaml", exit_code=4).stderr
    millstream("run", tmp_path / "job.yaml", "--set", "input.path=none.jsonl", "--output", tmp_path / "x", exit_code=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    millstream("run", tmp_path / "job.yaml", "--output", tmp_path / "mine", exit_code=4)
    assert not list(tmp_path.glob("x*"))


def test_looking_writes_nothing(millstream, job):
    before = sorted(job.parent.iterdir())
    plan = millstream("run", job, "--dry-run").stdout
    assert "prompt tokens over" in plan and "a.max_tokens = 8  (job file)" in plan and "letters: int64" in plan
    assert "errors to expect: 1 x bad_json" in plan
    assert len(millstream("run", job, "--limit", "3", "--sample").stdout.splitlines()) == 4
    explained = millstream("run", job, "--row", "rows.jsonl:1").stdout
    assert "<|im_start|>user\nExplain: " in explained and "_status: ok" in explained
    assert sorted(job.parent.iterdir()) == before


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv", "arrow"])
def test_verify_reads_the_single_file_itself(millstream, tmp_path, suffix):
    (tmp_path / "rows.txt").write_text("a\nb\nskip\n")
    (tmp_path / "job.yaml").write_text(
        f"input: rows.txt\nsplit_rows: 1\nsteps: [{{filter: \"{{{{ text != 'skip' }}}}\"}}]\noutput: out.{suffix}\n"
    )
    output = tmp_path / f"out.{suffix}"
    millstream("run", tmp_path / "job.yaml")
    whole = millstream("verify", output, "--digest").stdout
    assert whole.startswith("3 rows: 2 ok, 0 error, 1 skipped")
    output.unlink()
    assert "is gone: run the job again" in millstream("verify", output, exit_code=4).stderr
    millstream("run", tmp_path / "job.yaml")
    assert millstream("verify", output, "--digest").stdout == whole
    output.write_bytes((tmp_path / f"out.{suffix}.millstream/parts/part-000000.{suffix}").read_bytes())
    said = millstream("verify", output, exit_code=4).stderr
    assert "holds 1 ok, 0 error, 0 skipped rows; committed were 2, 0, 0" in said
