//! Trainings among ranks that are threads, against the same in one process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::Ranks;
use super::threads;
use crate::base::Diags;
use crate::cli::world::RealWorld;
use crate::driver::compile;
use crate::exec::backend::Device;
use crate::exec::observe::Stopping;
use crate::exec::run::{Options, run};
use crate::files::RunError;
use crate::plan::Plan;
use crate::program::op::Machine;

const MACHINE: Machine = Machine::cpu(1);

/// The plan of a training among so many ranks, or why there is none.
fn planned(dir: &Path, stage: &str, ranks: u64) -> Result<Plan, String> {
    let at = env!("CARGO_MANIFEST_DIR");
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 24 }}\n\
         stage s = {stage}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    let compiled = compile(&path, &[], &RealWorld::new(true), &MACHINE);
    let said: Vec<&str> = compiled.diags.iter().map(|d| d.message.as_str()).collect();
    let mut plan = compiled.plan.unwrap_or_else(|| panic!("{said:?}"));
    let mut diags = Diags::default();
    plan.divide(ranks, &MACHINE, &mut diags);
    match diags.iter().next() {
        Some(diag) => Err(diag.message.clone()),
        None => Ok(plan),
    }
}

/// Runs a plan among so many ranks, the first of which may be stopped; gives what each says.
fn go(dir: &Path, plan: &Plan, count: usize, steps: u64) -> Vec<Result<Json, RunError>> {
    go_on(dir, plan, (count, false), steps)
}

/// The same, which may go on from a checkpoint of another number of ranks.
fn go_on(
    dir: &Path,
    plan: &Plan,
    (count, adopts): (usize, bool),
    steps: u64,
) -> Vec<Result<Json, RunError>> {
    let one = |ranks: Ranks| {
        let mut stopping = Stopping(if ranks.leads() { steps } else { u64::MAX });
        let options = Options {
            recipe: dir.join("r.peft"),
            store: dir.join("store"),
            out: dir.join("out"),
            only: None,
            fresh: false,
            resume: true,
            adopts,
            checkpoint_every: Duration::MAX,
            machine: MACHINE,
            device: Arc::new(Device::Cpu),
            ranks,
            machine_name: None,
            command: String::new(),
            sources: Vec::new(),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let world = RealWorld::new(true);
        pool.expect("a pool")
            .install(|| run(plan, &options, &world, &mut stopping))
    };
    std::thread::scope(|scope| {
        let ranks = match count {
            1 => vec![Ranks::default()],
            count => threads::ranks(count),
        };
        let all = ranks.into_iter();
        let one = &one;
        let started: Vec<_> = all.map(|own| scope.spawn(move || one(own))).collect();
        let ended = started.into_iter().map(|thread| thread.join());
        ended.map(|made| made.expect("no panic")).collect()
    })
}

/// Losses and norms of a log.
fn lines(path: &Path) -> Vec<[f64; 2]> {
    let log = std::fs::read_to_string(path).expect("a log");
    let line = |line: &str| {
        let line: Json = serde_json::from_str(line).expect("JSON");
        ["loss", "grad_norm"].map(|key| line[key].as_f64().expect("a number"))
    };
    log.lines().map(line).collect()
}

/// Losses and norms of a log, and the bytes of what was trained.
fn left(dir: &Path) -> (Vec<[f64; 2]>, Vec<u8>) {
    let files = ["adapter/peftc.safetensors", "model/model.safetensors"];
    let mut found = files
        .iter()
        .filter_map(|name| std::fs::read(dir.join("out/s").join(name)).ok());
    (
        lines(&dir.join("out/s/metrics.jsonl")),
        found.next().expect("what was trained"),
    )
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch directory")
}

#[test]
fn ranks_train_what_one_process_trains() {
    let common = "model = m, data = d.train, batch = 7, steps = 4, lr = 1e-3";
    for (stage, count) in [
        (
            format!(
                "train {{ {common}, adapter = lora {{ rank = 2, dropout = 0.1 }}, micro_batch = 2, clip = 0.5 }}"
            ),
            3,
        ),
        (
            format!("train {{ {common}, adapter = full, dev = d.dev, best = accuracy }}"),
            2,
        ),
        (
            format!("train {{ {common}, adapter = lst {{ r = 4 }} }}"),
            2,
        ),
        (
            format!("mezo {{ {common}, adapter = lora {{ rank = 2 }}, perturbations = 2 }}"),
            2,
        ),
    ] {
        let (alone, shared) = (scratch(), scratch());
        let plan = planned(alone.path(), &stage, 1).expect("planned");
        go(alone.path(), &plan, 1, u64::MAX)
            .remove(0)
            .expect("runs");
        let plan = planned(shared.path(), &stage, count as u64).expect("planned");
        let mut said = go(shared.path(), &plan, count, u64::MAX);
        assert!(said.iter().all(Result::is_ok), "{stage}: {said:?}");
        let (one, _) = left(alone.path());
        let (many, _) = left(shared.path());
        assert_eq!((one.len(), many.len()), (4, 4), "{stage}");
        // MeZO's norm is a difference of two losses over 2e-3, by which their last bits grow.
        let far = match stage.starts_with("mezo") {
            true => [1e-5, 5e-4],
            false => [1e-5; 2],
        };
        for (a, b) in one.iter().zip(&many) {
            for ((a, b), far) in a.iter().zip(b).zip(far) {
                assert!(
                    (a - b).abs() < far * a.abs().max(1.0),
                    "{stage}: {one:?} {many:?}"
                );
            }
        }
        let result = said.remove(0).expect("a result");
        let own = &result["stages"][0];
        let number = |key: &str| own[key].as_u64().expect("a number");
        assert_eq!(number("ranks"), count as u64);
        assert_eq!(number("sent_bytes"), number("planned_sent_bytes"));
        assert_eq!(number("sent_bytes"), 4 * plan.stages[0].traffic().bytes);
        let ratio = number("measured_peak_bytes") as f64 / number("estimated_peak_bytes") as f64;
        // Planned for the rank with most; this is the first.
        assert!((0.9..=1.0).contains(&ratio), "{stage}: {ratio}");
    }
}

#[test]
fn ranks_that_were_ended_go_on_to_the_same_bits() {
    let stage = "train { model = m, data = d.train, batch = 8, steps = 5, lr = 1e-3, adapter = lora { rank = 2 } }";
    let (whole, ended) = (scratch(), scratch());
    let plan = planned(whole.path(), stage, 2).expect("planned");
    assert!(
        go(whole.path(), &plan, 2, u64::MAX)
            .iter()
            .all(Result::is_ok)
    );
    let plan = planned(ended.path(), stage, 2).expect("planned");
    let said = go(ended.path(), &plan, 2, 3);
    let stops =
        |one: &Result<Json, RunError>| matches!(one, Err(RunError::Interrupted { signal: 15, .. }));
    assert!(said.iter().all(stops), "{said:?}");
    assert!(
        go(ended.path(), &plan, 2, u64::MAX)
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(left(whole.path()), left(ended.path()));
}

#[test]
fn a_checkpoint_of_two_ranks_is_gone_on_from_by_one_process() {
    let stage = "train { model = m, data = d.train, batch = 8, steps = 5, lr = 1e-3, adapter = lora { rank = 2 } }";
    let (whole, ended) = (scratch(), scratch());
    let alone = planned(whole.path(), stage, 1).expect("planned");
    go(whole.path(), &alone, 1, u64::MAX)
        .remove(0)
        .expect("runs");
    let plan = planned(ended.path(), stage, 2).expect("planned");
    assert!(go(ended.path(), &plan, 2, 3).iter().all(Result::is_err));
    let alone = planned(ended.path(), stage, 1).expect("planned");
    assert_eq!(alone.stages[0].among_others()[0].0, 2);
    let said = go_on(ended.path(), &alone, (1, true), u64::MAX).remove(0);
    // Two steps were left.
    let said = said.expect("goes on");
    let (one, _) = left(whole.path());
    let (both, _) = left(ended.path());
    assert_eq!(both.len(), 5, "{said}");
    for (a, b) in one.iter().flatten().zip(both.iter().flatten()) {
        assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{one:?} {both:?}");
    }
    // The first steps are those of two ranks: the log was copied.
    let of_two = store_log(&ended, plan.stages[0].fingerprint.as_deref());
    assert_eq!(both[..of_two.len()], of_two);
}

/// Losses and norms of an entry's log.
fn store_log(dir: &tempfile::TempDir, print: Option<&str>) -> Vec<[f64; 2]> {
    let path = dir.path().join("store").join(print.expect("a fingerprint"));
    lines(&path.join("metrics.jsonl"))
}

#[test]
fn what_cannot_be_shared_is_refused_by_name() {
    let dir = scratch();
    let stage = "train { model = m, data = d.train, batch = 8, steps = 5, lr = 1e-3, adapter = spiel { density = 0.1 } }";
    let why = planned(dir.path(), stage, 2).expect_err("refused");
    assert!(why.contains("`s` cannot be shared among 2 ranks"), "{why}");
    // One process is asked nothing.
    assert!(planned(dir.path(), stage, 1).is_ok());
}
