#!/usr/bin/env python3
"""Asks llama.cpp what SmolLM2 says, and writes it down as the golden files that our runtime is compared with.

Everything is decided by the files beside this one: `prompts.json`, `strings.py`, the model (named by its sha256) and
the version of llama.cpp in `requirements.txt`. Decoding is greedy, on one thread, with an F32 cache and without
flash attention; all of that is written into the golden files too. Running it twice gives the same bytes.

    python3 -m venv venv
    venv/bin/pip install --requirement requirements.txt
    venv/bin/python oracle.py ~/.cache/llm-fleet/models/SmolLM2-135M-Instruct.Q4_1.gguf

Four files are written:

golden/greedy.json  where the rest comes from, and for each prompt its tokens, those that follow, how far each of them
                    was ahead of the second, and how far it is ahead when activations are not rounded (see `wide.bin`)
golden/logits.bin   the logits at every position but the last of each prompt with what follows, in order; for each
                    position, little-endian and without padding:
                        f64            the logarithm of the sum of exp(logit) over the whole vocabulary
                        TOP × u16      the most likely tokens, most likely first; ties by the lower id
                        TOP × f32      their logits
                        SAMPLE × i16   logits of other tokens, in units of 1 / SCALE, rounded to the nearest
                    The j-th token of the sample at the p-th position of the file is
                    ((p · SAMPLE + j) · STRIDE) mod vocabulary, so that successive positions see the whole vocabulary.
golden/wide.bin     the same for the prompts that are marked as wide, with what follows them in `greedy.json`, by the
                    model after llama.cpp has turned all of its weights into F32: then it does not round activations
golden/tokens.jsonl for each string of `strings.py` the string, its tokens, and, where they are not the string itself
                    in UTF-8, the bytes that its tokens stand for, in hexadecimal
"""

import argparse
import ctypes
import hashlib
import importlib.metadata
import json
import pathlib
import struct
import tempfile

import llama_cpp
import numpy
from jinja2.sandbox import ImmutableSandboxedEnvironment

from strings import strings

HERE = pathlib.Path(__file__).resolve().parent

GENERATED = 32
CONTEXT = 1024
TOP = 32
SAMPLE = 256
STRIDE = 19937
SCALE = 512
LONGEST_PIECE = 1024
NEAR = 0.25
F32 = 0


class Oracle:
    """The model in llama.cpp."""

    def __init__(self, path):
        self.model = llama_cpp.Llama(
            str(path), n_ctx=CONTEXT, n_batch=512, n_ubatch=512, n_threads=1, n_threads_batch=1, seed=0,
            logits_all=True, flash_attn=False, type_k=F32, type_v=F32, use_mmap=True, verbose=False,
        )
        # The renderer is Jinja itself, with the settings that Hugging Face's transformers documents for templates.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self.template = environment.from_string(self.model.metadata["tokenizer.chat_template"])

    def text(self, prompt):
        """What is tokenized."""
        if "text" in prompt:
            return prompt["text"]
        return self.template.render(messages=prompt["messages"], add_generation_prompt=True)

    def tokens(self, text, start):
        """Tokens of a text in which special tokens may be spelled out. `start`: with what goes before plain text."""
        return self.model.tokenize(text.encode(), add_bos=start, special=True)

    def piece(self, tokens):
        """The bytes that tokens stand for; nothing for special ones."""
        buffer = ctypes.create_string_buffer(LONGEST_PIECE)
        vocabulary = llama_cpp.llama_model_get_vocab(self.model.model)
        pieces = b""
        for token in tokens:
            length = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, LONGEST_PIECE, 0, False)
            assert length >= 0, "a token is longer than the buffer"
            pieces += buffer.raw[:length]
        return pieces

    def forced(self, tokens):
        """The logits that follow each of these tokens."""
        self.model.reset()
        self.model.eval(tokens)
        return self.model.scores[: len(tokens)]

    def follow(self, prompt):
        """The tokens that greedily follow, and the logits at every position but the last."""
        self.model.reset()
        self.model.eval(prompt)
        tokens = list(prompt)
        while True:
            tokens.append(int(numpy.argmax(self.model.scores[len(tokens) - 1])))
            if len(tokens) == len(prompt) + GENERATED:
                return tokens, self.model.scores[: len(tokens) - 1].copy()
            self.model.eval(tokens[-1:])


def record(position, logits):
    """One position as it stands in `logits.bin`."""
    wide = logits.astype(numpy.float64)
    largest = wide.max()
    log_sum = largest + numpy.log(numpy.exp(wide - largest).sum())
    # A stable sort of the negated logits leaves ties in the order of ids.
    top = numpy.argsort(-logits, kind="stable")[:TOP]
    sample = (position * SAMPLE + numpy.arange(SAMPLE)) * STRIDE % len(logits)
    units = numpy.rint(wide[sample] * SCALE)
    assert abs(units).max() < 1 << 15, "a logit is too large for the sample's unit"
    return b"".join([
        struct.pack("<d", log_sum),
        top.astype("<u2").tobytes(),
        logits[top].astype("<f4").tobytes(),
        units.astype("<i2").tobytes(),
    ])


def lines(entries):
    """A JSON array with one entry a line."""
    return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"


def greedy(oracle):
    """The prompts with what follows them, and the records of their positions."""
    prompts, records = [], []
    for prompt in json.loads((HERE / "prompts.json").read_text()):
        start = oracle.tokens(oracle.text(prompt), "text" in prompt)
        tokens, logits = oracle.follow(start)
        best = numpy.sort(logits[len(start) - 1:], axis=1)[:, -2:].astype(float)
        prompts.append({
            "name": prompt["name"],
            "wide": prompt.get("wide", False),
            "prompt": start,
            "follows": tokens[len(start):],
            "gaps": [round(top - second, 5) for second, top in best],
        })
        records += [record(len(records) + index, row) for index, row in enumerate(logits)]
    return prompts, records


def widen(model_path, to):
    """The model with all of its weights as the F32 that they stand for."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    failed = llama_cpp.llama_model_quantize(str(model_path).encode(), str(to).encode(), parameters)
    assert not failed, "llama.cpp cannot make the weights wide"
    return Oracle(to)


def wide(oracle, prompts):
    """The records of the wide prompts. Tells each prompt how far ahead its tokens are without rounded activations."""
    records = []
    for prompt in prompts:
        tokens = prompt["prompt"] + prompt["follows"]
        logits = oracle.forced(tokens[:-1])
        if prompt["wide"]:
            records += [record(len(records) + index, row) for index, row in enumerate(logits)]
        ahead = []
        for row, token in zip(logits[len(prompt["prompt"]) - 1:].astype(float), prompt["follows"]):
            chosen, row[token] = row[token], -numpy.inf
            ahead.append(round(chosen - row.max(), 5))
        prompt["unrounded"] = ahead
        # Where rounding decides against more than that, nobody's answer says anything about who is right.
        overturned = [gap for gap, ahead in zip(prompt["gaps"], ahead) if ahead < 0 and gap >= NEAR]
        print(f"{prompt['name']:28} least gap {min(prompt['gaps']):.4f}, unrounded {min(ahead):.4f}", flush=True)
        assert not overturned, f"{prompt['name']}: its own rounding overturns gaps of {overturned}: choose another prompt"
    return records


def described(oracle, model_path, prompts, positions):
    """`greedy.json`."""
    origin = {
        "oracle": f"llama.cpp in llama-cpp-python {importlib.metadata.version('llama-cpp-python')}",
        "system": llama_cpp.llama_print_system_info().decode().strip(),
        "model": model_path.name,
        "sha256": hashlib.sha256(model_path.read_bytes()).hexdigest(),
        "parameters": "greedy, n_threads 1, n_batch 512, K and V F32, no flash attention",
        "vocabulary": oracle.model.n_vocab(),
        "top": TOP, "sample": SAMPLE, "stride": STRIDE, "scale": SCALE, "positions": positions,
    }
    return json.dumps(origin, indent=1)[:-2] + ',\n "prompts": ' + lines(prompts) + "\n}\n"


def tokenized(oracle):
    """`tokens.jsonl`."""
    for text in strings():
        tokens = oracle.tokens(text, True)
        entry, piece = [text, tokens], oracle.piece(tokens)
        if piece != text.encode():
            entry.append(piece.hex())
        yield json.dumps(entry, separators=(",", ":")) + "\n"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=pathlib.Path, help="SmolLM2-135M-Instruct.Q4_1.gguf, as `make model` fetches it")
    arguments.add_argument("--to", type=pathlib.Path, default=HERE / "golden", help="folder of the golden files")
    arguments.add_argument("--tokens-only", action="store_true", help="write nothing but tokens.jsonl")
    arguments = arguments.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    oracle = Oracle(arguments.model)
    (arguments.to / "tokens.jsonl").write_text("".join(tokenized(oracle)))
    if arguments.tokens_only:
        return
    prompts, records = greedy(oracle)
    with tempfile.TemporaryDirectory() as folder:
        wide_records = wide(widen(arguments.model, pathlib.Path(folder) / "wide.gguf"), prompts)
    (arguments.to / "greedy.json").write_text(described(oracle, arguments.model, prompts, len(records)))
    (arguments.to / "logits.bin").write_bytes(b"".join(records))
    (arguments.to / "wide.bin").write_bytes(b"".join(wide_records))


if __name__ == "__main__":
    main()
