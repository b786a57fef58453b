#!/usr/bin/env python3
"""Times attention's kernels on a GPU, in f32, TF32 and bf16, of models' shapes.

    python3 tests/cuda/attention_time.py [--rounds N] [--shape TEXT] [--only f32,tf32,bf16,rounded] [--try SOURCE/OLD/NEW]…

Needs the driver and NVRTC of CUDA 13, no Rust. Prints, of each shape and kernel, microseconds and TFLOP/s, where a pair
of a query and a key that it sees counts 4 operations a column forward, 6 by queries and 8 by keys. `rounded` are products
of bf16 numbers of activations in f32. --shape takes the shapes whose names hold TEXT. --try times a source once more with a
text replaced in it, and OLD has to be there: `attention_bf16/64, 64, 4)/64, 64, 3)` allows a multiprocessor three blocks.
"""

import argparse
import ctypes
import random
import struct

from gpu import Gpu
from sources import read, sources

# Name, heads of queries, of keys, columns of a head, lengths, causal, dropout.
SHAPES = [
    ("LLaMA 1B, 8 x 512", 32, 8, 64, [512] * 8, True, 0.0),
    ("LLaMA 1B, 4 x 500", 32, 8, 64, [500] * 4, True, 0.0),
    ("LLaMA 1B, 8 x 1024", 32, 8, 64, [1024] * 8, True, 0.0),
    ("RoBERTa-large, 16 x 128", 16, 16, 64, [128] * 16, False, 0.1),
    ("RoBERTa-large, 64 x 40", 16, 16, 64, [40] * 64, False, 0.1),
    ("Qwen 7B, 4 x 512", 28, 4, 128, [512] * 4, True, 0.0),
]


class Timer:
    def __init__(self, gpu):
        self.gpu, self.events = gpu, []
        for _ in range(2):
            event = ctypes.c_void_p()
            gpu.check(gpu.cuda.cuEventCreate(ctypes.byref(event), 0), "an event")
            self.events.append(event)

    def seconds(self, work, rounds):
        work()
        self.gpu.cuda.cuEventRecord(self.events[0], self.gpu.stream)
        for _ in range(rounds):
            work()
        self.gpu.cuda.cuEventRecord(self.events[1], self.gpu.stream)
        self.gpu.check(self.gpu.cuda.cuEventSynchronize(self.events[1]), "wait")
        ms = ctypes.c_float()
        name = "cuEventElapsedTime_v2" if hasattr(self.gpu.cuda, "cuEventElapsedTime_v2") else "cuEventElapsedTime"
        self.gpu.check(getattr(self.gpu.cuda, name)(ctypes.byref(ms), *self.events), "time")
        return ms.value / 1e3 / rounds


def number(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def numbers(n, held):
    own = random.Random(1)
    few = [own.gauss(0, 1) for _ in range(4099)]
    form = {0: lambda x: struct.pack("<f", x), 2: lambda x: struct.pack("<f", x)[2:]}[held]
    block = b"".join(map(form, few))
    return (block * (n // 4099 + 1))[: n * (4 if held == 0 else 2)]


def kernels(numbers, held, head):
    """Of each kernel: source, name, side of a tile, threads, shared memory."""
    suffix = "_as_bf16" if held == 2 else ""
    columns = 64 if head <= 64 else 128
    if numbers == "f32":
        side = 64 if columns == 64 else 32
        names = ("attention", f"attention_{columns}"), ("attention_grad", f"attention_grad_%s_{columns}")
        threads, shared = 256, tuple((rows * head + side) * (side + 1) * 4 for rows in (2, 4))
    else:
        names = (f"attention_{numbers}", f"attention_{numbers}_{columns}"), (f"attention_grad_{numbers}", f"attention_grad_%s_{numbers}_{columns}")
        side, threads, shared = 64, 128, SHARED[numbers, columns]
    full = lambda pair, kind: f"{pair[0]}{suffix}/{pair[1] % kind if '%' in pair[1] else pair[1]}{suffix}"
    return side, threads, shared, [full(names[0], ""), full(names[1], "queries"), full(names[1], "keys")]


def in_tiles(numbers, columns, rows, stages=0):
    return rows * (columns * (2 if numbers == "bf16" else 4) + 16) + stages * 1024


# Bytes of shared memory, as `Tiling` has them: forward and backward.
SHARED = {
    (numbers, columns): (in_tiles(numbers, columns, forward), in_tiles(numbers, columns, rows, stages))
    for numbers, columns, forward, rows, stages in (
        ("bf16", 64, 256, 256, 2),
        ("bf16", 128, 320, 256, 1),
        ("tf32", 64, 256, 256, 2),
        ("tf32", 128, 192, 160, 1),
    )
}


def measure(gpu, timer, shape, numbers_of, held, rounds, what):
    name, heads, shared_heads, head, lengths, causal, p = shape
    tokens, d, kd, size = sum(lengths), heads * head, shared_heads * head, 4 if held == 0 else 2
    side, threads, shared, (forward, queries, keys) = kernels(numbers_of, held, head)
    made = []

    def buffer(data):
        made.append(gpu.take(len(data)))
        gpu.send(made[-1], data)
        return made[-1]

    q, up, o = (buffer(numbers(tokens * d, held)) for _ in range(3))
    k, v = (buffer(numbers(tokens * kd, held)) for _ in range(2))
    dq, dk, dv = (buffer(bytes(n * size)) for n in (tokens * d, tokens * kd, tokens * kd))
    lse, dots, fault = buffer(bytes(4 * tokens * heads)), buffer(bytes(4 * tokens * heads)), buffer(bytes(12))
    ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    offsets = buffer(struct.pack(f"<{len(ends)}I", *ends))
    drawn = [buffer(struct.pack(f"<{2 * tokens}I", *range(2 * tokens))), buffer(struct.pack("<I", 3))] if p else [0, 0]
    longest = max(lengths)
    tiles = -(-longest // side)
    behind, ahead = 2**32 - 1, 0 if causal else 2**32 - 1
    sizes = [tokens, d, heads, shared_heads, len(lengths), tiles, longest, 1, 0, behind, ahead, number(head**-0.5), 0]
    sizes += [7, 9, int(p * 2**32), number(1 / (1 - p))]
    sizes += [0] * 5 if numbers_of == "f32" else []  # nothing beside the keys: no other stream, no bias
    before = [up, q, k, v] + [o] * (numbers_of != "f32")
    calls = [
        (forward, [q, k, v, offsets, *drawn, o, lse, fault, *sizes], heads, shared[0], 4),
        (queries, [*before, lse, dots, offsets, *drawn, dq, fault, *sizes], heads, shared[1], 6),
        (keys, [up, q, k, v, lse, dots, offsets, *drawn, dk, dv, fault, *sizes], shared_heads, shared[1], 8),
    ]
    pairs = sum(n * (n + 1) // 2 if causal else n * n for n in lengths)
    shown, whole = [], 0.0
    for kernel, words, y, bytes_shared, flops in calls:
        seconds = timer.seconds(lambda: gpu.launch(kernel, (len(lengths) * tiles, y), threads, bytes_shared, words), rounds)
        shown.append(f"{seconds * 1e6:8.1f} us {flops * pairs * d / seconds / 1e12:6.1f}")
        whole += seconds
    if gpu.fetch(fault, 12) != bytes(12):
        raise RuntimeError("a fault")
    for at in made:
        gpu.give(at)
    print(f"| {name} | {what} | {' | '.join(shown)} | {whole * 1e6:8.1f} us |", flush=True)


# Numbers of products, and what activations are held in.
KINDS = {"f32": ("f32", 0), "tf32": ("tf32", 0), "bf16": ("bf16", 2), "rounded": ("bf16", 0)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--shape", default="")
    parser.add_argument("--only", default="f32,tf32,bf16")
    parser.add_argument("--try", dest="tries", action="append", default=[])
    asked = parser.parse_args()
    texts = {name: read("common.cuh") + shared + own for name, shared, own in sources()}
    made = [("", texts)]
    for text in asked.tries:
        source, old, new = text.split("/")
        if old not in texts[source]:
            raise ValueError(f"{source} has no {old}")
        made.append((f" {old} -> {new}", {**texts, source: texts[source].replace(old, new)}))
    print("| shape | products | forward, TFLOP/s | by queries | by keys | all |\n| --- | --- | --- | --- | --- | --- |")
    for what, own in made:
        gpu = Gpu(own)
        timer = Timer(gpu)
        for shape in SHAPES:
            if asked.shape not in shape[0]:
                continue
            for kind in asked.only.split(","):
                measure(gpu, timer, shape, *KINDS[kind], asked.rounds if kind != "f32" else max(1, asked.rounds // 4), kind + what)


if __name__ == "__main__":
    main()
