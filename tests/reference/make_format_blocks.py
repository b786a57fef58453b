#!/usr/bin/env python3
"""Write format_blocks.json: blocks of storage formats as the programs that brought them up make and read them.

How to run (from the repository root; `pip install gguf==0.19.0 bitsandbytes==0.50.2 llama-cpp-python==0.3.36 torch`):

    .venv/bin/python tests/reference/make_format_blocks.py

Blocks of llama.cpp's formats are made by `gguf`, or by ggml's `ggml_quantize_chunk` where gguf does not make them, and
read by `gguf`. Those of nf4 are made and read by bitsandbytes on the processor, with its scales quantised too, and laid
out as peftc lays them out.
"""

import ctypes
import json
from pathlib import Path

import bitsandbytes.functional as bnb
import llama_cpp.llama_cpp  # loads ggml beside it
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import quants

HERE = Path(__file__).resolve().parent
GGUF = {
    "q8_0": Type.Q8_0, "q4_0": Type.Q4_0, "q4_1": Type.Q4_1, "q5_0": Type.Q5_0, "q5_1": Type.Q5_1, "q4_k": Type.Q4_K,
    "q5_k": Type.Q5_K, "q6_k": Type.Q6_K, "q2_k": Type.Q2_K, "q3_k": Type.Q3_K,
}
MADE = ("q8_0", "q4_0", "q4_k", "nf4")  # those that peftc makes


def rows_of(count):
    """Numbers with what may go wrong: nothing, ties, an outlier, a scale below f16's normal numbers."""
    rng = np.random.default_rng(7)
    normal = rng.standard_normal(count).astype(np.float32)
    outlier = (0.02 * normal).astype(np.float32)
    outlier[5] = -40.0
    ties = ((np.arange(count) % 256 - 128) * 0.5).astype(np.float32)
    ties[0] = 127.0
    named = {
        "normal": 0.02 * normal,
        "large": 3e5 * normal,
        "outlier": outlier,
        "ties": ties,
        "zeros": np.zeros(count),
        "negative": -np.abs(normal),
        "positive": np.abs(normal) + 3,
    }
    return {name: x.astype(np.float32) for name, x in named.items()}


def ggml():
    folder = Path(llama_cpp.llama_cpp.__file__).parent / "lib"
    lib = ctypes.CDLL(str(folder / "libggml-base.so"))
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return lib


def llama(kind, numbers, lib):
    try:
        made = quants.quantize(numbers[None, :], kind)[0]
    except NotImplementedError:
        made = np.zeros(4 * numbers.size, np.uint8)
        size = lib.ggml_quantize_chunk(kind.value, numbers.ctypes.data, made.ctypes.data, 0, 1, numbers.size, None)
        made = made[:size]
    return made, quants.dequantize(made[None, :], kind)[0]


def nf4(numbers):
    codes, state = bnb.quantize_4bit(torch.from_numpy(numbers), blocksize=64, compress_statistics=True, quant_type="nf4")
    decoded = bnb.dequantize_4bit(codes, state).numpy().reshape(-1)
    scales = state.absmax.numpy().reshape(-1)
    head = np.array([state.offset.item(), state.state2.absmax.item()], np.float32).view(np.uint8)
    blocks = [np.concatenate([[scale], code]) for scale, code in zip(scales, codes.numpy().reshape(-1, 32))]
    return np.concatenate([head, *blocks]).astype(np.uint8), decoded


def main():
    lib, out = ggml(), {}
    # Shortest texts that are read back as the same f32.
    texts = lambda x: [float(str(v)) for v in x]
    for name in [*GGUF, "nf4"]:
        cases = []
        for what, numbers in rows_of(192 if name == "nf4" else 256 if name.endswith("k") else 32).items():
            # bitsandbytes divides the scales of zeros by zero.
            if name == "nf4" and what in ("large", "zeros"):
                continue
            made, decoded = nf4(numbers) if name == "nf4" else llama(GGUF[name], numbers, lib)
            if not np.isfinite(decoded).all():
                continue
            case = {"name": what, "blocks": made.tolist(), "decoded": texts(decoded)}
            # What is subtracted from what: rounding is relative to this.
            case["step"] = float(np.abs(numbers).max())
            if name in MADE:
                case["numbers"] = texts(numbers)
            if name in MADE or len(cases) < 3:
                cases.append(case)
        out[name] = cases
        print(name, len(cases))
    text = json.dumps(out, separators=(",", ":")).replace('{"name"', '\n{"name"')
    (HERE / "format_blocks.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
