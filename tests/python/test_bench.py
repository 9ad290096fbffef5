# SPDX-License-Identifier: Apache-2.0
"""`millstream bench`: what it says, not how fast this machine is."""

import json
import re
import subprocess

import pytest
from torture import DRIVER


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model with a context of 128 tokens."""
    file = tmp_path_factory.mktemp("bench") / "tiny.gguf"
    subprocess.run([DRIVER, "model", file], check=True)
    return file


def test_json_has_rates_and_their_share_of_the_limit(millstream, tiny):
    process = millstream("bench", tiny, "--compute", "f32", "--threads", 1, "--json")
    said = json.loads(process.stdout)
    assert process.stderr == ""  # it says what it does on a terminal alone
    assert said["model"] == str(tiny)
    assert (said["compute"], said["threads"]) == ("f32", 1)
    assert said["instruction_set"] in ("reference", "avx2", "avx512", "avx512_bf16")
    assert said["load_seconds"] > 0
    assert set(said["peaks"]) == {"f32_flops", "bf16_flops", "int8_ops", "bytes_per_second"}
    assert all(peak > 0 for peak in said["peaks"].values())
    for name in ("prompts", "one_answer", "answers"):
        assert set(said[name]) == {"rows", "seconds", "tokens_per_second", "of_limit"}
        assert all(value > 0 for value in said[name].values())
    # As much as the context has room for.
    rows = said["rows"]
    assert (rows["prompt_tokens"], rows["output_tokens"]) == (64, 64)
    assert rows["rows_per_hour"] == pytest.approx(3600 * rows["rows"] / rows["seconds"])
    assert rows["of_limit"] > 0


def test_a_person_gets_a_table(millstream, tiny):
    said = millstream("bench", tiny, "--prompt-tokens", 100, "--output-tokens", 1).stdout
    assert said.startswith(f"{tiny}\n")
    assert re.search(r"^\w+ with \w+ on \d+ threads?; loaded in [\d.]+ s$", said, re.MULTILINE)
    assert re.search(r"^ +tokens/s +of the limit$", said, re.MULTILINE)
    for line in ("prompts", "one answer", r"\d+ answers at once"):
        assert re.search(rf"^{line} +[\d,]+ +\d+ %$", said, re.MULTILINE)
    assert re.search(r"^rows of 100 prompt and 1 output tokens: [\d,]+ an hour, \d+ % of the limit", said, re.MULTILINE)
    assert re.search(r"^the machine at most: .* memory [\d.]+ GB/s$", said, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--prompt-tokens", 100, "--output-tokens", 29], "100 prompt and 29 output tokens do not fit"),
        (["--prompt-tokens", 128], "do not fit the model's context of 128"),
        (["--output-tokens", 2**63 - 1], "do not fit the model's context of 128"),
        (["--threads", 5000], "threads is 5000"),
        (["--compute", "fp8"], "fp8 not in {auto,f32,bf16,int8}"),
        (["--threads", 0], "--threads: must be a whole number, at least 1, not 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(millstream, tiny, arguments, message):
    assert message in millstream("bench", tiny, *arguments, exit_code=1).stderr


def test_a_model_that_is_not_there_is_named(millstream):
    assert "no-such-model" in millstream("bench", "no-such-model", exit_code=1).stderr


def test_help_has_an_example(millstream):
    assert "millstream bench smollm2-135m-instruct" in millstream("bench", "--help").stdout
    assert re.search(r"^  bench ", millstream("--help").stdout, re.MULTILINE)
