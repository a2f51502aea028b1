#!/usr/bin/env python3
"""Computes the self-test's logits with Python's own arithmetic and compares them with golden.txt.

It shares nothing with the runtime but the recipe of the model: the weights come from the same seed, are taken apart
here, and every formula is written as in its paper, in double precision. Activations are quantized before the quantized
linears, as the runtime does, since that is part of what is computed. Each sequence is computed at once, without a cache.
"""

import math
import pathlib
import struct
import sys

VOCABULARY, HIDDEN, HEADS, KV_HEADS, FFN = 50, 64, 4, 2, 96
MASK = (1 << 64) - 1
TOLERANCE = 2e-3


class Random:
    """splitmix64."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def number(self):
        return (self.next() >> 52) / 2048 - 1

    def scale(self, bits):
        return (512 + self.next() % 512) * 2.0**-bits


class Linear:
    def __init__(self, random, kind, rows, columns):
        self.quantized = kind in ("Q4_1", "Q8_0")
        numbers = []
        while len(numbers) < rows * columns:
            if kind == "Q4_1":
                scale = random.scale(14)
                quants = [random.next() & 255 for _ in range(16)]
                numbers += [scale * (q & 15) - 8 * scale for q in quants]
                numbers += [scale * (q >> 4) - 8 * scale for q in quants]
            elif kind == "Q8_0":
                scale = random.scale(18)
                quants = [random.next() % 255 ^ 0x80 for _ in range(32)]
                numbers += [scale * (q - 256 if q > 127 else q) for q in quants]
            elif kind == "BF16":
                numbers.append((random.next() >> 56) / 256 - 0.5)
            else:
                numbers.append(0.5 * random.number())
        self.rows = [numbers[i * columns : (i + 1) * columns] for i in range(rows)]

    def __call__(self, x):
        if self.quantized:
            x = quantized(x)
        return [math.fsum(w * v for w, v in zip(row, x)) for row in self.rows]


def single(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def quantized(x):
    out = []
    for start in range(0, len(x), 32):
        block = [single(v) for v in x[start : start + 32]]
        largest = max(map(abs, block))
        inverse = single(127 / largest) if largest > 0 else 0.0
        out += [round(single(v * inverse)) * single(largest / 127) for v in block]
    return out


def gain(random, width=HIDDEN):
    return [1 + 0.25 * random.number() for _ in range(width)]


def norm(x, weight):
    root = math.sqrt(sum(v * v for v in x) / len(x) + 1e-5)
    return [v / root * w for v, w in zip(x, weight)]


def rotate(head, position, halves):
    """Neighbours rotate together in GGUF files of Llama, the halves of a head in those of Qwen3."""
    out, half = list(head), len(head) // 2
    for pair in range(half):
        angle = position * 10000.0 ** (-pair / half)
        first, second = (pair, pair + half) if halves else (2 * pair, 2 * pair + 1)
        a, b = head[first], head[second]
        out[first] = a * math.cos(angle) - b * math.sin(angle)
        out[second] = a * math.sin(angle) + b * math.cos(angle)
    return out


def split(x, n):
    width = len(x) // n
    return [x[i * width : (i + 1) * width] for i in range(n)]


def attend(query, keys, values):
    scores = [sum(q * k for q, k in zip(query, key)) / math.sqrt(len(query)) for key in keys]
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    total = sum(weights)
    return [sum(w * value[i] for w, value in zip(weights, values)) / total for i in range(len(query))]


def stored(heads, cache):
    """Keys or values as the cache keeps them."""
    return [[struct.unpack(cache, struct.pack(cache, v))[0] for v in head] for head in heads]


class Layer:
    def __init__(self, random, family, value, output):
        self.qwen3 = family == "qwen3"
        head_dim = HIDDEN // HEADS * (2 if self.qwen3 else 1)
        q, kv = HEADS * head_dim, KV_HEADS * head_dim
        self.attention_norm = gain(random)
        self.q = Linear(random, "Q4_1", q, HIDDEN)
        self.k = Linear(random, "Q8_0", kv, HIDDEN)
        self.v = Linear(random, value, kv, HIDDEN)
        self.o = Linear(random, output, HIDDEN, q)
        if self.qwen3:
            self.q_norm, self.k_norm = gain(random, head_dim), gain(random, head_dim)
        self.mlp_norm = gain(random)
        self.gate = Linear(random, "Q4_1", FFN, HIDDEN)
        self.up = Linear(random, "Q8_0", FFN, HIDDEN)
        self.down = Linear(random, "Q4_1", HIDDEN, FFN)

    def __call__(self, states, cache):
        keys, values, out = [], [], []
        for position, state in enumerate(states):
            x = norm(state, self.attention_norm)
            queries, key = split(self.q(x), HEADS), split(self.k(x), KV_HEADS)
            if self.qwen3:
                queries = [norm(head, self.q_norm) for head in queries]
                key = [norm(head, self.k_norm) for head in key]
            queries = [rotate(head, position, self.qwen3) for head in queries]
            keys.append(stored([rotate(head, position, self.qwen3) for head in key], cache))
            values.append(stored(split(self.v(x), KV_HEADS), cache))
            attended = []
            for head, query in enumerate(queries):
                group = head // (HEADS // KV_HEADS)
                attended += attend(query, [k[group] for k in keys], [v[group] for v in values])
            state = [a + b for a, b in zip(state, self.o(attended))]
            x = norm(state, self.mlp_norm)
            gated = [g / (1 + math.exp(-g)) * u for g, u in zip(self.gate(x), self.up(x))]
            out.append([a + b for a, b in zip(state, self.down(gated))])
        return out


def model(family):
    random = Random(0x5EED)
    embedding = Linear(random, "Q8_0", VOCABULARY, HIDDEN)
    layers = [Layer(random, family, "F32", "Q4_1"), Layer(random, family, "F16", "BF16")]
    output_norm = gain(random)

    def logits(cache, length, position):
        text = Random(length)
        states = [embedding.rows[text.next() % VOCABULARY] for _ in range(length)]
        for layer in layers:
            states = layer(states, cache)
        return embedding(norm(states[position], output_norm))

    return logits


def main():
    ends = [(4, 2), (33, 31), (4, 3), (41, 40), (33, 32)]
    models = [model(family) for family in ("llama", "qwen3")]
    rows = [logits(cache, *end) for logits in models for cache in ("f", "e") for end in ends]
    golden = pathlib.Path(__file__).with_name("golden.txt").read_text().splitlines()
    worst = 0.0
    for row, line in zip(rows, golden, strict=True):
        for found, expected in zip(row, map(float, line.split()), strict=True):
            worst = max(worst, abs(found - expected))
    print(f"the largest difference of {sum(map(len, rows))} logits is {worst:.6f}, {TOLERANCE} is allowed")
    sys.exit(worst > TOLERANCE)


main()
