#!/usr/bin/env python3
"""Writes a model of random weights in the shape of Qwen3-0.6B, for measurements: its answers mean nothing.

usage: synthetic.py <Q8_0|Q4_K> <tokenizer.gguf> <output.gguf>

The same bytes every time. Tokenizer and template are those of the given GGUF file, with words that stand for nothing up
to the size of Qwen3's vocabulary. Q4_K is the mixture that llama.cpp calls Q4_K_M: Q6_K for the embedding, which is the
output as well, and for the values and the last projection of half the layers; Q4_K for all other matrices.
"""

import os
import pathlib
import random
import struct
import sys

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCABULARY, CONTEXT = 1024, 28, 16, 8, 128, 3072, 151936, 40960
SEED = 20260
ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
# struct formats of GGUF's value types, but for strings and arrays.
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
F32, Q8_0, Q4_K, Q6_K = 0, 8, 12, 14
# Weights and bytes of a block.
BLOCKS = {Q8_0: (32, 34), Q4_K: (256, 144), Q6_K: (256, 210)}
NORMAL = 1


class Reader:
    """Metadata of a GGUF file (ggml, docs/gguf.md)."""

    def __init__(self, path):
        self.file = open(path, "rb")
        magic, version, _, pairs = struct.unpack("<4sIQQ", self.file.read(24))
        if (magic, version) != (b"GGUF", 3):
            sys.exit(f"synthetic: {path} is not a GGUF file of version 3")
        self.pairs = {}
        for _ in range(pairs):
            key = self.value(STRING)
            kind = self.value(UINT32)
            self.pairs[key] = (kind, self.value(kind))

    def value(self, kind):
        if kind == STRING:
            return self.file.read(self.value(10)).decode()
        if kind == ARRAY:
            of = self.value(UINT32)
            return of, [self.value(of) for _ in range(self.value(10))]
        text = SCALARS[kind]
        return struct.unpack(text, self.file.read(struct.calcsize(text)))[0]


def written(kind, value):
    if kind == STRING:
        text = value.encode()
        return struct.pack("<Q", len(text)) + text
    if kind == ARRAY:
        of, values = value
        return struct.pack("<IQ", of, len(values)) + b"".join(written(of, v) for v in values)
    return struct.pack(SCALARS[kind], value)


def metadata(source):
    shape = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": HIDDEN,
        "feed_forward_length": FFN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIM,
        "attention.value_length": HEAD_DIM,
    }
    pairs = {"general.architecture": (STRING, "qwen3"), "general.name": (STRING, "Random weights")}
    pairs |= {f"qwen3.{name}": (UINT32, value) for name, value in shape.items()}
    pairs["qwen3.rope.freq_base"] = (FLOAT32, 1e6)
    pairs["qwen3.attention.layer_norm_rms_epsilon"] = (FLOAT32, 1e-6)
    pairs |= {key: pair for key, pair in source.pairs.items() if key.startswith("tokenizer.")}
    of, tokens = pairs["tokenizer.ggml.tokens"][1]
    more = VOCABULARY - len(tokens)
    # A space and a number, which no merge yields: these are never read, and written by chance only.
    pairs["tokenizer.ggml.tokens"] = (ARRAY, (of, tokens + [f"\u0120{i}~" for i in range(more)]))
    for key, filler in (("token_type", NORMAL), ("scores", 0)):
        if f"tokenizer.ggml.{key}" in pairs:
            of, values = pairs[f"tokenizer.ggml.{key}"][1]
            pairs[f"tokenizer.ggml.{key}"] = (ARRAY, (of, values + [filler] * more))
    return pairs


def tensors(quantized):
    """Name, type and shape of each, rows first."""
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    better = Q6_K if quantized == Q4_K else quantized
    yield "token_embd.weight", better, (VOCABULARY, HIDDEN)
    yield "output_norm.weight", F32, (HIDDEN,)
    for layer in range(LAYERS):
        # llama.cpp, src/llama-quant.cpp, use_more_bits.
        eighth = LAYERS // 8
        more = layer < eighth or layer >= 7 * LAYERS // 8 or (layer - eighth) % 3 == 2
        mixed = better if more else quantized
        for name, kind, shape in (
            ("attn_norm", F32, (HIDDEN,)),
            ("attn_q", quantized, (q, HIDDEN)),
            ("attn_k", quantized, (kv, HIDDEN)),
            ("attn_v", mixed, (kv, HIDDEN)),
            ("attn_output", quantized, (HIDDEN, q)),
            ("attn_q_norm", F32, (HEAD_DIM,)),
            ("attn_k_norm", F32, (HEAD_DIM,)),
            ("ffn_norm", F32, (HIDDEN,)),
            ("ffn_gate", quantized, (FFN, HIDDEN)),
            ("ffn_up", quantized, (FFN, HIDDEN)),
            ("ffn_down", mixed, (HIDDEN, FFN)),
        ):
            yield f"blk.{layer}.{name}.weight", kind, shape


def size(kind, shape):
    numbers = 1
    for n in shape:
        numbers *= n
    if kind == F32:
        return 4 * numbers
    length, bytes_ = BLOCKS[kind]
    return numbers // length * bytes_


# Scales of six bits that are not negative.
POSITIVE = bytes(byte & 63 for byte in range(256))


def content(chance, kind, shape):
    if kind == F32:
        return struct.pack(f"<{shape[0]}f", *(chance.uniform(0.75, 1.25) for _ in range(shape[0])))
    # Weights of a deviation around 0.03, which such models have. Quants are any bytes; scales are set.
    length, width = BLOCKS[kind]
    out = bytearray(chance.randbytes(size(kind, shape)))
    blocks = len(out) // width

    def put(at, number):
        low, high = struct.pack("<e", number)
        out[at::width], out[at + 1 :: width] = bytes([low]) * blocks, bytes([high]) * blocks

    if kind == Q8_0:
        put(0, 0.0004)
    elif kind == Q4_K:
        # The mean of scale times quant is seven and a half times that of the minimum.
        put(0, 0.00012)
        put(2, 0.0009)
    else:
        put(208, 0.00006)
        for at in range(192, 208):
            out[at::width] = out[at::width].translate(POSITIVE)
    return out


def main():
    quantized = {"Q8_0": Q8_0, "Q4_K": Q4_K}.get(sys.argv[1]) if len(sys.argv) == 4 else None
    if quantized is None:
        sys.exit(__doc__.split("\n\n")[1])
    output = pathlib.Path(sys.argv[3])
    pairs, infos = metadata(Reader(sys.argv[2])), list(tensors(quantized))
    # Put in place when it is whole.
    aside = output.with_suffix(f".{os.getpid()}.part")
    with open(aside, "wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(pairs)))
        for key, (kind, value) in pairs.items():
            file.write(written(STRING, key) + struct.pack("<I", kind) + written(kind, value))
        at = 0
        for name, kind, shape in infos:
            dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
            file.write(written(STRING, name) + dimensions + struct.pack("<IQ", kind, at))
            at += -(-size(kind, shape) // ALIGNMENT) * ALIGNMENT
        for index, (_, kind, shape) in enumerate(infos):
            file.write(bytes(-file.tell() % ALIGNMENT))
            file.write(content(random.Random(SEED + index), kind, shape))
    os.replace(aside, output)
    print(f"synthetic: {output}, {output.stat().st_size >> 20} MiB")


main()
