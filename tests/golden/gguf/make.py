# SPDX-License-Identifier: Apache-2.0
#
# Writes package.gguf with the Python package gguf (0.10 or later, and numpy). Run by hand in this folder:
#     python make.py            make it
#     python make.py FILE       list the keys and tensors of FILE, to look at what our own writer made
import sys

import gguf
import numpy as np


def make():
    w = gguf.GGUFWriter("package.gguf", "llama")
    w.add_block_count(3)
    w.add_uint64("x.u64", 1 << 40)
    w.add_token_list(["<s>", "a", "b", "\u00e4"])
    w.add_tensor("f32", np.arange(10, dtype=np.float32).reshape(2, 5) / 4)
    w.add_tensor("f16", np.arange(7, dtype=np.float16))
    values = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)
    w.add_tensor("q8", gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0),
                 raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def show(path):
    r = gguf.GGUFReader(path)
    for f in r.fields.values():
        print(f.name, f.contents())
    for t in r.tensors:
        print(t.name, t.tensor_type.name, t.shape.tolist(), t.data.reshape(-1)[:4].tolist())


show(sys.argv[1]) if len(sys.argv) > 1 else make()
