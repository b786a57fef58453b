// Enough of CUDA's C++ for the kernels to compile and run on the host: a block's threads are fibers that
// take turns at barriers and shuffles. What would be undefined on a GPU ends the program: a barrier that
// some threads of the block have left behind, a shuffle that lanes of the warp do not take part in.
#pragma once

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
// The kernels' own instructions are left out for those here.
#define EMULATED
#define __shared__ static __attribute__((section("shared_memory")))

// The linker's names for where that section begins and ends.
extern char __start_shared_memory, __stop_shared_memory;

struct Dim {
    unsigned x, y, z;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};

namespace emulation {

[[noreturn]] inline void fail(const char* why) {
    std::fprintf(stderr, "emulation: %s\n", why);
    std::exit(3);
}

enum class State { Ready, Barrier, Shuffle, Done };

// One that a thread has begun and does not know to be done.
struct Copy {
    void* to;
    const void* from;
    size_t size;
    bool there;
};

struct Fiber {
    ucontext_t context;
    // Where it goes on: cheaper than a context, which asks the system for the signal mask each time.
    jmp_buf place;
    bool begun;
    std::vector<char> stack;
    Dim thread;
    State state;
    uint64_t sent;
    std::vector<Copy> copies;
};

inline std::vector<Fiber> fibers;
inline jmp_buf home;
inline Fiber* own;
inline Dim block, block_size, grid;
inline std::vector<char> shared;
inline void (*body)(void**);
inline void** arguments;

inline void wait(State state) {
    own->state = state;
    if (_setjmp(own->place) == 0) {
        _longjmp(home, 1);
    }
}

inline void enter() {
    body(arguments);
    if (!own->copies.empty()) {
        fail("a copy that nothing waited for");
    }
    own->state = State::Done;
    _longjmp(home, 1);
}

// Lets the fiber run until it waits or ends.
inline void resume(Fiber* fiber) {
    own = fiber;
    if (_setjmp(home) == 0) {
        if (fiber->begun) {
            _longjmp(fiber->place, 1);
        }
        fiber->begun = true;
        setcontext(&fiber->context);
    }
}

// Lets a warp run until each lane is done or at a barrier; its shuffles on the way.
inline void run_warp(const std::vector<unsigned>& order, size_t first) {
    for (;;) {
        size_t shuffling = 0, left = 0;
        for (size_t i = first; i < first + 32; i++) {
            Fiber& lane = fibers[order[i]];
            if (lane.state == State::Ready) {
                resume(&lane);
            }
            shuffling += lane.state == State::Shuffle;
            left += lane.state == State::Done || lane.state == State::Barrier;
        }
        if (shuffling == 0) {
            return;
        }
        if (left > 0) {
            fail("a shuffle that not all lanes take part in");
        }
        for (size_t i = first; i < first + 32; i++) {
            fibers[order[i]].state = State::Ready;
        }
    }
}

// One block; `order` lists its threads as they take turns, warp after warp. Between barriers a warp
// runs as far as it can before the next one starts. Barriers open when all have come.
inline void run_block(const std::vector<unsigned>& order) {
    // What a GPU leaves in shared memory is anything.
    std::memset(shared.data(), 0xff, shared.size());
    std::memset(&__start_shared_memory, 0xff, size_t(&__stop_shared_memory - &__start_shared_memory));
    for (Fiber& fiber : fibers) {
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
        fiber.state = State::Ready;
        fiber.begun = false;
        fiber.copies.clear();
    }
    for (;;) {
        for (size_t first = 0; first < fibers.size(); first += 32) {
            run_warp(order, first);
        }
        size_t done = 0;
        for (Fiber& fiber : fibers) {
            done += fiber.state == State::Done;
        }
        if (done == fibers.size()) {
            return;
        }
        if (done > 0) {
            fail("a barrier that not all threads reach");
        }
        for (Fiber& fiber : fibers) {
            fiber.state = State::Ready;
        }
    }
}

// A launch. `turn` chooses the order of blocks and threads: as they are, backwards, or mixed.
inline void launch(void (*kernel)(void**), void** args, unsigned x, unsigned y, unsigned threads, unsigned bytes, int turn) {
    body = kernel;
    arguments = args;
    grid = {x, y, 1};
    block_size = {threads, 1, 1};
    shared.assign(bytes + 16, 0);
    fibers.resize(threads);
    std::vector<unsigned> order(threads);
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].stack.resize(1 << 16);
        fibers[i].thread = {i, 0, 0};
        order[i] = turn == 1 ? threads - 1 - i : i;
    }
    if (threads % 32 != 0) {
        fail("a block that is not of whole warps");
    }
    if (turn == 2) {
        // Odd lanes before even ones, warps in another order.
        for (unsigned i = 0; i < threads; i++) {
            unsigned warp = i / 32 ^ (threads / 32 % 2 == 0 ? 1 : 0), lane = i % 32;
            order[i] = warp * 32 + (lane * 2 + 1) % 32 - (lane >= 16 ? 1 : 0);
        }
    }
    unsigned count = x * y;
    for (unsigned i = 0; i < count; i++) {
        unsigned b = turn == 0 ? i : count - 1 - i;
        block = {b % x, b / x, 0};
        run_block(order);
    }
}

// Unpacks arguments and calls.
template <typename... A> struct Caller {
    template <void (*F)(A...), size_t... I> static void call(void** args, std::index_sequence<I...>) {
        F(*static_cast<std::remove_reference_t<A>*>(args[I])...);
    }
};

template <auto F> struct Entry;
template <typename... A, void (*F)(A...)> struct Entry<F> {
    static constexpr size_t arity = sizeof...(A);
    static void call(void** args) {
        Caller<A...>::template call<F>(args, std::index_sequence_for<A...>());
    }
    static std::vector<size_t> sizes() {
        return {sizeof(A)...};
    }
};

} // namespace emulation

#define threadIdx (emulation::own->thread)
#define blockIdx (emulation::block)
#define blockDim (emulation::block_size)
#define gridDim (emulation::grid)
#define SHARED(name) float* name = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(emulation::shared.data()) + 15) & ~uintptr_t(15))

inline void __syncthreads() {
    emulation::wait(emulation::State::Barrier);
}

template <typename T> T __shfl_xor_sync(unsigned mask, T x, int lanes) {
    static_assert(sizeof(T) <= 8);
    if (mask != 0xffffffffu) {
        emulation::fail("a shuffle of a part of a warp");
    }
    std::memcpy(&emulation::own->sent, &x, sizeof(T));
    emulation::wait(emulation::State::Shuffle);
    T got;
    std::memcpy(&got, &emulation::fibers[emulation::own->thread.x ^ unsigned(lanes)].sent, sizeof(T));
    // No lane sends the next value before all have read this one.
    emulation::wait(emulation::State::Shuffle);
    return got;
}

inline int __ffs(int x) {
    return __builtin_ffs(x);
}

inline unsigned atomicCAS(unsigned* at, unsigned compare, unsigned value) {
    unsigned old = *at;
    if (old == compare) {
        *at = value;
    }
    return old;
}

// A number as a product of cuBLAS reads it: 0 as it is, 1 in TF32 (to the nearest), 2 stored as bf16.
inline double product_operand(const void* at, size_t i, int numbers) {
    unsigned bits;
    if (numbers == 2) {
        bits = unsigned(static_cast<const uint16_t*>(at)[i]) << 16;
    } else {
        std::memcpy(&bits, static_cast<const float*>(at) + i, 4);
    }
    if (numbers == 1 && (bits & 0x7f800000u) != 0x7f800000u) {
        bits = (bits + 0x1000u) & ~0x1fffu;
    }
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// What a product of cuBLAS makes: f32, or bf16 rounded to the nearest.
inline void product_result(void* at, size_t i, float x, bool narrow) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    if (narrow) {
        bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        static_cast<uint16_t*>(at)[i] = uint16_t((nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    } else {
        std::memcpy(static_cast<float*>(at) + i, &x, 4);
    }
}

// An operand of cublasGemmEx, and the whole of it: `c = alpha · a · b + beta · c` by columns.
struct Factor {
    const void* at;
    bool turned;
    size_t columns_apart;
};

inline void product(Factor a, Factor b, void* c, size_t ldc, size_t m, size_t n, size_t k, float alpha, float beta, int numbers, bool narrow) {
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < m; i++) {
            double sum = 0.0;
            for (size_t l = 0; l < k; l++) {
                double x = product_operand(a.at, a.turned ? l + i * a.columns_apart : i + l * a.columns_apart, numbers);
                double y = product_operand(b.at, b.turned ? j + l * b.columns_apart : l + j * b.columns_apart, numbers);
                sum += x * y;
            }
            size_t to = i + j * ldc;
            // As cuBLAS, what is there is not read where it counts for nothing.
            float before = beta == 0.0f ? 0.0f : float(product_operand(c, to, narrow ? 2 : 0));
            product_result(c, to, alpha * float(sum) + beta * before, narrow);
        }
    }
}

inline float __uint_as_float(unsigned x) {
    float y;
    std::memcpy(&y, &x, 4);
    return y;
}

inline unsigned __float_as_uint(float x) {
    unsigned y;
    std::memcpy(&y, &x, 4);
    return y;
}

inline float two_to(float x) {
    float y = std::exp2(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

// To the nearest, ties to even; the first in the lower half.
inline unsigned two_bfloats(float low, float high) {
    uint16_t both[2];
    product_result(both, 0, low, true);
    product_result(both, 1, high, true);
    return both[0] | unsigned(both[1]) << 16;
}

inline float wide_half(unsigned short x) {
    unsigned size = x & 0x7fff, fraction = x & 1023;
    float y = size >= 0x7c00 ? (fraction ? NAN : INFINITY) : size < 0x400 ? std::ldexp(float(fraction), -24) : std::ldexp(float(fraction | 1024), int(size >> 10) - 25);
    return x & 0x8000 ? -y : y;
}

// cp.async: done as late as may be, when its thread waits.
inline void copy_to_shared(void* to, const void* from, size_t size, bool there) {
    if (reinterpret_cast<uintptr_t>(to) % size != 0 || reinterpret_cast<uintptr_t>(from) % size != 0) {
        emulation::fail("a copy to shared memory that is not aligned");
    }
    emulation::own->copies.push_back({to, from, size, there});
}

inline void copy_sixteen(void* to, const void* from, bool there) {
    copy_to_shared(to, from, 16, there);
}

inline void copy_four(void* to, const void* from, bool there) {
    copy_to_shared(to, from, 4, there);
}

inline void wait_for_copies() {
    for (const emulation::Copy& copy : emulation::own->copies) {
        if (copy.there) {
            std::memcpy(copy.to, copy.from, copy.size);
        } else {
            std::memset(copy.to, 0, copy.size);
        }
    }
    emulation::own->copies.clear();
}

// What lane `lane` of the own warp handed over.
template <typename T> const T* sent_by(unsigned lane) {
    return reinterpret_cast<const T*>(emulation::fibers[(emulation::own->thread.x & ~31u) + lane].sent);
}

// ldmatrix: lanes 8 i .. 8 i + 7 hand over the rows of matrix i, eight numbers of 16 bits each.
inline void load_matrices(unsigned (&x)[4], const unsigned short* row, bool turned) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
        emulation::fail("a row of a fragment that is not aligned to 16 bytes");
    }
    emulation::own->sent = reinterpret_cast<uint64_t>(row);
    emulation::wait(emulation::State::Shuffle);
    unsigned lane = emulation::own->thread.x % 32, across = lane / 4, along = lane % 4 * 2;
    for (unsigned i = 0; i < 4; i++) {
        auto at = [&](unsigned r, unsigned c) { return unsigned(sent_by<unsigned short>(8 * i + r)[c]); };
        x[i] = turned ? at(along, across) | at(along + 1, across) << 16 : at(across, along) | at(across, along + 1) << 16;
    }
    emulation::wait(emulation::State::Shuffle);
}

inline void load_fragments(unsigned (&x)[4], const void* row) {
    load_matrices(x, static_cast<const unsigned short*>(row), false);
}

inline void load_turned(unsigned (&x)[4], const unsigned short* row) {
    load_matrices(x, row, true);
}

// What a lane hands over of a product's left and right fragments; their registers are of four lanes each.
struct Fragments {
    unsigned a[4], b[2];
};

// mma with sums in f32: each lane hands its fragments over and makes its four numbers of those of all. `number` makes
// number `k` of `depth` of a register's bits.
template <unsigned DEPTH, typename F> void multiply_lanes(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, F number) {
    constexpr unsigned half = DEPTH / 2, each = half / 4;
    Fragments own = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    emulation::own->sent = reinterpret_cast<uint64_t>(&own);
    emulation::wait(emulation::State::Shuffle);
    unsigned lane = emulation::own->thread.x % 32;
    float made[4];
    for (unsigned e = 0; e < 4; e++) {
        unsigned below = e / 2, column = lane % 4 * 2 + e % 2;
        double sum = 0.0;
        for (unsigned k = 0; k < DEPTH; k++) {
            unsigned left = sent_by<Fragments>(lane / 4 * 4 + k % half / each)->a[below + k / half * 2];
            unsigned right = sent_by<Fragments>(column * 4 + k % half / each)->b[k / half];
            sum += double(number(left, k)) * number(right, k);
        }
        made[e] = d[e] + float(sum);
    }
    emulation::wait(emulation::State::Shuffle);
    std::memcpy(d, made, sizeof(made));
}

// mma.m16n8k16 of bf16.
inline void multiply_fragments(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    multiply_lanes<16>(d, a, b0, b1, [](unsigned both, unsigned k) { return __uint_as_float(k % 2 ? both & 0xffff0000u : both << 16); });
}

// mma.m16n8k8 in TF32, which drops the bits behind the first ten.
inline void multiply_in_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    multiply_lanes<8>(d, a, b0, b1, [](unsigned x, unsigned) { return __uint_as_float(x & 0xffffe000u); });
}

// To the nearest, ties away from zero.
inline unsigned to_tf32(float x) {
    unsigned bits = __float_as_uint(x);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}
