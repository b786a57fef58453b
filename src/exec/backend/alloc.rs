//! Measured memory: a counting allocator and the system's own figures of the process.
//!
//! **Invariant:** the library only defines the allocator; a binary installs it, because the threads
//! of a test harness would share its counters.
#![expect(unsafe_code, reason = "the global allocator wraps the system one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// The system's allocator, counting the bytes that are live and their highest number.
///
/// ```ignore
/// #[global_allocator]
/// static HEAP: peftc::exec::Counting = peftc::exec::Counting;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

impl Counting {
    /// Bytes live now; 0 if no binary installed the allocator.
    #[must_use]
    pub fn live() -> u64 {
        LIVE.load(Relaxed) as u64
    }

    /// Most bytes live at once since the last [`Self::reset_peak`].
    #[must_use]
    pub fn peak() -> u64 {
        PEAK.load(Relaxed) as u64
    }

    /// Starts a new peak from what is live now.
    pub fn reset_peak() {
        PEAK.store(LIVE.load(Relaxed), Relaxed);
    }

    /// Whether the process allocates through it.
    #[must_use]
    pub fn is_installed() -> bool {
        INSTALLED.load(Relaxed)
    }
}

/// Makes the system's allocator keep freed blocks, in one arena: a step frees and asks again for the same
/// sizes, and giving them back to the system in between costs a fifth of the time. To be called
/// before the first thread is started; does nothing where the allocator is another.
pub fn keep_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        const TRIM_THRESHOLD: std::ffi::c_int = -1;
        const MMAP_THRESHOLD: std::ffi::c_int = -3;
        const ARENA_MAX: std::ffi::c_int = -8;
        // SAFETY: mallopt takes any values and refuses those it does not like.
        unsafe {
            mallopt(ARENA_MAX, 1);
            mallopt(MMAP_THRESHOLD, 1 << 30);
            mallopt(TRIM_THRESHOLD, std::ffi::c_int::MAX);
        }
    }
}

/// Gives blocks that are kept, whole pages of them, back to the system: what one stage freed is not
/// what the next one needs. Does nothing where the allocator is another.
pub fn release_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: it touches free blocks only.
        unsafe { malloc_trim(0) };
    }
}

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
        if !INSTALLED.load(Relaxed) {
            INSTALLED.store(true, Relaxed);
        }
    }
}

fn shrink(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

/// Ends the process where the system refuses memory: the exit code says that it did not fit, as it does where that
/// is known beforehand. What is on the disk is whole, whenever that is.
#[cold]
fn refused(bytes: usize) -> *mut u8 {
    #[cfg(unix)]
    {
        use std::io::Write as _;
        unsafe extern "C" {
            fn _exit(code: std::ffi::c_int) -> !;
        }
        let mut digits = [0_u8; 20];
        let (mut at, mut rest) = (digits.len(), bytes);
        while at > 0 && (rest > 0 || at == digits.len()) {
            at -= 1;
            if let Some(digit) = digits.get_mut(at) {
                *digit = b'0' + (rest % 10) as u8;
            }
            rest /= 10;
        }
        // Nothing here allocates.
        let mut out = std::io::stderr();
        let _ = out.write_all(b"error: the system refuses ");
        let _ = out.write_all(digits.get(at..).unwrap_or_default());
        let _ = out.write_all(
            b" bytes of memory; end other programs, raise its limit (`ulimit -v`), or let `peftc check --budget` \
              say what fits; the last checkpoint is kept\n",
        );
        // SAFETY: it takes any code and does not return.
        unsafe { _exit(3) }
    }
    #[cfg(not(unix))]
    {
        let _ = bytes;
        std::ptr::null_mut()
    }
}

// SAFETY: every request goes unchanged to the system's allocator, which keeps the contract; the
// counters beside it neither allocate nor touch the blocks.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() {
            return refused(layout.size());
        }
        grow(layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let block = unsafe { System.alloc_zeroed(layout) };
        if block.is_null() {
            return refused(layout.size());
        }
        grow(layout.size());
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) };
        shrink(layout.size());
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let moved = unsafe { System.realloc(block, layout, size) };
        if moved.is_null() {
            return refused(size);
        }
        if size >= layout.size() {
            grow(size - layout.size());
        } else {
            shrink(layout.size() - size);
        }
        moved
    }
}

/// Most memory the process had resident, in bytes (`VmHWM`); `None` where the system does not tell.
#[must_use]
pub fn process_peak() -> Option<u64> {
    status_field("VmHWM:")
}

/// Memory the process has resident now, in bytes (`VmRSS`).
#[must_use]
pub fn process_now() -> Option<u64> {
    status_field("VmRSS:")
}

/// Lets [`process_peak`] start anew from what is resident now; tells whether the system agreed.
pub fn reset_process_peak() -> bool {
    cfg!(target_os = "linux") && std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn status_field(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    parse_kib(&text, name)
}

fn parse_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_through_their_whole_life() {
        let layout = Layout::from_size_align(1 << 20, 16).unwrap();
        let larger = Layout::from_size_align(3 << 20, 16).unwrap();
        let before = Counting::live();
        // SAFETY: a non-empty layout; the block is freed with the layout it has by then.
        unsafe {
            let block = Counting.alloc(layout);
            assert_eq!(Counting::live() - before, 1 << 20);
            let block = Counting.realloc(block, layout, 3 << 20);
            assert_eq!(Counting::live() - before, 3 << 20);
            Counting.dealloc(block, larger);
        }
        assert_eq!(Counting::live(), before);
        assert!(Counting::peak() >= before + (3 << 20));
        assert!(Counting::is_installed());
        Counting::reset_peak();
        assert_eq!(Counting::peak(), Counting::live());
    }

    #[test]
    fn the_status_file_is_parsed_and_never_trusted() {
        assert_eq!(
            parse_kib("VmPeak:\t 1 kB\nVmHWM:\t   12 kB\n", "VmHWM:"),
            Some(12 << 10)
        );
        assert_eq!(parse_kib("VmHWM:\t x kB\n", "VmHWM:"), None);
        assert_eq!(
            parse_kib("VmHWM:\t 99999999999999999999 kB\n", "VmHWM:"),
            None
        );
        assert_eq!(parse_kib("", "VmHWM:"), None);
        if cfg!(target_os = "linux") {
            assert!(process_peak() >= process_now().map(|n| n / 2));
        }
    }
}
