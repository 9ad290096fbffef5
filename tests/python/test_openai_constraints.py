# SPDX-License-Identifier: Apache-2.0
"""structured_outputs of models that servers run: asked for in the server's own words, and checked here as well."""

import json

import pytest
from openai_stub import Server, completion, text_of

SCHEMA = "{type: object, properties: {name: {type: string}, age: {type: integer}}, required: [name, age]}"


def job_of(server, constraint, dialect="vllm", more=""):
    return (
        f"models: {{big: {{engine: openai, base_url: '{server.url}', model: m, dialect: {dialect}}}}}\n"
        "steps: [{generate: {model: big, prompt: '{{ text }}', as: answer, "
        f"structured_outputs: {constraint}{more}}}}}]\n"
    )


def answering(answers):
    """A script that answers each text with what `answers` has for it."""

    def script(body):
        answer = answers[text_of(body)]
        changes = answer if isinstance(answer, dict) else {"text": answer}
        return 200, {}, json.dumps(completion(body, **changes)).encode()

    return script


def outcomes(rows):
    return {row["text"]: (row["_status"], row["answer"], (row["_error"] or {}).get("code")) for row in rows}


def run(run_rows, answers, constraint, **kwargs):
    with Server(script=answering(answers)) as server:
        found = run_rows([{"text": text} for text in answers], job_of(server, constraint, **kwargs))
    assert len(server.bodies) == len(answers)  # an answer that breaks the constraint is not asked for again
    return outcomes(found), [body for _, body in server.bodies]


def test_answers_that_break_the_schema_fail_and_those_that_keep_it_are_typed(run_rows):
    answers = {
        "good": '{"name": "Ann", "age": 3}',
        "another order": '\n{"age":4,"name":"Bob"}\n',
        "in words": "Sure! {}",
        "a wrong type": '{"name": "Ann", "age": "3"}',
        "a key too few": '{"name": "Ann"}',
        "a key too many": '{"name": "Ann", "age": 3, "x": 1}',
        "two answers": '{"name": "Ann", "age": 3} {"name": "Bob", "age": 3}',
        "nothing": "",
        "cut": {"text": '{"name": "Ann", "age": 3}', "finish_reason": "length"},
    }
    found, bodies = run(run_rows, answers, f"{{json: {SCHEMA}}}")
    assert found.pop("good") == ("ok", {"name": "Ann", "age": 3}, None)
    assert found.pop("another order") == ("ok", {"name": "Bob", "age": 4}, None)
    assert set(found.values()) == {("error", None, "invalid_output")}
    asked = bodies[0]["structured_outputs"]["json"]
    assert asked["required"] == ["name", "age"]
    assert asked["additionalProperties"] is False


@pytest.mark.parametrize(
    ("dialect", "key"),
    {"openai": "response_format", "sglang": "response_format", "llama-server": "json_schema"}.items(),
)
def test_each_dialect_is_asked_in_its_own_words(run_rows, dialect, key):
    found, bodies = run(run_rows, {"a": '{"name":"Ann","age":3}'}, f"{{json: {SCHEMA}}}", dialect=dialect)
    assert found["a"][0] == "ok"
    asked = bodies[0][key]
    schema = asked if key == "json_schema" else asked["json_schema"]["schema"]
    assert list(schema["properties"]) == ["name", "age"]
    assert asked.get("json_schema", {}).get("strict") is (True if dialect == "openai" else None)


@pytest.mark.parametrize(
    ("constraint", "dialect", "answers"),
    [
        ("{choice: ['yes', 'no']}", "llama-server", {"yes": True, "Yes": False, "yes\n": False}),
        ("{regex: '[0-9]+'}", "sglang", {"12": True, "12 kg": False}),
        ("{grammar: 'start: /[0-9]/ \"+\" /[0-9]/'}", "vllm", {"1+2": True, "1-2": False}),
    ],
)
def test_a_choice_a_pattern_and_a_grammar_are_checked(run_rows, constraint, dialect, answers):
    found, _ = run(run_rows, {text: text for text in answers}, constraint, dialect=dialect)
    assert [code for _, _, code in found.values()] == [None if ok else "invalid_output" for ok in answers.values()]


def test_each_row_has_its_own_choices(run_rows):
    rows = [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": ["z"]}, {"text": "c", "labels": []}]
    with Server(script=answering({"a": "y", "b": "x"})) as server:
        found = outcomes(run_rows(rows, job_of(server, "{choice: '{{ labels }}'}")))
    assert [code for _, _, code in found.values()] == [None, "invalid_output", "bad_parameter"]
    asked = {text_of(body): body["structured_outputs"]["choice"] for _, body in server.bodies}
    assert asked == {"a": ["x", "y"], "b": ["z"]}


@pytest.mark.parametrize(("more", "reasoning"), [("", None), (", reasoning: split", "Hm.")])
def test_reasoning_that_the_server_parts_from_the_answer_is_not_constrained(run_rows, more, reasoning):
    def script(body):
        answer = completion(body, "no")
        if text_of(body) == "thinks":
            answer["choices"][0]["message"] = {"role": "assistant", "reasoning_content": "Hm.", "content": "yes"}
        return 200, {}, json.dumps(answer).encode()

    with Server(script=script) as server:
        job = job_of(server, "{choice: ['yes', 'no']}", more=more)
        found = run_rows([{"text": "thinks"}, {"text": "does not"}], job)
    assert [row["answer"] for row in found] == ["yes", "no"]
    assert found[0].get("answer_reasoning") == reasoning


MISTAKES = {
    ("openai", "{choice: [a, b]}"): "structured_outputs.choice: a server of dialect openai does not take it",
    ("sglang", "{grammar: 'start: \"a\"'}"): "structured_outputs.grammar: a server of dialect sglang does not take it",
    ("llama-server", "{regex: '[0-9]'}"): "structured_outputs.regex: a server of dialect llama-server does not take it",
    ("vllm", "{regex: '('}"): "structured_outputs: ",
}


@pytest.mark.parametrize(("dialect", "constraint"), MISTAKES)
def test_a_constraint_that_cannot_be_kept_is_refused(millstream, tmp_path, dialect, constraint):
    (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n')
    with Server() as server:
        job = job_of(server, constraint, dialect) + "input: {path: rows.jsonl}\noutput: {path: out}\n"
        (tmp_path / "job.yaml").write_text(job)
        failed = millstream("run", tmp_path / "job.yaml", exit_code=1)
    assert MISTAKES[dialect, constraint] in failed.stderr
    assert not server.bodies
