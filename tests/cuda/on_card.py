#!/usr/bin/env python3
"""Runs every op's launches on a GPU and compares with what the emulation made of the same.

    EMULATION=FOLDER cargo test -p peftc-core --lib launch_tests      # where Rust is: makes FOLDER
    python3 tests/cuda/on_card.py FOLDER --pack FILE                  # if it has to be carried: some of the cases
    python3 tests/cuda/on_card.py FOLDER|FILE … [--limit SECONDS] [--workers N] [--only OP,OP] [--dry]

Needs numpy, the driver, NVRTC and cuBLAS of CUDA 13; neither Rust nor network. FOLDER holds `in`, `out`, `about` and
`sources`, or folders that do. Kernels are compiled, launched and given memory as the program does it. Each list
runs twice: a buffer is between margins, of 0xa5 and then of NaNs; what is read or written there shows. A case that
ends its process (an illegal address stays with a context) is reported, and the rest goes on in another. `--dry`
only reads. The exit code is 0 if every case holds.
"""

import argparse
import collections
import multiprocessing
import multiprocessing.connection
import struct
import sys
import tempfile
import time

import numpy

from gpu import Gpu
from lists import Call, Copy, Product, Upload, open_all, pack, read_folder

MARGIN = 256
# Bits that are the GPU's own: products may round an operand the other way, or not at all.
RELATIVE = {"f32": 1e-4, "f16": 2.0**-10, "bf16": 2.0**-7, "u32": 0.0}
OF_LARGEST = {"Tf32": 4e-3}
# Attention in bf16 rounds probabilities that it has made itself.
ROUNDING = ("attention", "attention_grad")


def elements(kind, data):
    if kind in ("f32", "u32", "f16"):
        return numpy.frombuffer(data, {"f32": "<f4", "u32": "<u4", "f16": "<f2"}[kind]).astype(numpy.float64)
    wide = numpy.frombuffer(data, "<u2").astype(numpy.uint32) << 16
    return wide.view(numpy.float32).astype(numpy.float64)


def largest_of(kind, data):
    x = numpy.abs(elements(kind, data))
    x = x[numpy.isfinite(x)]
    return x.max() if x.size else 0.0


def compare(case, kind, want, got, least=0.0):
    """Share of elements with other bits, largest difference by the largest element, or `least`, and whether that is near."""
    words = {"f32": "<u4", "u32": "<u4"}.get(kind, "<u2")
    other = numpy.frombuffer(want, words) != numpy.frombuffer(got, words)
    if not other.any():
        return 0.0, 0.0, True, True
    a, b = elements(kind, want), elements(kind, got)
    with numpy.errstate(all="ignore"):
        same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
        off = numpy.where(same, 0.0, numpy.abs(a - b))
    off = numpy.where(numpy.isnan(off), numpy.inf, off)
    largest = max(largest_of(kind, want), least)
    precision = case.about["precision"]
    own = 0.0 if precision == "Tf32" and case.is_product() else RELATIVE[kind]
    size = numpy.where(numpy.isfinite(a), numpy.abs(a), 0.0)
    if case.is_product() and kind in ("f16", "bf16"):
        # Rounded before its bias is added, and then again.
        own, size = 2 * own, largest
    of_largest = OF_LARGEST.get(precision, 2e-6)
    if precision == "Bf16" and case.about["op"] in ROUNDING:
        of_largest = 2.0**-8
    near = off <= own * size + of_largest * largest
    return float(other.mean()), float(off.max() / largest if largest else off.max()), bool(near.all()), bool(same.all())


def judge(case, first, second):
    """What is wrong with a case's buffers after both runs, and how far they are from the emulation's."""
    wrong, share, worst, same_bits = [], 0.0, 0.0, True
    fault = first[-1][0] != 0
    if fault != case.about["bad"]:
        wrong.append(f"fault {list(numpy.frombuffer(first[-1], '<u4'))}")
    if case.about["bad"]:
        return wrong, share, worst, same_bits
    results, tables = case.results(), case.tables()
    for i, (a, b) in enumerate(zip(first[:-1], second)):
        if i not in tables and a != b:
            wrong.append(f"buffer {i} is another the second time")
    # The gradients of attention are of one size. Over a single token two of them are zero but for rounding.
    least = 0.0
    if case.about["op"] == "attention_grad":
        least = max(largest_of(kind, case.answer[i]) for i, kind in results.items())
    for i, kind in results.items():
        part, off, near, same = compare(case, kind, case.answer[i], first[i], least)
        share, worst, same_bits = max(share, part), max(worst, off), same_bits and same
        if not near:
            wrong.append(f"buffer {i} of {kind}: off by {off:.2g} of the largest, {part:.1%} have other bits")
    for i in range(len(case.about["inputs"])):
        if i not in results and first[i] != bytes(case.answer[i]):
            wrong.append(f"input {i} was changed")
    if case.about["same_bits"] and not case.is_product() and not same_bits:
        wrong.append(f"other bits in {share:.1%}, off by {worst:.2g}")
    return wrong, share, worst, same_bits


def arrange(case):
    """Where each buffer begins, margins between, and how much all need."""
    starts, at = [], MARGIN
    for data in case.start:
        starts.append(at)
        at += (len(data) + MARGIN - 1) // MARGIN * MARGIN + MARGIN
    return starts, at


def run_once(gpu, case, margin):
    """One run in memory of its own; all buffers afterwards, and which margins were written."""
    starts, size = arrange(case)
    image = numpy.full(size, margin, numpy.uint8)
    for start, data in zip(starts, case.start):
        image[start : start + len(data)] = numpy.frombuffer(data, numpy.uint8)
    base = gpu.take(size)
    address = [base + start for start in starts]
    try:
        gpu.send(base, image.tobytes())
        for step in case.steps:
            do(gpu, case, step, address)
        after = numpy.frombuffer(gpu.fetch(base, size), numpy.uint8).copy()
    finally:
        gpu.give(base)
    buffers = [after[start : start + len(data)].tobytes() for start, data in zip(starts, case.start)]
    for start, data in zip(starts, case.start):
        after[start : start + len(data)] = margin
    return buffers, bool((after != margin).any())


def do(gpu, case, step, address):
    if isinstance(step, Call):
        words = [address[w] if kind == 0 else w for kind, w in zip(step.kinds, step.words)]
        gpu.launch(step.name, step.grid, step.block, step.shared, words)
    elif isinstance(step, Product):
        gpu.multiply(step, address)
    elif isinstance(step, Copy):
        if step.source != step.to:
            gpu.copy(address[step.source], address[step.to], len(case.start[step.to]))
    elif isinstance(step, Upload):
        gpu.send(address[step.to], step.data)
    else:
        words = [address[w] if kind == 1 else w for kind, w in zip(step.kinds, step.words)]
        gpu.send(address[step.to], struct.pack(f"<{len(words)}Q", *words))


def work(pipe, folders):
    """A process of its own: gets lists of cases, tells of each."""
    loaded = [read_folder(folder) for folder in folders]
    try:
        gpu = Gpu(loaded[0][1])
    except Exception as why:  # noqa: BLE001 - told to the parent
        pipe.send(("dead", None, f"no GPU: {why}"))
        return
    while (numbers := pipe.recv()) is not None:
        for folder, number in numbers:
            case = loaded[folder][0][number]
            pipe.send(("begun", (folder, number), None))
            try:
                first, over = run_once(gpu, case, 0xA5)
                second, over_again = run_once(gpu, case, 0xFF)
            except Exception as why:  # noqa: BLE001 - told to the parent
                pipe.send(("dead", (folder, number), str(why)))
                return
            wrong, share, worst, same = judge(case, first, second)
            if over or over_again:
                wrong.append("a write outside a buffer")
            pipe.send(("done", (folder, number), (wrong, share, worst, same)))
        pipe.send(("idle", None, None))


class Worker:
    """A process and what it has left to do."""

    def __init__(self, context, folders):
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=work, args=(far, folders), daemon=True)
        self.process.start()
        far.close()
        self.left, self.now, self.heard = [], None, time.monotonic()

    def give(self, numbers):
        self.left, self.heard = list(numbers), time.monotonic()
        self.pipe.send(numbers)

    def end(self):
        self.process.kill()
        self.process.join()


def chunks(loaded):
    """Cases by the source of their first kernel: each is compiled in one process. The slow ones first."""
    found = collections.defaultdict(list)
    for folder, (cases, _) in enumerate(loaded):
        for number, case in enumerate(cases):
            found[case.first_source()].append((folder, number))
    parts = [own[i : i + 60] for own in found.values() for i in range(0, len(own), 60)]

    def cost(part):
        text = loaded[part[0][0]][1].get(loaded[part[0][0]][0][part[0][1]].first_source().split("_as_")[0], "")
        return len(text) + 100 * len(part)

    return sorted(parts, key=cost)


def run_all(folders, loaded, wanted, options):
    """Every case's verdict, and those that ended a process."""
    context = multiprocessing.get_context("spawn")
    queue = [part for part in ([x for x in own if x in wanted] for own in chunks(loaded)) if part]
    workers = [Worker(context, folders) for _ in range(min(options.workers, len(queue)))]
    begun, done, dead = time.monotonic(), {}, {}
    for worker in workers:
        worker.give(queue.pop())
    while workers and time.monotonic() - begun < options.limit:
        ready = multiprocessing.connection.wait([w.pipe for w in workers], timeout=1.0)
        for worker in list(workers):
            silent = time.monotonic() - worker.heard > options.silence
            if worker.pipe in ready or silent:
                hear(worker, silent, done, dead)
            if worker.now == "over":
                workers.remove(worker)
                worker.end()
                if worker.left and None in dead and not done:
                    return done, dead
                if worker.left:
                    queue.append(worker.left)
                if queue:
                    workers.append(Worker(context, folders))
                    workers[-1].give(queue.pop())
            elif worker.now == "idle":
                worker.now = None
                if queue:
                    worker.give(queue.pop())
                else:
                    workers.remove(worker)
                    worker.end()
    for worker in workers:
        worker.end()
    return done, dead


def hear(worker, silent, done, dead):
    """Takes in one message of a worker, or that it has ended or hangs."""
    try:
        what, number, more = ("dead", worker.now, "no answer") if silent else worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        what, number, more = "dead", worker.now, "its process ended"
    worker.heard = time.monotonic()
    if what == "begun":
        worker.now = number
    elif what == "done":
        done[number] = more
        worker.left.remove(number)
    elif what == "idle":
        worker.now = "idle"
    else:
        dead[number] = more
        worker.left = [x for x in worker.left if x != number]
        worker.now = "over"


def report(loaded, wanted, done, dead):
    """A line an op, then each case that does not hold."""
    rows, failing = collections.defaultdict(lambda: [0, 0, 0, 0.0, 0.0, 0, 0, 0]), []
    for key in sorted(wanted):
        case = loaded[key[0]][0][key[1]]
        row = rows[case.about["op"]]
        row[0] += 1
        row[6] += case.about["bad"]
        if key not in done:
            row[7] += 1
            failing.append((case, [f"ended its process: {dead[key]}" if key in dead else "not reached"]))
            continue
        wrong, share, worst, same = done[key]
        row[1] += 1
        row[2] += same and not case.about["bad"]
        row[3], row[4] = max(row[3], share), max(row[4], worst)
        row[5] += case.about["bad"] and not any(x.startswith("fault") for x in wrong)
        row[7] += bool(wrong)
        if wrong:
            failing.append((case, wrong))
    print(f"{'op':34}{'cases':>6}{'ran':>6}{'same bits':>11}{'other, most':>13}{'worst':>10}{'faults':>9}{'failing':>9}")
    for name, (cases, ran, same, share, worst, faults, bad, failed) in sorted(rows.items()):
        print(f"{name:34}{cases:6}{ran:6}{same:11}{share:13.1%}{worst:10.1e}{f'{faults}/{bad}':>9}{failed:9}")
    total = [sum(row[i] for row in rows.values()) for i in range(8)]
    print(f"all: {total[0]} cases, {total[1]} ran, {total[2]} with the emulation's bits, {total[7]} failing")
    for case, wrong in failing:
        print(f"FAILS {'; '.join(wrong)}: {case.sizes()}"[:600])
    if None in dead:
        print(f"a process could not begin: {dead[None]}")
    return not failing and None not in dead


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for all")
    parser.add_argument("--silence", type=float, default=45.0, help="seconds after which a case hangs")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--only", help="ops, with commas between")
    parser.add_argument("--dry", action="store_true", help="read, and run nothing")
    parser.add_argument("--pack", metavar="FILE", help="write the cases to one file, to be named instead of FOLDER")
    parser.add_argument("--most", type=int, default=1 << 20, help="bytes of each op's cases that are packed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folders = open_all(options.folders, temporary)
        if not folders:
            sys.exit("no folder holds `in`")
        if options.pack:
            for name, kept, of in pack(folders, options.pack, options.most):
                print(f"{name}: {kept} of {of} cases")
            return
        sys.exit(0 if go(folders, options) else 1)


def go(folders, options):
    begun = time.monotonic()
    loaded = [read_folder(folder) for folder in folders]
    only = options.only.split(",") if options.only else None
    every = [(f, n, case) for f, (cases, _) in enumerate(loaded) for n, case in enumerate(cases)]
    wanted = {(f, n) for f, n, case in every if only is None or case.about["op"] in only}
    if options.dry:
        # What the emulation made, compared with itself.
        done = {(f, n): judge(case, [bytes(x) for x in case.answer], [bytes(x) for x in case.answer]) for f, n, case in every}
        return report(loaded, wanted, done, {})
    done, dead = run_all(folders, loaded, wanted, options)
    good = report(loaded, wanted, done, dead)
    print(f"{time.monotonic() - begun:.1f} s")
    return good


if __name__ == "__main__":
    main()
