"""A GPU by the driver, NVRTC and cuBLAS of CUDA 13, used as `src/exec/backend/cuda` uses it."""

import ctypes
import glob
import hashlib
import os
import pathlib
import sys

OPTIONS = ["--ftz=false", "--prec-sqrt=true", "--prec-div=true", "--fmad=false", "--std=c++17"]
MOST_SHARED = 99 << 10
HELD = {"": 0, "f16": 1, "bf16": 2}
WORKSPACE = 32 << 20


def library(name):
    """A library by its soname: where the loader finds it, else among Python's packages and toolkits."""
    places = [name]
    for root in [*sys.path, "/usr/local"]:
        for inner in ("nvidia/*/lib", "cuda*/lib64", "cuda*/targets/*/lib"):
            places += sorted(glob.glob(os.path.join(root, inner, name)))
    for place in places:
        try:
            # NVRTC looks for its own part by name alone.
            for part in sorted(glob.glob(os.path.join(os.path.dirname(place) or "/nowhere", f"{name.split('.')[0]}-builtins.so*"))):
                ctypes.CDLL(part, mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    raise OSError(f"{name} is not found")


def checked(code, what):
    if code != 0:
        raise RuntimeError(f"{what}: error {code}")


class Gpu:
    """One context with one stream, and the kernels of these sources."""

    def __init__(self, texts):
        self.texts, self.modules, self.functions = texts, {}, {}
        self.cuda = library("libcuda.so.1")
        device, self.context, self.stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        checked(self.cuda.cuInit(0), "cuInit")
        checked(self.cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
        checked(self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(self.context), device), "cuDevicePrimaryCtxRetain")
        checked(self.cuda.cuCtxSetCurrent(self.context), "cuCtxSetCurrent")
        checked(self.cuda.cuStreamCreate(ctypes.byref(self.stream), 0), "cuStreamCreate")
        parts = []
        for attribute in (75, 76):
            value = ctypes.c_int()
            checked(self.cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
            parts.append(value.value)
        self.architecture = f"sm_{parts[0]}{parts[1]}"
        self.nvrtc = library("libnvrtc.so.13")
        self.blas = self.workspace = None

    def check(self, code, what):
        if code != 0:
            text = ctypes.c_char_p()
            self.cuda.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{what}: {code}, {(text.value or b'').decode()}")

    def take(self, size):
        at = ctypes.c_uint64()
        self.check(self.cuda.cuMemAllocAsync(ctypes.byref(at), ctypes.c_size_t(size), self.stream), "take memory")
        return at.value

    def give(self, at):
        self.cuda.cuMemFreeAsync(ctypes.c_uint64(at), self.stream)

    def send(self, to, data):
        if data:
            size = ctypes.c_size_t(len(data))
            self.check(self.cuda.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(to), data, size, self.stream), "send")

    def copy(self, source, to, size):
        if size > 0:
            code = self.cuda.cuMemcpyDtoDAsync_v2(ctypes.c_uint64(to), ctypes.c_uint64(source), ctypes.c_size_t(size), self.stream)
            self.check(code, "copy")

    def wait(self):
        self.check(self.cuda.cuStreamSynchronize(self.stream), "wait")

    def fetch(self, source, size):
        data = ctypes.create_string_buffer(size)
        self.check(self.cuda.cuMemcpyDtoHAsync_v2(data, ctypes.c_uint64(source), ctypes.c_size_t(size), self.stream), "fetch")
        self.wait()
        return data.raw

    def compile(self, text):
        """Machine code of a text; kept below the folder that KERNELS names, if it does."""
        keep = os.environ.get("KERNELS")
        kept = keep and pathlib.Path(keep) / f"{hashlib.sha256((self.architecture + text).encode()).hexdigest()}.cubin"
        if kept and kept.is_file():
            return ctypes.create_string_buffer(kept.read_bytes())
        made = self.compiled(text)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(made.raw)
        return made

    def compiled(self, text):
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        nvrtc = self.nvrtc
        checked(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None), "NVRTC")
        options = [o.encode() for o in [*OPTIONS, f"--gpu-architecture={self.architecture}"]]
        code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if code != 0:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(f"NVRTC: {code}, {log.value.decode()}")
        checked(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)), "NVRTC")
        made = ctypes.create_string_buffer(size.value)
        checked(nvrtc.nvrtcGetCUBIN(program, made), "NVRTC")
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        return made

    def function(self, name, shared):
        """The kernel `SOURCE/KERNEL`, or `SOURCE_as_TYPE/KERNEL_as_TYPE`."""
        if name not in self.functions:
            space, kernel = name.split("/")
            source, _, held = space.partition("_as_")
            if space not in self.modules:
                module = ctypes.c_void_p()
                made = self.compile(f"#define HELD {HELD[held]}\n{self.texts[source]}")
                self.check(self.cuda.cuModuleLoadData(ctypes.byref(module), made), f"load {space}")
                self.modules[space] = module
            function = ctypes.c_void_p()
            code = self.cuda.cuModuleGetFunction(ctypes.byref(function), self.modules[space], kernel.encode())
            self.check(code, f"find {name}")
            self.functions[name] = [function, False]
        found = self.functions[name]
        if shared > 0 and not found[1]:
            self.check(self.cuda.cuFuncSetAttribute(found[0], 8, MOST_SHARED), f"shared memory of {name}")
            found[1] = True
        return found[0]

    def launch(self, name, grid, block, shared, words):
        """Each argument in a word of its own: a 32-bit one is the first half of it."""
        function = self.function(name, shared)
        own = (ctypes.c_uint64 * len(words))(*words)
        start = ctypes.addressof(own)
        places = (ctypes.c_void_p * len(words))(*(start + 8 * i for i in range(len(words))))
        code = self.cuda.cuLaunchKernel(function, grid[0], grid[1], 1, block, 1, 1, shared, self.stream, places, None)
        self.check(code, f"launch {name} of {grid} × {block}, {shared} shared")

    def open_blas(self):
        library("libcublasLt.so.13")
        self.blas, self.cublas = ctypes.c_void_p(), library("libcublas.so.13")
        checked(self.cublas.cublasCreate_v2(ctypes.byref(self.blas)), "cuBLAS")
        checked(self.cublas.cublasSetStream_v2(self.blas, self.stream), "cuBLAS")
        self.workspace = self.take(WORKSPACE)
        checked(self.cublas.cublasSetWorkspace_v2(self.blas, ctypes.c_void_p(self.workspace), ctypes.c_size_t(WORKSPACE)), "cuBLAS")
        # No reduced precision within a sum.
        checked(self.cublas.cublasSetMathMode(self.blas, 16), "cuBLAS")

    def multiply(self, p, address):
        if self.blas is None:
            self.open_blas()
        precision, narrow = p.flags >> 2 & 3, p.flags >> 4
        stored, compute = (14 if precision == 2 else 0), (77 if precision == 1 else 68)
        alpha, beta = ctypes.c_float(p.alpha), ctypes.c_float(p.beta)
        skipped = p.first * (2 if precision == 2 else 4)
        at = [ctypes.c_void_p(x) for x in (address[p.a] + skipped, address[p.b], address[p.c])]
        turned = (p.flags & 1, p.flags >> 1 & 1)
        code = self.cublas.cublasGemmEx(
            self.blas, *turned, p.m, p.n, p.k, ctypes.byref(alpha), at[0], stored, p.lda, at[1], stored, p.ldb,
            ctypes.byref(beta), at[2], (14 if narrow else 0), p.ldc, compute, -1,
        )  # fmt: skip
        checked(code, f"cuBLAS, {p}")
