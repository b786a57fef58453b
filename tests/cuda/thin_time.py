#!/usr/bin/env python3
"""Times LoRA's thin products on a GPU at the sizes of LLaMA-3.2-1B: microseconds, bytes a second, and a step's sum.

    python3 tests/cuda/thin_time.py [ROUNDS] [--variants]

Needs the driver, NVRTC and cuBLAS of CUDA 13, no Rust. Launches are those of `thin_product.rs`: the adapter's matrices are
f32, the rest bf16 or, for TF32, f32, which is timed beside what cuBLAS takes. Each launch has other long operands, so that
none is in the cache, and all wait in the stream before the first begins. `--variants` also tries other grids.
"""

import sys

from attention_time import Timer, number, numbers
from gpu import Gpu
from lists import Product
from sources import read, sources

TOKENS, RANK, DEPTH = 4096, 8, 16
# Columns that a map reads and makes, and how many of a block's maps are so.
MAPS = [(2048, 2048, 2), (2048, 512, 2), (2048, 8192, 2), (8192, 2048, 1)]
ARENA = 256 << 20
TURNED, OUT_NARROW, LEFT_NARROW, THIN_NARROW = 2, 4, 8, 1
# Name, which width is long, kernel, how the thin operand is stored, passes over the long operand.
ROLES = [
    ("u = x A'", 0, "inner", TURNED, 1),
    ("y += u B'", 1, "outer", TURNED, 2),
    ("du = dy B", 1, "inner", 0, 1),
    ("dB = dy' u", 1, "rows", 0, 1),
    ("dx = du A", 0, "outer", 0, 1),
    ("dA = du' x", 0, "rows", TURNED, 1),
]


def ceil(n, by):
    return -(-n // by)


class Bench:
    def __init__(self, rounds):
        self.gpu = Gpu({name: read("common.cuh") + shared + own for name, shared, own in sources()})
        self.rounds, self.timer = rounds, Timer(self.gpu)
        self.arenas = [self.gpu.take(ARENA) for _ in range(2)]
        noise = numbers(1 << 20, 0)
        for arena in self.arenas:
            for start in range(0, ARENA, len(noise)):
                self.gpu.send(arena + start, noise)
        self.thin, self.small, self.sums = (self.gpu.take(32 << 20) for _ in range(3))
        for at in (self.thin, self.small):
            self.gpu.send(at, noise)

    def seconds(self, launches, size):
        """Of a list of launches; each is a function of the long operand, which lies elsewhere each time."""
        turn, count = [0], ARENA // size

        def work():
            at = self.arenas[0] + turn[0] % count * size
            turn[0] += 1
            for launch in launches:
                launch(at)

        work()
        # Work that lasts until all else stands in the stream.
        for _ in range(10):
            self.gpu.copy(self.arenas[0], self.arenas[1], ARENA)
        return self.timer.seconds(work, self.rounds)

    def call(self, kernel, grid, block, words):
        """`words` holds None where the long operand stands."""
        return lambda at: self.gpu.launch(kernel, grid, block, 0, [at if x is None else x for x in words])


def launches(b, role, width, kind, grid=None):
    """The launches of one product; `grid` says otherwise in how many steps or runs it is divided."""
    _, _, kernel, turned, passes = role
    narrow = kind == "_as_bf16"
    source, thin = f"thin_product{kind}/thin_", THIN_NARROW if narrow else 0
    if kernel == "inner":
        words = [None, b.thin, b.small, 0, TOKENS, width, RANK, turned | (OUT_NARROW if narrow else 0), number(1.0)]
        return [b.call(f"{source}inner{kind}", (ceil(TOKENS, 32), 1), 256, words)]
    if kernel == "outer":
        wide, high = ceil(width, 256), ceil(TOKENS, 32 if narrow else 16)
        steps = grid or min(max(wide * high // 512, 1), 4)
        words = [b.small, b.thin, None, None if passes == 2 else 0, TOKENS, width, RANK, turned | (LEFT_NARROW if narrow else 0), steps, number(1.0)]
        return [b.call(f"{source}outer{kind}", (wide * ceil(high, steps), 1), 128, words)]
    tiles = ceil(width, 64)
    runs = grid or (1 if 264 // tiles <= 2 else min(max(TOKENS // 256, 1), 264 // tiles))
    words = [None, b.small, b.sums, TOKENS, ceil(TOKENS, runs), width, RANK, turned | thin]
    both = [b.call(f"{source}rows{kind}", (tiles, runs), 256, words)]
    if runs > 1:
        count = width * RANK
        runs_of = "thin_product_tf32/thin_runs_tf32" if kind == "_tf32" else "thin_product/thin_runs"
        both.append(b.call(runs_of, (ceil(count, 256), 1), 256, [b.sums, b.thin + (8 << 20), 0, count, runs, 0, number(1.0)]))
    return both


def of_cublas(b, role, width):
    """The same in TF32, as `matmul.rs` leaves it to cuBLAS."""
    name, _, kernel, turned, passes = role
    (m, n, k), a_t, b_t, at = {
        "inner": ((TOKENS, RANK, width), 0, turned // 2, (None, b.thin, b.small)),
        "outer": ((TOKENS, width, RANK), 0, turned // 2, (b.small, b.thin, None)),
        "rows": ((RANK, width, TOKENS), 1, 0, (b.small, None, b.sums)) if turned else ((width, RANK, TOKENS), 1, 0, (None, b.small, b.sums)),
    }[kernel]
    across = lambda t, rows, columns: rows if t else columns
    p = Product(b_t | a_t << 1 | 1 << 2, n, m, k, 1, 0, across(b_t, k, n), across(a_t, m, k), n, 0, 1.0, 1.0 if passes == 2 else 0.0, 2)
    return [lambda long: b.gpu.multiply(p, [long if x is None else x for x in at])]


def table(b, kind, title, make):
    size, whole, moved = (2 if kind == "_as_bf16" else 4), 0.0, 0
    print(f"\n{title}, {TOKENS} tokens, rank {RANK}")
    shown = {}
    for place, role in enumerate(ROLES):
        sum_of_role = 0.0
        for which, width in sorted({(role[1], pair[role[1]]) for pair in MAPS}):
            count = DEPTH * sum(times for *pair, times in MAPS if pair[which] == width)
            bytes_of = TOKENS * width * size
            seconds = b.seconds(make(role, width), bytes_of)
            rate = role[4] * bytes_of / seconds
            whole, moved, sum_of_role = whole + count * seconds, moved + count * role[4] * bytes_of, sum_of_role + count * seconds
            shown[place, width] = f"{width:6} {seconds * 1e6:7.1f} us {rate / 1e9:5.0f} GB/s"
        line = " |".join(text for (own, _), text in shown.items() if own == place)
        print(f"  {role[0]:11}{line} | a step {sum_of_role * 1e3:6.2f} ms", flush=True)
    print(f"  a step: {whole * 1e3:.2f} ms, {moved / whole / 1e9:.0f} GB/s; at 3 TB/s it would be {moved / 3e12 * 1e3:.2f} ms", flush=True)


def variants(b, kind):
    size = 2 if kind == "_as_bf16" else 4
    print(f"\nother grids{kind}: microseconds by steps of `outer` and by runs of `rows`")
    for role, grids in ((ROLES[1], (1, 2, 4, 8)), (ROLES[4], (1, 2, 4, 8)), (ROLES[3], (1, 2, 4, 8, 16)), (ROLES[5], (1, 2, 4, 8, 16))):
        for width in sorted({pair[role[1]] for pair in MAPS}):
            times = [(grid, b.seconds(launches(b, role, width, kind, grid), TOKENS * width * size)) for grid in grids]
            print(f"  {role[0]:11}{width:6} " + ", ".join(f"{grid}: {seconds * 1e6:.1f}" for grid, seconds in times), flush=True)


def main():
    own = [x for x in sys.argv[1:] if x != "--variants"]
    b = Bench(int(own[0]) if own else 20)
    seconds = b.timer.seconds(lambda: b.gpu.copy(*b.arenas, ARENA), 5)
    print(f"a copy by the driver: {2 * ARENA / seconds / 1e9:.0f} GB/s")
    table(b, "_as_bf16", "bf16", lambda role, width: launches(b, role, width, "_as_bf16"))
    table(b, "_tf32", "TF32", lambda role, width: launches(b, role, width, "_tf32"))
    table(b, "_tf32", "TF32 by cuBLAS", lambda role, width: of_cublas(b, role, width))
    if "--variants" in sys.argv:
        for kind in ("_as_bf16", "_tf32"):
            variants(b, kind)


if __name__ == "__main__":
    main()
