//! Recipes with two to four mistakes each, as many as are asked for: each mistake must be named, nothing else, and
//! nothing may panic. `cargo run --release --example mistakes -- [CASES] [SEED]`

#![allow(dead_code, reason = "the gate's test uses the rest")]

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

/// Complaints that are printed.
const SHOWN: usize = 20;

fn main() -> std::process::ExitCode {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let (Ok(cases), Ok(seed)) = (
        numbers.next().unwrap_or(Ok(100_000)),
        numbers.next().unwrap_or(Ok(1)),
    ) else {
        eprintln!("how many cases, and the seed: two whole numbers");
        return 2.into();
    };
    let folder = std::env::temp_dir().join(format!("mistakes-{}", std::process::id()));
    bases::files(&folder);
    let world = Beside::new(RealWorld::with_cache(true, folder.join("cache")));
    let all = net::all();
    let (started, done) = (Instant::now(), AtomicU64::new(0));
    let panics = AtomicU64::new(0);
    let wrong: Mutex<Vec<String>> = Mutex::default();
    (0..cases).into_par_iter().for_each(|index| {
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
        if !complaints.is_empty()
            && let Ok(mut list) = wrong.lock()
        {
            list.push(format!(
                "case {index}: {}\n{}",
                complaints.join("; "),
                case.recipe.print().0
            ));
        }
        let n = done.fetch_add(1, Ordering::Relaxed) + 1;
        if n % 50_000 == 0 {
            println!("{n} cases in {:.0} s", started.elapsed().as_secs_f64());
        }
    });
    let _ = std::fs::remove_dir_all(&folder);
    let wrong = wrong.into_inner().unwrap_or_default();
    for one in wrong.iter().take(SHOWN) {
        println!("{one}\n---");
    }
    println!(
        "{cases} cases of seed {seed} in {:.0} s: {} panics, {} with a mistake that is not named or nobody's",
        started.elapsed().as_secs_f64(),
        panics.into_inner(),
        wrong.len()
    );
    u8::from(!wrong.is_empty()).into()
}
