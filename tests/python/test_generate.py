# SPDX-License-Identifier: Apache-2.0
"""The generate step end to end with the real model. What is checked is what a key promises, by other means than ours:
JSON schemas, `re`, membership, and the prompt as a person would write it."""

import json
import re

import pyarrow
import pyarrow.parquet
import pytest
import xxhash
from conftest import read_rows
from json_schema import satisfies

MODELS = "models: {small: {path: smollm2-135m-instruct}}\n"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # by the model's own chat template


def turn(role, content):
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def generate(column, **keys):
    """One generate step, as YAML that is JSON too."""
    keys = {"model": "small", "as": column, "temperature": 0, "max_tokens": 16} | keys
    return "  - generate: " + json.dumps(keys, ensure_ascii=False) + "\n"


def of_yaml(text):
    """One generate step whose further keys are written as YAML."""
    return "  - generate: {model: small, temperature: 0, " + text + "}\n"


def error_of(row):
    return row["_error"] and (row["_error"]["step"], row["_error"]["code"])


def test_choices_are_taken_as_written(run_rows):
    written = ["yes", "no", "1.0", "007", "null", "~", "true", "0x1F", "1e3", "'quoted'", '"a, b"', "naïve ☃"]
    plain = [text.strip("'\"") for text in written]
    steps = "".join(
        of_yaml(f"prompt: Say it, as: c{i}, structured_outputs: {{choice: [{text}]}}") for i, text in enumerate(written)
    )
    steps += of_yaml(f"prompt: Pick one, as: one, structured_outputs: {{choice: [{', '.join(written)}]}}")
    (row,) = run_rows([{"id": 1}], MODELS + "steps:\n" + steps)
    assert [row[f"c{i}"] for i in range(len(written))] == plain
    assert row["one"] in plain


def test_choices_of_a_column(run_rows):
    rows = [
        {"text": ["red", "dark blue"], "number": [1, 2], "any": ["a", 1, True]},
        {"text": ["<|im_end|>"], "number": [7], "any": [None]},
        {"text": [], "number": [7], "any": ["x"]},
        {"text": ["a"], "number": None, "any": "x"},
        {"text": ["a"], "number": [1], "any": "x"},
    ]
    steps = "".join(
        generate(f"of_{name}", prompt="Pick one", structured_outputs={"choice": f"{{{{ {name} }}}}"})
        for name in rows[0]
    )
    found = run_rows(rows, MODELS + "steps:\n" + steps, "--set", "input.schema.any=json")
    assert found[0]["of_text"] in ("red", "dark blue")
    assert found[0]["of_number"] in ("1", "2")
    assert found[0]["of_any"] in ("a", "1", "true")
    assert [found[1][name] for name in ("of_text", "of_number", "of_any")] == ["<|im_end|>", "7", "null"]
    assert error_of(found[2]) == ("of_text", "bad_parameter")
    assert error_of(found[3]) == ("of_number", "bad_parameter")
    assert error_of(found[4]) == ("of_any", "bad_parameter")


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "height": {"type": "number", "minimum": 0, "maximum": 3},
        "alive": {"type": "boolean"},
        "job": {"enum": ["cook", "smith"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
        "home": {
            "type": "object",
            "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{1,6}$"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "height", "alive", "job", "tags", "home"],
    "additionalProperties": False,
}
EITHER = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "string", "pattern": "^[ab]{1,4}$"}]}


def test_json_schemas_give_typed_columns(run_rows, millstream, tmp_path):
    # As OpenAI's documentation has it.
    response_format = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    (tmp_path / "person.json").write_text(json.dumps(PERSON))
    steps = (
        generate("a", prompt="Describe {{ name }}", max_tokens=120, structured_outputs={"json": PERSON})
        + generate("b", prompt="Describe {{ name }}", max_tokens=120, response_format=response_format)
        + generate("c", prompt="Describe {{ name }}", max_tokens=120, structured_outputs={"json": "person.json"})
        + generate("either", prompt="Give a value", structured_outputs={"json": EITHER})
        + generate("n", prompt="Count", structured_outputs={"json": {"type": "integer", "maximum": 99, "minimum": 0}})
    )
    found = run_rows([{"name": "Ann"}, {"name": "Bo"}], MODELS + "steps:\n" + steps)
    for row in found:
        assert row["_status"] == "ok", row["_error"]
        assert row["a"] == row["b"] == row["c"] and satisfies(row["a"], PERSON)
        assert satisfies(json.loads(row["either"]), EITHER) and not re.search(r"\s", row["either"])
    (part,) = (tmp_path / "out").iterdir()
    schema = pyarrow.parquet.read_schema(part)
    text, home = pyarrow.string(), pyarrow.struct({"city": pyarrow.string()})
    person = {"name": text, "age": pyarrow.int64(), "height": pyarrow.float64(), "alive": pyarrow.bool_(), "job": text}
    for column in ("a", "b", "c"):
        typed = {field.name: field.type for field in schema.field(column).type}
        assert {name: typed[name] for name in person} == person and list(typed) == list(PERSON["properties"])
        assert typed["home"] == home and pyarrow.types.is_list(typed["tags"]) and typed["tags"].value_type == text
    assert schema.field("n").type == pyarrow.int64()
    plan = millstream("run", tmp_path / "job.yaml", "--dry-run").stdout
    assert "note: either: stays JSON text" in plan and "anyOf" in plan


def test_an_answer_cut_in_its_constraint_is_an_error_and_never_invalid(run_rows):
    steps = (
        generate("a", prompt="Describe Ann", max_tokens="{{ most }}", structured_outputs={"json": PERSON})
        + "  - select: [most, a]\n"
    )
    cut, whole = run_rows([{"most": 5}, {"most": 120}], MODELS + "steps:\n" + steps)
    assert error_of(cut) == ("a", "invalid_output") and cut["most"] == 5 and cut["a"] is None
    assert satisfies(whole["a"], PERSON)


def test_regex_and_grammar(run_rows):
    steps = (
        generate("date", prompt="A date?", structured_outputs={"regex": "[12][0-9]{3}-[01][0-9]-[0-3][0-9]"})
        + generate("sum", prompt="A sum?", structured_outputs={"grammar": 'start: n " + " n\nn: /[1-9]/\n'})
        + generate("any", raw_prompt='JSON: {"a":1}\nJSON: ', max_tokens=60, response_format={"type": "json_object"})
        + generate("free", prompt="Say hi", max_tokens=3, response_format={"type": "text"})
    )
    for row in run_rows([{"id": 1}], MODELS + "steps:\n" + steps):
        assert re.fullmatch("[12][0-9]{3}-[01][0-9]-[0-3][0-9]", row["date"])
        assert re.fullmatch(r"[1-9] \+ [1-9]", row["sum"])
        assert row["any_meta"]["finish_reason"] == "stop" and isinstance(json.loads(row["any"]), dict)
        assert row["free_meta"]["completion_tokens"] <= 3


EXAMPLES = "Q: 1+1? A: <think>one and one</think>2\nQ: 2+2? A: <think>two and two</think>4\nQ: 3+3? A:"


def test_reasoning_is_split_from_the_answer(run_rows):
    keys = {"reasoning": "split", "max_tokens": 40}
    steps = (
        generate("free", raw_prompt=EXAMPLES, stop="\n", **keys)
        + generate("number", raw_prompt=EXAMPLES, structured_outputs={"regex": "[0-9]{2}"}, **keys)
        + generate("open", raw_prompt=EXAMPLES + " <think>", structured_outputs={"choice": ["six"]}, **keys)
        + generate("over", raw_prompt=EXAMPLES + "<think></think>", structured_outputs={"choice": ["six"]}, **keys)
        + generate("cut", raw_prompt=EXAMPLES + " <think>", reasoning="split", max_tokens=2)
    )
    (row,) = run_rows([{"id": 1}], MODELS + "steps:\n" + steps)
    assert row["_status"] == "ok", row["_error"]
    for name in ("free", "number", "open"):
        assert row[f"{name}_reasoning"] and not re.search("think>", row[name] + row[f"{name}_reasoning"])
    assert re.fullmatch("[0-9]{2}", row["number"]) and row["open"] == "six"
    assert (row["over"], row["over_reasoning"]) == ("six", "")
    assert row["cut"] == "" and row["cut_reasoning"]


def test_a_constraint_that_never_began_is_an_error(run_rows):
    steps = generate(
        "a", prompt="What is 2+2?", max_tokens=80, reasoning="split", structured_outputs={"choice": ["yes", "no"]}
    )
    (row,) = run_rows([{"id": 1}], MODELS + "steps:\n" + steps)
    assert error_of(row) == ("a", "invalid_output") and row["a"] is None


def test_answers_that_reach_max_tokens_are_kept_or_errors(run_rows):
    steps = generate("kept", prompt="Tell a story", max_tokens=4) + generate(
        "refused", prompt="Tell a story", max_tokens=4, on_length="error"
    )
    (row,) = run_rows([{"id": 1}], MODELS + "steps:\n" + steps + "  - select: [id, kept]\n")
    assert error_of(row) == ("refused", "max_tokens_reached") and row["id"] == 1
    (row,) = run_rows([{"id": 1}], MODELS + "steps:\n" + steps, "--restart", "--set", "steps.refused.on_length=keep")
    assert row["kept"] == row["refused"] and row["kept"]
    assert row["kept_meta"]["finish_reason"] == "length" and row["kept_meta"]["completion_tokens"] == 4


def test_an_answer_that_only_repeats_itself_ends_early_unless_it_may_go_on(run_rows):
    keys = {"raw_prompt": "0, " * 40, "max_tokens": 300}
    steps = generate("ended", **keys) + generate("free", **keys, runaway="ignore")
    (row,) = run_rows([{"id": 1}], MODELS + "steps:\n" + steps)
    assert row["ended_meta"]["finish_reason"] == "runaway" and row["ended_meta"]["completion_tokens"] < 300
    assert row["free_meta"]["finish_reason"] == "length" and row["free_meta"]["completion_tokens"] == 300
    assert row["free"].startswith(row["ended"])
    (row,) = run_rows([{"id": 1}], MODELS + "steps:\n" + steps, "--restart", "--set", "steps.ended.on_length=error")
    assert error_of(row) == ("ended", "runaway")


def test_equal_rows_are_computed_once_and_counted_each(millstream, run_rows, tmp_path):
    steps = "steps:\n" + generate("a", prompt="Name a colour", max_tokens=30, min_tokens=30)
    (alone,) = run_rows([{"id": 0}], MODELS + steps)
    rows = [{"id": number} for number in range(20)]
    found = run_rows(rows, MODELS + steps, "--restart")
    assert [row["id"] for row in found] == list(range(20))
    assert all((row["a"], row["a_meta"]) == (alone["a"], alone["a_meta"]) for row in found)
    said = millstream("run", tmp_path / "job.yaml", "--restart", "--progress", "json").stderr
    end = json.loads(said.splitlines()[-1])
    computed = 20 - end["shared_requests"]
    assert computed < 20 and end["completion_tokens"] == 30 * computed
    assert end["prompt_tokens"] == alone["a_meta"]["prompt_tokens"] * computed


@pytest.mark.parametrize("side", ["left", "right"])
def test_overflow_cuts_the_named_text_alone_or_is_an_error(run_rows, side):
    words = " ".join(f"w{number}" for number in range(200))
    rows = [{"text": "short", "note": "n"}, {"text": words, "note": "n"}, {"text": "short", "note": words}]
    models = "models: {small: {path: smollm2-135m-instruct, context: 100}}\n"
    keys = {"system": "S", "prompt": "Text: {{ text }} | Note: {{ note }} | End", "max_tokens": 2, "keep_prompt": True}
    steps = generate("cut", on_overflow={"truncate": ["text"], "side": side}, **keys)
    short, long, note = run_rows(rows, models + "steps:\n" + steps)
    assert not short["cut_meta"]["truncated"] and long["cut_meta"]["truncated"]
    assert (
        short["cut_prompt"]
        == turn("system", "S") + turn("user", "Text: short | Note: n | End") + "<|im_start|>assistant\n"
    )
    frame = re.escape(short["cut_prompt"]).replace("short", "(.*)")
    kept = re.fullmatch(frame, long["cut_prompt"], re.DOTALL)[1]
    assert kept and (words.startswith(kept) if side == "right" else words.endswith(kept))
    assert 90 <= long["cut_meta"]["prompt_tokens"] <= 98  # nearly all the room is used
    assert error_of(note) == ("cut", "context_overflow")
    _, long, _ = run_rows(rows, models + "steps:\n" + generate("cut", **keys), "--restart")
    assert error_of(long) == ("cut", "context_overflow")


def test_samples_are_lists_with_draws_of_their_own(run_rows):
    keys = {"prompt": "Invent a name", "n": 3, "temperature": 1.5, "max_tokens": 8, "keep_prompt": True}
    steps = (
        generate("a", **keys)
        + generate("b", **keys | {"seed": 5})
        + generate("c", **keys | {"seed": 5})
        + generate("d", **keys, structured_outputs={"json": {"type": "integer", "minimum": 0, "maximum": 9}})
    )
    first, second = run_rows([{"id": 1}, {"id": 1}], MODELS + "steps:\n" + steps)
    for row in (first, second):
        for column in "abcd":
            assert len(row[column]) == len(row[f"{column}_meta"]) == 3 and isinstance(row[f"{column}_prompt"], str)
        assert all(isinstance(number, int) and 0 <= number <= 9 for number in row["d"])
    answers = [tuple(row[column]) for row in (first, second) for column in "abc"]  # of six streams
    assert len(set(answers)) == len(answers) and len(set(first["a"])) > 1
    again, _ = run_rows([{"id": 1}, {"id": 1}], MODELS + "steps:\n" + steps, "--restart")
    assert again == first


def test_a_seed_of_each_row(run_rows):
    keys = {"prompt": "Invent a name", "temperature": 1.5, "max_tokens": 8}
    rows = [{"s": 5}, {"s": 6}, {"s": 1.5}, {"s": 1e17}]
    five, six, fraction, large = run_rows(rows, MODELS + "steps:\n" + generate("a", **keys, seed="{{ s }}"))
    five_again, six_of_five = run_rows(
        [{"s": 5}, {"s": 6}], MODELS + "seed: 5\nsteps:\n" + generate("a", **keys), "--restart"
    )
    assert five["a"] == five_again["a"] and six["a"] != six_of_five["a"]
    for row, problem in [(fraction, "whole number"), (large, "at most 9007199254740992")]:
        assert error_of(row) == ("a", "bad_parameter") and problem in row["_error"]["message"]


def test_one_failed_sample_fails_the_row(run_rows):
    steps = generate(
        "a",
        prompt="Digits",
        n=2,
        temperature=100,
        max_tokens=3,
        structured_outputs={"regex": "[0-9]{2}|[a-e][0-9]{40}"},
    )
    rows = run_rows([{"id": number} for number in range(24)], MODELS + "steps:\n" + steps)
    for row in rows:
        if row["_status"] == "ok":
            assert all(re.fullmatch("[0-9]{2}", answer) for answer in row["a"])
        else:
            assert error_of(row) == ("a", "invalid_output") and row["a"] is None
    assert {row["_status"] for row in rows} == {"ok", "error"}


def test_prompts_are_what_the_job_says(run_rows, tmp_path):
    (tmp_path / "plain.jinja").write_text(
        "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}{{ mood }}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    talk = [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "{{ name }}"}]},
        {"role": "{{ who }}", "content": "Once upon"},
    ]
    common = {"max_tokens": 1, "keep_prompt": True}
    steps = (
        generate("plain", prompt="Hi {{ name }}", **common)
        + generate("list", messages=talk, **common)
        + generate("continued", messages=talk, continue_final_message=True, **common)
        + generate("column", messages="talk", **common)
        + generate("raw", raw_prompt="<|im_start|>Hi {{ name }}", **common)
        + generate("own", messages=talk, chat_template="plain.jinja", chat_template_kwargs={"mood": "calm"}, **common)
    )
    rows = [{"name": "Ann", "who": "assistant", "talk": [{"role": "user", "content": "column {{ name }}"}]}]
    (row,) = run_rows(rows, MODELS + "steps:\n" + steps)
    ask = "<|im_start|>assistant\n"
    assert row["plain_prompt"] == turn("system", SYSTEM) + turn("user", "Hi Ann") + ask
    conversation = turn("system", "Be brief") + turn("user", "Hi Ann") + turn("assistant", "Once upon")
    assert row["list_prompt"] == conversation + ask
    assert row["continued_prompt"] == conversation.removesuffix("<|im_end|>\n")
    assert row["column_prompt"] == turn("system", SYSTEM) + turn("user", "column {{ name }}") + ask
    assert row["raw_prompt"] == "<|im_start|>Hi Ann"
    assert row["own_prompt"] == "[system|Be brief][user|Hi Ann][assistant|Once upon]calm>"


def test_text_of_rows_never_becomes_a_special_token(run_rows):
    marks = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    rows = [{"id": number, "text": mark, "left": mark[:5], "right": mark[5:]} for number, mark in enumerate(marks)]
    steps = "".join(
        generate(name, raw_prompt=prompt, max_tokens=1, **keys)
        for name, prompt, keys in [
            ("row", "a{{ text }}b", {}),
            ("pieces", "a{{ left }}{{ right }}b", {}),
            ("filtered", "a{{ (left ~ right)|upper|lower }}b", {}),
            ("parsed", "a{{ text }}b", {"parse_special": True}),
        ]
    ) + "".join(generate(f"own{number}", raw_prompt=f"a{mark}b", max_tokens=1) for number, mark in enumerate(marks))
    for number, row in enumerate(run_rows(rows, MODELS + "steps:\n" + steps)):
        tokens = {name: row[f"{name}_meta"]["prompt_tokens"] for name in ("row", "pieces", "filtered", "parsed")}
        # A special token is one token; as text, "<|im_end|>" takes several.
        assert tokens["parsed"] == row[f"own{number}_meta"]["prompt_tokens"] == 3
        assert tokens["row"] == tokens["pieces"] == tokens["filtered"] > 6


def test_stop_strings_cut_the_greedy_answer(run_rows):
    keys = {"prompt": "Count from one to ten", "max_tokens": 24}
    (whole,) = run_rows([{"id": 1}], MODELS + "steps:\n" + generate("a", **keys))
    text = whole["a"]
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    steps = generate("cut", stop=["not there", stop], **keys) + generate(
        "included", stop=stop, include_stop_str_in_output=True, **keys
    )
    (row,) = run_rows([{"id": 1}], MODELS + "steps:\n" + steps, "--restart")
    assert row["cut"] == text[: text.find(stop)]
    assert row["included"] == text[: text.find(stop)] + stop
    assert row["cut_meta"]["finish_reason"] == "stop"
    assert row["cut_meta"]["completion_tokens"] < whole["a_meta"]["completion_tokens"]


def test_settings_out_of_range_fail_their_row_alone(run_rows):
    settings = {
        "max_tokens": ([2], [0, 1.5, None, "2"]),
        "min_tokens": ([0, 1], [-1]),
        "temperature": ([0, 0.5], [-0.1, 101]),
        "top_k": ([-1, 0, 5], [-2, 0.5]),
        "top_p": ([0.5, 1], [0, 1.01]),
        "min_p": ([0, 1], [-0.01, 2]),
        "repetition_penalty": ([1.1], [0]),
        "presence_penalty": ([-2, 2], [-2.1]),
        "frequency_penalty": ([0.5], [2.5]),
    }
    good = {name: values[0][0] for name, values in settings.items()}
    rows = [good | {name: value} for name, (values, _) in settings.items() for value in values]
    bad = [(name, value) for name, (_, values) in settings.items() for value in values]
    rows += [good | {name: value} for name, value in bad]
    keys = {name: f"{{{{ {name} }}}}" for name in settings}
    steps = generate("a", prompt="Hi", **keys)
    found = run_rows(rows, MODELS + "steps:\n" + steps, "--set", "input.schema.max_tokens=json")
    for row in found[: -len(bad)]:
        assert row["_status"] == "ok", row["_error"]
    for (name, _), row in zip(bad, found[-len(bad) :], strict=True):
        assert error_of(row) == ("a", "bad_parameter") and row["_error"]["message"].startswith(f"{name} must be")


def test_steps_see_the_answers_before_them_and_models_stand_side_by_side(run_rows):
    models = "models: {small: {path: smollm2-135m-instruct}, exact: {path: smollm2-135m-instruct, compute: f32}}\n"
    steps = (
        generate("colour", prompt="A colour?", structured_outputs={"choice": ["red", "blue"]})
        + '  - filter: "{{ id != 2 }}"\n'
        + '  - set: {loud: "{{ colour|upper }}!"}\n'
        + generate("echo", model="exact", raw_prompt="{{ loud }} {{ colour }}", max_tokens=1, keep_prompt=True)
        + '  - check: {that: "{{ id != 3 }}"}\n'
    )
    one, two, three = run_rows([{"id": 1}, {"id": 2}, {"id": 3}], models + "steps:\n" + steps)
    assert one["colour"] in ("red", "blue")
    assert one["echo_prompt"] == f"{one['colour'].upper()}! {one['colour']}"
    assert (two["_status"], two["id"], two["colour"]) == ("skipped", 2, None)
    assert error_of(three) == ("check1", "check_failed") and three["id"] == 3


def test_a_job_reads_the_answers_of_another(run_rows, millstream, tmp_path):
    steps = generate("a", prompt="{{ text }}", structured_outputs={"choice": ["x"]})
    run_rows([{"text": "t"}, {"text": None}], MODELS + "steps:\n" + steps)
    (tmp_path / "next.yaml").write_text(
        "input: out\nsteps: [{set: {b: '{{ a }}{{ a_meta.completion_tokens }}'}}]\noutput: next.jsonl\n"
    )
    millstream("run", tmp_path / "next.yaml")
    (row,) = read_rows(tmp_path / "next.jsonl")
    assert row["text"] == "t" and row["b"] == f"x{row['a_meta']['completion_tokens']}"


def test_dry_run_shows_the_lengths_of_prompts_and_what_exceeds_the_context(millstream, tmp_path):
    rows = [{"text": " a" * count} for count in (10, 20, 30, 49, 50, 51, 500)] + [{"text": None}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "job.yaml").write_text(
        "models: {small: {path: smollm2-135m-instruct, context: 100}}\ninput: rows.jsonl\noutput: out\nsteps:\n"
        + generate("a", raw_prompt="{{ text }}", max_tokens=50)
    )
    plan = millstream("run", tmp_path / "job.yaml", "--dry-run").stdout
    assert "prompt tokens over 7 sampled rows: p50 49, p95 51, max 500\n" in plan
    assert "over the context with max_tokens: 2 of them (28.6 %)\n" in plan
    assert "errors to expect: 2 x context_overflow" in plan and "errors to expect: 1 x undefined_value" in plan


def test_a_job_goes_on_with_what_auto_meant_when_it_was_planned(run_rows, millstream, tmp_path):
    """As after an update that computes otherwise: the plan of a finished job is made one of an older version."""
    run_rows([{"id": 1}], MODELS + "steps:\n" + generate("answer", prompt="Hi"))
    state = tmp_path / "out.millstream"
    job = json.loads((state / "job.json").read_text())
    plan = json.loads((state / job["plan"]).read_text())
    assert plan["models"]["small"]["compute"] == "int8"
    text = (state / job["plan"]).read_text().replace('"int8"', '"f32"')
    (state / job["plan"]).unlink()
    name = "plan-" + xxhash.xxh3_64_hexdigest(text.encode())
    (state / name).write_text(text)
    (state / "job.json").write_text(json.dumps({**job, "plan": name}))
    millstream("run", tmp_path / "job.yaml")
    failed = millstream("run", tmp_path / "job.yaml", "--set", "models.small.compute=bf16", exit_code=1)
    assert "models.small.compute: f32 -> bf16" in failed.stderr
