"""Writes ggml.txt: what ggml itself says of rows of each format, called through the libraries of llama-cpp-python.

Needs the package `llama-cpp-python` (0.3.36 wrote the committed file). The first two lines are activations: numbers, and
whole numbers that quantized activations hold without loss. Each of the others is a format, a row of its blocks, the
numbers that they stand for, and the row's products with both activations, all as hexadecimal little-endian bytes. The
first row of a format is of random bits, the second what ggml makes of numbers.
"""

import ctypes
import importlib.util
import random
import struct
from pathlib import Path

COLUMNS = 512
F32 = 0
# ggml's number of each type, and where a block holds half floats, which random bits would make infinite.
TYPES = {
    "Q4_0": (2, [0]),
    "Q4_1": (3, [0, 2]),
    "Q8_0": (8, [0]),
    "Q4_K": (12, [0, 2]),
    "Q5_K": (13, [0, 2]),
    "Q6_K": (14, [208]),
}


class Traits(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("columns", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    ]


class CpuTraits(ctypes.Structure):
    _fields_ = [
        ("from_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        (
            "vec_dot",
            ctypes.CFUNCTYPE(
                None, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t,
                ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
            ),
        ),
        ("vec_dot_type", ctypes.c_int),
        ("rows", ctypes.c_int64),
    ]


libraries = Path(importlib.util.find_spec("llama_cpp").submodule_search_locations[0], "lib")
base = ctypes.CDLL(str(libraries / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
cpu = ctypes.CDLL(str(libraries / "libggml-cpu.so"))
base.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
cpu.ggml_get_type_traits_cpu.restype = ctypes.POINTER(CpuTraits)
base.ggml_quantize_chunk.restype = ctypes.c_size_t
base.ggml_quantize_chunk.argtypes = [
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
]
cpu.ggml_cpu_init()


def floats(numbers):
    return (ctypes.c_float * len(numbers))(*numbers)


def dot(number, row, x):
    """The product as ggml's own matrix multiplication takes it: with the activations in the type that it chooses."""
    traits = cpu.ggml_get_type_traits_cpu(number).contents
    other = cpu.ggml_get_type_traits_cpu(traits.vec_dot_type).contents
    # No type takes more than the numbers themselves.
    quantized, result = ctypes.create_string_buffer(8 * COLUMNS), ctypes.c_float()
    other.from_float(x, quantized, COLUMNS)
    traits.vec_dot(COLUMNS, ctypes.byref(result), 0, row, 0, quantized, 0, 1)
    return struct.pack("<f", result.value)


numbers = random.Random(5)
whole = [float(numbers.randint(-126, 126)) for _ in range(COLUMNS)]
# The largest of each 32, so that their scale is one; their sum is one that half a float holds.
whole[::32] = [127.0] * (COLUMNS // 32)
assert all(abs(sum(whole[start : start + 32])) <= 2048 for start in range(0, COLUMNS, 32))
activations = [floats([numbers.gauss(0, 1) for _ in range(COLUMNS)]), floats(whole)]
lines = [bytes(x).hex() for x in activations]
for name, (number, halves) in TYPES.items():
    traits = base.ggml_get_type_traits(number).contents
    bits = bytearray(numbers.randbytes(COLUMNS // traits.columns * traits.size))
    for start in range(0, len(bits), traits.size):
        for half in halves:
            struct.pack_into("<e", bits, start + half, numbers.gauss(0, 0.01))
    made = ctypes.create_string_buffer(len(bits))
    weights = floats([numbers.gauss(0, 0.05) for _ in range(COLUMNS)])
    assert base.ggml_quantize_chunk(number, weights, made, 0, 1, COLUMNS, None) == len(bits)
    for row in (bytes(bits), made.raw):
        stands_for = (ctypes.c_float * COLUMNS)()
        traits.to_float(row, stands_for, COLUMNS)
        parts = [row, bytes(stands_for), *(dot(number, row, x) for x in activations)]
        lines.append(" ".join([name, *(part.hex() for part in parts)]))
Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
