# SPDX-License-Identifier: Apache-2.0
"""Writes tiny-llama/: a safetensors folder of one layer, written by the `safetensors` package, in two shards.

usage: python make_tiny_llama.py   (needs: pip install safetensors==0.4.5 numpy)
Value i of a tensor is i / 64 in F32, F16 and BF16 alike; tiny-llama.tsv has each one's type, shape and CRC-32.
"""
import json
import pathlib
import zlib

import numpy as np
import safetensors

HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, VOCABULARY = 8, 12, 2, 1, 5
KV = HIDDEN // HEADS * KV_HEADS
folder = pathlib.Path(__file__).parent / "tiny-llama"
folder.mkdir(exist_ok=True)


def raw(kind, shape):
    values = (np.arange(np.prod(shape)) / 64).astype(np.float32)
    if kind == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype(kind).tobytes()


layer = "model.layers.0."
shards = {
    "model-00001-of-00002.safetensors": {
        "model.embed_tokens.weight": ("bfloat16", (VOCABULARY, HIDDEN)),
        layer + "input_layernorm.weight": ("float32", (HIDDEN,)),
        layer + "self_attn.q_proj.weight": ("float16", (HIDDEN, HIDDEN)),
        layer + "self_attn.q_proj.bias": ("float16", (HIDDEN,)),
        layer + "self_attn.k_proj.weight": ("float16", (KV, HIDDEN)),
        layer + "self_attn.k_proj.bias": ("float16", (KV,)),
        layer + "self_attn.v_proj.weight": ("bfloat16", (KV, HIDDEN)),
        layer + "self_attn.v_proj.bias": ("bfloat16", (KV,)),
        layer + "self_attn.o_proj.weight": ("float32", (HIDDEN, HIDDEN)),
        layer + "self_attn.o_proj.bias": ("float32", (HIDDEN,)),
    },
    "model-00002-of-00002.safetensors": {
        layer + "post_attention_layernorm.weight": ("bfloat16", (HIDDEN,)),
        layer + "mlp.gate_proj.weight": ("bfloat16", (FEED_FORWARD, HIDDEN)),
        layer + "mlp.up_proj.weight": ("float16", (FEED_FORWARD, HIDDEN)),
        layer + "mlp.down_proj.weight": ("float32", (HIDDEN, FEED_FORWARD)),
        layer + "self_attn.rotary_emb.inv_freq": ("float32", (2,)),
        "model.norm.weight": ("float16", (HIDDEN,)),
        "lm_head.weight": ("float16", (VOCABULARY, HIDDEN)),
    },
}
with open(folder.parent / "tiny-llama.tsv", "w") as table:
    for file, tensors in shards.items():
        data = {name: {"dtype": kind, "shape": list(shape), "data": raw(kind, shape)} for name, (kind, shape) in tensors.items()}
        safetensors.serialize_file(data, folder / file, {"format": "pt"})
        with safetensors.safe_open(folder / file, framework="numpy") as check:
            for name, (kind, shape) in tensors.items():
                assert check.get_slice(name).get_shape() == list(shape)
                type_name = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[kind]
                print(name, type_name, ",".join(map(str, shape)), zlib.crc32(raw(kind, shape)), sep="\t", file=table)

weight_map = {name: file for file, tensors in shards.items() for name in tensors}
files = {
    "model.safetensors.index.json": {"metadata": {}, "weight_map": weight_map},
    "config.json": {
        "architectures": ["LlamaForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "evil.Model"},
        "attention_bias": True,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 64,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        "tie_word_embeddings": False,
        "eos_token_id": [3, 4],
    },
    "generation_config.json": {"temperature": 0.6, "top_p": 0.9, "top_k": 40, "max_new_tokens": 7, "eos_token_id": 4},
    "tokenizer.json": {
        "version": "1.0",
        "added_tokens": [
            {"id": 2, "content": "<|begin|>", "special": True},
            {"id": 3, "content": "<|eot_id|>", "special": True},
            {"id": 4, "content": "<|stop|>", "special": True},
        ],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    },
    "tokenizer_config.json": {
        "bos_token": {"content": "<|begin|>"},
        "eos_token": "<|stop|>",
        "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}],
    },
}
for name, value in files.items():
    (folder / name).write_text(json.dumps(value, indent=1) + "\n")
