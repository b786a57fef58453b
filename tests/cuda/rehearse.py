#!/usr/bin/env python3
"""Makes libraries with which programs run on a GPU where there is none: the driver and cuBLAS are the emulation of
`tests/cuda`, NVRTC is the real one, all else fails when called.

    python3 tests/cuda/rehearse.py FOLDER LIBNVRTC
    LD_LIBRARY_PATH=FOLDER target/debug/peftc run --device cuda recipes/…
"""

import pathlib
import re
import shutil
import subprocess
import sys

from sources import read, sources

HERE = pathlib.Path(__file__).resolve().parent
# Library, soname, cudarc's modules and their functions. cuBLAS is one file with the driver: both ask one stream.
LIBRARIES = [
    ("cuda", "libcuda.so.1", [("driver", r"cu[A-Z]\w*"), ("cublas", r"cublas[A-Z]\w*")]),
]


def kernels(text):
    for name in re.findall(r"__global__ void (?:NAMED\()?(\w+)", text):
        if name == "name":
            yield from re.findall(r"^ATTENTION\((\w+)", text, re.M)
        elif name.endswith("_"):
            yield from (name + n for n in re.findall(r"^ATTENTION_GRAD\((\w+)", text, re.M))
        else:
            yield name


def emulation():
    text, table = (HERE / "shim.h").read_text() + read("common.cuh"), []
    for name, shared, own in sources():
        for held, suffix in enumerate(["", "_as_f16", "_as_bf16"] if "void NAMED(" in shared + own else [""]):
            text += f"\n#define HELD {held}\nnamespace of_{name}{suffix} {{\n{shared}{own}\n}}\n"
            text += "".join(f"#undef {macro}\n" for macro in ("HELD", "NAMED", "ATTENTION", "ATTENTION_GRAD"))
            table += [f"KERNEL({name}{suffix}, {kernel}{suffix})" for kernel in kernels(shared + own)]
    return text + (HERE / "driver.cpp").read_text().replace("{KERNELS}", "{" + ", ".join(table) + "}")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, nvrtc = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    registry = pathlib.Path.home() / ".cargo" / "registry" / "src"
    cudarc = sorted(registry.glob("*/cudarc-0.*"))[-1]
    (folder / "emulation.cpp").write_text(emulation())
    flags = ["c++", "-std=c++17", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-w", "-fPIC"]
    subprocess.run([*flags, "-c", "-o", folder / "emulation.o", folder / "emulation.cpp"], check=True)
    for name, soname, modules in LIBRARIES:
        names = set()
        for module, pattern in modules:
            source = (cudarc / "src" / module / "sys" / "mod.rs").read_text()
            names |= set(re.findall(rf"\bfn ({pattern})\(", source))
        stubs = folder / f"{name}.c"
        stubs.write_text("".join(f"__attribute__((weak)) int {n}(void) {{ return 100; }}\n" for n in sorted(names)))
        objects = [folder / "emulation.o"] if name == "cuda" else []
        link = ["-shared", "-fPIC", "-w", "-Wl,-Bsymbolic", "-fno-builtin", f"-Wl,-soname,{soname}", "-o", folder / soname]
        subprocess.run(["cc", *link, stubs, *objects, *(["-lstdc++", "-lm"] if objects else [])], check=True)
        (folder / f"lib{name}.so").unlink(missing_ok=True)
        (folder / f"lib{name}.so").symlink_to(soname)
    for alias in ("libcublas.so", "libcublas.so.13"):
        (folder / alias).unlink(missing_ok=True)
        (folder / alias).symlink_to("libcuda.so.1")
    for part in nvrtc.resolve().parent.glob("libnvrtc*.so*"):
        if "alt" not in part.name:
            shutil.copy(part, folder / part.name)
    (folder / "libnvrtc.so").unlink(missing_ok=True)
    (folder / "libnvrtc.so").symlink_to(nvrtc.name)


main()
