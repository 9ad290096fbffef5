# SPDX-License-Identifier: Apache-2.0
"""The breaker, with the real binary: a model that fails whatever the row ends the run, which goes on once it is mended.
What breaks here is a KV cache that holds 16 tokens, beneath prompts of more."""

import pytest
from tiny import TinyJob

GENERATE = {"generate": {"model": "tiny", "raw_prompt": "{{ text }}", "as": "answer", "max_tokens": 4}}
BROKEN = ["--set", "models.tiny.memory=8KiB"]
LONG = "row {} " + "x " * 30


def job_of(folder, breaker, good):
    """A job whose first rows fit, and whose others do not."""
    job = TinyJob(folder, [GENERATE], breaker=breaker)
    job.write("rows.jsonl", range(1, good + 1))
    job.write("rows.jsonl", range(good + 1, 41), LONG)
    return job


@pytest.mark.parametrize(
    "breaker, good, why",
    [
        ({"first": 5}, 0, "the first 5 rows all failed with out_of_kv_memory"),
        ({"window": 10, "share": "50%"}, 8, "6 of the last 10 rows failed (out_of_kv_memory)"),
        ({"window": 20, "share": 3}, 8, "4 of the last"),
    ],
)
def test_a_broken_model_ends_the_run_and_its_rows_are_tried_again_once_it_is_mended(
    millstream, tmp_path, breaker, good, why
):
    job = job_of(tmp_path, breaker, good)
    said = millstream("run", job.file, *BROKEN, exit_code=3).stderr
    assert why in said
    # A sample, and what to do.
    assert "rows.jsonl:" in said and "out_of_kv_memory: prompt and answer may take" in said
    assert "run the same command again" in said and "breaker: off" in said
    stands = job.parts() if job.output.exists() else {}
    assert b'"error"' not in b"".join(stands.values()), "a row of the open window was written"
    # Not mended, it ends so again, and writes no failed row either.
    millstream("run", job.file, *BROKEN, exit_code=3)
    assert b'"error"' not in b"".join((job.parts() if job.output.exists() else {}).values())

    millstream("run", job.file)
    assert stands.items() <= job.parts().items()
    millstream("run", job.file, "--output", tmp_path / "undisturbed")
    assert job.rows() == job.rows(tmp_path / "undisturbed")
    assert [row["_status"] for row in job.rows()] == ["ok"] * 40


def test_without_a_breaker_the_rows_fail_and_the_run_ends(millstream, tmp_path):
    job = job_of(tmp_path, "off", good=8)
    said = millstream("run", job.file, *BROKEN).stderr
    assert "32 x out_of_kv_memory" in said
    assert [row["_status"] for row in job.rows()] == ["ok"] * 8 + ["error"] * 32


def test_rows_that_fail_before_the_model_trip_nothing(millstream, tmp_path):
    job = TinyJob(tmp_path, [{"check": {"that": "{{ id > 35 }}"}}, GENERATE], breaker={"first": 3, "share": 1})
    job.write("rows.jsonl", range(1, 41))
    millstream("run", job.file)
    assert [row["_status"] for row in job.rows()] == ["error"] * 35 + ["ok"] * 5
