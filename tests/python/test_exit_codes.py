# SPDX-License-Identifier: Apache-2.0
"""Suite 11 of docs/reliability.md: how a run ends, what it says, and what the same command does once that is mended. In
each scenario something is done to a job, complete or new; then it is run, mended, and run again. Ends by signals are in
test_stops.py, by the breaker in test_breaker.py, by a full disk in test_kills.py."""

import json
import shutil

import pytest
from tiny import TinyJob

STEPS = [
    {"check": {"that": "{{ id % 10 != 0 }}"}},
    {"generate": {"model": "tiny", "raw_prompt": "{{ text }}", "as": "answer", "max_tokens": 4}},
]
ROWS = 40


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


def flip(path, at):
    edit(path, lambda old: old[:at] + bytes([old[at] ^ 255]) + old[at + 1 :])


def rows(job):
    return job.folder / "rows.jsonl"


def part(job):
    return job.output / "part-000001.jsonl"


def journal(job):
    return job.state / "journal-0001"


def plan(job):
    return next(job.state.glob("plan-0000-*"))


def newer(job):
    text = json.loads((job.state / "job.json").read_text())
    (job.state / "job.json").write_text(json.dumps({**text, "format": 2}))


def foreign(job):
    job.output.mkdir()
    (job.output / "notes.txt").write_text("mine")


LENGTH = ["--set", "steps.answer.max_tokens=5"]
DONE, NOTHING = "done: 36 ok, 4 error", "nothing to do: 40 of 40 rows"

# name: (is it complete before, what is done to it, arguments, exit code, words), (is all put back, exit code, words)
TABLE = {
    "no mistake": ((False, None, [], 0, DONE), (False, 0, NOTHING)),
    "no job file": ((False, lambda j: j.file.rename(j.folder / "x"), [], 1, "job.yaml"), (True, 0, DONE)),
    "no YAML": ((False, lambda j: j.file.write_text("input: ["), [], 1, "job.yaml:"), (True, 0, DONE)),
    "no input": ((False, lambda j: rows(j).rename(j.folder / "x"), [], 1, "rows.jsonl"), (True, 0, DONE)),
    "unknown key": ((False, None, ["--set", "max_erors=1"], 1, "did you mean"), (False, 0, DONE)),
    "no model": ((False, None, ["--set", "models.tiny.path=./none.gguf"], 1, "none.gguf"), (False, 0, DONE)),
    "engine does not start": ((False, None, ["--set", "models.tiny.memory=4KiB"], 1, "KV cache"), (False, 0, DONE)),
    "output in the input": ((False, None, ["--set", "input.path=."], 1, "lies in the input folder"), (False, 0, DONE)),
    "foreign output": ((False, foreign, [], 4, "is no output of Millstream"), (True, 0, DONE)),
    "errors, a count": ((False, None, ["--set", "max_errors=3"], 2, "more rows failed"), (False, 0, NOTHING)),
    "errors, a share": ((False, None, ["--set", "max_errors=9%"], 2, "more rows failed"), (False, 0, NOTHING)),
    "errors, just enough": ((False, None, ["--set", "max_errors=4"], 0, DONE), (False, 0, NOTHING)),
    "errors, a rerun": ((True, None, ["--set", "max_errors=3"], 2, "nothing to do"), (False, 0, NOTHING)),
    "input grew": ((True, lambda j: j.write("rows.jsonl", [41]), [], 4, "has grown"), (True, 0, NOTHING)),
    "input changed": ((True, lambda j: flip(rows(j), 9), [], 4, "rows.jsonl was changed"), (True, 0, NOTHING)),
    "input gone": ((True, lambda j: rows(j).unlink(), [], 4, "does not exist"), (True, 0, NOTHING)),
    "input touched": ((True, lambda j: rows(j).touch(), [], 0, NOTHING), (False, 0, NOTHING)),
    "another spec": ((True, None, LENGTH, 1, "max_tokens: 4 -> 5"), (False, 0, NOTHING)),
    "nothing to accept": ((True, None, ["--accept-change", "seed"], 1, "nothing changed there"), (False, 0, NOTHING)),
    "part gone": ((True, lambda j: part(j).unlink(), [], 4, "is gone"), (True, 0, NOTHING)),
    "part longer": ((True, lambda j: edit(part(j), lambda b: b + b"x"), [], 4, "was changed"), (True, 0, NOTHING)),
    "job.json damaged": ((True, lambda j: flip(j.state / "job.json", 0), [], 4, "is damaged"), (True, 0, NOTHING)),
    "journal damaged": ((True, lambda j: flip(journal(j), 50), [], 4, "is damaged at byte 8"), (True, 0, NOTHING)),
    "plan damaged": ((True, lambda j: flip(plan(j), 50), [], 4, "is damaged"), (True, 0, NOTHING)),
    "plan gone": ((True, lambda j: plan(j).unlink(), [], 4, "is gone: it is the job's plan"), (True, 0, NOTHING)),
    "newer format": ((True, newer, [], 4, "another version of Millstream"), (True, 0, NOTHING)),
    "no success.json": ((True, lambda j: (j.state / "success.json").unlink(), [], 0, DONE), (False, 0, NOTHING)),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_holds(millstream, tmp_path, name):
    (is_complete, change, arguments, exit_code, words), (is_put_back, again, said) = TABLE[name]
    (tmp_path / "job").mkdir()
    job = TinyJob(tmp_path / "job", STEPS)
    job.write("rows.jsonl", range(1, ROWS + 1))
    if is_complete:
        millstream("run", job.file)
    kept = shutil.copytree(job.folder, tmp_path / "kept")
    before = job.parts() if is_complete else {}
    if change:
        change(job)
    ended = millstream("run", job.file, *arguments, exit_code=None)
    assert ended.returncode == exit_code, ended.stderr
    assert words in ended.stderr
    if is_put_back:
        shutil.rmtree(job.folder)
        kept.rename(job.folder)
    rerun = millstream("run", job.file, exit_code=None)
    assert rerun.returncode == again, rerun.stderr
    assert said in rerun.stderr
    assert before.items() <= job.parts().items()
    assert [row["id"] for row in job.rows()] == list(range(1, ROWS + 1))
    millstream("verify", job.output, "--deep")
