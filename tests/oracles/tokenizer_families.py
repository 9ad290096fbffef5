#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/tokenizer-families.json: small tokenizers of the kinds that models have, trained on glosses.jsonl,
with the token ids of some texts, plain and as row text, for tokenizer_test.cc. Needs tokenizers (0.23).
"""

import json
import pathlib

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
LINES = [json.loads(line)["text"] for line in (DATA / "glosses.jsonl").open()]
TEXTS = [
    "", " ", "a", "the quick  brown fox", "  leading", "trailing  ", "Grüße, 世界 🙂", "a\n\nb\t c", "naïve Café", "12345 3.14",
    "<s>", "x</s>", "<s> the </s> end", "the<mask>art", "the <mask> art", "a<sep> b", "a <sep>b", "wordy word words", "word, (word)",
    "the</s></s> river", "<s", "unknown \u0001 \ufffd", "It's", "▁x ▁", "[CLS] the [SEP]", "HELLO World", "<extra> the<extra>",
]


def specials():
    return [
        AddedToken("<unk>", special=True, normalized=False),
        AddedToken("<s>", special=True, normalized=False),
        AddedToken("</s>", special=True, normalized=False),
        AddedToken("<mask>", special=True, normalized=False, lstrip=True),
        AddedToken("<sep>", special=True, normalized=False, rstrip=True),
        AddedToken("word", special=True, normalized=False, single_word=True),
    ]


def add(tokenizer):
    tokenizer.add_special_tokens(specials())
    tokenizer.add_tokens([AddedToken("<extra>", special=False, normalized=False)])
    return tokenizer


def around(tokenizer, before, after):
    ids = [(text, tokenizer.token_to_id(text)) for text in (before, after)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{before} $A {after}", special_tokens=ids)
    return tokenizer


def unigram(scheme):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.train_from_iterator(LINES, trainers.UnigramTrainer(vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False))
    return around(add(tokenizer), "<s>", "</s>")


def byte_fallback():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *byte_tokens], max_token_length=12, show_progress=False))
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = []  # bytes are ordinary tokens
    return add(Tokenizer.from_str(json.dumps(spec)))


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    return around(tokenizer, "[CLS]", "[SEP]")


def byte_level(prefix):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    return add(tokenizer)


def case(tokenizer, text):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    out = {"text": text}
    for key, split in (("ids", False), ("row_ids", True)):
        tokenizer.encode_special_tokens = split
        out[key] = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    out["with_special"] = tokenizer.encode(text, add_special_tokens=True).ids
    out["decoded"] = tokenizer.decode(out["row_ids"], skip_special_tokens=False)
    return out


def main():
    families = {
        "unigram-first": unigram("first"),
        "unigram-always": unigram("always"),
        "byte-fallback": byte_fallback(),
        "word-piece": word_piece(),
        "byte-level": byte_level(False),
        "byte-level-prefix": byte_level(True),
    }
    out = {"made_by": f"tokenizers {tokenizers.__version__}", "families": []}
    for name, tokenizer in families.items():
        spec = json.loads(tokenizer.to_str())
        out["families"].append({"name": name, "tokenizer": spec, "cases": [case(tokenizer, text) for text in TEXTS]})
    (DATA / "tokenizer-families.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


main()
