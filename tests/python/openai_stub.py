# SPDX-License-Identifier: Apache-2.0
"""A server with OpenAI's API on the loopback interface for tests: it answers with what it was asked, and has faults as
a bad day brings them."""

import collections
import json
import random
import threading
import time

from stub_server import StubHandler, StubServer

# What may happen to a request, with its weight. None says anything about the row: asked again, it is answered.
FAULTS = {
    "busy": 4,  # 429, with a Retry-After or without
    "unavailable": 4,  # 500, 502 or 503
    "reset": 3,  # the connection breaks before anything was done
    "lost_answer": 3,  # it breaks after the answer was computed
    "cut_body": 3,  # the answer ends before the length it gave
    "garbled": 2,  # the answer is no JSON
    "foreign": 1,  # 200 with another program's page
}


DEEP = b"[" * 3_000_000 + b"]" * 3_000_000  # no stack has room for a function that goes down there


def text_of(body):
    """What is asked: the last message, or the raw prompt."""
    if "prompt" in body:
        return body["prompt"]
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def answer_of(text):
    return f"re: {text}"


def completion(body, text, **changes):
    """The completion object that an undisturbed server answers with."""
    is_chat = "messages" in body
    choice = {"index": 0, "finish_reason": "stop"} | changes
    choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    usage = {"prompt_tokens": len(text_of(body).split()), "completion_tokens": len((text or "").split())}
    kind = "chat.completion" if is_chat else "text_completion"
    return {"id": "x", "object": kind, "model": body["model"], "choices": [choice], "usage": usage}


class Limit:
    """A script for a server: it takes `most` requests in any stretch of `seconds`, and refuses what is more. With
    `tells` it counts from full second to full second instead, and says in headers what is left."""

    def __init__(self, most, seconds=1.0, tells=False):
        self.most, self.seconds, self.tells = most, seconds, tells
        self.lock = threading.Lock()  # of all below
        self.taken = collections.deque()  # when
        self.refused = 0

    def __call__(self, body):
        with self.lock:
            now = time.monotonic()
            begun = now // self.seconds * self.seconds if self.tells else now - self.seconds
            while self.taken and self.taken[0] < begun:
                self.taken.popleft()
            is_taken = len(self.taken) < self.most
            if is_taken:
                self.taken.append(now)
            self.refused += not is_taken
            left = self.most - len(self.taken)
        headers = {"limit": self.most, "remaining": left, "reset": f"{(begun + self.seconds - now) * 1000:.0f}ms"}
        headers = {f"x-ratelimit-{name}-requests": str(value) for name, value in headers.items()} if self.tells else {}
        if is_taken:
            return 200, headers, json.dumps(completion(body, answer_of(text_of(body)))).encode()
        return 429, headers, json.dumps({"error": {"message": "Rate limit reached", "code": None}}).encode()


class Server(StubServer):
    """`with Server() as server:` serves at `server.url` until the block ends. `script(body)` may answer a request
    itself: with a (status, headers, body) of its own, or None."""

    def __init__(self, faults=0.0, seed=0, script=None, key=None, port=0, owner="openai", context=None, tls=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.tls = tls
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.faults, self.script, self.key = faults, script, key
        self.owner, self.context = owner, context  # what it says of itself
        self.random = random.Random(seed)
        self.lock = threading.Lock()  # of all below
        self.bodies, self.headers = [], []  # of all completions, as they came
        self.looks = []  # paths of what else was asked
        self.answered = collections.Counter()  # how often each text was answered in full
        self.num_faults = dict.fromkeys(FAULTS, 0)

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def draw_fault(self):
        with self.lock:
            if self.random.random() >= self.faults:
                return None
            fault = self.random.choices(list(FAULTS), list(FAULTS.values()))[0]
            self.num_faults[fault] += 1
            return fault


class Handler(StubHandler):
    def do_GET(self):
        server = self.server
        with server.lock:
            server.looks.append(self.path)
        if server.key and self.headers.get("authorization") != f"Bearer {server.key}":
            return self.answer_error(401, "Incorrect API key provided")
        if self.path == "/v1/models" and server.owner:
            entry = {"id": "m/1", "object": "model", "owned_by": server.owner}
            entry |= {"max_model_len": server.context} if server.owner != "llamacpp" else {}
            return self.answer(200, {}, json.dumps({"object": "list", "data": [entry]}).encode())
        if self.path == "/props" and server.owner == "llamacpp":
            settings = {"n_ctx": server.context}
            return self.answer(200, {}, json.dumps({"default_generation_settings": settings}).encode())
        self.answer_error(404, "Not Found")

    def count_tokens(self, body):
        """As vLLM and llama-server do, of a model whose tokens are words and whose chat template adds two."""
        if self.path == "/apply-template":
            return {"prompt": "<chat> " + text_of(body) + " <answer>"}
        text = body["content"] if "content" in body else text_of(body)
        return {"tokens": list(range(len(text.split()) + 2 * ("messages" in body)))}

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path in ("/tokenize", "/apply-template"):
            with server.lock:
                server.looks.append(self.path)
            try:
                counted = self.count_tokens(body)
            except (AttributeError, KeyError, TypeError):
                return self.answer_error(400, "no such prompt")
            return self.answer(200, {}, json.dumps(counted).encode())
        with server.lock:
            server.bodies.append((self.path, body))
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
        if server.key and self.headers.get("authorization") != f"Bearer {server.key}":
            return self.answer_error(401, "Incorrect API key provided")
        fault = server.draw_fault()
        if fault == "reset":
            return self.reset()
        if fault == "busy":
            headers = server.random.choice([{}, {"Retry-After": "0"}, {"Retry-After": "0.1"}])
            return self.answer_error(429, "Rate limit reached", headers)
        if fault == "unavailable":
            return self.answer_error(server.random.choice([500, 502, 503]), "try later")
        if fault == "garbled":
            return self.answer(200, {}, b'{"choices": [{"mess')
        if fault == "foreign":
            return self.answer(200, {"Content-Type": "text/html"}, b"<html>Welcome</html>")
        scripted = server.script(body) if server.script else None
        if scripted:
            return self.answer(*scripted)
        text = text_of(body)
        reply = json.dumps(completion(body, answer_of(text))).encode()
        if fault == "lost_answer":
            return self.reset()
        if fault != "cut_body":
            with server.lock:
                server.answered[text] += 1
        self.answer(200, {}, reply, cut=fault == "cut_body")

    def answer_error(self, status, message, headers=None):
        self.answer(status, headers or {}, json.dumps({"error": {"message": message, "code": None}}).encode())

    def answer(self, status, headers, body, cut=False):
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.reset()
