#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/architectures.json: logits of the tiny random models that llama_test.cc makes, one of each
architecture, computed in f32 by transformers. Needs transformers 5.19 and torch.

usage: MS_TINY_MODELS=FOLDER build/release/bin/model_test --gtest_filter='Architectures*'
       tests/oracles/architectures.py FOLDER
"""

import json
import pathlib
import random
import sys

import torch
import transformers

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
POSITIONS = [0, 40, 99]


def logits(folder, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        rows = model(torch.tensor([tokens])).logits[0]
    return [[float(f"{value:.7g}") for value in rows[position].tolist()] for position in POSITIONS]


def main():
    tokens = random.Random(8).choices(range(264), k=100)
    made_by = f"transformers {transformers.__version__}, torch {torch.__version__}"
    models = {folder.name: logits(folder, tokens) for folder in sorted(pathlib.Path(sys.argv[1]).iterdir())}
    golden = {"made_by": made_by, "tokens": tokens, "positions": POSITIONS, "logits": models}
    (DATA / "architectures.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
