# SPDX-License-Identifier: Apache-2.0
"""Lines of OpenAI Batch files for the tests of `millstream batch`."""

import json

MODEL = "smollm2-135m-instruct"


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


def served(server, *names):
    return ["--base-url", server.url, *(word for name in names for word in ("--served-model-name", name))]
