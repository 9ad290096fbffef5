# SPDX-License-Identifier: Apache-2.0
"""`run --append` with the real binary: input that came is taken in, what was done stays, and a kill in the midst needs
no flag to go on."""

import pytest
from tiny import TinyJob, tokens_of
from torture import Clock, choices, kill_after

STEPS = [
    {"filter": "{{ id % 7 != 3 }}"},
    {"generate": {"model": "tiny", "raw_prompt": "{{ text }}", "as": "answer", "max_tokens": 8, "temperature": 0.9}},
]
OLD, NEW = range(1, 15), range(15, 60)  # the last split of the old ones is not full


def grow(job):
    job.write("in/b.jsonl", NEW)


def a_new_file(job):
    job.write("in/c.jsonl", NEW)


def a_new_file_before_the_old(job):
    job.write("in/a.jsonl", NEW)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "in").mkdir()
    job = TinyJob(tmp_path, STEPS, input={"path": "in/*.jsonl"})
    job.write("in/b.jsonl", OLD)
    return job


def in_order(rows):
    return sorted(rows, key=lambda row: row["id"])


@pytest.mark.parametrize("change", [grow, a_new_file, a_new_file_before_the_old])
def test_what_came_is_appended_and_nothing_done_is_done_again(millstream, job, change):
    # A row's draws follow the number of its file, which is another there than in a run over all.
    cold = ["--set", "steps.answer.temperature=0"] if change is a_new_file_before_the_old else []
    run = ["run", job.file, *cold]
    first = tokens_of(millstream(*run, "--progress", "json").stderr)
    parts = job.parts()
    times = {name: (job.output / name).stat().st_mtime_ns for name in parts}
    change(job)
    if change is grow:
        assert "has grown since the job was planned; --append" in millstream(*run, exit_code=4).stderr
    else:
        assert "1 new file is not part of this job" in millstream(*run).stderr
    assert job.parts() == parts

    appended = millstream(*run, "--append", "--progress", "json")
    assert f"appended: {len(NEW)} rows of" in appended.stderr
    assert parts.items() <= job.parts().items()
    assert times == {name: (job.output / name).stat().st_mtime_ns for name in parts}
    millstream("verify", job.output, "--deep")

    whole = job.folder / "whole"
    all_of_it = millstream(*run, "--output", whole, "--progress", "json")
    assert first + tokens_of(appended.stderr) == tokens_of(all_of_it.stderr)
    assert in_order(job.rows()) == in_order(job.rows(whole))
    if change is not a_new_file_before_the_old:  # the order of the files is that of a run over all
        digests = [millstream("verify", output, "--digest").stdout.splitlines()[1] for output in (job.output, whole)]
        assert digests[0] == digests[1]
    assert "nothing to do" in millstream(*run).stderr
    assert "nothing came to the input since" in millstream(*run, "--append").stderr


@pytest.mark.parametrize("change", [grow, a_new_file])
def test_a_kill_while_it_appends_loses_nothing_and_needs_no_flag_to_go_on(millstream, job, change):
    random = choices("append", change.__name__)
    clock = Clock(3)
    resumed = runs = 0
    while clock.goes_on(resumed) and runs < 40:
        job.output, job.state = job.folder / f"out-{runs}", job.folder / f"out-{runs}.millstream"
        (job.folder / "in/b.jsonl").unlink()
        (job.folder / "in/c.jsonl").unlink(missing_ok=True)
        job.write("in/b.jsonl", OLD)
        millstream("run", job.file, "--output", job.output)
        parts = job.parts()
        change(job)
        runs += 1
        process = job.start("run", job.file, "--output", job.output, "--append")
        killed = kill_after(process, random.uniform(0, 0.05), once=lambda: any(job.state.glob("plan-0001-*")))
        said = millstream("run", job.file, "--output", job.output, exit_code=None).stderr
        if "has grown" in said or "is not part of this job" in said:
            continue  # it died before it had taken anything in
        resumed += killed
        assert "appended" not in said
        millstream("verify", job.output, "--deep")
        assert parts.items() <= job.parts().items()
        assert [row["id"] for row in job.rows()] == [*OLD, *NEW]
        assert "nothing to do" in millstream("run", job.file, "--output", job.output).stderr
    assert resumed
