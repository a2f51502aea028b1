#!/usr/bin/env python3
"""Asks llama.cpp for the vectors that SmolLM2 makes of texts, and writes them down for our runtime to be compared with.

Pooled is the last token's state after the final norm, divided by its length. Running it twice gives the same bytes. Two
files are written beside those of `oracle.py`, with whose requirements this runs:

golden/vectors.json  the texts with their tokens, and where the vectors come from
golden/vectors.bin   for each text WIDTH × f32, little-endian: the vector by the model as it is; and after all of those
                     the same by the model after llama.cpp has turned all of its weights into F32, so that it does not
                     round activations
"""

import argparse
import hashlib
import importlib.metadata
import json
import pathlib
import tempfile

import llama_cpp
import numpy

HERE = pathlib.Path(__file__).resolve().parent
CONTEXT = 512
F32 = 0

SENTENCE = "The harbour was quiet, and the last of the boats had come in before the storm. "
TEXTS = [
    "Hello",
    "What is the capital of France?",
    "Paris is the capital of France.",
    "Bananas are rich in potassium.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "東京は日本の首都です。",
    "def add(a, b):\n    return a + b\n",
    "🙂 emoji, punctuation; and\ttabs…",
    SENTENCE * 3,
    SENTENCE * 16,
]


class Oracle:
    """The model in llama.cpp, for vectors."""

    def __init__(self, path):
        self.model = llama_cpp.Llama(
            str(path), n_ctx=CONTEXT, n_batch=CONTEXT, n_ubatch=CONTEXT, n_threads=1, n_threads_batch=1, seed=0,
            embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_LAST, flash_attn=False, type_k=F32, type_v=F32,
            verbose=False,
        )

    def tokens(self, text):
        return self.model.tokenize(text.encode(), add_bos=True, special=True)

    def vector(self, text):
        state = numpy.array(self.model.embed(text, normalize=False), dtype=numpy.float64)
        return (state / numpy.sqrt((state * state).sum())).astype("<f4")


def widened(model_path, to):
    """The model with all of its weights as the F32 that they stand for."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    failed = llama_cpp.llama_model_quantize(str(model_path).encode(), str(to).encode(), parameters)
    assert not failed, "llama.cpp cannot make the weights wide"
    return Oracle(to)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=pathlib.Path, help="SmolLM2-135M-Instruct.Q4_1.gguf, as `make model` fetches it")
    arguments.add_argument("--to", type=pathlib.Path, default=HERE / "golden", help="folder of the golden files")
    arguments = arguments.parse_args()
    oracle = Oracle(arguments.model)
    vectors = [oracle.vector(text) for text in TEXTS]
    with tempfile.TemporaryDirectory() as folder:
        wide = widened(arguments.model, pathlib.Path(folder) / "wide.gguf")
        wide_vectors = [wide.vector(text) for text in TEXTS]
    for text, rounded, unrounded in zip(TEXTS, vectors, wide_vectors):
        print(f"{len(oracle.tokens(text)):4} tokens, cosine of rounded and not {float(rounded @ unrounded):.6f}")
    origin = {
        "oracle": f"llama.cpp in llama-cpp-python {importlib.metadata.version('llama-cpp-python')}",
        "system": llama_cpp.llama_print_system_info().decode().strip(),
        "model": arguments.model.name,
        "sha256": hashlib.sha256(arguments.model.read_bytes()).hexdigest(),
        "parameters": "pooling last, length 1, n_threads 1, K and V F32, no flash attention",
        "width": len(vectors[0]),
        "texts": [{"text": text, "tokens": oracle.tokens(text)} for text in TEXTS],
    }
    (arguments.to / "vectors.json").write_text(json.dumps(origin, indent=1, ensure_ascii=False) + "\n")
    (arguments.to / "vectors.bin").write_bytes(b"".join(vector.tobytes() for vector in vectors + wide_vectors))


if __name__ == "__main__":
    main()
