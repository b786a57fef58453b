"""The kernel sources with what they share, as the ops' `source!("name" with "shared", …)` put them together."""

import pathlib
import re

OPS = pathlib.Path(__file__).resolve().parents[2] / "crates" / "core" / "src" / "program" / "op"


def read(name):
    return (OPS / name).read_text()


def sources():
    """Of each op with kernels: its name, what stands in front of its own source (behind `common.cuh`), and that."""
    found = {}
    for path in sorted(OPS.glob("*.rs")):
        for name, shared in re.findall(r'source!\(\s*"(\w+)"(?: with ([^)]*))?\)', path.read_text()):
            front = "".join(read(file) for file in re.findall(r'"([\w.]+)"', shared))
            found[name] = (read("held.cuh") + front, read(f"{name}.cu"))
    files = {path.stem for path in OPS.glob("*.cu")}
    assert files == set(found), f"no op names these sources: {files ^ set(found)}"
    return [(name, *both) for name, both in sorted(found.items())]
