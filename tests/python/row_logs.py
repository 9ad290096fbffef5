# SPDX-License-Identifier: Apache-2.0
"""Reads the row logs of a job at work, as docs/formats.md states them: which worker has answered which row."""

import contextlib
import os
import pathlib
import struct

RECORD = struct.Struct("<IIBBIQQ")
KEY = struct.Struct("<QQIIQ")  # up to the row's number in its file


def records_in(log):
    """The rows whose answers are in a log, up to where its writer is just writing."""
    magic = b"MSTREAM\x01"
    assert log.startswith(magic[: len(log)])
    place, records = len(magic), set()
    while place + RECORD.size <= len(log):
        length, _, kind, *_ = RECORD.unpack_from(log, place)
        place += RECORD.size
        if place + length > len(log):
            break
        if kind == 1:
            records.add(KEY.unpack_from(log, place)[4])
        place += length
    return records


class AnswersOfWorkers:
    """What each worker of a job has answered, gathered by looks at its state; logs go once their part stands."""

    def __init__(self, state):
        self.state = state
        self.by_worker = {}  # (epoch, worker): rows
        self.before = {}  # what stood before an epoch began, by the epoch

    def look(self):
        rows = set().union(*self.by_worker.values())
        for journal in self.state.glob("journal-*"):
            self.before.setdefault(int(journal.name.split("-")[1]), rows)
        for folder, _, logs in os.walk(self.state / "rows"):  # passes over what is gone
            for log in logs:
                epoch, worker, _ = map(int, log.split("-"))
                with contextlib.suppress(FileNotFoundError):
                    answered = records_in(pathlib.Path(folder, log).read_bytes())
                    self.by_worker.setdefault((epoch, worker), set()).update(answered)

    def check(self):
        """Returns how many rows two workers of one epoch have answered."""
        self.look()
        twice = 0
        for epoch in sorted(self.before):
            workers = [rows for (its, _), rows in self.by_worker.items() if its == epoch]
            answered = set().union(*workers)
            again = answered & self.before[epoch]
            assert not again, f"{again} were answered before epoch {epoch} began, and are computed again"
            twice += sum(map(len, workers)) - len(answered)
        return twice
