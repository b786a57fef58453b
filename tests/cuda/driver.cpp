// A driver and a cuBLAS made of the emulation: as libcuda.so.1 and libcublas.so.13 they let the program's
// CUDA build run without a GPU, slowly. The kernels stand above this in the one source that
// `tests/cuda/rehearse.py` puts together; what is not here is a function that fails.
//
// The stream is as late as a GPU's may be: nothing that is asked for is done before something waits for it. So
// pinned memory that is written again too early, or read before its copy was waited for, shows in results.

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace {

struct Kernel {
    const char* name;
    void (*call)(void**);
    size_t arguments;
    int most_shared;
};

#define KERNEL(source, name) Kernel{#name, emulation::Entry<&of_##source::name>::call, emulation::Entry<&of_##source::name>::sizes().size(), 48 << 10}
Kernel kernels[] = {KERNELS};

struct Module {
    std::string code;
};

// Memory ends at a page that cannot be touched, and comes filled with NaNs.
struct Blocks {
    std::map<uint64_t, std::pair<char*, size_t>> live;

    uint64_t alloc(size_t size) {
        size_t page = sysconf(_SC_PAGESIZE), padded = (size + 7) / 8 * 8, whole = (padded + page - 1) / page * page;
        char* base = static_cast<char*>(mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(base + whole, page, PROT_NONE);
        std::memset(base, 0xff, whole);
        uint64_t at = reinterpret_cast<uint64_t>(base + whole - padded);
        live[at] = {base, whole + page};
        return at;
    }

    bool free(uint64_t at) {
        auto found = live.find(at);
        if (found == live.end()) {
            return false;
        }
        munmap(found->second.first, found->second.second);
        live.erase(found);
        return true;
    }
} blocks;

// What was asked for and not done yet.
struct Stream {
    std::deque<std::function<void()>> waiting;
    size_t asked = 0, done = 0;

    int ask(std::function<void()> work) {
        waiting.push_back(std::move(work));
        asked++;
        return 0;
    }

    int finish(size_t upto) {
        for (; done < upto; done++) {
            waiting.front()();
            waiting.pop_front();
        }
        return 0;
    }
} stream;

struct Event {
    size_t upto = 0;
};

// Pinned memory, by where it begins.
std::map<const char*, size_t> pinned;

bool is_pinned(const void* at) {
    auto behind = pinned.upper_bound(static_cast<const char*>(at));
    return behind != pinned.begin() && static_cast<const char*>(at) < std::prev(behind)->first + std::prev(behind)->second;
}

void* current = nullptr;
int handle;

} // namespace

// The size of machine code, an ELF file: where the last of its tables and sections ends.
template <typename T> T at(const char* image, size_t offset) {
    T x;
    std::memcpy(&x, image + offset, sizeof(T));
    return x;
}
size_t size_of_code(const char* image) {
    uint64_t segments = at<uint64_t>(image, 32), sections = at<uint64_t>(image, 40);
    size_t each = at<uint16_t>(image, 58), count = at<uint16_t>(image, 60);
    size_t end = std::max(segments + at<uint16_t>(image, 54) * at<uint16_t>(image, 56), sections + each * count);
    for (size_t i = 0; i < count; i++) {
        const char* section = image + sections + i * each;
        const bool is_empty = at<uint32_t>(section, 4) == 8; // of no bytes in the file
        end = std::max<size_t>(end, is_empty ? 0 : at<uint64_t>(section, 24) + at<uint64_t>(section, 32));
    }
    return end;
}

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int* n) { return *n = 1, 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? 0 : 101; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    const char* old = getenv("EMULATED_CAPABILITY");
    *value = attribute == 75 ? (old ? atoi(old) : 9) : attribute == 76 ? 0 : attribute == 115 ? 1 : 0;
    return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &handle, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(void* context) { return current = context, 0; }
int cuCtxGetCurrent(void** context) { return *context = current, 0; }
int cuCtxSynchronize() { return stream.finish(stream.asked); }
int cuStreamCreate(void** stream, unsigned) { return *stream = &handle, 0; }
int cuStreamDestroy_v2(void*) { return stream.finish(stream.asked); }
int cuStreamSynchronize(void*) { return stream.finish(stream.asked); }
int cuStreamWaitEvent(void*, void*, unsigned) { return 0; }
int cuEventCreate(void** event, unsigned) { return *event = new Event, 0; }
int cuEventRecord(void* event, void*) { return static_cast<Event*>(event)->upto = stream.asked, 0; }
int cuEventSynchronize(void* event) { return stream.finish(static_cast<Event*>(event)->upto); }
int cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), 0; }
int cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = &handle, 0; }
int cuMemGetInfo_v2(size_t* free, size_t* all) { return *free = *all = size_t(64) << 30, 0; }
int cuMemPoolTrimTo(void*, size_t) { return 0; }
int cuMemPoolSetAttribute(void*, int attribute, void* value) { return attribute == 4 && *static_cast<uint64_t*>(value) == ~uint64_t(0) ? 0 : 1; }
int cuMemAllocAsync(uint64_t* at, size_t size, void*) {
    const char* most = getenv("EMULATED_MEMORY");
    static size_t all = 0;
    all += size;
    if (most != nullptr && all > size_t(atoll(most))) {
        return 2;
    }
    return size == 0 ? 1 : (*at = blocks.alloc(size), 0);
}
int cuMemFreeAsync(uint64_t at, void*) {
    return stream.ask([at] {
        if (!blocks.free(at)) {
            emulation::fail("memory is freed twice");
        }
    });
}
int cuMemHostAlloc(void** at, size_t size, unsigned) { return pinned[static_cast<char*>(*at = malloc(size))] = size, 0; }
int cuMemFreeHost(void* at) { return pinned.erase(static_cast<char*>(at)), std::memset(at, 0xff, 1), free(at), 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t n, void*) {
    if (is_pinned(from)) {
        return stream.ask([=] { std::memcpy(reinterpret_cast<void*>(to), from, n); });
    }
    std::vector<char> own(static_cast<const char*>(from), static_cast<const char*>(from) + n);
    return stream.ask([to, own] { std::memcpy(reinterpret_cast<void*>(to), own.data(), own.size()); });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t n, void*) {
    stream.ask([=] { std::memcpy(to, reinterpret_cast<void*>(from), n); });
    return is_pinned(to) ? 0 : stream.finish(stream.asked);
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void*) {
    return stream.ask([=] { std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), n); });
}
int cuModuleLoadData(void** module, const void* image) {
    const char* code = static_cast<const char*>(image);
    if (std::memcmp(code, "\177ELF", 4) != 0) {
        return 200;
    }
    return *module = new Module{std::string(code, size_of_code(code))}, 0;
}
int cuModuleUnload(void* module) { return delete static_cast<Module*>(module), 0; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    // The code is NVRTC's own; the kernel of that name is ours. Its section has its name.
    std::string section = std::string(".text.") + name;
    section.push_back('\0');
    if (static_cast<Module*>(module)->code.find(section) == std::string::npos) {
        return 500;
    }
    for (Kernel& kernel : kernels) {
        if (std::strcmp(kernel.name, name) == 0) {
            return *function = &kernel, 0;
        }
    }
    return 500;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    if (attribute != 8 || value > 99 << 10) {
        return 1;
    }
    return static_cast<Kernel*>(function)->most_shared = value, 0;
}
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz, unsigned shared, void*, void** args, void**) {
    Kernel* kernel = static_cast<Kernel*>(function);
    if (current == nullptr || z != 1 || ty != 1 || tz != 1 || x == 0 || y == 0 || y > 65535 || threads == 0 || threads > 1024 || int(shared) > kernel->most_shared) {
        return 1;
    }
    // Arguments are taken now; each comes in a word of its own.
    std::vector<uint64_t> words(kernel->arguments);
    for (size_t i = 0; i < words.size(); i++) {
        std::memcpy(&words[i], args[i], 8);
    }
    return stream.ask([=]() mutable {
        std::vector<void*> own;
        for (uint64_t& word : words) {
            own.push_back(&word);
        }
        emulation::launch(kernel->call, own.data(), x, y, threads, shared, 0);
    });
}
int cuGetErrorString(int, const char** text) { return *text = "an emulated error", 0; }
int cuGetErrorName(int, const char** text) { return *text = "EMULATED", 0; }

int cublasCreate_v2(void** blas) { return *blas = &handle, 0; }
int cublasDestroy_v2(void*) { return 0; }
int cublasSetStream_v2(void*, void*) { return 0; }
int cublasSetWorkspace_v2(void*, void*, size_t) { return 0; }
int cublasSetMathMode(void*, int mode) { return mode == 16 ? 0 : 7; }
int cublasGemmEx(void*, int at, int bt, int m, int n, int k, const void* alpha, const void* a, int a_type, int lda, const void* b, int b_type, int ldb,
                 const void* beta, void* c, int c_type, int ldc, int compute, int) {
    // f32 is 0, bf16 14; sums in f32 are 68, with operands in TF32 77.
    if (a_type != b_type || (c_type != 0 && (c_type != 14 || a_type != 14)) || (a_type != 0 && a_type != 14) || (compute != 68 && (compute != 77 || a_type != 0))) {
        return 15;
    }
    if (m < 0 || n < 0 || k < 0 || lda < std::max(1, at ? k : m) || ldb < std::max(1, bt ? n : k) || ldc < std::max(1, m)) {
        return 7;
    }
    int numbers = a_type == 14 ? 2 : compute == 77 ? 1 : 0;
    float factor = *static_cast<const float*>(alpha), old = *static_cast<const float*>(beta);
    Factor left = {a, at != 0, size_t(lda)}, right = {b, bt != 0, size_t(ldb)};
    return stream.ask([=] { product(left, right, c, ldc, m, n, k, factor, old, numbers, c_type == 14); });
}
}
