# SPDX-License-Identifier: Apache-2.0
"""OpenAI batch files: `millstream batch` and the job file that it stands for, with the real model and over HTTP. What a
line must look like is stated here from OpenAI's and vLLM's documentation, not taken from what comes out."""

import json
import re
import shutil
import subprocess
import threading

import pytest
from conftest import ROOT, read_rows
from openai_stub import Server

BINARY = ROOT / "build/release/bin/millstream"
MODEL = "smollm2-135m-instruct"
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


def chat(custom_id, text="Hi", **keys):
    body = {"messages": [{"role": "user", "content": text}]} | keys
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def text_of(custom_id, prompt, **keys):
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {"prompt": prompt} | keys}


def write(path, lines):
    """Each line a request, or text as it is."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def check_line(line):
    """That it is one of the three forms of a line; returns which."""
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["id"].startswith("batch_req_") and (line["custom_id"] is None or isinstance(line["custom_id"], str))
    response = line["response"]
    if response is None:
        assert list(line["error"]) == ["code", "message"] and all(line["error"].values())
        return "no answer"
    assert line["error"] is None
    assert list(response) == ["status_code", "request_id", "body"] and response["request_id"].startswith("req_")
    if response["status_code"] != 200:
        assert list(response["body"]) == ["error"]
        assert list(response["body"]["error"]) == ["message", "type", "param", "code"]
        return "refused"
    return "answered"


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


@pytest.fixture
def batch(millstream, tmp_path):
    """Runs a batch over lines in tmp_path, and returns the lines that come out."""

    def run(lines, *arguments, model=MODEL, output="out.jsonl", **options):
        write(tmp_path / "in.jsonl", lines)
        run.process = millstream(
            "batch", tmp_path / "in.jsonl", "-o", tmp_path / output, "--model", model, *arguments, **options
        )
        run.said = run.process.stderr
        found = read_rows(tmp_path / output)
        for line in found:
            check_line(line)
        return found

    return run


def served(server, *names):
    return ["--base-url", server.url, *(word for name in names for word in ("--served-model-name", name))]


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
        [text_of("a", "One two three", temperature=0), text_of("b", ["One two three"], temperature=0, echo=True)]
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


def test_failed_lines_are_retried_into_their_places(batch, millstream, tmp_path):
    is_mended = threading.Event()

    def script(body):
        number = int(body["messages"][0]["content"])
        if number % 3 == 0 and not is_mended.is_set():
            return 400, {}, b'{"error": {"message": "not now"}}'
        return None

    sent = [chat(str(number), str(number)) for number in range(20)]
    files = [tmp_path / "out.jsonl", tmp_path / "failed.jsonl"]
    with Server(script=script) as server:
        batch(sent, *served(server), "--errors", files[1], "--set", "split_rows=4", model="m/1")
        assert [line["custom_id"] for line in read_rows(files[1])] == [str(n) for n in range(0, 20, 3)]
        assert "7 x bad_request" in millstream("status", files[0]).stdout.replace("  ", "")
        failed = [json.loads(line) for line in millstream("errors", files[0]).stdout.splitlines()]
        assert [row["_error"]["code"] for row in failed] == ["bad_request"] * 7
        unchanged = {line["custom_id"]: line for line in read_rows(files[0])}
        is_mended.set()
        millstream("retry", files[0], "--where", "bad_request")
    assert files[1].read_text() == ""
    after = read_rows(files[0])
    assert [line["custom_id"] for line in after] == [line["custom_id"] for line in sent]
    assert all(line == unchanged.get(line["custom_id"], line) for line in after)
    assert "20 ok, 0 error" in millstream("verify", files[0], "--deep").stdout


def test_verify_looks_at_both_files(batch, millstream, tmp_path):
    files = [tmp_path / "out.jsonl", tmp_path / "failed.jsonl"]
    sent = [chat("a"), chat("b", stream=True), chat("c"), chat("d", stream=True)]
    with Server() as server:
        arguments = [*served(server), "--errors", files[1]]
        batch(sent, *arguments, model="m/1")
        assert "4 rows: 2 ok, 2 error" in millstream("verify", files[0]).stdout
        for file in files:
            whole = file.read_text()
            for damaged in (whole.splitlines(True)[0], whole * 2, "".join(reversed(whole.splitlines(True))), "{}\n"):
                file.write_text(damaged)
                assert file.name in millstream("verify", files[0], exit_code=None).stderr
            file.unlink()
            millstream("verify", files[0], exit_code=4)
            batch(sent, *arguments, model="m/1")  # writes them anew
            assert file.read_text() == whole
        # --restart moves both aside, under names by which they are still one.
        batch(sent[:3], *arguments, "--restart", model="m/1")
    assert "3 rows: 2 ok, 1 error" in millstream("verify", files[0]).stdout
    assert "4 rows: 2 ok, 2 error" in millstream("verify", tmp_path / "out.old-1.jsonl").stdout
    (tmp_path / "failed.old-1.jsonl").write_text("")
    millstream("verify", tmp_path / "out.old-1.jsonl", exit_code=4)


def test_a_file_that_is_no_output_is_not_overwritten(batch, millstream, tmp_path):
    (tmp_path / "failed.jsonl").write_text("mine\n")
    write(tmp_path / "in.jsonl", [chat("a")])
    command = ["batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--model", MODEL]
    assert "failed.jsonl exists" in millstream(*command, "--errors", tmp_path / "failed.jsonl", exit_code=4).stderr
    millstream(*command, "--errors", tmp_path / "out.jsonl", exit_code=1)
    assert (tmp_path / "failed.jsonl").read_text() == "mine\n" and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "errors",
    ["link/out.jsonl", "out.jsonl/failed.jsonl", "out.jsonl.millstream/failed.jsonl", "deep/x.jsonl"],
)
def test_failed_lines_stand_apart_from_the_answers(millstream, tmp_path, errors):
    sent = write(tmp_path / "in.jsonl", [chat("a"), chat("b", stream=True)])
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "out.jsonl.millstream").mkdir()
    (tmp_path / "deep").symlink_to(tmp_path / "out.jsonl.millstream")
    before = sorted(tmp_path.iterdir())
    command = ["batch", sent, "-o", tmp_path / "out.jsonl", "--model", MODEL, "--errors", tmp_path / errors]
    said = millstream(*command, exit_code=1).stderr
    assert "output.errors" in said and errors in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_restart_moves_nothing_but_the_jobs_own(batch, millstream, tmp_path):
    def held(*names):
        return {name: (tmp_path / name).read_bytes() for name in names}

    sent = [chat("a"), chat("b", stream=True)]
    inputs = write(tmp_path / "in.jsonl", sent)
    (tmp_path / "link.jsonl").symlink_to(inputs)
    (tmp_path / "notes.jsonl").write_text("mine\n")
    files = held("in.jsonl", "notes.jsonl")
    with Server() as server:
        command = ["batch", inputs, "--model", "m/1", *served(server), "--restart"]
        for of_job in (False, True):  # once with a state beside out.jsonl
            for name in ("in.jsonl", "link.jsonl"):
                said = millstream(*command, "-o", tmp_path / "out.jsonl", "--errors", tmp_path / name, exit_code=1)
                assert f"{name} is the input " in said.stderr
                millstream(*command, "-o", tmp_path / name, exit_code=1)
            arguments = ["-o", tmp_path / "out.jsonl", "--errors", tmp_path / "notes.jsonl"]
            assert "notes.jsonl" in millstream(*command, *arguments, exit_code=4).stderr
            assert "notes.jsonl exists" in millstream(*command, "-o", tmp_path / "notes.jsonl", exit_code=4).stderr
            assert held(*files) == files and not list(tmp_path.glob("*old*"))
            if not of_job:
                batch(sent, *served(server), "--errors", tmp_path / "failed.jsonl", model="m/1")
                files |= held("out.jsonl", "failed.jsonl")
        # What stands in the place of a file that was moved aside, or never was there, is no rest of that move.
        (tmp_path / "failed.jsonl").unlink()
        arguments = ["-o", tmp_path / "out.jsonl", "--errors", tmp_path / "failed.jsonl"]
        command[1] = tmp_path / "gone.jsonl"
        millstream(*command, *arguments, exit_code=1)
        assert (tmp_path / "out.old-1.jsonl").exists() and not (tmp_path / "out.jsonl.millstream").exists()
        (tmp_path / "failed.jsonl").write_text("mine\n")
        command[1] = inputs
        assert "failed.jsonl exists" in millstream(*command[:-1], *arguments, exit_code=4).stderr
        assert (tmp_path / "failed.jsonl").read_text() == "mine\n"
        assert not (tmp_path / "failed.old-1.jsonl").exists()


def test_a_folder_that_is_no_output_is_not_moved_aside(millstream, tmp_path):
    (tmp_path / "rows.txt").write_text("a\n")
    (tmp_path / "job.yaml").write_text("input: rows.txt\nsteps: [{set: {x: 1}}]\noutput: out\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    assert "no output of Millstream" in millstream("run", tmp_path / "job.yaml", "--restart", exit_code=4).stderr
    assert (tmp_path / "out/notes.txt").read_text() == "mine" and not (tmp_path / "out.old-1").exists()


def test_a_second_job_at_work_does_not_replace_the_failed_lines_of_the_first(batch, millstream, tmp_path):
    is_first_done = threading.Event()

    def script(body):
        if body["messages"][0]["content"] == "slow":
            is_first_done.wait(60)

    failed = tmp_path / "failed.jsonl"
    second = write(tmp_path / "second.jsonl", [chat("of the second", stream=True), chat("b", "slow")])
    with Server(script=script) as server:
        arguments = [*served(server), "--errors", failed]
        command = ["batch", second, "-o", tmp_path / "answers.jsonl", "--model", "m/1", *arguments]
        process = subprocess.Popen([BINARY, *map(str, command)], stderr=subprocess.PIPE, text=True)
        while not server.bodies:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
        batch([chat("of the first", stream=True), chat("a")], *arguments, model="m/1")
        is_first_done.set()
        assert "failed.jsonl is not what this job wrote" in process.communicate(timeout=60)[1]
        assert process.returncode == 4
        assert [line["custom_id"] for line in read_rows(failed)] == ["of the first"]
        assert "2 rows: 1 ok, 1 error" in millstream("verify", tmp_path / "out.jsonl", "--deep").stdout
        millstream(*command, exit_code=4)
        failed.rename(tmp_path / "theirs.jsonl")
        asked = len(server.bodies)
        millstream(*command)
        assert len(server.bodies) == asked
    assert [line["custom_id"] for line in read_rows(failed)] == ["of the second"]
    assert "2 rows: 1 ok, 1 error" in millstream("verify", tmp_path / "answers.jsonl", "--deep").stdout
    # Ids tell the lines of two jobs apart, of which all else may be the same.
    shutil.copy(tmp_path / "theirs.jsonl", failed)
    said = millstream("verify", tmp_path / "answers.jsonl", exit_code=None)
    assert (
        said.returncode in (1, 4) and "failed.jsonl: row 1: is no batch line: its id is none of this job" in said.stderr
    )


@pytest.mark.parametrize("name", ["out.jsonl", "failed.jsonl"])
def test_a_file_that_was_put_there_while_a_job_was_stopped_is_left_as_it_is(millstream, tmp_path, name):
    sent = write(tmp_path / "in.jsonl", [chat("a"), chat("b", stream=True)])
    command = [BINARY, "batch", sent, "-o", tmp_path / "out.jsonl", "--errors", tmp_path / "failed.jsonl"]
    is_killed = threading.Event()
    with Server(script=lambda body: is_killed.wait(60) and None) as server:
        command += ["--model", "m/1", *served(server)]
        process = subprocess.Popen(command)
        while not server.bodies:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
        process.kill()
        process.wait()
        is_killed.set()
        notes = tmp_path / name
        notes.write_text("mine\n")
        files = sorted(tmp_path.iterdir())
        said = millstream(*command[1:], exit_code=4).stderr
        assert f"{name} is not what this job wrote there, so it is left as it is: move it away" in said
        assert sorted(tmp_path.iterdir()) == files and notes.read_text() == "mine\n"
        notes.unlink()
        millstream(*command[1:])
        # Nor once the job is complete, which had nothing to do.
        whole = notes.read_text()
        notes.write_text("mine\n")
        millstream(*command[1:], exit_code=4)
        millstream("retry", tmp_path / "out.jsonl", "--reseed", exit_code=4)
        assert notes.read_text() == "mine\n"
        notes.write_text(whole)
        millstream(*command[1:])


def killed_and_not(tmp_path, command, start, kill):
    """Lets one job be killed as soon as it is planned; then one copy of it runs to its end undisturbed, and another is
    killed in the midst first. Returns the folders of both. `start(folder)` starts the command, `kill(process)` kills it
    in time."""
    first, second = tmp_path / "killed", tmp_path / "undisturbed"
    kill(start(first), early=True)
    assert list((first / "out.jsonl.millstream").glob("plan-*")) and not (first / "out.jsonl").exists()
    shutil.copytree(first, second)
    kill(start(first), early=False)
    assert not (first / "out.jsonl").exists()
    for folder in (first, second):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return first, second


@pytest.mark.parametrize("errors", [[], ["--errors", "failed.jsonl"]], ids=["one file", "errors apart"])
def test_a_killed_run_over_http_ends_in_the_same_bytes(tmp_path, errors):
    sent = [chat(f"c{number}", f"row {number}", stream=number % 7 == 0) for number in range(300)]
    victim = {}

    def script(body):
        victim["left"] -= 1
        if victim["left"] == 0:
            victim["process"].kill()
        return None

    def kill(process, early):
        victim.update(process=process, left=1 if early else 120)
        victim["ready"].set()
        assert process.wait(120) == -9
        victim["left"] = 10**9

    def gate(body):
        victim["ready"].wait(60)
        return script(body)

    with Server(script=gate) as server:
        command = [BINARY, "batch", "in.jsonl", "-o", "out.jsonl", "--model", "m/1", *served(server), *errors]
        command += ["--set", "split_rows=32", "--max-in-flight", "4"]

        def start(folder):
            folder.mkdir(exist_ok=True)
            if not (folder / "in.jsonl").exists():
                write(folder / "in.jsonl", sent)
            victim["ready"] = threading.Event()
            return subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)

        killed, undisturbed = killed_and_not(tmp_path, command, start, kill)
        asked = len(server.bodies)
    for name in ["out.jsonl", *errors[1:]]:
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
        assert (killed / name).stat().st_size > 0
    lines = [line for name in ["out.jsonl", *errors[1:]] for line in read_rows(killed / name)]
    assert sorted(line["custom_id"] for line in lines) == sorted(line["custom_id"] for line in sent)
    answered = sum(not line["body"]["stream"] for line in sent)
    assert asked < 2 * answered + 20  # none that was answered is asked again, but for those of the kills


def test_a_killed_run_of_the_native_engine_ends_in_the_same_bytes(tmp_path):
    sent = [chat(f"c{i}", f"Count to {i}", max_tokens=12, temperature=1, n=1 + i % 2) for i in range(48)]
    command = [BINARY, "batch", "in.jsonl", "-o", "out.jsonl", "--model", MODEL, "--set", "split_rows=8"]

    def start(folder):
        folder.mkdir(exist_ok=True)
        if not (folder / "in.jsonl").exists():
            write(folder / "in.jsonl", sent)
        return subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)

    def kill(process, early):
        state = tmp_path / "killed/out.jsonl.millstream"
        while not list(state.glob("journal-*" if early else "parts/part-*")):
            with pytest.raises(subprocess.TimeoutExpired):  # it has not ended
                process.wait(0.005)
        process.kill()
        assert process.wait(120) == -9

    killed, undisturbed = killed_and_not(tmp_path, command, start, kill)
    assert (killed / "out.jsonl").read_bytes() == (undisturbed / "out.jsonl").read_bytes()
    lines = read_rows(killed / "out.jsonl")
    assert [line["custom_id"] for line in lines] == [line["custom_id"] for line in sent]
    assert {check_line(line) for line in lines} == {"answered"}


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
