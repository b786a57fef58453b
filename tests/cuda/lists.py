"""The lists of launches that the emulation ran, as `launch_tests/emulator.rs` writes them."""

import collections
import io
import json
import lzma
import pathlib
import struct
import tarfile

Call = collections.namedtuple("Call", "name grid block shared kinds words")
Product = collections.namedtuple("Product", "flags m n k a b lda ldb ldc first alpha beta c")
Copy = collections.namedtuple("Copy", "source to")
Upload = collections.namedtuple("Upload", "to data")
Table = collections.namedtuple("Table", "to kinds words")


class Reader:
    """A request, as `launch_tests/emulator.rs` writes it."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def get(self, form):
        found = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return found if len(found) > 1 else found[0]

    def block(self, n):
        if self.at + n > len(self.data):
            raise ValueError("the lists end early")
        self.at += n
        return self.data[self.at - n : self.at]

    def step(self):
        kind = self.get("B")
        if kind == 0:
            name = bytes(self.block(self.get("I"))).decode()
            x, y, block, shared, count = self.get("5I")
            pairs = [self.get("BQ") for _ in range(count)]
            return Call(name, (x, y), block, shared, [k for k, _ in pairs], [w for _, w in pairs])
        if kind == 1:
            return Product(*self.get("9I"), self.get("Q"), *self.get("2f"), self.get("I"))
        if kind == 2:
            return Copy(*self.get("2I"))
        if kind == 4:
            to, count = self.get("2I")
            pairs = [self.get("BQ") for _ in range(count)]
            return Table(to, [k for k, _ in pairs], [w for _, w in pairs])
        if kind == 3:
            to, count = self.get("2I")
            return Upload(to, bytes(self.block(count)))
        raise ValueError(f"a launch of kind {kind}")


class Case:
    """One list, what its buffers hold before, and where they stand in the answers."""

    def __init__(self, reader, about, answer):
        begin = reader.at
        self.about = about
        self.start = [reader.block(reader.get("Q")) for _ in range(reader.get("I"))]
        self.steps = [reader.step() for _ in range(reader.get("I"))]
        self.answer = [answer.block(len(x)) for x in self.start]
        self.text = reader.data[begin : reader.at]

    def is_product(self):
        return any(isinstance(step, Product) for step in self.steps)

    def first_source(self):
        return next((step.name.split("/")[0] for step in self.steps if isinstance(step, Call)), "")

    def tables(self):
        return {step.to for step in self.steps if isinstance(step, Table)}

    def results(self):
        """Buffers to compare by value: number → type. All other inputs must stay as they were."""
        inputs, outputs = self.about["inputs"], self.about["outputs"]
        if self.about["given"]:
            return {i: kind for i, (kind, _) in enumerate(inputs)}
        found = {len(inputs) + i: kind for i, (kind, _) in enumerate(outputs)}
        if self.about["taken"] is not None and outputs:
            found[self.about["taken"]] = found.pop(len(inputs))
        found.update({i: inputs[i][0] for i in self.about["updates"]})
        return found

    def sizes(self):
        shown = [f"{kind}{dims}" for kind, dims in self.about["inputs"]]
        more = [f"held {self.about['held']}"] * bool(self.about["held"]) + [f"taking {self.about['taken']}"] * (
            self.about["taken"] is not None
        )
        return f"{self.about['text']} of {', '.join(shown)} {' '.join(more)}".strip()


def read_folder(folder):
    about = [json.loads(line) for line in (folder / "about").read_text().splitlines()]
    reader = Reader(memoryview((folder / "in").read_bytes()))
    answer = Reader(memoryview((folder / "out").read_bytes()))
    count = reader.get("I")
    assert count == len(about), f"{folder}: {count} cases, {len(about)} told of"
    cases = [Case(reader, x, answer) for x in about]
    assert reader.at == len(reader.data) and answer.at == len(answer.data), f"{folder}: more than the cases"
    return cases, json.loads((folder / "sources").read_text())


def find(folders):
    found = []
    for folder in folders:
        found += [folder] if (folder / "in").exists() else sorted(x.parent for x in folder.glob("*/in"))
    return found


def open_all(places, temporary):
    """The folders in folders and packed files; these are unpacked below `temporary`."""
    folders = []
    for number, place in enumerate(map(pathlib.Path, places)):
        if place.is_file():
            to = pathlib.Path(temporary) / str(number)
            with tarfile.open(place, "r:xz") as archive:
                archive.extractall(to, filter="data")
            place = to
        folders += find([place])
    return folders


def thinned(cases, most):
    """Of each op its small cases up to so many bytes, and its largest."""
    by_op, kept = collections.defaultdict(list), set()
    for number, case in enumerate(cases):
        by_op[case.about["op"]].append((sum(map(len, case.start)), number))
    for own in by_op.values():
        room = most
        for size, number in sorted(own):
            room -= size
            if room >= 0:
                kept.add(number)
        kept.add(max(own)[1])
    return [case for number, case in enumerate(cases) if number in kept]


def pack(folders, path, most):
    """Writes the cases of folders to one file, of each op up to `most` bytes; scratch is left out of answers."""
    # Cases share operands: a window over all of them finds each again.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 28}]
    counts = []
    with lzma.open(path, "wb", filters=filters) as out, tarfile.open(fileobj=out, mode="w") as archive:
        for folder in folders:
            cases, sources = read_folder(folder)
            kept = thinned(cases, most)
            counts.append((folder.name, len(kept), len(cases)))
            answers = bytearray()
            for case in kept:
                seen = {*range(len(case.about["inputs"])), *case.results(), len(case.start) - 1}
                answers += b"".join(bytes(x) if i in seen else b"\xff" * len(x) for i, x in enumerate(case.answer))
            files = {
                "in": struct.pack("<I", len(kept)) + b"".join(case.text for case in kept),
                "out": bytes(answers),
                "about": "\n".join(json.dumps(case.about) for case in kept).encode(),
                "sources": json.dumps(sources).encode(),
            }
            for name, data in files.items():
                entry = tarfile.TarInfo(f"{folder.name}/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return counts
