# SPDX-License-Identifier: Apache-2.0
"""Make mlx_int4.bin: groups of 64 weights and what MLX's affine quantiser (4 bits, group 64) makes of them.

Needs mlx and numpy (made with mlx 0.32.4, `pip install "mlx[cpu]" numpy`), runs on the CPU backend:

    python make_mlx_int4.py mlx_int4.bin

File, little-endian, one block per source type in the order f32, f16, bf16:
    u32 groups | per group: source[64], codes[32] (element 2b in the low nibble of byte b), scale, bias
source, scale and bias have the block's type.
"""
import sys

import mlx.core as mx
import numpy as np


def families(rng):
    normal = lambda n, s: rng.standard_normal((n, 64)) * s
    one = np.zeros((6, 64))
    one[0, 5], one[1, 63], one[2, 0], one[3, 7], one[4, :32], one[5, :] = 1, -1, 1e-9, -3e-5, 0.25, 0
    ties = rng.integers(0, 31, (6, 64)) * 0.5 * 0.25  # half-way between two codes of a step of 0.25
    ties[:, 0], ties[:, 1] = 0, 3.75
    outlier = normal(8, 0.02)
    outlier[np.arange(8), rng.integers(0, 64, 8)] *= 40
    sparse = normal(6, 0.02) * (rng.random((6, 64)) < 0.3)
    constant = np.array([0.5, -0.5, 0.02, -1e-3, 1e-8, -1e-8, 3000.0, -1.0 / 3])[:, None] * np.ones((1, 64))
    return np.concatenate([
        normal(40, 0.02), rng.uniform(-1, 1, (8, 64)), constant, one, ties, -ties, outlier, sparse,
        -np.abs(normal(6, 0.05)), np.abs(normal(6, 0.05)), normal(4, 1e-6), normal(4, 1e-9), normal(4, 1e-30),
        normal(4, 9000), normal(6, 1) * 10.0 ** rng.uniform(-6, 2, (6, 64)), 1 + normal(6, 1e-3), -7 + normal(6, 0.5),
    ])


def main(path):
    mx.set_default_device(mx.cpu)
    weights = families(np.random.default_rng(20240607)).astype(np.float32)
    with open(path, "wb") as out:
        for dtype, view in ((mx.float32, mx.uint32), (mx.float16, mx.uint16), (mx.bfloat16, mx.uint16)):
            w = mx.array(weights).astype(dtype)
            codes, scales, biases = mx.quantize(w, 64, 4)
            raw = [np.array(mx.view(a, view)) for a in (w, scales, biases)]
            packed = np.array(codes).view(np.uint8)
            out.write(np.uint32(len(weights)).tobytes())
            for g in range(len(weights)):
                out.write(raw[0][g].tobytes() + packed[g].tobytes() + raw[1][g].tobytes() + raw[2][g].tobytes())


main(sys.argv[1])
