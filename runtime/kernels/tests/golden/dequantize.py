"""Writes dequantize.txt: random blocks of each format, and the numbers that ggml's Python package says they stand for.

Needs the packages `gguf` (0.19.0 wrote the committed file) and `numpy`. A line is a format, a row of blocks as
hexadecimal bytes, and its numbers as hexadecimal little-endian floats.
"""

from pathlib import Path

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Where each block holds half floats, which random bytes would make infinite.
HALVES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}
COLUMNS = 512

random = numpy.random.default_rng(5)
lines = []
for kind, halves in HALVES.items():
    columns, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (COLUMNS // columns, size), dtype=numpy.uint8)
    for half in halves:
        scales = random.normal(0, 0.01, len(blocks)).astype(numpy.float16)
        blocks[:, half : half + 2] = scales.view(numpy.uint8).reshape(-1, 2)
    row = blocks.reshape(1, -1)
    numbers = dequantize(row, kind).astype("<f4")
    lines.append(f"{kind.name} {row.tobytes().hex()} {numbers.tobytes().hex()}")
Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
