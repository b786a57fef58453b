#!/usr/bin/env python3
"""Compiles every kernel source with NVRTC, as the program does on first use, for the architectures named.

    python3 -m pip download --no-deps nvidia-cuda-nvrtc==13.0.88 && unzip nvidia_cuda_nvrtc*.whl
    python3 tests/cuda/nvrtc.py nvidia/cu13/lib/libnvrtc.so.13 [sm_80 sm_90 …]

No GPU is needed. The PTX (or, for `sm_…`, the machine code) is thrown away unless PTX names a folder.
"""

import concurrent.futures
import ctypes
import os
import pathlib
import sys

from sources import read, sources

OPTIONS = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"]


def load(library):
    for part in sorted(pathlib.Path(library).resolve().parent.glob("libnvrtc-builtins.so*")):
        ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(library)


def compile_source(job):
    """Compiles one source; whether that succeeded, and what is to be printed of it."""
    library, architecture, held, (name, shared, own) = job
    nvrtc, keep = load(library), os.environ.get("PTX")
    text = f"#define HELD {held}\n" + read("common.cuh") + shared + own
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), f"{name}.cu".encode(), 0, None, None)
    options = [o.encode() for o in OPTIONS + [f"--gpu-architecture={architecture}"]]
    code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if keep and code == 0:
        kind = ("CUBIN", "cubin") if architecture.startswith("sm_") else ("PTX", "ptx")
        getattr(nvrtc, f"nvrtcGet{kind[0]}Size")(program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{kind[0]}")(program, data)
        (pathlib.Path(keep) / f"{name}.{held}.{architecture}.{kind[1]}").write_bytes(data.raw)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    said = log.value.decode().strip()
    return code == 0, f"{name}.cu as {held} for {architecture}: {said}" if code != 0 or said else ""


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    library, architectures = sys.argv[1], sys.argv[2:] or ["sm_80", "sm_90"]
    all_sources, failed = sources(), 0
    in_16_bits = ["void NAMED(" in shared + own for _, shared, own in all_sources]
    modules = [(held, source) for source, also in zip(all_sources, in_16_bits) for held in range(3 if also else 1)]
    # NVRTC compiles one program at a time, so each processor gets a process.
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        for architecture in architectures:
            for succeeded, said in pool.map(compile_source, [(library, architecture, *module) for module in modules]):
                if said:
                    print(said)
                failed += not succeeded
            print(f"{architecture}: {len(modules)} modules of {len(all_sources)} sources")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
