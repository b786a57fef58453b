//! Recipes with two to four mistakes each, as many as are asked for: each mistake must be named, nothing else, and
//! nothing may panic. `cargo run --release --example mistakes -- [CASES] [SEED] [FIRST]`

#![allow(dead_code, reason = "the gate's test uses the rest")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use peftc::cli::world::RealWorld;
use rayon::prelude::*;

#[path = "../../tests/mistakes/mod.rs"]
mod net;

use net::within::Beside;
use net::{Case, bases};

/// Cases of the same complaint that are printed in full.
const SHOWN: u64 = 2;
/// Cases between two lines of progress.
const STEP: u64 = 10_000;

fn main() -> std::process::ExitCode {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let (Ok(cases), Ok(seed), Ok(first)) = (
        numbers.next().unwrap_or(Ok(100_000)),
        numbers.next().unwrap_or(Ok(1)),
        numbers.next().unwrap_or(Ok(0)),
    ) else {
        eprintln!("how many cases, the seed, and the first case: whole numbers");
        return 2.into();
    };
    let folder = std::env::temp_dir().join(format!("mistakes-{}", std::process::id()));
    bases::files(&folder);
    let world = Beside::new(RealWorld::with_cache(true, folder.join("cache")));
    let all = net::all();
    let (started, done) = (Instant::now(), AtomicU64::new(0));
    let panics = AtomicU64::new(0);
    // How often each complaint was made.
    let wrong: Mutex<BTreeMap<String, u64>> = Mutex::default();
    (first..first + cases).into_par_iter().for_each(|index| {
        let case = Case::draw(seed, index, &all);
        let thread = rayon::current_thread_index().unwrap_or(0);
        let place = folder.join(format!("case-{thread}.peft"));
        let found = catch_unwind(AssertUnwindSafe(|| {
            let compiled = case.compile_as(&place, &world);
            case.complaints(&compiled)
        }));
        let complaints = found.unwrap_or_else(|_| {
            panics.fetch_add(1, Ordering::Relaxed);
            vec!["a panic".to_owned()]
        });
        if let Some(complaint) = complaints.first()
            && let Ok(mut seen) = wrong.lock()
        {
            let times = seen.entry(complaint.clone()).or_default();
            *times += 1;
            // At once: a run that is ended early has told what it found.
            if *times <= SHOWN {
                println!(
                    "case {index}: {}\n{}---",
                    complaints.join("; "),
                    case.recipe.print().0
                );
            }
        }
        let n = done.fetch_add(1, Ordering::Relaxed) + 1;
        if n % STEP == 0 {
            let wrong = wrong.lock().map_or(0, |seen| seen.values().sum::<u64>());
            let seconds = started.elapsed().as_secs_f64();
            println!("{n} cases in {seconds:.0} s, {wrong} wrong");
        }
    });
    let _ = std::fs::remove_dir_all(&folder);
    let wrong = wrong.into_inner().unwrap_or_default();
    for (complaint, times) in &wrong {
        println!("{times} times: {complaint}");
    }
    println!(
        "{cases} cases of seed {seed} in {:.0} s: {} panics, {} with a mistake that is not named or nobody's",
        started.elapsed().as_secs_f64(),
        panics.into_inner(),
        wrong.values().sum::<u64>()
    );
    u8::from(!wrong.is_empty()).into()
}
