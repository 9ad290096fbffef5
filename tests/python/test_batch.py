# SPDX-License-Identifier: Apache-2.0
"""OpenAI batch files: `millstream batch` and the job file that it stands for, with the real model and over HTTP. What a
line must look like is stated here from OpenAI's and vLLM's documentation, not taken from what comes out."""

import json
import re
import subprocess
import threading

import pytest
from batch_lines import MODEL, chat, check_line, served, text_of, write
from conftest import ROOT, read_rows
from openai_stub import Server

BINARY = ROOT / "build/release/bin/millstream"
# vLLM's documented example (examples/offline_inference/openai_batch), whose file `vllm run-batch` takes.
VLLM_MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"
VLLM_EXAMPLE = "".join(
    json.dumps(
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": VLLM_MODEL,
                "messages": [
                    {"role": "system", "content": f"You are a{kind} assistant."},
                    {"role": "user", "content": "Hello world!"},
                ],
                "max_completion_tokens": 1000,
            },
        }
    )
    + "\n"
    for number, kind in ((1, " helpful"), (2, "n unhelpful"))
)


def check_completion(body):
    """That a body is OpenAI's completion object, as the native engine gives it."""
    assert list(body) == ["id", "object", "created", "model", "choices", "usage"]
    is_chat = body["object"] == "chat.completion"
    assert re.fullmatch("chatcmpl-[0-9a-f]{32}" if is_chat else "cmpl-[0-9a-f]{32}", body["id"])
    for index, choice in enumerate(body["choices"]):
        assert choice["index"] == index and choice["logprobs"] is None
        assert choice["finish_reason"] in ("stop", "length")
        if is_chat:
            assert choice["message"] | {"content": ""} == {"role": "assistant", "content": "", "refusal": None}
            assert isinstance(choice["message"]["content"], str)
        else:
            assert isinstance(choice["text"], str)
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_file_of_vllm_runs_unchanged(millstream, tmp_path):
    (tmp_path / "in.jsonl").write_text(VLLM_EXAMPLE)
    files = ["-i", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl"]
    millstream("batch", *files, "--model", MODEL, "--served-model-name", VLLM_MODEL)
    lines = read_rows(tmp_path / "out.jsonl")
    assert [check_line(line) for line in lines] == ["answered"] * 2
    assert [line["custom_id"] for line in lines] == ["request-1", "request-2"]
    for line in lines:
        body = line["response"]["body"]
        check_completion(body)
        assert body["model"] == VLLM_MODEL and body["choices"][0]["message"]["content"]


def test_each_line_has_its_line_in_order(batch):
    lines = [
        chat("ok", max_tokens=4, model=MODEL),
        '{"custom_id": "cut", "body"',
        chat("url") | {"url": "/v1/embeddings"},
        chat("method") | {"method": "GET"},
        chat("model", model="gpt-4"),
        chat("stream", stream=True),
        chat("tools", tools=[{"type": "function"}]),
        chat("logprobs", logprobs=True),
        chat("long", max_tokens=100_000),
        chat("roles", messages=[{"content": "x"}]),
        chat("value", temperature="hot"),
        chat("schema", response_format={"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}),
        chat("body") | {"body": [1]},
        chat("no body") | {"body": None},
        {"custom_id": 7},
        {key: value for key, value in chat("no url", max_tokens=1).items() if key != "url"},
        chat("null url", max_tokens=1) | {"url": None},
        chat("no method", max_tokens=1) | {"method": None},
        chat("empty method", max_tokens=1) | {"method": ""},
        chat(None, max_tokens=1),
        chat("last", max_tokens=4, model="other-name"),
    ]
    found = batch(lines, "--served-model-name", "other-name")
    cut = {"custom_id": None}
    assert [line["custom_id"] for line in found] == [
        (cut if isinstance(line, str) or line["custom_id"] == 7 else line)["custom_id"] for line in lines
    ]
    (nameless,) = [line for line in found if line["custom_id"] is None and line["response"]]
    assert nameless["response"]["status_code"] == 400
    assert nameless["response"]["body"]["error"]["param"] == "custom_id"
    told = {}
    for line in found:
        if line is nameless:
            continue
        response = line["response"]
        told[line["custom_id"]] = response and (
            response["status_code"],
            response["body"].get("error", {}).get("param"),
            response["body"].get("error", {}).get("code"),
        )
    assert told == {
        "ok": (200, None, None),
        "last": (200, None, None),
        None: None,
        "url": (400, "url", "invalid_url"),
        "method": (400, "method", "invalid_method"),
        "model": (404, "model", "model_not_found"),
        "stream": (400, "stream", "unsupported_parameter"),
        "tools": (400, "tools", "unsupported_parameter"),
        "logprobs": (400, "logprobs", "unsupported_parameter"),
        "long": (400, None, "context_length_exceeded"),
        "roles": (400, "messages", "invalid_value"),
        "value": (400, "temperature", "invalid_value"),
        "schema": (400, "response_format", "invalid_value"),
        "body": (400, "body", "invalid_value"),
        "no body": (400, "body", "invalid_value"),
        "no url": (400, "url", "invalid_url"),
        "null url": (400, "url", "invalid_url"),
        "no method": (400, "method", "invalid_method"),
        "empty method": (400, "method", "invalid_method"),
    }
    assert found[1]["error"]["code"] == "bad_json" and "line 2" in found[1]["error"]["message"]
    assert found[14]["error"]["code"] == "bad_value" and "line 15" in found[14]["error"]["message"]
    assert len({line["id"] for line in found}) == len(lines)
    assert len({line["response"]["body"]["id"] for line in found if line["custom_id"] in ("ok", "last")}) == 2


def test_a_body_is_answered_as_the_same_generate_step_answers(batch, millstream, tmp_path):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]
    keys = {"max_tokens": 12, "temperature": 0.9, "top_p": 0.8, "seed": 7, "n": 2, "stop": ["."]}
    keys |= {"repetition_penalty": 1.2, "top_k": 30, "presence_penalty": 0.5, "frequency_penalty": 0.25, "min_p": 0.01}
    (line,) = batch([chat("a") | {"body": {"messages": messages} | keys}])
    step = {"model": MODEL, "messages": messages, "as": "response"} | keys
    job = {"input": "in.jsonl", "output": "ref.jsonl", "steps": [{"generate": step}]}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    millstream("run", tmp_path / "job.yaml")
    (row,) = read_rows(tmp_path / "ref.jsonl")
    body = line["response"]["body"]
    check_completion(body)
    assert [choice["message"]["content"] for choice in body["choices"]] == row["response"]
    assert len(set(row["response"])) == 2
    meta = row["response_meta"]
    assert [choice["finish_reason"] for choice in body["choices"]] == [sample["finish_reason"] for sample in meta]
    assert body["usage"]["prompt_tokens"] == meta[0]["prompt_tokens"]
    assert body["usage"]["completion_tokens"] == sum(sample["completion_tokens"] for sample in meta)


def test_a_text_completion_has_sixteen_tokens_and_may_echo(batch):
    plain, echoed = batch(
        [
            text_of("a", "One two three", ignore_eos=True, temperature=0),
            text_of("b", ["One two three"], ignore_eos=True, temperature=0, echo=True),
        ]
    )
    check_completion(plain["response"]["body"])
    assert plain["response"]["body"]["usage"]["completion_tokens"] == 16
    text = plain["response"]["body"]["choices"][0]["text"]
    assert echoed["response"]["body"]["choices"][0]["text"] == "One two three" + text


def test_a_chat_may_fill_the_context(batch):
    (line,) = batch([chat("a", ignore_eos=True, temperature=0)], "--set", "models.model.context=64")
    body = line["response"]["body"]
    assert body["usage"]["total_tokens"] == 64 and body["choices"][0]["finish_reason"] == "length"


def test_constraints_bind(batch):
    choice, pattern, schema, anything, regex, plain_schema = batch(
        [
            chat("a", structured_outputs={"choice": ["red", "blue"]}),
            chat("b", guided_regex="[0-9]{3}"),
            chat(
                "c",
                response_format={
                    "type": "json_schema",
                    "json_schema": {
                        "name": "x",
                        "schema": {
                            "type": "object",
                            "properties": {"n": {"type": "integer", "maximum": 9}},
                            "required": ["n"],
                            "additionalProperties": False,
                        },
                    },
                },
            ),
            chat("d", response_format={"type": "json_object"}, max_tokens=400),
            chat("e", regex="[a-c]{4}"),
            chat("f", json_schema={"type": "integer", "minimum": 3, "maximum": 5}),
        ]
    )

    def content(line):
        return line["response"]["body"]["choices"][0]["message"]["content"]

    assert content(choice) in ("red", "blue")
    assert re.fullmatch("[0-9]{3}", content(pattern))
    assert isinstance(json.loads(content(schema))["n"], int)
    assert content(anything).startswith("{")
    assert re.fullmatch("[a-c]{4}", content(regex)) and json.loads(content(plain_schema)) in (3, 4, 5)


def test_text_of_a_row_is_no_special_token(batch):
    def prompt_tokens(line):
        return line["response"]["body"]["usage"]["prompt_tokens"]

    lines = [
        chat("a", "x", max_tokens=1),
        chat("b", "x<|im_end|>", max_tokens=1),
        text_of("c", "<|im_start|>", max_tokens=1),
    ]
    plain, marked, raw = batch(lines)
    assert prompt_tokens(marked) > prompt_tokens(plain) + 3 and prompt_tokens(raw) > 3
    (trusted,) = batch(lines[2:], "--set", "steps.response.parse_special=true", output="trusted.jsonl")
    assert prompt_tokens(trusted) == 1


def test_warnings_name_what_is_ignored_and_doubled_ids_once(batch):
    lines = [chat(f"c{i % 3}", max_tokens=1, user="me", metadata={"i": "x"}, novel=1) for i in range(4)]
    assert len(batch(lines)) == 4
    warnings = [line for line in batch.said.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert '1 custom_id stands more than once, such as "c0"' in warnings[0]
    assert "not known here, or change no answer" in warnings[1]
    assert all(f"`{key}` (4 times)" in warnings[1] for key in ("user", "metadata", "novel"))


def test_a_server_gets_the_body_as_it_is_and_its_answer_is_kept_whole(batch):
    sent = [
        chat("a", model="alias", tools=[{"type": "function"}], user="me", seed=2**62 + 1, novel={"x": [None]}),
        text_of("b", ["one", "two"], n=2, logprobs=3),
        chat("c", [{"type": "image_url", "image_url": {"url": "http://x"}}]),
        chat("d", "wide", model="alias", logit_bias={str(token): -1 for token in range(2000)}),
    ]

    def answer(body):
        choices = [{"index": i, "text": "hi", "finish_reason": "stop", "logprobs": {"x": [None]}} for i in (0, 1)]
        return {"id": "x", "model": body["model"], "choices": choices, "system_fingerprint": None, "big": 2**70}

    def script(body):
        return 200, {}, json.dumps(answer(body)).encode()

    with Server(script=script) as server:
        found = batch(sent, *served(server, "alias"), model="m/1")
    assert batch.said.count("warning") == 0
    wanted = [line["body"] | {"model": "m/1"} for line in sent]
    got = {json.dumps(body.get("messages") or body["prompt"]): (path, body) for path, body in server.bodies}
    assert [got[json.dumps(body.get("messages") or body["prompt"])][1] for body in wanted] == wanted
    assert sorted(path for path, _ in server.bodies) == ["/v1/chat/completions"] * 3 + ["/v1/completions"]
    assert [line["custom_id"] for line in found] == ["a", "b", "c", "d"]
    assert [line["response"]["body"] for line in found] == [answer(body) for body in wanted]


def test_what_a_server_refuses_has_its_status_and_its_words(batch, tmp_path):
    refusals = {
        "too long": (400, {"message": "too long", "type": "t", "param": "messages", "code": "context_length_exceeded"}),
        "too large": (413, {"message": "too large"}),
        "odd": (422, {"message": "odd", "code": 422, "more": 1}),
        "filtered": (400, {"message": "no", "code": "content_filter"}),
    }

    def script(body):
        text = body["messages"][0]["content"]
        if text == "empty":
            return 200, {}, b'{"choices": []}'
        if text in refusals:
            status, error = refusals[text]
            return status, {}, json.dumps({"error": error}).encode()
        return None

    sent = [chat(text, text) for text in ["fine", *refusals, "empty", "last"]] + [chat("x", "x", stream=True)]
    with Server(script=script) as server:
        arguments = [*served(server), "--errors", tmp_path / "failed.jsonl"]
        good = batch(sent, *arguments, model="m/1")
        bad = read_rows(tmp_path / "failed.jsonl")
        millstream_codes = batch.said
        batch(sent, *served(server), "--max-errors", "5", model="m/1", output="other.jsonl", exit_code=2)
        batch(sent, *served(server), "--max-errors", "6", model="m/1", output="third.jsonl", exit_code=0)
    assert [line["custom_id"] for line in good] == ["fine", "last"]
    assert [line["custom_id"] for line in bad] == [*refusals, "empty", "x"]
    for line in bad[:4]:
        status, error = refusals[line["custom_id"]]
        kept = {key: error.get(key) for key in ("message", "type", "param", "code")}
        kept["type"] = kept["type"] or "invalid_request_error"
        assert line["response"] | {"request_id": ""} == {
            "status_code": status,
            "request_id": "",
            "body": {"error": kept},
        }
    assert check_line(bad[4]) == "no answer" and bad[4]["error"]["code"] == "empty_choice"
    assert bad[5]["response"]["body"]["error"]["param"] == "stream"
    for code in ("prompt_too_long", "bad_request", "content_filter", "empty_choice", "invalid_request"):
        assert f"x {code}" in millstream_codes


def test_an_answer_nests_as_deep_as_a_line_can_hold(batch, millstream, tmp_path):
    def script(body):
        depth = int(body["messages"][0]["content"]) - 1
        return 200, {}, b'{"choices": [{"message": {"content": "x"}}], "x": %s}' % (b"[" * depth + b"]" * depth)

    errors = ["--errors", tmp_path / "failed.jsonl"]
    with Server(script=script) as server:
        kept = batch([chat(depth, depth) for depth in ["126", "127", "128"]], *served(server), *errors, model="m/1")
    assert [line["custom_id"] for line in kept] == ["126"]
    assert [line["error"]["code"] for line in read_rows(tmp_path / "failed.jsonl")] == ["empty_choice"] * 2
    millstream("verify", tmp_path / "out.jsonl", "--deep")


def refusal(status, message):
    return status, {}, json.dumps({"error": {"message": message, "type": "t", "code": status}}).encode()


@pytest.mark.parametrize("flags", [[], ["--max-in-flight", "1"]], ids=["many at a time", "one at a time"])
def test_a_line_that_a_server_refuses_alone_is_its_own_fault(batch, flags):
    """Wherever it stands in the file: the first line too."""
    refused = {"text": (404, "no such endpoint"), "bad": (403, "moderated"), "odd": (405, "no such method")}

    def script(body):
        key = "text" if "prompt" in body else body["messages"][-1]["content"]
        return refusal(*refused[key]) if key in refused else None

    sent = [text_of("text", "a"), chat("bad", "bad"), chat("fine", "fine"), chat("odd", "odd"), text_of("text 2", "b")]
    with Server(script=script) as server:
        found = batch(sent, *served(server), *flags, model="m/1")
        assert len(server.bodies) < len(sent) + 8
        # No answer is left to come: a server is asked something else.
        rest = batch(
            [line for line in sent if line["custom_id"] != "fine"], *served(server), model="m/1", output="2.jsonl"
        )
    assert [line["custom_id"] for line in found] == ["text", "bad", "fine", "odd", "text 2"]
    told = {line["custom_id"]: line["response"]["status_code"] for line in found}
    assert told == {"text": 404, "bad": 403, "fine": 200, "odd": 405, "text 2": 404}
    assert found[1]["response"]["body"]["error"] == {"message": "moderated", "type": "t", "param": None, "code": 403}
    assert [line["response"]["status_code"] for line in rest] == [404, 403, 405, 404]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_server_that_refuses_all_ends_the_job_and_a_mended_one_goes_on(batch, millstream, tmp_path, status):
    is_mended = threading.Event()
    sent = [chat(str(i), str(i)) for i in range(100)] + [text_of("t", "t")]
    with Server(script=lambda body: None if is_mended.is_set() else refusal(status, "not you")) as server:
        write(tmp_path / "in.jsonl", sent)
        command = ["batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--model", "m/1", *served(server)]
        process = millstream(*command, exit_code=3)
        assert f"the server answered {status}: not you: " in process.stderr
        assert len(server.bodies) <= 34  # those that are sent at first, and two probes
        is_mended.set()
        found = batch(sent, *served(server), model="m/1")
    assert [line["custom_id"] for line in found] == [line["custom_id"] for line in sent]
    assert {check_line(line) for line in found} == {"answered"}


def test_a_server_that_comes_to_refuse_all_ends_the_job(millstream, tmp_path):
    left = {"answers": 50}

    def script(body):
        left["answers"] -= 1
        return None if left["answers"] >= 0 else refusal(403, "revoked")

    write(tmp_path / "in.jsonl", [chat(str(i), str(i)) for i in range(1000)])
    with Server(script=script) as server:
        command = ["batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--model", "m/1", *served(server)]
        assert "revoked" in millstream(*command, exit_code=3).stderr
        assert len(server.bodies) < 300


def test_a_job_file_reads_and_writes_batches_as_parts(millstream, tmp_path):
    sent = [chat(f"c{i}", str(i)) for i in range(10)] + ["no json"]
    write(tmp_path / "in.jsonl", sent)
    with Server() as server:
        models = {"m": {"engine": "openai", "base_url": server.url, "model": "m/1"}}
        job = {
            "models": models,
            "input": {"path": "in.jsonl", "format": "openai-batch"},
            "split_rows": 4,
            "steps": [
                {"filter": "{{ custom_id != 'c3' }}"},
                {"generate": {"model": "m", "request": "body", "as": "response"}},
            ],
            "output": {"path": "out", "format": "openai-batch"},
        }
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        millstream("run", tmp_path / "job.yaml")
    parts = sorted((tmp_path / "out").iterdir())
    assert [part.name for part in parts] == [f"part-{i:06d}.jsonl" for i in range(3)]
    found = read_rows(tmp_path / "out")
    assert [line["custom_id"] for line in found] == [f"c{i}" for i in range(10) if i != 3] + [None]
    assert {check_line(line) for line in found} == {"answered", "no answer"}
    assert "11 rows: 9 ok, 1 error, 1 skipped" in millstream("verify", tmp_path / "out", "--deep").stdout
    # Requests may be made by the job itself, and answers be written as any format.
    job["input"] = {"path": "rows.jsonl"}
    job["steps"] = [
        {"set": {"body": {"value": "{{ {'messages': [{'role': 'user', 'content': text}]} }}", "type": "json"}}},
        {"generate": {"model": "m", "request": "body", "as": "reply"}},
        {"set": {"said": "{{ reply.choices[0].message.content }}"}},
    ]
    job["output"] = "plain.jsonl"
    write(tmp_path / "rows.jsonl", [{"text": "one", "url": None}, {"text": "two", "custom_id": None}])
    with Server() as server:
        models["m"]["base_url"] = server.url
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        millstream("run", tmp_path / "job.yaml")
    assert [row["said"] for row in read_rows(tmp_path / "plain.jsonl")] == ["re: one", "re: two"]


def test_batch_output_needs_its_two_columns(millstream, tmp_path):
    write(tmp_path / "in.jsonl", [{"id": 1, "response": "x"}])
    job = {"input": "in.jsonl", "output": {"path": "out", "format": "openai-batch"}}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    assert "no `custom_id` here" in millstream("run", tmp_path / "job.yaml", exit_code=1).stderr
    job["steps"] = [{"set": {"custom_id": 7}}]
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    assert "`custom_id` that is a string" in millstream("run", tmp_path / "job.yaml", exit_code=1).stderr


def test_a_preview_and_a_dry_run_write_nothing(millstream, tmp_path):
    write(tmp_path / "in.jsonl", [chat("a"), chat("b")])
    with Server() as server:
        command = ["batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--model", "m/1", *served(server)]
        assert "chat.completion" in millstream(*command, "--limit", 1).stdout
        asked = len(server.bodies)
        assert "out.jsonl" in millstream(*command, "--dry-run").stdout
    assert asked == 1 and len(server.bodies) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("owner", ["vllm", "llamacpp", "openai"])
def test_a_dry_run_counts_the_prompts_that_can_be_counted(millstream, tmp_path, owner):
    """Each line by itself: of a chat or a text completion, or one that the server is to refuse."""
    odd = [
        {},
        {"messages": None},
        {"messages": "Hi"},
        {"messages": [7]},
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
        {"chat_template_kwargs": [1], "messages": [{"role": "user", "content": "a"}], "add_special_tokens": "x"},
    ]
    sent = [chat(str(i)) | {"body": body} for i, body in enumerate(odd)]
    sent += [text_of("t", prompt) for prompt in ("one two three", ["one", "two"], [1, 2], None, 7)]
    sent += [text_of("none", "x") | {"body": {}}, chat("good", "one two three four five six seven")]
    write(tmp_path / "in.jsonl", sent)
    command = ["batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--model", "m/1", "--dry-run"]
    with Server(owner=owner, context=512) as server:
        asked = millstream(*command, *served(server))
        counted = millstream(*command, *served(server), "--set", f"models.model.tokenizer={MODEL}")
        assert not server.bodies
    for process in (asked, counted):
        assert f"prompt tokens over {len(sent)} sampled rows" in process.stdout


def test_a_key_comes_from_the_environment_alone(batch, monkeypatch, tmp_path):
    monkeypatch.setenv("BATCH_KEY", "sk-canary-1")
    with Server(key="sk-canary-1") as server:
        (line,) = batch([chat("a")], *served(server), "--api-key-env", "BATCH_KEY", model="m/1")
    assert check_line(line) == "answered"
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or b"sk-canary-1" not in file.read_bytes()


@pytest.mark.parametrize("output", ["parts", "parts/", "parts//", "./parts/.", "."])
def test_an_output_may_be_a_folder_of_parts(tmp_path, output):
    folder = tmp_path / "work"
    folder.mkdir()
    write(tmp_path / "in.jsonl", [chat("a"), chat("b")])
    with Server() as server:
        command = [BINARY, "batch", "../in.jsonl", "-o", output, "--model", "m/1", *served(server)]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (part,) = (folder / output).glob("*.jsonl")
    assert [line["custom_id"] for line in read_rows(part)] == ["a", "b"]


@pytest.mark.parametrize("before", [[], ["--errors", "failed.jsonl"]], ids=["one file", "errors apart"])
@pytest.mark.parametrize("change", [["--errors", "other.jsonl"], ["--served-model-name", "alias"]])
def test_what_is_said_of_a_changed_flag_can_be_followed(tmp_path, before, change):
    write(tmp_path / "in.jsonl", [chat("a"), chat("b", stream=True)])
    with Server() as server:
        command = [BINARY, "batch", "in.jsonl", "-o", "out.jsonl", "--model", "m/1", *served(server)]
        subprocess.run([*command, *before], cwd=tmp_path, check=True, capture_output=True)
        command += change if before[:1] == change[:1] else [*before, *change]
        changed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert changed.returncode == 1
        (said,) = [line for line in changed.stderr.splitlines() if "elsewhere, add:" in line]
        flags = said.split(":", 1)[1].replace("NEW_PATH", "new.jsonl").replace("NEW_FILE", "new-failed.jsonl")
        subprocess.run([*command, *flags.split()], cwd=tmp_path, check=True, capture_output=True)
    lines = [line for file in tmp_path.glob("*.jsonl") if file.name != "in.jsonl" for line in read_rows(file)]
    assert sorted(line["custom_id"] for line in lines) == ["a", "a", "b", "b"]


def test_a_wrong_command_says_what_is_missing(millstream, tmp_path):
    assert "INPUT.jsonl is missing" in millstream("batch", "-o", "x.jsonl", "--model", "m", exit_code=1).stderr
    assert "--model is required" in millstream("batch", "in.jsonl", "-o", "x.jsonl", exit_code=1).stderr
    files = ["batch", tmp_path / "no.jsonl", "-o", tmp_path / "x.jsonl", "--model", MODEL]
    assert "no.jsonl" in millstream(*files, exit_code=1).stderr
