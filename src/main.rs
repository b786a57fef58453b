//! The `peftc` binary: the command line over the library, with allocations counted.

use peftc::exec::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    std::process::exit(peftc::cli::main());
}
