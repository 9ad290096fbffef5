# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model: one row at a time, a fixed time each, noting when a row begins and when it ends. A module of
its own, so that Ray and Daft can hand it to their workers."""

import os
import threading
import time

_device = threading.Lock()  # there is one, whatever the number of threads


class Model:
    def __init__(self, log, row_ms):
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.seconds = row_ms / 1000

    def infer(self, row):
        with _device:
            os.write(self.log, f"row {row}\n".encode())
            time.sleep(self.seconds)
            os.write(self.log, f"row {row} ended\n".encode())
        return f"answer {row}"
