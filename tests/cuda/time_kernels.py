#!/usr/bin/env python3
"""Times kernels on a GPU at the sizes of a language model's step: microseconds, and bytes a second.

    python3 tests/cuda/time_kernels.py FOLDER|FILE [--only NAME,NAME]

FOLDER or FILE as for `on_card.py`, whose sources are taken. Launches are those of the ops' `launches`; what a buffer holds
is noise, indices are in range. The first line is a copy by the driver, to compare with.
"""

import argparse
import struct
import tempfile
import time

import numpy

from gpu import Gpu
from lists import open_all, read_folder

TOKENS, WIDTH, INNER, VOCABULARY = 2048, 2048, 8192, 128256


def blocks(threads):
    return (min(-(-threads // 256), 1 << 14), 1), 256


def fours(n):
    return blocks(n // 4 if n % 4 == 0 else n)


def rows(count, width):
    return (count, 1), min(max(-(-width // 32) * 32, 32), 256)


def word(x):
    """An argument as its 64-bit word."""
    if isinstance(x, float):
        return struct.unpack("<I", struct.pack("<f", x))[0]
    return x


def double(x):
    return struct.unpack("<Q", struct.pack("<d", x))[0]


class Bench:
    """Buffers by name, made as they are asked for, and the launches to time."""

    def __init__(self, gpu):
        self.gpu, self.noise, self.taken = gpu, numpy.random.default_rng(7), []

    def floats(self, n):
        return self.put(self.noise.standard_normal(min(n, 1 << 20)).astype(numpy.float32), 4 * n)

    def ids(self, n, below):
        return self.put(self.noise.integers(0, below, n).astype(numpy.uint32), 4 * n)

    def bytes(self, n):
        return self.put(self.noise.integers(0, 255, min(n, 1 << 20)).astype(numpy.uint8), n)

    def put(self, own, size):
        at = self.gpu.take(size)
        self.taken.append(at)
        data = own.tobytes()
        for start in range(0, size, len(data)):
            self.gpu.send(at + start, data[: size - start])
        return at

    def free(self):
        for at in self.taken:
            self.gpu.give(at)
        self.taken = []

    def time(self, run, times=20):
        run()
        self.gpu.wait()
        begun = time.perf_counter()
        for _ in range(times):
            run()
        self.gpu.wait()
        return (time.perf_counter() - begun) / times


def held(name, kind):
    return f"{name[0]}{kind}/{name[1]}{kind}"


def elementwise(b, kind):
    """Name, launch and bytes of kernels that take a number at a time, in f32 or 16 bits."""
    size, n, s = (2 if kind else 4), TOKENS * INNER, TOKENS * WIDTH
    x = [b.floats(n) for _ in range(5)]
    yield held(("add", "add"), kind), fours(s), 0, [x[0], x[1], x[2], s], 3 * s * size
    yield held(("gated", "gated_silu"), kind), fours(n), 0, [x[0], x[1], x[2], n], 3 * n * size
    yield held(("gated_grad", "gated_silu_grad"), kind), fours(n), 0, [*x, n], 5 * n * size
    yield held(("activation", "gelu"), kind), fours(n), 0, [x[0], x[1], n], 2 * n * size
    yield held(("elementwise", "elementwise_add_vector"), kind), rows(TOKENS, WIDTH), 0, [x[0], x[1], x[2], WIDTH, 0, 1], 2 * s * size
    keys, step = b.ids(2 * TOKENS, 64), b.ids(1, 9)
    yield held(("dropout", "dropout"), kind), rows(TOKENS, WIDTH // 4), 0, [x[0], keys, step, x[1], WIDTH, 1, 2, 1 << 30, 1.3], 2 * s * size
    eps = double(1e-5)
    yield held(("rms_norm", "rms_norm"), kind), rows(TOKENS, WIDTH), 0, [x[0], x[1], x[2], WIDTH, eps, 0.0], 2 * s * size
    yield held(("rms_norm_grad", "rms_norm_grad"), kind), rows(TOKENS, WIDTH), 0, [x[0], x[1], x[2], x[3], WIDTH, eps, 0.0], 3 * s * size
    yield held(("layer_norm", "layer_norm"), kind), rows(2 * TOKENS, 1024), 0, [x[0], x[1], x[2], x[3], x[4], x[4], 1024, eps], 2 * s * size
    means = b.floats(4 * TOKENS)
    args = [x[0], x[1], means, means, x[2], x[3], 1024]
    yield held(("layer_norm_grad", "layer_norm_grad"), kind), rows(2 * TOKENS, 1024), 0, args, 3 * s * size
    positions = b.ids(TOKENS, TOKENS)
    args = [x[0], positions, x[2], positions, 0xFFFFFFFF, x[2], x[1], WIDTH, 64, 32, 0, 0, 1.0]
    yield held(("rotary", "rotary"), kind), rows(TOKENS, WIDTH // 2), 256, args, 2 * s * size
    yield held(("sum_rows", "sum_rows"), kind), ((WIDTH // 128, TOKENS // 64), 128), 0, [x[0], x[1], TOKENS, WIDTH], s * size
    ids, fault = b.ids(TOKENS, 4096), b.ids(3, 1)
    table = b.floats(4096 * WIDTH)
    yield held(("gather", "gather_f32"), kind), rows(TOKENS, WIDTH), 0, [table, ids, x[0], fault, 4096, WIDTH], s * (4 + size)
    yield held(("scatter", "scatter"), kind), rows(TOKENS, WIDTH), 0, [ids, x[0], table, fault, TOKENS, 4096, WIDTH], s * (8 + size)


def others(b):
    n = WIDTH * INNER
    x = [b.floats(n) for _ in range(4)]
    stored = b.bytes(2 * n)
    for name in ("widen_bf16", "widen_f16"):
        yield f"cast/{name}", fours(n), 0, [stored, x[0], n], 6 * n
    for name in ("narrow_bf16", "narrow_f16"):
        yield f"cast/{name}", fours(n), 0, [x[0], stored, n], 6 * n
    for name, bits in (("nf4", 4.13), ("q8_0", 8.5), ("q4_k", 4.5), ("q6_k", 6.56)):
        yield f"{name}/decode_{name}", fours(n), 0, [stored, x[0], 0, n], int(n * (4 + bits / 8))
    one, step = b.floats(1), b.ids(1, 9)
    args = [*x, one, step, one, n, double(0.9), double(0.999), 1e-8, double(0.01), 0]
    yield "adamw/adamw", blocks(n), 0, args, 28 * n
    part = max(-(-n // 512), 8192)
    yield "grad_norm/square_sums", ((-(-n // part), 1), 256), 0, [x[0], x[1], n, part, 0], 4 * n
    logits, targets, lses = b.floats(TOKENS * 2048), b.ids(TOKENS, VOCABULARY), b.floats(8 * TOKENS)
    fault = b.ids(3, 1)
    args = [logits, 0, targets, lses, one, one, 2048, 2048, 0.0, 0]
    yield "head_loss_grad/head_loss_slopes", rows(TOKENS, 2048), 0, args, 8 * TOKENS * 2048
    yield "head_loss/head_piece_narrow", fours(WIDTH * 2048), 0, [x[0], x[1], 0, WIDTH * 2048], 6 * WIDTH * 2048
    m, group = TOKENS * WIDTH, 64
    args = [x[0], x[1], x[2], WIDTH // group, TOKENS, group, group, 0, group, WIDTH, 1]
    tiles = (-(-TOKENS // 64) * (WIDTH // group), -(-group // 32)), 256
    yield "block_product/block_product", tiles, 0, [*args, group * group, group, 1], 8 * m
    yield "block_product/block_product (turned)", tiles, 0, [*args, group * group, 1, group], 8 * m
    count = WIDTH * WIDTH // 100
    ids = b.put(numpy.sort(b.noise.choice(WIDTH * WIDTH, count, replace=False)).astype(numpy.uint32), 4 * count)
    args = [0, x[0], x[2], ids, 0, x[3], fault, TOKENS, WIDTH, WIDTH, 1, 0, 0, count]
    yield "sparse_product/sparse_product", ((-(-TOKENS // 128), WIDTH // 32), 128), 0, args, 8 * TOKENS * WIDTH
    args = [0, x[0], x[1], ids, 0, x[3], fault, TOKENS, WIDTH, WIDTH, 1, 0, count]
    yield "sampled_product/sampled_product", blocks(count), 0, args, 8 * TOKENS * WIDTH
    yield "nominate/nominate", ((1, 1), 1024), 0, [ids, x[1], x[2], x[0], WIDTH * WIDTH, count], 4 * WIDTH * WIDTH
    yield "kth_smallest/kth_smallest", ((1, 1), 1024), 0, [x[0], b.put(numpy.float32([9000.0]), 4), x[1], 1 << 20], 4 << 20
    classes, few = VOCABULARY, 128
    yield "cross_entropy/cross_entropy", rows(few, classes), 0, [x[0], targets, x[1], fault, classes], 4 * few * classes
    yield "cross_entropy_grad/cross_entropy_grad", rows(few, classes), 0, [x[0], targets, one, one, x[1], classes], 8 * few * classes


def head(b, tokens, columns, width):
    """The head's loss of a language model: a piece of its logits, of which there are VOCABULARY / columns in a step."""
    logits, targets, bias = b.floats(tokens * columns), b.ids(tokens, VOCABULARY), b.floats(VOCABULARY)
    doubles, known = b.put(numpy.ones(tokens), 8 * tokens), [b.floats(tokens) for _ in range(3)]
    states, table, fault, n = b.floats(tokens * width), b.bytes(2 * VOCABULARY * width), b.ids(3, 1), tokens * columns
    about, held = f"{tokens} x {columns}", ((tokens, 1), -(-columns // 512) * 32)
    kinds = (("", 0, 0, 0.0, 4), (" weights", 1, states, 0.0, 8), (" weights in bf16", 2, states, 0.0, 6), (" in bf16, capped", 2, states, 30.0, 6))
    for name, weights, to, cap, each in kinds:
        args = [logits, weights, 0, targets, doubles, *known, to, fault, columns, columns, VOCABULARY, width, cap]
        yield f"head_loss/head_loss_piece {about}{name}", held, 0, args, each * n
    args = [logits, 2, bias, targets, doubles, *known, states, fault, columns, 0, VOCABULARY, width, 0.0]
    yield f"head_loss/head_loss_piece {about} first, biased", held, 0, args, 6 * n
    args = [states, bias, table, 2, targets, known[0], VOCABULARY, width, 1.0]
    yield f"head_loss/head_loss_states {tokens} x {width}", rows(tokens, width), 0, args, 10 * tokens * width
    args = [doubles, *known, known[0], logits, logits, 0.0, tokens]
    yield f"head_loss/head_loss_rows {tokens}", blocks(tokens), 0, args, 36 * tokens
    yield f"head_loss/head_loss_sum {tokens}", ((1, 1), 256), 0, [doubles, bias, known[0], tokens], 8 * tokens


def thin(b, tokens, widths, rank, kind):
    """LoRA's products as `thin_product.rs` launches them: the adapter's matrices in f32, the rest in f32 or bf16."""
    size, narrow, most = (2 if kind else 4), (1 if kind else 0), 264
    source = f"thin_product{kind}/"
    for width in widths:
        n, about = tokens * width, f"{tokens} x {width} x {rank}"
        x, out, weight, small, sums = b.floats(n), b.floats(n), b.floats(width * rank), b.floats(tokens * rank), b.floats(most * width * rank)
        for turned in (2, 0):
            name = f"{source}thin_inner{kind} {about}{' turned' if turned else ''}"
            args = [x, weight, small, 0, tokens, width, rank, turned | 4 * narrow, 2.0]
            yield name, ((-(-tokens // 16), 1), 512), 0, args, n * size
        wide, high = -(-width // 256), -(-tokens // 16)
        tiles = min(max(wide * high // (2 * most), 1), 2)
        for turned, added in ((2, 0), (0, 0), (2, out), (0, out)):
            name = f"{source}thin_outer{kind} {about}{' turned' if turned else ''}{' added' if added else ''}"
            args = [small, weight, out, added, tokens, width, rank, turned | 8 * narrow, tiles, 2.0]
            yield name, ((wide * -(-high // tiles), 1), 128), 0, args, n * size * (2 if added else 1)
        runs = max(min(-(-tokens // 512), most // -(-width // 64)), 1)
        for turned in (0, 2):
            name = f"{source}thin_rows{kind} {about}{' turned' if turned else ''}"
            args = [x, small, sums, tokens, -(-tokens // runs), width, rank, turned | narrow]
            yield name, ((-(-width // 64), runs), 256), 0, args, n * size
        if runs > 1:
            count = width * rank
            args = [sums, out, 0, count, runs, 0, 2.0]
            yield f"thin_product/thin_runs {about}", blocks(count), 0, args, 4 * count * (runs + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place")
    parser.add_argument("--only", help="kernels, with commas between")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        texts = read_folder(open_all([options.place], temporary)[0])[1]
    gpu = Gpu(texts)
    b = Bench(gpu)
    size = 1 << 28
    one, other = b.floats(size // 4), b.floats(size // 4)
    seconds = b.time(lambda: gpu.copy(one, other, size))
    best = 2 * size / seconds
    print(f"{'copy by the driver':60}{seconds * 1e6:10.1f} µs {best / 1e9:8.0f} GB/s")
    b.free()
    products = [thin(b, *sizes, kind) for sizes in ((4096, (512, 2048, 8192), 8), (4096, (2048,), 16), (400, (1024, 4096), 4)) for kind in ("", "_as_bf16")]
    heads = [head(b, *sizes) for sizes in ((4096, 4096, 2048), (4096, 8192, 2048), (512, 8192, 2048), (2048, 2047, 2048))]
    for group in (elementwise(b, ""), elementwise(b, "_as_bf16"), others(b), *heads, *products):
        for name, (grid, block), shared, args, count in group:
            if options.only and name.split("/")[1].split("_as_")[0].split(" ")[0] not in options.only.split(","):
                continue
            words = [word(x) for x in args]
            try:
                seconds = b.time(lambda: gpu.launch(name.split(" ")[0], grid, block, shared, words))
            except RuntimeError as why:
                print(f"{name:60}{why}")
                continue
            rate = count / seconds
            print(f"{name:60}{seconds * 1e6:10.1f} µs {rate / 1e9:8.0f} GB/s {rate / best:6.0%}", flush=True)
        b.free()


if __name__ == "__main__":
    main()
