# SPDX-License-Identifier: Apache-2.0
"""`engine: openai` against a stub server that misbehaves as told."""

import functools
import json
import resource
import signal
import subprocess
import threading
import time

import pytest
from conftest import ROOT, read_rows
from openai_stub import DEEP, Limit, Server, answer_of, completion

MODEL = "models:\n  big: {engine: openai, base_url: %s, model: m/1%s}\n"
ASK = "steps: [{generate: {model: big, prompt: 'Say {{ text }}', as: answer%s}}]\n"


def job_of(server, settings="", step=""):
    return MODEL % (server.url, settings) + ASK % step


def texts(count):
    return [{"id": number, "text": f"row {number}"} for number in range(1, count + 1)]


def expected(rows):
    return [answer_of(f"Say {row['text']}") for row in rows]


def test_rows_are_asked_for_and_answered(run_rows):
    with Server() as server:
        found = run_rows(texts(200), job_of(server, step=", max_tokens: 7, temperature: 0.5, stop: [END]"))
    assert [row["answer"] for row in found] == expected(texts(200))
    assert found[0]["answer_meta"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "finish_reason": "stop",
        "truncated": False,
    }
    assert {path for path, _ in server.bodies} == {"/v1/chat/completions"}
    by_text = {body["messages"][0]["content"]: body for _, body in server.bodies}
    body = by_text["Say row 1"]
    seed = body.pop("seed")
    assert 0 <= seed < 2**31 and seed != by_text["Say row 2"]["seed"]
    assert body == {
        "model": "m/1",
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "stop": ["END"],
        "messages": [{"role": "user", "content": "Say row 1"}],
    }


def test_many_requests_are_under_way_at_once(run_rows):
    together = threading.Barrier(16)  # none is answered before so many are there

    def script(body):
        together.wait(60)

    with Server(script=script) as server:
        found = run_rows(texts(160), job_of(server))
    assert [row["answer"] for row in found] == expected(texts(160))


@pytest.mark.parametrize("settings", ["", ", max_in_flight: 5000"])
def test_no_more_are_under_way_than_the_process_may_have_connections(tmp_path, settings):
    rows = texts(2000)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Server() as server:
        (tmp_path / "job.yaml").write_text(
            job_of(server, settings) + "input: {path: rows.jsonl}\noutput: {path: out}\n"
        )
        command = [ROOT / "build/release/bin/millstream", "run", tmp_path / "job.yaml"]
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (160, 160))
        ran = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=limit)
        assert len(server.bodies) == len(rows)  # none was refused a connection
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == expected(rows)
    assert ("allows 80 requests at a time, not 5000" in ran.stderr) == bool(settings)


def test_a_key_that_the_job_does_not_set_is_not_sent(run_rows):
    with Server() as server:
        run_rows(texts(1), job_of(server, step=", temperature: 0"))
    ((_, body),) = server.bodies
    assert set(body) == {"model", "messages", "temperature"}


def test_a_raw_prompt_goes_to_completions_and_samples_are_requests(run_rows):
    steps = "steps: [{generate: {model: big, raw_prompt: '{{ text }}!', as: answer, n: 3, max_tokens: 2}}]\n"
    with Server() as server:
        found = run_rows(texts(4), MODEL % (server.url, ", dialect: vllm") + steps)
    assert [row["answer"] for row in found] == [[f"re: row {i}!"] * 3 for i in range(1, 5)]
    assert [path for path, _ in server.bodies] == ["/v1/completions"] * 12
    assert len({body["seed"] for _, body in server.bodies}) == 12
    assert all(body["max_tokens"] == 2 for _, body in server.bodies)


@pytest.mark.parametrize(
    ("dialect", "sent"),
    {
        "vllm": {"repetition_penalty": 1.1, "top_k": 5, "max_tokens": 9},
        "sglang": {"repetition_penalty": 1.1, "top_k": 5, "max_tokens": 9},
        "llama-server": {"repeat_penalty": 1.1, "top_k": 5, "max_tokens": 9},
        "openai": None,
    }.items(),
)
def test_each_dialect_gets_its_own_names(run_rows, millstream, tmp_path, dialect, sent):
    step = ", repetition_penalty: 1.1, top_k: 5, max_tokens: 9, temperature: 0"
    with Server() as server:
        if sent:
            run_rows(texts(1), job_of(server, f", dialect: {dialect}", step))
            ((_, body),) = server.bodies
            assert body == sent | {"model": "m/1", "temperature": 0, "messages": body["messages"]}
        else:
            (tmp_path / "job.yaml").write_text(
                job_of(server, f", dialect: {dialect}", step) + "input: {path: rows.jsonl}\noutput: {path: out}\n"
            )
            (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n')
            failed = millstream("run", tmp_path / "job.yaml", exit_code=1)
            assert "generate.top_k: a server of dialect openai does not know it" in failed.stderr
            assert not server.bodies


def error(status, message, code=None, headers=None):
    return status, headers or {}, json.dumps({"error": {"message": message, "code": code}}).encode()


def ok(body, text, **changes):
    return 200, {}, json.dumps(completion(body, text, **changes)).encode()


FATES = {
    "bad": (lambda body: error(400, "no such thing"), "bad_request"),
    "huge": (lambda body: error(413, "too large"), "bad_request"),
    "long": (lambda body: error(400, "long", "context_length_exceeded"), "prompt_too_long"),
    "long, says vLLM": (lambda body: error(400, "This model's maximum context length is 8 tokens"), "prompt_too_long"),
    "filtered": (lambda body: error(400, "filtered", "content_filter"), "content_filter"),
    "filtered at its end": (lambda body: ok(body, "x", finish_reason="content_filter"), "content_filter"),
    "nothing": (lambda body: ok(body, None), "empty_choice"),
    "no choice": (lambda body: (200, {}, b'{"choices": []}'), "empty_choice"),
    "deep": (lambda body: (200, {}, b'{"choices": %s}' % DEEP), "empty_choice"),
    "deeply bad": (lambda body: (400, {}, b'{"error": {"message": %s}}' % DEEP), "bad_request"),
    "an empty answer": (lambda body: ok(body, ""), None),
    "a cut answer": (lambda body: ok(body, "cut", finish_reason="length"), None),
}


def test_each_outcome_has_its_code(run_rows):
    rows = [{"text": name} for name in FATES]
    step = ", temperature: 0"
    with Server(script=lambda body: FATES[body["messages"][0]["content"][4:]][0](body)) as server:
        found = run_rows(rows, job_of(server, step=step) + "max_errors: 100%\nbreaker: off\n")
    for row, (name, (_, code)) in zip(found, FATES.items(), strict=True):
        assert (row["_error"] or {}).get("code") == code, (name, row)
    assert [row["answer"] for row in found[-2:]] == ["", "cut"]
    assert found[-1]["answer_meta"]["finish_reason"] == "length"
    assert len(server.bodies) == len(rows)  # none is asked again


@pytest.mark.parametrize(
    "message", ["%s", '{"role": %s}', '{"role": "user", "content": %s}', '{"role": "user", "content": [{"text": %s}]}']
)
def test_a_row_whose_messages_nest_deeply_fails_alone(run_rows, message):
    rows = [{"talk": f"[{message}]" % content} for content in [DEEP.decode(), '"hi"']]
    with Server() as server:
        steps = "steps: [{generate: {model: big, messages: talk, as: answer}}]\n"
        found = run_rows(rows, MODEL % (server.url, "") + steps + "max_errors: 2\n")
    assert found[0]["_error"]["code"] == "bad_messages"


def test_a_refusal_and_reasoning_are_read(run_rows):
    def script(body):
        message = {"role": "assistant", "content": "42"}
        if "refuse" in body["messages"][0]["content"]:
            message = {"role": "assistant", "content": None, "refusal": "I will not"}
        elif "old" in body["messages"][0]["content"]:
            message["reasoning_content"] = "hm"
        else:
            message["reasoning"] = "aha"
        return 200, {}, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()

    rows = [{"text": "old"}, {"text": "new"}, {"text": "refuse"}]
    with Server(script=script) as server:
        found = run_rows(rows, job_of(server, step=", reasoning: split"))
    assert [row["answer"] for row in found] == ["42", "42", None]
    assert [row["answer_reasoning"] for row in found] == ["hm", "aha", None]
    assert found[2]["_error"]["code"] == "content_filter"


STOPS = {
    "key": ({"key": "other"}, None, "check the key"),
    "key, which it repeats": ({}, lambda _: error(401, "Incorrect API key: canary-key"), "API key: ***"),
    "model": ({}, lambda _: error(404, "The model does not exist", "model_not_found"), "check `model`"),
    "money": ({}, lambda _: error(402, "pay"), "no money left"),
    "quota": ({}, lambda _: error(429, "used up", "insufficient_quota"), "quota is used up"),
    "redirect": ({}, lambda _: (308, {"Location": "http://elsewhere/"}, b""), "redirects are not followed"),
}


@pytest.mark.parametrize("kind", STOPS)
def test_what_no_row_survives_stops_the_job_at_once_and_it_goes_on(millstream, tmp_path, monkeypatch, kind):
    options, script, words = STOPS[kind]
    monkeypatch.setenv("STUB_KEY", "canary-key")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(20)))
    with Server(script=script, **options) as server:
        (tmp_path / "job.yaml").write_text(
            job_of(server, ", api_key: {env: STUB_KEY}") + "input: {path: rows.jsonl}\noutput: {path: out}\n"
        )
        stopped = millstream("run", tmp_path / "job.yaml", exit_code=3)
        assert words in stopped.stderr
        server.script, server.key = None, "canary-key"
        millstream("run", tmp_path / "job.yaml")
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == expected(texts(20))
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"canary-key" not in file.read_bytes(), file
    assert "canary-key" not in stopped.stderr + stopped.stdout


def test_headers_and_more_of_the_body_are_sent(run_rows, monkeypatch, tmp_path):
    monkeypatch.setenv("GATEWAY", "canary-gate")
    settings = ", headers: {x-team: search, X-Token: {env: GATEWAY}}, extra_body: {tier: flex, deep: {a: [1]}}"
    with Server() as server:
        run_rows(texts(1), job_of(server, settings))
    (headers,) = server.headers
    assert headers["x-team"] == "search"
    assert headers["x-token"] == "canary-gate"
    ((_, body),) = server.bodies
    assert body["tier"] == "flex" and body["deep"] == {"a": [1]}
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"canary-gate" not in file.read_bytes(), file


def test_a_row_that_the_server_always_fails_on_fails_alone_and_last(run_rows):
    def script(body):
        return error(500, "as always") if body["messages"][0]["content"] == "Say row 3" else None

    with Server(script=script) as server:
        found = run_rows(texts(20), job_of(server, ", row_deadline: 1"))
    assert found[2]["_error"]["code"] == "fetch"
    assert "as always" in found[2]["_error"]["message"]
    assert [row["answer"] for row in found if row["_status"] == "ok"] == expected(texts(2) + texts(20)[3:])
    assert "Say row 3" not in server.answered


def test_a_limit_that_the_job_names_is_kept_and_used(run_rows):
    limit = Limit(40)  # in any second; a minute of 1200 is 20 of them, and requests take a while
    with Server(script=limit) as server:
        begun = time.monotonic()
        found = run_rows(texts(100), job_of(server, ", requests_per_minute: 1200"))
        seconds = time.monotonic() - begun
    assert [row["answer"] for row in found] == expected(texts(100))
    assert limit.refused == 0
    assert 4.5 <= seconds <= 60


def test_tokens_a_minute_are_those_of_answers_too(run_rows):
    def script(body):
        answer = completion(body, "yes") | {"usage": {"prompt_tokens": 10, "completion_tokens": 990}}
        return 200, {}, json.dumps(answer).encode()

    with Server(script=script) as server:
        begun = time.monotonic()
        run_rows(texts(20), job_of(server, ", tokens_per_minute: 600000, max_in_flight: 4"))
        seconds = time.monotonic() - begun
    assert 1.5 <= seconds <= 60  # ten a second, but for those before the first answer


def test_what_a_servers_headers_allow_is_kept_and_used(run_rows):
    limit = Limit(50, seconds=2.0, tells=True)
    with Server(script=limit) as server:
        begun = time.monotonic()
        found = run_rows(texts(200), job_of(server))
        seconds = time.monotonic() - begun
    assert [row["answer"] for row in found] == expected(texts(200))
    assert limit.refused <= 10  # at the turns of its clock
    assert seconds <= 60


MISTAKES = {
    "requests_per_minute: 0": "models.big.requests_per_minute: must be at least 1",
    "headers: {Authorization: Bearer x}": "models.big.headers.Authorization: holds a secret",
    "headers: {'a b': x}": "is no name of an HTTP header",
    "extra_body: {stream: true}": "models.big.extra_body.stream: is Millstream's to set",
    "extra_body: {temperature: 1}": "generate.model: its extra_body has `temperature`",
    "api_key: {env: NO_SUCH_KEY}": "the environment variable NO_SUCH_KEY is not set",
    "api_key: canary": "models.big.api_key: must be a mapping",
    "threads: 2": "models.big.threads: goes with `engine: native`",
}


@pytest.mark.parametrize("settings", MISTAKES)
def test_a_mistake_in_a_servers_settings_is_said(millstream, tmp_path, settings):
    (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n')
    with Server() as server:
        (tmp_path / "job.yaml").write_text(
            job_of(server, ", " + settings, ", temperature: 0") + "input: {path: rows.jsonl}\noutput: {path: out}\n"
        )
        failed = millstream("run", tmp_path / "job.yaml", exit_code=1)
    assert MISTAKES[settings] in failed.stderr
    assert "canary" not in failed.stderr
    assert not server.bodies


def test_ten_thousand_requests_at_twenty_percent_faults_are_all_answered(run_rows):
    rows = texts(10_000)
    with Server(faults=0.2, seed=1) as server:
        found = run_rows(rows, job_of(server, ", max_in_flight: 64"))
        assert sum(server.num_faults.values()) > 0.15 * len(server.bodies)
        assert all(server.num_faults.values())
    assert [row["answer"] for row in found] == expected(rows)
    assert all(row["_status"] == "ok" for row in found)


def test_a_kill_costs_no_answer_that_was_kept(tmp_path):
    rows = texts(600)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Server(faults=0.1, seed=2) as server:
        (tmp_path / "job.yaml").write_text(
            job_of(server, ", max_in_flight: 8") + "input: {path: rows.jsonl}\noutput: {path: out}\nsplit_rows: 50\n"
        )
        command = [ROOT / "build/release/bin/millstream", "run", tmp_path / "job.yaml"]
        kills = 0
        for at in (50, 200, 400):
            reached = threading.Event()

            def watch(body, at=at, reached=reached):
                if sum(server.answered.values()) >= at:
                    reached.set()

            server.script = watch
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            assert reached.wait(60)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        server.script = None
        subprocess.run(command, check=True, capture_output=True)
        again = sum(count - 1 for count in server.answered.values())
    assert kills == 3
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == expected(rows)
    assert again <= 3 * 8 + 3 * 8  # those in flight at a kill, and those whose answer the fault took


def test_two_servers_share_the_load_and_one_may_go(run_rows):
    rows = texts(400)
    with Server() as one, Server() as other:

        def script(body):
            if sum(one.answered.values()) == 50:
                threading.Thread(target=other.shutdown, daemon=True).start()
                other.socket.close()

        one.script = script
        found = run_rows(rows, MODEL % (f"[{one.url}, {other.url}]", ", max_in_flight: 8") + ASK % "")
        assert len(one.bodies) > 100
        assert len(other.bodies) > 10
    assert [row["answer"] for row in found] == expected(rows)
