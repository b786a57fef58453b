//! The memory of a whole GPU as its driver reports it, looked at many times a second while something runs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two looks, in milliseconds. The pool keeps what it once took, so no peak is too short for it.
const EVERY: &str = "20";
/// How long the first look may take.
const PATIENCE: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

#[derive(Default)]
struct Seen {
    looks: AtomicU64,
    latest: AtomicU64,
    most: AtomicU64,
}

/// An `nvidia-smi` that goes on printing the bytes in use.
pub struct Watch {
    child: Child,
    seen: Arc<Seen>,
    before: u64,
}

impl Watch {
    /// Watches the GPU that `device` names (`cuda`, `cuda:N`).
    pub fn start(device: &str) -> Result<Self, String> {
        let number = device.split_once(':').map_or("0", |(_, n)| n);
        let mut child = Command::new("nvidia-smi")
            .args(["--query-gpu=memory.used", "--format=csv,noheader,nounits"])
            .args(["-i", number, "-lms", EVERY])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("nvidia-smi: {e}"))?;
        let seen = Arc::new(Seen::default());
        if let Some(out) = child.stdout.take() {
            let seen = seen.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if let Ok(mib) = line.trim().parse::<u64>() {
                        seen.latest.store(mib * MIB, Ordering::SeqCst);
                        seen.most.fetch_max(mib * MIB, Ordering::SeqCst);
                        seen.looks.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let watch = Self {
            child,
            seen,
            before: 0,
        };
        let begun = Instant::now();
        while watch.seen.looks.load(Ordering::SeqCst) == 0 {
            if begun.elapsed() > PATIENCE {
                return Err("nvidia-smi tells no memory".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(watch)
    }

    /// From here on it counts what comes on top of what is in use now.
    pub fn begin(&mut self) {
        self.before = self.seen.latest.load(Ordering::SeqCst);
        self.seen.most.store(self.before, Ordering::SeqCst);
    }

    /// The most bytes that came on top since `begin`.
    pub fn most(&self) -> u64 {
        let most = self.seen.most.load(Ordering::SeqCst);
        most.saturating_sub(self.before)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
