# SPDX-License-Identifier: Apache-2.0
"""Frames between us and a `millstream` process: a length of 4 bytes, then a kind and what goes with it, as
src/job/cluster_wire.h says. Numbers are little-endian. What is in a job, a report or an answer only the processes know.
"""

import os
import socket
import struct
import subprocess
import sys
import threading

BEGIN, JOIN, REPORT, DIED, DRAIN, STOP, READY, ANSWER, SHOW, SAY, END, FAIL = range(1, 13)


def frame(kind, *numbers, body=b""):
    """The bytes of a frame, without its length."""
    return struct.pack(f"<B{len(numbers)}q", kind, *numbers) + body


class Link:
    """A socket that carries frames. Any threads may send; one may receive."""

    def __init__(self, sock):
        self._socket = sock
        self._bytes = b""
        self._sending = threading.Lock()

    def send(self, content):
        """Sends a frame; False if nobody is there."""
        try:
            with self._sending:
                self._socket.sendall(struct.pack("<I", len(content)) + content)
            return True
        except OSError:
            return False

    def receive(self, timeout=None):
        """The next frame, or None at the end. TimeoutError if none has come in so many seconds."""
        self._socket.settimeout(timeout)
        while True:
            if len(self._bytes) >= 4:
                end = 4 + struct.unpack_from("<I", self._bytes)[0]
                if len(self._bytes) >= end:
                    content, self._bytes = self._bytes[4:end], self._bytes[end:]
                    return content
            try:
                received = self._socket.recv(1 << 16)
            except ConnectionError:
                return None
            if not received:
                return None
            self._bytes += received

    def close(self):
        self._socket.close()


def start(binary, command):
    """Starts `millstream COMMAND` with a link at its standard input. Returns the process and our end of the link."""
    ours, theirs = socket.socketpair()
    environment = os.environ | {"MILLSTREAM_PYTHON": sys.executable}  # whose packages may be models
    with theirs:
        process = subprocess.Popen([binary, command], stdin=theirs, env=environment, start_new_session=True)
    return process, Link(ours)
