# SPDX-License-Identifier: Apache-2.0
"""Millstream runs language models over large data sets. The program lies in this package, with the libraries that it
needs: the command `millstream` and `python -m millstream` run it."""

__version__ = "0.1.0"  # CMakeLists.txt has it too; scripts/wheel compares
