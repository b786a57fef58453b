//! What each kernel and product takes on the GPU, if the variable `PEFTC_PROFILE` names a file for it.
//!
//! An event behind every launch. What lies between two events is counted for the launch between them: waits for the host too,
//! where the GPU has nothing to do. The first launch of each kind waits for its kernel to be compiled and loaded, so it is left
//! out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::files::durable;
use crate::program::op::launch::Launch;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, sys};

/// Events that are asked for their times together.
const TOGETHER: usize = 8192;

/// Times of launches so far.
#[derive(Debug)]
pub(super) struct Profile {
    path: PathBuf,
    /// The launches since the last that was looked at, each with the event behind it.
    open: Vec<(String, CudaEvent)>,
    last: Option<CudaEvent>,
    /// Milliseconds and number, by what was launched.
    totals: BTreeMap<String, (f64, u64)>,
    /// What the host spent on telling the GPU.
    host: Duration,
}

impl Profile {
    /// One, if it is asked for.
    pub(super) fn asked() -> Option<Self> {
        let path = PathBuf::from(std::env::var_os("PEFTC_PROFILE")?);
        Some(Self {
            path,
            open: Vec::new(),
            last: None,
            totals: BTreeMap::new(),
            host: Duration::ZERO,
        })
    }

    /// Counts a launch that has just been asked for, since `begun`.
    pub(super) fn launched(
        &mut self,
        launch: &Launch,
        begun: Instant,
        context: &Arc<CudaContext>,
        stream: &CudaStream,
    ) -> Result<(), DriverError> {
        self.host += begun.elapsed();
        let event = context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))?;
        event.record(stream)?;
        self.open.push((label(launch), event));
        if self.open.len() >= TOGETHER {
            self.settle()?;
        }
        Ok(())
    }

    /// Asks the events for their times.
    fn settle(&mut self) -> Result<(), DriverError> {
        for (what, event) in self.open.drain(..) {
            if let Some(last) = &self.last {
                let took = f64::from(last.elapsed_ms(&event)?);
                match self.totals.get_mut(&what) {
                    Some(total) => *total = (total.0 + took, total.1 + 1),
                    None => drop(self.totals.insert(what, (0.0, 0))),
                }
            }
            self.last = Some(event);
        }
        Ok(())
    }

    /// A table, the largest first.
    fn table(&self) -> String {
        let mut rows: Vec<(&String, &(f64, u64))> = self.totals.iter().collect();
        rows.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
        let all: f64 = rows.iter().map(|(_, (ms, _))| ms).sum();
        let count: u64 = rows.iter().map(|(_, (_, n))| n).sum();
        let host = self.host.as_secs_f64() * 1e3;
        let mut text = format!(
            "{all:.2} ms between the events of {count} launches, {host:.2} ms of the host for them\n"
        );
        for (what, (ms, n)) in rows {
            let (share, each) = (100.0 * ms / all.max(1e-9), 1e3 * ms / (*n).max(1) as f64);
            let _ = writeln!(
                text,
                "{ms:10.3} ms {share:5.1} % {n:7} of {each:9.2} µs  {what}"
            );
        }
        text
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // Without a word where it fails: the run itself has ended well.
        let _ = self.settle();
        let _ = durable::write_bytes(&self.path, self.table().as_bytes());
    }
}

/// What is counted together: a kernel over a grid, a product of given sizes.
fn label(launch: &Launch) -> String {
    match launch {
        Launch::Call(call) => {
            let [x, y] = call.grid;
            format!("{} {x}×{y} of {}", call.name(), call.block)
        }
        Launch::Product(p) => {
            let turned = |t: bool| if t { "ᵀ" } else { "" };
            format!(
                "product {}×{}×{} a{} b{} {:?}{}{}",
                p.m,
                p.n,
                p.k,
                turned(p.a_t),
                turned(p.b_t),
                p.precision,
                if p.narrow { " narrow" } else { "" },
                if p.beta == 0.0 { "" } else { " added" }
            )
        }
        Launch::Copy { .. } => "copy".to_owned(),
        Launch::Upload { .. } | Launch::Table { .. } => "upload".to_owned(),
    }
}
