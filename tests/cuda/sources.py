"""The kernel sources with what they share, as the ops' `source!("name" with "shared", …)` put them together."""

import pathlib
import re

OPS = pathlib.Path(__file__).resolve().parents[2] / "crates" / "core" / "src" / "program" / "op"


FORMATS = OPS.parent / "format"


def read(name):
    return (OPS / name).read_text()


def decoders():
    """Of each format of blocks with a kernel: its name and source, whose tables are literals of the file."""
    for path in sorted(FORMATS.glob("*.rs")):
        text = path.read_text()
        found = re.search(r'name: "(\w+)",\s*text: concat!\((.*?)\n    \)', text, re.S)
        if found is None:
            continue
        own = ""
        for code, table in re.findall(r'r#"(.*?)"#|(\w+)!\(\)', found[2], re.S):
            numbers = re.search(rf"table!\(\w+, {table}:(.*?)\);", text, re.S)[1].split() if table else []
            own += code + "".join(f"{x}f," for x in numbers)
        yield found[1], "", own


def sources():
    """Of each op with kernels: its name, what stands in front of its own source (behind `common.cuh`), and that."""
    found = {}
    for path in sorted(OPS.glob("*.rs")):
        for name, shared in re.findall(r'source!\(\s*"(\w+)"(?: with ([^)]*))?\)', path.read_text()):
            front = "".join(read(file) for file in re.findall(r'"([\w.]+)"', shared))
            found[name] = (read("held.cuh") + front, read(f"{name}.cu"))
    files = {path.stem for path in OPS.glob("*.cu")}
    assert files == set(found), f"no op names these sources: {files ^ set(found)}"
    return [(name, *both) for name, both in sorted(found.items())] + list(decoders())
