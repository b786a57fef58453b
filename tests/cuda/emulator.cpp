// Runs launch lists over buffers: `emulator IN OUT`. The kernels are in files that the test puts together and compiles
// beside this one; `KERNELS` calls what gives the table of each.
//
// A buffer ends where a page ends that cannot be touched, and begins behind a margin whose bytes are
// looked at afterwards. Each list runs three times, with threads and blocks in other orders; a
// barrier that is missing shows in results that differ.

#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace {

struct Reader {
    std::vector<char> bytes;
    size_t at = 0;

    template <typename T> T get() {
        T x;
        if (at + sizeof(T) > bytes.size()) {
            emulation::fail("the lists end early");
        }
        std::memcpy(&x, &bytes[at], sizeof(T));
        at += sizeof(T);
        return x;
    }

    std::vector<char> block(size_t n) {
        if (at + n > bytes.size()) {
            emulation::fail("the lists end early");
        }
        std::vector<char> x(bytes.begin() + at, bytes.begin() + at + n);
        at += n;
        return x;
    }
};

class Buffer {
  public:
    explicit Buffer(size_t size) : size(size) {
        size_t page = sysconf(_SC_PAGESIZE);
        whole = (size + 64 + page - 1) / page * page;
        base = static_cast<char*>(mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (base == MAP_FAILED || mprotect(base + whole, page, PROT_NONE) != 0) {
            emulation::fail("no memory for a buffer");
        }
        length = whole + page;
        std::memset(base, 0xa5, whole);
    }
    Buffer(const Buffer&) = delete;
    Buffer(Buffer&& other) : size(other.size), base(other.base), whole(other.whole), length(other.length) {
        other.base = nullptr;
    }
    ~Buffer() {
        if (base != nullptr) {
            munmap(base, length);
        }
    }
    char* data() {
        return base + whole - size;
    }
    void check() const {
        for (size_t i = 0; i < whole - size; i++) {
            if (base[i] != char(0xa5)) {
                emulation::fail("a write before a buffer");
            }
        }
    }
    size_t size;

  private:
    char* base;
    size_t whole, length;
};

// The tables of all files of kernels.
std::vector<emulation::Kernel> all_kernels() {
    std::vector<emulation::Kernel> all;
    for (const std::vector<emulation::Kernel>& some : std::initializer_list<std::vector<emulation::Kernel>>{KERNELS}) {
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

const std::vector<emulation::Kernel> kernels = all_kernels();

struct Step {
    uint8_t kind;
    const emulation::Kernel* kernel;
    uint32_t grid[2], block, shared;
    std::vector<uint64_t> words;
    std::vector<uint8_t> kinds;
    std::vector<char> data;
    uint32_t product[9];
    uint64_t first;
    float factors[2];
};

// cublasGemmEx, by columns.
void multiply(const Step& step, std::vector<Buffer>& buffers) {
    const uint32_t* p = step.product;
    size_t size = (p[0] >> 2 & 3) == 2 ? 2 : 4;
    Factor left = {buffers[p[4]].data() + step.first * size, (p[0] & 1) != 0, p[6]}, right = {buffers[p[5]].data(), (p[0] & 2) != 0, p[7]};
    void* out = buffers[step.words[0]].data();
    product(left, right, out, p[8], p[1], p[2], p[3], step.factors[0], step.factors[1], p[0] >> 2 & 3, p[0] >> 4);
}

void run(const Step& step, std::vector<Buffer>& buffers, int turn) {
    if (step.kind == 0) {
        std::vector<uint64_t> values = step.words;
        std::vector<void*> args;
        for (size_t i = 0; i < values.size(); i++) {
            if (step.kinds[i] == 0) {
                values[i] = reinterpret_cast<uint64_t>(buffers[values[i]].data());
            }
            args.push_back(&values[i]);
        }
        emulation::launch(step.kernel->call, args.data(), step.grid[0], step.grid[1], step.block, step.shared, turn);
    } else if (step.kind == 1) {
        multiply(step, buffers);
    } else if (step.kind == 2) {
        if (step.words[0] != step.words[1]) {
            if (buffers[step.words[0]].size != buffers[step.words[1]].size) {
                emulation::fail("a copy between buffers of two sizes");
            }
            std::memcpy(buffers[step.words[1]].data(), buffers[step.words[0]].data(), buffers[step.words[0]].size);
        }
    } else if (step.kind == 4) {
        uint64_t* to = reinterpret_cast<uint64_t*>(buffers[step.words[0]].data());
        if (buffers[step.words[0]].size != 8 * step.kinds.size()) {
            emulation::fail("a table of another size than its buffer");
        }
        for (size_t i = 0; i < step.kinds.size(); i++) {
            uint64_t word = step.words[i + 1];
            if (step.kinds[i] == 1) {
                word = reinterpret_cast<uint64_t>(buffers[word].data());
            }
            std::memcpy(&to[i], &word, 8);
        }
    } else {
        std::memcpy(buffers[step.words[0]].data(), step.data.data(), step.data.size());
    }
    for (Buffer& buffer : buffers) {
        buffer.check();
    }
}

Step read_step(Reader& in) {
    Step step;
    step.kind = in.get<uint8_t>();
    if (step.kind == 0) {
        std::vector<char> name = in.block(in.get<uint32_t>());
        std::string wanted(name.begin(), name.end());
        step.kernel = nullptr;
        for (const emulation::Kernel& kernel : kernels) {
            if (wanted == kernel.name) {
                step.kernel = &kernel;
            }
        }
        if (step.kernel == nullptr) {
            emulation::fail(("there is no kernel " + wanted).c_str());
        }
        step.grid[0] = in.get<uint32_t>();
        step.grid[1] = in.get<uint32_t>();
        step.block = in.get<uint32_t>();
        step.shared = in.get<uint32_t>();
        uint32_t count = in.get<uint32_t>();
        static const size_t sizes[] = {8, 8, 4, 8, 4, 8};
        for (uint32_t i = 0; i < count; i++) {
            step.kinds.push_back(in.get<uint8_t>());
            step.words.push_back(in.get<uint64_t>());
            if (i >= step.kernel->sizes.size() || step.kernel->sizes[i] != sizes[step.kinds[i]]) {
                emulation::fail((wanted + ": an argument of another size").c_str());
            }
        }
        if (count != step.kernel->sizes.size()) {
            emulation::fail((wanted + ": another number of arguments").c_str());
        }
    } else if (step.kind == 1) {
        for (uint32_t& x : step.product) {
            x = in.get<uint32_t>();
        }
        step.first = in.get<uint64_t>();
        step.factors[0] = in.get<float>();
        step.factors[1] = in.get<float>();
        step.words.push_back(in.get<uint32_t>());
    } else if (step.kind == 2) {
        step.words.push_back(in.get<uint32_t>());
        step.words.push_back(in.get<uint32_t>());
    } else if (step.kind == 4) {
        step.words.push_back(in.get<uint32_t>());
        for (uint32_t n = in.get<uint32_t>(); n > 0; n--) {
            step.kinds.push_back(in.get<uint8_t>());
            step.words.push_back(in.get<uint64_t>());
        }
    } else {
        step.words.push_back(in.get<uint32_t>());
        step.data = in.block(in.get<uint32_t>());
    }
    return step;
}

bool is_table(const std::vector<Step>& steps, size_t buffer) {
    for (const Step& step : steps) {
        if (step.kind == 4 && step.words[0] == buffer) {
            return true;
        }
    }
    return false;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        emulation::fail("usage: emulator IN OUT");
    }
    std::FILE* file = std::fopen(argv[1], "rb");
    if (file == nullptr) {
        emulation::fail("the lists cannot be read");
    }
    Reader in;
    char piece[1 << 16];
    for (size_t n; (n = std::fread(piece, 1, sizeof piece, file)) > 0;) {
        in.bytes.insert(in.bytes.end(), piece, piece + n);
    }
    std::fclose(file);
    std::FILE* out = std::fopen(argv[2], "wb");
    for (uint32_t cases = in.get<uint32_t>(), number = 0; number < cases; number++) {
        std::vector<std::vector<char>> start;
        for (uint32_t n = in.get<uint32_t>(); n > 0; n--) {
            start.push_back(in.block(in.get<uint64_t>()));
        }
        std::vector<Step> steps;
        for (uint32_t n = in.get<uint32_t>(); n > 0; n--) {
            steps.push_back(read_step(in));
        }
        std::vector<std::vector<char>> first;
        for (int turn = 0; turn < 3; turn++) {
            std::vector<Buffer> buffers;
            for (const std::vector<char>& bytes : start) {
                buffers.emplace_back(bytes.size());
                std::memcpy(buffers.back().data(), bytes.data(), bytes.size());
            }
            for (const Step& step : steps) {
                run(step, buffers, turn);
            }
            for (size_t i = 0; i < buffers.size(); i++) {
                std::vector<char> bytes(buffers[i].data(), buffers[i].data() + buffers[i].size);
                if (turn == 0) {
                    std::fwrite(bytes.data(), 1, bytes.size(), out);
                    first.push_back(bytes);
                } else if (is_table(steps, i)) {
                    // Addresses, which are others each time.
                } else if (i + 1 == buffers.size() ? bytes[0] != first[i][0] : bytes != first[i]) {
                    // (The last buffer tells of a fault; which of several is told may differ.)
                    char text[128];
                    std::snprintf(text, sizeof text, "case %u: buffer %zu depends on the order of threads", number, i);
                    emulation::fail(text);
                }
            }
        }
    }
    return std::fclose(out) == 0 ? 0 : 3;
}
