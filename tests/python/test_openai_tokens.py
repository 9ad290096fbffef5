# SPDX-License-Identifier: Apache-2.0
"""What is known of the tokens of a model that servers run: cuts to its context, estimates, cost."""

import json
import re

import pytest
from conftest import read_rows
from openai_stub import DEEP, Handler, Server, text_of

MODEL = "smollm2-135m-instruct"
JOB = """models: {big: %s}
steps: [{generate: {model: big, %s, as: answer%s}}]
input: {path: rows.jsonl}
output: {path: out}
"""


@pytest.fixture
def job(tmp_path):
    """Writes rows and a job file of a model and a step, and returns its path."""

    def write(model, step="", prompt="prompt: 'Say {{ text }}'", rows=("one two", "a " * 50)):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
        (tmp_path / "job.yaml").write_text(JOB % (model, prompt, step))
        return tmp_path / "job.yaml"

    return write


def served(server, settings=""):
    return f"{{engine: openai, base_url: '{server.url}', model: m/1{settings}}}"


def rows_of(tmp_path):
    return sorted(read_rows(tmp_path / "out"), key=lambda row: row["_source"]["record"])


@pytest.mark.parametrize("owner", ["vllm", "llamacpp"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_prompts_are_cut_as_the_server_counts_their_tokens(millstream, job, tmp_path, owner, side):
    words = [f"w{i}" for i in range(3000)]
    step = f", max_tokens: 500, on_overflow: {{truncate: [text], side: {side}}}"
    with Server(owner=owner, context=2000) as server:
        millstream("run", job(served(server), step, rows=["one two", " ".join(words)]))
    short, long = sorted((text_of(body) for _, body in server.bodies), key=len)
    assert short == "Say one two"
    room = 2000 - 500 - 2  # for the words, as the template adds two
    kept = words[: room - 1] if side == "right" else words[1 - room :]
    cut = long.split()
    assert len(cut) == room
    # A cut falls within a word.
    assert cut[1:-1] == kept[:-1] if side == "right" else cut[2:] == kept[1:]
    assert [row["answer_meta"]["truncated"] for row in rows_of(tmp_path)] == [False, True]
    # Only a prompt that may not fit is worth a question.
    assert server.looks.count("/tokenize") < 40


@pytest.mark.parametrize(
    ("owner", "path", "key"),
    [("vllm", "/tokenize", "tokens"), ("llamacpp", "/tokenize", "tokens"), ("llamacpp", "/apply-template", "prompt")],
)
def test_a_count_that_nests_deeply_is_none(millstream, job, tmp_path, owner, path, key):
    class Deep(Handler):
        def do_POST(self):
            if self.path != path:
                return super().do_POST()
            self.rfile.read(int(self.headers["content-length"]))
            self.answer(200, {}, b'{"%s": %s}' % (key.encode(), DEEP))

    step = ", max_tokens: 500, on_overflow: {truncate: [text]}"
    with Server(owner=owner, context=2000) as server:
        server.RequestHandlerClass = Deep
        millstream("run", job(served(server), step, rows=["one two", "a " * 2000]))
    assert [row["_error"] for row in rows_of(tmp_path)] == [None, None]  # what the server makes of them is its to say


def test_a_row_that_no_cut_makes_fit_fails_alone(millstream, job, tmp_path):
    step = ", max_tokens: 500, on_overflow: {truncate: [note]}"
    prompt = "prompt: 'Say {{ text }}{{ note }}', keep_prompt: false"
    with Server(owner="vllm", context=2000) as server:
        path = job(served(server), step, prompt)
        rows = [{"text": "short", "note": "n"}, {"text": "x " * 3000, "note": "n"}]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        millstream("run", path)
    assert [(row["_error"] or {}).get("code") for row in rows_of(tmp_path)] == [None, "context_overflow"]
    assert len(server.bodies) == 1


CUT = ", on_overflow: {truncate: [text]}"
REFUSED = {
    ("openai", 2000, CUT + ", max_tokens: 5"): "give the model's `tokenizer` under `models`",
    ("sglang", 2000, CUT + ", max_tokens: 5"): "give the model's `tokenizer` under `models`",
    ("vllm", None, CUT + ", max_tokens: 5"): "give it under `models`, `context: 8192` say",
    ("vllm", 2000, CUT): "on_overflow: give `max_tokens`",
    ("vllm", 2000, CUT + ", max_tokens: 5000"): "max_tokens",
}


@pytest.mark.parametrize(("owner", "context", "step"), REFUSED)
def test_a_cut_that_nothing_is_known_for_is_refused(millstream, job, owner, context, step):
    with Server(owner=owner, context=context) as server:
        failed = millstream("run", job(served(server), step), exit_code=1)
    assert REFUSED[owner, context, step] in failed.stderr
    assert not server.bodies


def estimate(text):
    return re.search(r"prompt tokens over .*", text)[0]


@pytest.mark.parametrize(
    "prompt",
    [
        "prompt: 'Say {{ text }}'",
        "raw_prompt: 'Say {{ text }}'",
        "raw_prompt: 'Say {{ text }}', add_special_tokens: false",
        "messages: [{role: user, content: '{{ text }}'}, {role: assistant, content: 'Well, {{ text }}'}], "
        "continue_final_message: true",
    ],
)
def test_a_tokenizer_of_this_machine_counts_as_the_native_engine_does(millstream, job, prompt):
    rows = [f"Tell me about {'very ' * i}big things, {i} of them." for i in range(20)]
    native = millstream("run", job(f"{{path: {MODEL}}}", "", prompt, rows), "--dry-run").stdout
    with Server(owner="vllm") as server:
        settings = f", tokenizer: {MODEL}, context: 2048"
        shown = millstream("run", job(served(server, settings), "", prompt, rows), "--dry-run").stdout
    assert estimate(shown) == estimate(native)
    assert "a guess" not in shown


WORDS = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
}


def test_with_a_tokenizer_a_prompt_that_does_not_fit_is_not_sent(millstream, job, tmp_path):
    (tmp_path / "model").mkdir()  # a folder without weights
    (tmp_path / "model/tokenizer.json").write_text(json.dumps(WORDS))
    settings = ", tokenizer: model, context: 40"
    with Server(owner="openai") as server:
        millstream("run", job(served(server, settings), ", max_tokens: 4", "raw_prompt: 'Say {{ text }}'"))
    assert [(row["_error"] or {}).get("code") for row in rows_of(tmp_path)] == [None, "context_overflow"]
    assert [text_of(body) for _, body in server.bodies] == ["Say one two"]


def test_a_dry_run_estimates_tokens_and_cost(millstream, job):
    price = ", price: {input: 1000, output: 2000}"
    with Server(owner="openai") as server:
        shown = millstream("run", job(served(server, price), ", max_tokens: 5, n: 2"), "--dry-run").stdout
    assert "(a guess: 4 bytes a token, as no tokenizer is known)" in shown
    assert ", at most 0.04000 for the answers (max_tokens 5)" in shown
    with Server(owner="vllm") as server:
        shown = millstream("run", job(served(server, price), ", max_tokens: 5"), "--dry-run").stdout
    assert "prompt tokens over 2 sampled rows: p50 5, p95 5, max 53\n" in shown
    # 5 and 53 tokens, at 1000 a million.
    assert "cost of step answer: about 0.05800 for the prompts (2 requests, 29 tokens each)" in shown
    assert not server.bodies


def test_a_summary_has_the_cost_of_the_tokens_that_were_used(millstream, job):
    price = ", dialect: openai, price: {input: 1000, output: 2000}"
    with Server() as server:
        done = millstream("run", job(served(server, price)))
    # "Say one two" and its answer "re: Say one two"; "Say a a ... a" and its answer.
    prompts, answers = 3 + 51, 4 + 52
    assert f"cost: {(prompts * 1000 + answers * 2000) / 1e6:.5f}, by `price`" in done.stderr
