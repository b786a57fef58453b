#!/usr/bin/env python3
"""Compiles every kernel source with NVRTC, as the program does on first use, for the architectures named.

    python3 -m pip download --no-deps nvidia-cuda-nvrtc==13.0.88 && unzip nvidia_cuda_nvrtc*.whl
    python3 tests/cuda/nvrtc.py nvidia/cu13/lib/libnvrtc.so.13 [sm_80 sm_90 …]

No GPU is needed. The PTX (or, for `sm_…`, the machine code) is thrown away unless PTX names a folder.
"""

import ctypes
import os
import pathlib
import sys

from sources import read, sources

OPTIONS = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    library, architectures = sys.argv[1], sys.argv[2:] or ["sm_80", "sm_90"]
    for part in sorted(pathlib.Path(library).resolve().parent.glob("libnvrtc-builtins.so*")):
        ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(library)
    keep = os.environ.get("PTX")
    failed = 0
    all_sources = sources()
    for architecture in architectures:
        compiled = 0
        for (name, shared, own), held in ((source, held) for source in all_sources for held in range(3)):
            if held > 0 and "void NAMED(" not in shared + own:
                continue
            text = f"#define HELD {held}\n" + read("common.cuh") + shared + own
            program = ctypes.c_void_p()
            nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), f"{name}.cu".encode(), 0, None, None)
            options = [o.encode() for o in OPTIONS + [f"--gpu-architecture={architecture}"]]
            code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            size = ctypes.c_size_t()
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            if code != 0 or log.value.strip():
                print(f"{name}.cu as {held} for {architecture}: {log.value.decode()}")
            failed += code != 0
            compiled += 1
            if keep and code == 0:
                kind = ("CUBIN", "cubin") if architecture.startswith("sm_") else ("PTX", "ptx")
                getattr(nvrtc, f"nvrtcGet{kind[0]}Size")(program, ctypes.byref(size))
                data = ctypes.create_string_buffer(size.value)
                getattr(nvrtc, f"nvrtcGet{kind[0]}")(program, data)
                (pathlib.Path(keep) / f"{name}.{held}.{architecture}.{kind[1]}").write_bytes(data.raw)
            nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        print(f"{architecture}: {compiled} modules of {len(all_sources)} sources")
    sys.exit(1 if failed else 0)


main()
