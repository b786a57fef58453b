// The kernels of a file, as the emulator finds them.
#pragma once

namespace emulation {

// The sizes are those of its arguments.
struct Kernel {
    const char* name;
    void (*call)(void**);
    std::vector<size_t> sizes;
};

} // namespace emulation

#define KERNEL(source, name) emulation::Kernel{#source "/" #name, emulation::Entry<&of_##source::name>::call, emulation::Entry<&of_##source::name>::sizes()}
