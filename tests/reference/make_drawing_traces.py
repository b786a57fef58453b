"""Traces of the rows that iPET's generations draw: tests/reference/drawing.json.

How to run (from the repository root; numpy and blake3):
    python tests/reference/make_drawing_traces.py

The rule is that of the authors' implementation (timoschick/pet, `generate_ipet_train_set`), written down again: softmax of the mean
logits, the first largest as the label, of each class so many rows as the labels' proportions say, in proportion to the probability and
without replacement; where a class has too few, its rows are repeated whole. The draws are those of the counter-based generator
of crates/core/src/base/rng.rs: a row's waiting time is exponential with its probability as the rate, and the first ones are taken.
That this has the law of `numpy.random.choice(replace=False, p=…)` is checked below by frequencies.
"""

import json
from pathlib import Path

import numpy as np
from blake3 import blake3


def philox(key, counter):
    key, c = list(key), list(counter)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ key[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ key[1], p0 & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


class Stream:
    def __init__(self, seed, purpose):
        digest = blake3(seed.to_bytes(8, "little") + purpose.encode()).digest()
        self.key = [int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in (0, 1)]

    def word(self, index):
        a, b, _, _ = philox(self.key, [index & 0xFFFFFFFF, index >> 32, 0, 0])
        return a | (b << 32)

    def uniform(self, index):
        return (self.word(index) >> 11) * 2.0**-53


def element(place, own):
    return (place << 40) ^ own


def teachers(seed, place, count, share):
    others = [i for i in range(count) if count == 1 or i != place]
    stream = Stream(seed, "teachers that label")
    wanted = max(1, round(share * len(others)))
    return sorted(sorted(others, key=lambda i: stream.word(element(place, i)))[:wanted])


def rows(seed, place, scores, labelled, grow):
    stream = Stream(seed, "rows that are drawn")
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    label = scores.argmax(1)
    drawn = []
    for c, own in enumerate(labelled):
        wanted = own * (grow - 1)
        found = [int(i) for i in np.flatnonzero(label == c)]
        examples, copy = [(0, i) for i in found], 1
        while len(examples) < wanted:
            examples += [(copy, i) for i in found]
            copy += 1
        def wait(e):
            u = stream.uniform(element(place, e[0] * len(scores) + e[1]))
            return -np.log1p(-u) / shares[e[1], c]
        for _, i in sorted(examples, key=wait)[:wanted]:
            drawn.append([i, c, float(shares[i, c])])
    return drawn, [int((label == c).sum()) for c in range(len(labelled))]


def same_law():
    """The first waiting times against numpy's draws: how often each row is among three of six."""
    rng = np.random.default_rng(0)
    p = np.array([0.5, 0.55, 0.6, 0.8, 0.9, 0.99])
    n = 40_000
    waits = -np.log1p(-rng.random((n, 6))) / p
    ours = np.bincount(np.argsort(waits, 1)[:, :3].ravel(), minlength=6) / n
    old = np.random.RandomState(1)
    theirs = np.zeros(6)
    for _ in range(n):
        theirs[old.choice(6, size=3, replace=False, p=p / p.sum())] += 1
    apart = np.abs(ours - theirs / n).max()
    assert apart < 0.012, apart
    return apart


def main():
    rng = np.random.RandomState(7)
    cases = []
    for seed, place, count, share, grow, labelled in [
        (1, 0, 12, 0.25, 5, [5, 5]),
        (1, 7, 12, 0.25, 5, [7, 3]),
        (2, 2, 4, 0.25, 25, [4, 6]),
        (42, 3, 7, 0.5, 3, [4, 3, 5]),
        (5, 0, 1, 0.25, 4, [6, 0, 2]),
    ]:
        scores = rng.normal(size=(64, len(labelled))) * 2
        scores = scores.astype(np.float32).astype(np.float64)
        drawn, found = rows(seed, place, scores, labelled, grow)
        cases.append(
            {
                "seed": seed, "place": place, "teachers": count, "share": share, "grow": grow, "labelled": labelled,
                "scores": scores.ravel().tolist(), "chosen": teachers(seed, place, count, share), "found": found, "drawn": drawn,
            }
        )
    print(f"inclusion frequencies are those of numpy's choice within {same_law():.4f}")
    Path("tests/reference/drawing.json").write_text(json.dumps({"cases": cases}) + "\n")


main()
