#!/usr/bin/env python3
"""Times the head of a language model on a GPU as `head_loss` launches it beside its gradient: products and kernels together.

    python3 tests/cuda/head_time.py [TOKENS WIDTH VOCABULARY]

Needs the driver, NVRTC and cuBLAS of CUDA 13, numpy, and no Rust. Products are in bf16. Each line has pieces of another width, in
tokens of the vocabulary: milliseconds of all, of the products alone and of the kernels alone, and TFLOP/s of the products. WIDTH divides 2^20.
"""

import ctypes
import sys
from types import SimpleNamespace

import numpy

from gpu import Gpu
from sources import read, sources
from time_kernels import word

ROUNDS, PIECES = 5, (1024, 2048, 4096, 8192)
# Size of the head's numbers.
TABLE = 0.03


def texts():
    common = read("common.cuh")
    return {name: common + shared + own for name, shared, own in sources()}


class Head:
    """Buffers of the loss over `tokens` states of `width` numbers."""

    def __init__(self, gpu, tokens, width, vocabulary):
        self.gpu, self.tokens, self.width, self.vocabulary = gpu, tokens, width, vocabulary
        noise = numpy.random.default_rng(7)
        self.noise = noise.standard_normal(1 << 20).astype(numpy.float32)
        self.x, self.table = self.half(tokens * width, 1.0), self.half(vocabulary * width, TABLE)
        self.logits, self.states = gpu.take(4 * tokens * max(PIECES)), gpu.take(4 * tokens * width)
        self.targets = self.put(noise.integers(0, vocabulary, tokens).astype(numpy.uint32).tobytes())
        self.scale = self.put(numpy.float32([1 / tokens]).tobytes())
        self.sums, self.fault = gpu.take(8 * tokens), self.put(bytes(12))
        self.owns, self.highs, self.bests, self.lses = (gpu.take(4 * tokens) for _ in range(4))
        self.rows, self.factors = gpu.take(8 * tokens), gpu.take(8 * tokens)

    def put(self, data):
        at = self.gpu.take(len(data))
        self.gpu.send(at, data)
        return at

    def half(self, n, size):
        """Noise in bf16."""
        bits = (self.noise * numpy.float32(size)).view(numpy.uint32)
        data, at = (bits >> 16).astype(numpy.uint16).tobytes(), self.gpu.take(2 * n)
        for start in range(0, 2 * n, len(data)):
            self.gpu.send(at + start, data[: 2 * n - start])
        return at

    def product(self, turned, sizes, first, operands, apart, beta):
        m, n, k = sizes
        a, b, c = range(3)
        lda, ldb, ldc = apart
        product = SimpleNamespace(flags=turned | 8, m=m, n=n, k=k, first=first, a=a, b=b, c=c, lda=lda, ldb=ldb, ldc=ldc, alpha=1.0, beta=beta)
        self.gpu.multiply(product, operands)

    def call(self, kernel, rows, threads, args):
        self.gpu.launch(f"head_loss/{kernel}", (rows, 1), threads, 0, [word(x) for x in args])

    def run(self, columns, multiplies=True, calls=True):
        tokens, d = self.tokens, self.width
        for first in range(0, self.vocabulary, columns):
            n = min(columns, self.vocabulary - first)
            if multiplies:
                self.product(1, (n, tokens, d), first * d, (self.table, self.x, self.logits), (d, d, n), 0.0)
            if calls:
                known = [self.sums, self.owns, self.highs, self.bests]
                args = [self.logits, 2, 0, self.targets, *known, self.states, self.fault, n, first, self.vocabulary, d, 0.0]
                self.call("head_loss_piece", tokens, -(-n // 512) * 32, args)
            if multiplies:
                beta = 1.0 if first > 0 else 0.0
                self.product(0, (d, tokens, n), first * d, (self.table, self.logits, self.states), (d, 2 * n, d), beta)
        if calls:
            args = [self.sums, self.owns, self.highs, self.bests, self.lses, self.rows, self.factors, 0.0, tokens]
            self.call("head_loss_rows", -(-tokens // 256), 256, args)
            args = [self.states, self.factors, self.table, 2, self.targets, self.scale, self.vocabulary, d, 1.0]
            self.call("head_loss_states", tokens, 256, args)


    def milliseconds(self, *parts):
        self.run(*parts)
        events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in events:
            self.gpu.check(self.gpu.cuda.cuEventCreate(ctypes.byref(event), 0), "an event")
        self.gpu.check(self.gpu.cuda.cuEventRecord(events[0], self.gpu.stream), "record")
        for _ in range(ROUNDS):
            self.run(*parts)
        self.gpu.check(self.gpu.cuda.cuEventRecord(events[1], self.gpu.stream), "record")
        self.gpu.check(self.gpu.cuda.cuEventSynchronize(events[1]), "wait")
        name = "cuEventElapsedTime_v2" if hasattr(self.gpu.cuda, "cuEventElapsedTime_v2") else "cuEventElapsedTime"
        ms = ctypes.c_float()
        self.gpu.check(getattr(self.gpu.cuda, name)(ctypes.byref(ms), *events), "time")
        return ms.value / ROUNDS

    def difference(self, count):
        """The largest relative difference of the gradient at the first states. The table repeats itself every 2^20 numbers."""
        wide = lambda size: ((self.noise * numpy.float32(size)).view(numpy.uint32) >> 16 << 16).view(numpy.float32).astype(numpy.float64)
        d, table, x = self.width, wide(TABLE), wide(1.0)
        few = min(len(table) // d, self.vocabulary)
        table = table[: few * d].reshape(few, d)
        times = numpy.bincount(numpy.arange(self.vocabulary) % few, minlength=few)
        targets = numpy.frombuffer(self.gpu.fetch(self.targets, 4 * count), numpy.uint32)
        made = numpy.frombuffer(self.gpu.fetch(self.states, 4 * count * d), numpy.float32).reshape(count, d)
        most = 0.0
        for row, (target, own) in enumerate(zip(targets, made)):
            logits = table @ x[row * d : (row + 1) * d]
            weights = times * numpy.exp(logits - logits.max())
            want = (weights @ table / weights.sum() - table[target % few]) / self.tokens
            most = max(most, numpy.linalg.norm(own - want) / numpy.linalg.norm(want))
        return most


def main():
    tokens, width, vocabulary = map(int, sys.argv[1:4]) if len(sys.argv) > 3 else (4096, 2048, 128256)
    gpu = Gpu(texts())
    head = Head(gpu, tokens, width, vocabulary)
    operations = 4 * tokens * width * vocabulary
    print(f"{tokens} tokens, {vocabulary} x {width}")
    for columns in PIECES:
        parts = ((True, True), (True, False), (False, True))
        all_of, products, kernels = (head.milliseconds(columns, *own) for own in parts)
        rate = operations / products / 1e9
        print(f"pieces of {columns:5}: {all_of:7.3f} ms, products {products:7.3f} ({rate:4.0f} TFLOP/s), kernels {kernels:7.3f}", flush=True)
    head.run(PIECES[-1])
    fault = numpy.frombuffer(gpu.fetch(head.fault, 12), numpy.uint32)
    print(f"fault {fault[0]}, gradients of 8 states differ from f64's by {head.difference(8):.1e} of their size")


if __name__ == "__main__":
    main()
