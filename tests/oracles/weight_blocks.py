#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/weight-blocks.tsv: blocks of random bits in each of ggml's block types that we read, and the f32
values that the `gguf` Python package makes of them, for dequantize_test.cc. Needs gguf (0.19).
"""

import pathlib
import random

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "weight-blocks.tsv"
# Where a block has f16 scales, which random bits would make NaN or huge.
SCALES = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}

draw = random.Random(1)
with OUT.open("w") as out:
    for name, places in SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        for _ in range(2 if values == 32 else 1):
            block = bytearray(draw.randbytes(size))
            for place in places:
                block[place : place + 2] = np.float16(draw.uniform(-0.1, 0.1)).tobytes()
            row = gguf.dequantize(np.frombuffer(block, np.uint8).reshape(1, size), kind)
            print(name, block.hex(), row.astype("<f4").tobytes().hex(), sep="\t", file=out)
