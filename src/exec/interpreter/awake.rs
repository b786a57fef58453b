//! Threads that do not fall asleep between short ops.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::Yield;

/// Looks for work before the processor is offered to other programs.
const LOOKS: u32 = 64;

/// Ends the watch, whatever way it is left.
struct Watch<'a>(&'a AtomicBool);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does something while the other threads of the pool look for work all the time. Waking a thread takes longer than its
/// part of a small product, and a token is hundreds of them. Outside a pool there are no such threads.
pub fn awake<T>(work: impl FnOnce() -> T) -> T {
    let Some(own) = rayon::current_thread_index() else {
        return work();
    };
    let over = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        let watch = Watch(&over);
        scope.spawn_broadcast(|_, thread| {
            // This thread meets its own copy while it waits for a product.
            if thread.index() != own {
                look(&over);
            }
        });
        let made = work();
        drop(watch);
        made
    })
}

/// Takes whatever work there is, until it is over.
fn look(over: &AtomicBool) {
    let mut idle = 0;
    while !over.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(Yield::Executed) {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle % LOOKS == 0 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().expect("a pool")
    }

    #[test]
    fn work_goes_on_within_and_the_threads_are_free_behind_it() {
        for threads in [1, 2, 3] {
            let sums = pool(threads).install(|| {
                let within = awake(|| {
                    (0..200_u64)
                        .map(|i| (0..64_u64).into_par_iter().map(|j| i * j).sum::<u64>())
                        .sum::<u64>()
                });
                (within, (0..64_u64).into_par_iter().sum::<u64>())
            });
            assert_eq!(sums, (199 * 100 * 2016, 2016), "{threads} threads");
        }
        assert_eq!(awake(|| 7), 7);
    }

    #[test]
    fn a_panic_ends_the_watch() {
        let pool = pool(2);
        let fell = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.install(|| awake(|| panic!("on purpose")));
        }));
        assert!(fell.is_err());
        assert_eq!(pool.install(|| awake(|| 7)), 7);
    }
}
