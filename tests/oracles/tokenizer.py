#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/tokenizer-smollm2.json: what Hugging Face's tokenizer makes of strings that tokenizer_test.cc
builds in the same way. Needs transformers (5.19), tokenizers and gguf; GGUF is the model package's file.

    tests/oracles/tokenizer.py GGUF
"""

import json
import pathlib
import sys

import tokenizers
import transformers

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
BLOCK = 10
NUM_REAL = 10_000
NUM_HOSTILE = 5_000
SPACES = " \t\n\r\u00a0\u2003\u3000\u0085\u200b\u2028"
PIECES = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<|", "|>", "im_end", "<", "'s", "'LL", "'re", "n't"]
RANGES = [(0x21, 0x7E), (0x30, 0x39), (0xA0, 0xFF), (0x370, 0x52F), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x590, 0x97F),
          (0x1F300, 0x1FAFF), (0x300, 0x36F), (0x660, 0x669), (0xFF10, 0xFF5E), (0, 0x10FFFF)]


class Random:
    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % bound


def real(texts, random):
    text = texts[random.below(len(texts))]
    start = random.below(len(text))
    return text[start : start + 1 + random.below(160)]


def hostile(random):
    out = ""
    for _ in range(1 + random.below(24)):
        kind = random.below(len(RANGES) + 2)
        if kind == len(RANGES):
            out += SPACES[random.below(len(SPACES))]
        elif kind == len(RANGES) + 1:
            out += PIECES[random.below(len(PIECES))]
        else:
            low, high = RANGES[kind]
            code = low + random.below(high - low + 1)
            # Neither surrogates nor this project's marks.
            out += "x" if 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDD2 else chr(code)
    return out


def hash_of(lists):
    value = 0xCBF29CE484222325
    for ids in lists:
        for number in [*ids, 0xFFFFFFFF]:
            value = (value ^ number) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def main():
    gguf = pathlib.Path(sys.argv[1])
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)

    # transformers takes every GGUF of this kind for GPT-2's; SmolLM2's own tokenizer.json splits off each digit first.
    steps = tokenizers.pre_tokenizers
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = steps.Sequence([steps.Digits(individual_digits=True), backend.pre_tokenizer])

    def ids(text, as_row_text):
        return tokenizer(text, add_special_tokens=False, split_special_tokens=as_row_text)["input_ids"]

    texts = []
    for name in ("glosses", "shared-prefix"):
        rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").open()]
        texts += [row["text"] for row in rows] + [row["system"] for row in rows[:1] if "system" in row]

    random = Random(1)
    strings = [real(texts, random) for _ in range(NUM_REAL)] + [hostile(random) for _ in range(NUM_HOSTILE)]
    # Every second string is row text.
    lists = [ids(text, at % 2 == 1) for at, text in enumerate(strings)]
    hashes = [hash_of(lists[at : at + BLOCK]) for at in range(0, len(lists), BLOCK)]
    samples = [{"text": text, "row_text": at % 2 == 1, "ids": lists[at]} for at, text in enumerate(strings) if at % 499 == 0]
    made_by = f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"
    out = json.dumps({"made_by": made_by, "samples": samples, "hashes": hashes}, ensure_ascii=True, separators=(",", ":"))
    (DATA / "tokenizer-smollm2.json").write_text(out + "\n")


main()
