# SPDX-License-Identifier: Apache-2.0
"""The command `millstream`."""

import os
import pathlib
import sys

BINARY = pathlib.Path(__file__).parent / "bin" / "millstream"


def main():
    """Becomes the program, with the arguments of this process, and tells it which Python this is."""
    environment = {"MILLSTREAM_PYTHON": sys.executable, **os.environ}
    os.execve(BINARY, [str(BINARY), *sys.argv[1:]], environment)
