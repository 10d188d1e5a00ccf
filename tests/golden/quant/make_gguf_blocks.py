#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write gguf_blocks.bin: random blocks of every GGUF type that squish reads, and the values the `gguf` package (0.19)
gives for them. Needs gguf and numpy. Per type: u32 order in quant.h from Q4_0 on, u32 columns, u32 bytes of a row,
the row, then f32 values. Rows are drawn until all values are finite.
"""
import pathlib
import struct

import gguf
import numpy as np
from gguf import quants

NAMES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0"]
rng = np.random.default_rng(7)
out = b""
for order, name in enumerate(NAMES):
    kind = gguf.GGMLQuantizationType[name]
    columns, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = 512 // columns
    values = None
    while values is None or not np.isfinite(values).all():
        row = rng.integers(0, 256, (1, blocks * size), dtype=np.uint8)
        with np.errstate(all="ignore"):
            values = quants.dequantize(row, kind).astype(np.float32)
    out += struct.pack("<III", order, 512, row.size) + row.tobytes() + values.tobytes()
pathlib.Path(__file__).with_name("gguf_blocks.bin").write_bytes(out)
