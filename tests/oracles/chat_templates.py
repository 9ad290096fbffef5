#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/chat-templates.json: what transformers renders from chat templates in the styles of well-known
models (written anew here), for template_test.cc. Needs transformers (5.19) and jinja2.
"""

import datetime
import json
import pathlib

import transformers
from transformers.utils import chat_template_utils

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
NOW = 1_764_068_645  # 2025-11-25 11:04:05 UTC

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CHATML = """
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

DATED = """{{- bos_token }}
{%- set date_string = date_string if date_string is defined else strftime_now("%d %b %Y") %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Tools: " }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

ALTERNATING = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("conversation roles must alternate user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("only user and assistant roles are supported, not " + message["role"]) }}
    {%- endif %}
{%- endfor %}
"""

THINKING = """
{%- set ns = namespace(last_query=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.found = true %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
        {%- for part in message.content if part.type == 'text' %}{% set content = content + part.text %}{% endfor %}
    {%- endif %}
    {%- if message.role in ["user", "system"] %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

TURNS = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

MIXED = """{% macro line(name, value, end='\\n') -%}
{{ name|upper }}={{ value }}{{ end }}
{%- endmacro %}
{%- for key, value in options.items()|sort %}{{ line(key, value) }}{% endfor %}
{%- for message in messages %}
    {%- if loop.index > 3 %}{% break %}{% endif %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
    {{- loop.index ~ '/' ~ loop.length }} {{ message.role.title() }}: {{ message.content.replace('a', 'A').splitlines()|join(' / ') }}
    {%- if loop.nextitem is defined %} -> {{ loop.nextitem.role }}{% endif %}
    {{- ' ' + message.get('name', '?') + '|' + message.content[:3] + '|' + message.content[-2:] }}
{% endfor %}
{{ messages|map(attribute='role')|list|tojson }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }}
{{ none }} {{ true }} {{ 1.5 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ -7 % 3 }} {{ [1, 'a', none] }} {{ undefined_name }}
{{ messages[0] is mapping }} {{ messages is sequence }} {{ 'x' in 'xyz' }} {{ {'b': 1, 'a': [1.0, 'é<']}|tojson }}
{{ '%s-%02d' % ('n', 5) if false else 'no' }} {{ 'a,b'.split(',') | last }} {{ ' x '|trim }}{{ 'abc'|first }}{{ messages | rejectattr('role', 'in', ['user']) | list | length }}
"""

TALK = [
    {"role": "system", "content": "You are  terse. "},
    {"role": "user", "content": "  Hi <there>\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello, é!  "},
    {"role": "user", "content": "And 1+1?"},
]
ANSWERED = [*TALK, {"role": "assistant", "content": "It is "}]
TOOLS = [TALK[1], {"role": "assistant", "content": "Wait"}, {"role": "tool", "content": "<tool_response>"}, {"role": "tool", "content": "2"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}]
CASES = [
    {"messages": TALK[1:2]},
    {"messages": TALK},
    {"messages": TALK[1:], "add_generation_prompt": True},
    {"messages": TALK, "add_generation_prompt": True, "kwargs": {"enable_thinking": False, "date_string": "today", "options": {"b": 1, "a": "x"}}},
    {"messages": ANSWERED, "continue_final_message": True, "kwargs": {"options": {}}},
    {"messages": ANSWERED[1:], "continue_final_message": True},
    {"messages": ANSWERED[1:3], "continue_final_message": True},
    {"messages": TOOLS, "add_generation_prompt": True, "kwargs": {"options": {"k": None}}},
    {"messages": PARTS, "add_generation_prompt": True},
    {"messages": [{"role": "user", "content": ""}], "kwargs": {"options": {"t": True, "f": 1.0}}},
    {"messages": [{"role": "user", "content": "x"}], "kwargs": {"tools": [{"type": "function", "function": {"name": "f", "ü": [1, {}, []]}}]}},
    {"messages": [{"role": "judge", "content": "x"}]},
]
TEMPLATES = {"smollm2": SMOLLM2, "chatml": CHATML, "dated": DATED, "alternating": ALTERNATING, "thinking": THINKING, "turns": TURNS, "mixed": MIXED}


class FixedNow(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)


def render(template, case):
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [case["messages"]],
            chat_template=template,
            continue_final_message=case.get("continue_final_message", False),
            add_generation_prompt=case.get("add_generation_prompt", False),
            bos_token="<s>",
            eos_token="</s>",
            **case.get("kwargs", {}),
        )
        return rendered[0]
    except Exception:
        return None  # an error there must be one here


def main():
    chat_template_utils.datetime = FixedNow
    results = []
    for name, template in TEMPLATES.items():
        results += [{"template": name, "case": at, "text": render(template, case)} for at, case in enumerate(CASES)]
    out = {"made_by": f"transformers {transformers.__version__}", "now": NOW, "templates": TEMPLATES, "cases": CASES, "results": results}
    (DATA / "chat-templates.json").write_text(json.dumps(out, indent=1) + "\n")


main()
