# SPDX-License-Identifier: Apache-2.0
"""A server with OpenAI's API as a program of its own, which dies of some prompts: `mortal_server.py PORT FOLDER`. What
it answers in full is a line of FOLDER/answered, and each of its lives one of FOLDER/lives, with its pid. On `wait` it
writes to the pipe FOLDER/waits, and waits."""

import os
import pathlib
import signal
import sys

from openai_stub import Handler, Server, text_of

FOLDER = pathlib.Path(sys.argv[2])

DEATHS = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def note(name, line):
    with (FOLDER / name).open("a") as file:
        file.write(f"{line}\n")


def script(body):
    text = text_of(body)
    if text.endswith("wait"):
        (FOLDER / "waits").write_text("now")
        signal.pause()
    for word, die in DEATHS.items():
        once = FOLDER / f"once {word}"
        if text.endswith(f"{word} once") and not once.exists():
            once.touch()
        elif not text.endswith(word) or (FOLDER / f"no {word}").exists():
            continue
        die()
        signal.pause()  # it takes a moment
    note("answered", text)


class HealthyHandler(Handler):
    def do_GET(self):
        known = self.path in ("/health", "/v1/models")
        self.answer(200 if known else 404, {}, b"{}")


def main():
    server = Server(script=script, port=int(sys.argv[1]))
    server.RequestHandlerClass = HealthyHandler
    note("lives", os.getpid())
    print("serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
