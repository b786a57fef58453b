//! The `peftc` binary: the command line over the library, with allocations counted.

use peftc::exec::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    peftc::exec::backend::alloc::keep_freed_blocks();
    std::process::exit(peftc::cli::main());
}
