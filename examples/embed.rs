//! The compiler inside another program: a recipe is checked, run and asked.
//!
//! ```sh
//! cargo run --example embed -- recipes/quickstart.peft learn
//! ```

use std::error::Error;
use std::path::Path;

use peftc::{Event, Job, Model, Observer, Row};
use serde_json::json;

/// Memory is measured, and held to a budget, where allocations are counted.
#[cfg(not(test))]
#[global_allocator]
static HEAP: peftc::exec::Counting = peftc::exec::Counting;

/// Tells of a run as it goes on.
#[derive(Debug, Default)]
pub struct Teller {
    /// Lines so far.
    pub said: Vec<String>,
}

impl Observer for Teller {
    fn event(&mut self, event: Event<'_>) {
        let line = match event {
            Event::Stage { name, total, .. } => format!("{name}: {total} to do"),
            Event::Cached { name } => format!("{name}: finished before"),
            Event::Step { step, loss, .. } if step % 100 == 0 => {
                format!("step {step}: loss {loss:.3}")
            }
            Event::Done { name, metrics } => format!("{name}: {metrics:?}"),
            _ => return,
        };
        self.said.push(line);
    }
}

/// Says what a recipe takes, runs it, and labels some texts with what one of its stages has trained.
///
/// # Errors
/// What is wrong with the recipe, or with the run.
pub fn embed(
    job: &Job,
    out: &Path,
    stage: &str,
    texts: &[&str],
) -> Result<Vec<String>, Box<dyn Error>> {
    let mut teller = Teller::default();
    for need in peftc::check(job)?.stages {
        let mib = need.bytes >> 20;
        teller
            .said
            .push(format!("{} ({}) takes {mib} MiB", need.name, need.kind));
    }
    let result = peftc::run(job, &mut teller)?;
    teller.said.push(format!(
        "{} stages in {}",
        result["stages"].as_array().map_or(0, Vec::len),
        out.display()
    ));
    let mut model = Model::open(out.join(stage))?;
    let row = |text: &&str| Row::from_iter([("sentence".to_owned(), json!(text))]);
    let rows: Vec<Row> = texts.iter().map(row).collect();
    for row in model.predict(&rows)? {
        teller
            .said
            .push(format!("{}: {}", row["sentence"], row["prediction"]));
    }
    Ok(teller.said)
}

#[cfg(not(test))]
fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let recipe = words
        .next()
        .unwrap_or_else(|| "recipes/quickstart.peft".to_owned());
    let stage = words.next().unwrap_or_else(|| "learn".to_owned());
    let out = std::env::temp_dir().join("peftc-embed");
    let job = Job::new(&recipe).out(&out).offline();
    let texts = ["a warm and funny film", "a dull plot and a worse cast"];
    for line in embed(&job, &out, &stage, &texts)? {
        println!("{line}");
    }
    Ok(())
}
