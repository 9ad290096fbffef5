# SPDX-License-Identifier: Apache-2.0
"""The score step end to end with the real model, against what transformers says of the same texts."""

import json
import math

import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT

MODELS = "models: {small: {path: smollm2-135m-instruct, compute: f32}}\n"
KNOWN = [json.loads(line) for line in (ROOT / "tests/data/smollm2-nll.jsonl").read_text().splitlines()][::4]
SHORT = [row for row in KNOWN if row["tokens"] < 150]  # that fit into 8 MiB of cache, one and a half at a time


def score(column, **keys):
    """One score step, as YAML that is JSON too."""
    keys = {"model": "small", "text": "{{ text }}", "as": column} | keys
    return "  - score: " + json.dumps(keys) + "\n"


def test_scores_are_those_of_transformers(run_rows, tmp_path):
    steps = score("q", per_token=True)
    found = run_rows([{"id": row["id"], "text": row["text"]} for row in KNOWN], MODELS + "steps:\n" + steps)
    for row, known in zip(found, KNOWN, strict=True):
        assert row["_status"] == "ok"
        assert row["q_meta"] == {"tokens": known["tokens"] - 1, "truncated": False}
        assert -row["q"] == pytest.approx(known["mean_nll"], rel=1e-3)
        assert len(row["q_logprobs"]) == known["tokens"] - 1 and max(row["q_logprobs"]) <= 0
        assert row["q"] == pytest.approx(math.fsum(row["q_logprobs"]) / len(row["q_logprobs"]), rel=1e-12)
    (part,) = (tmp_path / "out").iterdir()
    schema = pyarrow.parquet.read_schema(part)
    assert schema.field("q").type == pyarrow.float64()
    assert schema.field("q_logprobs").type.value_type == pyarrow.float32()


def test_scores_are_the_same_whatever_the_run(millstream, tmp_path):
    job = tmp_path / "job.yaml"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SHORT))
    generate = "  - generate: {model: small, raw_prompt: '{{ text }}', as: a, max_tokens: 4, temperature: 0}\n"
    job.write_text(
        MODELS
        + "input: rows.jsonl\noutput: {path: out, format: jsonl}\nsteps:\n"
        + generate
        + score("q", per_token=True)
    )
    small = "models.small."
    variants = [[], ["threads=1", "memory=8MiB"], ["isolate=true"]]
    outputs = []
    for number, variant in enumerate(variants):
        output = tmp_path / f"out-{number}"
        sets = [word for setting in variant for word in ("--set", small + setting)]
        millstream("run", job, "--output", f"{output}/", *sets)
        outputs.append([part.read_bytes() for part in sorted(output.iterdir())])
    assert outputs[0] == outputs[1] == outputs[2]


def test_texts_without_a_score_special_tokens_and_cuts(run_rows, millstream, tmp_path):
    rows = [{"text": text} for text in ("", "a", "<|im_end|>", "one two three", "word " * 3000, None)]
    cuts = {"truncate": ["text"]}
    steps = (
        score("q", on_overflow=cuts)
        + score("special", parse_special=True, on_overflow=cuts | {"side": "left"})
        + '  - filter: "{{ q|default(-9) > -20 }}"\n'
        + score("again", text="{{ q|default(0) }} {{ text }}", on_overflow=cuts)
    )
    models = MODELS.replace("f32", "f32, context: 64")
    empty, single, marked, plain, cut, null = run_rows(rows, models + "steps:\n" + steps)
    assert empty["q"] is None and empty["q_meta"] == {"tokens": 0, "truncated": False}
    assert single["q"] is None and single["q_meta"]["tokens"] == 0 and single["special"] is None
    assert marked["q_meta"]["tokens"] > 1 and marked["special_meta"]["tokens"] == 0
    assert (
        plain["q"] < 0 and plain["q"] == plain["special"] and plain["again_meta"]["tokens"] > plain["q_meta"]["tokens"]
    )
    assert cut["q_meta"]["truncated"] and 60 <= cut["q_meta"]["tokens"] <= 63
    assert (null["_error"]["step"], null["_error"]["code"]) == ("q", "undefined_value")
    said = millstream("run", tmp_path / "job.yaml", "--dry-run").stdout
    assert "text 1 of step q" in said and "over the context: 1 of them" in said and "temperature" not in said


def test_a_text_beyond_the_context_is_an_error_of_its_row(run_rows):
    models = MODELS.replace("f32", "f32, context: 8")
    short, long = run_rows([{"text": "a b"}, {"text": "word " * 9}], models + "steps:\n" + score("q"))
    assert short["_status"] == "ok"
    assert long["_error"]["code"] == "context_overflow"


def test_a_server_cannot_score(millstream, tmp_path):
    job = tmp_path / "job.yaml"
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    server = "models: {small: {engine: openai, base_url: 'http://127.0.0.1:9/v1', model: m, dialect: vllm}}\n"
    job.write_text(server + "input: rows.jsonl\noutput: out\nsteps:\n" + score("q"))
    said = millstream("run", job, exit_code=1).stderr
    assert "job.yaml:5: steps[0].score.model: servers do not tell how likely a text is" in said
    assert not (tmp_path / "out").exists()
