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
    """What the workers of each driver of a job have answered, gathered by looks at its state; logs go once their part
    stands. Workers of one driver may answer a row twice, where one makes a copy of what stands still at another."""

    def __init__(self, state):
        self.state = state
        self.by_epoch = {}
        self.before = {}  # what stood before an epoch began

    def look(self):
        rows = set().union(*self.by_epoch.values())
        for journal in self.state.glob("journal-*"):
            self.before.setdefault(int(journal.name.split("-")[1]), rows)
        for folder, _, logs in os.walk(self.state / "rows"):  # passes over what is gone
            for log in logs:
                epoch, _, _ = map(int, log.split("-"))
                with contextlib.suppress(FileNotFoundError):
                    answered = records_in(pathlib.Path(folder, log).read_bytes())
                    self.by_epoch.setdefault(epoch, set()).update(answered)

    def check(self):
        self.look()
        for epoch, before in self.before.items():
            again = self.by_epoch.get(epoch, set()) & before
            assert not again, f"{again} were answered before epoch {epoch} began, and are computed again"
