# SPDX-License-Identifier: Apache-2.0
"""Jobs of a tiny model with random weights, run by the real binary: quick enough to be stopped and mended often."""

import json
import subprocess

from torture import DRIVER, MILLSTREAM


class TinyJob:
    """A job in a folder of its own, over lines of {id, text}."""

    def __init__(self, folder, steps, **keys):
        self.folder = folder
        self.file = folder / "job.yaml"
        self.output = folder / "out"
        self.state = folder / "out.millstream"
        subprocess.run([DRIVER, "model", folder / "tiny.gguf"], check=True)
        keys = {
            "models": {"tiny": {"path": "tiny.gguf"}},
            "input": {"path": "rows.jsonl"},
            "split_rows": 4,
            "output": {"path": "out", "format": "jsonl", "rows": ["ok", "error", "skipped"]},
            "steps": steps,
            **keys,
        }
        self.file.write_text(json.dumps(keys))  # which is YAML too

    def write(self, name, ids, text="row {}"):
        """Rows, at the end of a file of the input."""
        with (self.folder / name).open("a") as file:
            file.writelines(json.dumps({"id": id, "text": text.format(id)}) + "\n" for id in ids)

    @staticmethod
    def start(command, *arguments):
        words = [MILLSTREAM, command, *arguments, "--progress", "json"]
        return subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, text=True)

    def parts(self, output=None):
        """The bytes of each part, by its name."""
        return {part.name: part.read_bytes() for part in sorted((output or self.output).iterdir())}

    def rows(self, output=None):
        """All rows, without the version of the spec that made them: each part must be whole."""
        rows = [json.loads(line) for part in self.parts(output).values() for line in part.decode().splitlines()]
        for row in rows:
            del row["_source"]["version"]
        return rows


def tokens_of(stderr):
    """The tokens that a run gave, of what it says with --progress json."""
    events = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return next(event["completion_tokens"] for event in events if event["event"] == "end")
