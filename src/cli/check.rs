//! `peftc check`: what is wrong, and how much memory it takes.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::options::{Common, Intent, Prepared, error, print, store_of};
use super::{exit, render};
use crate::base::units::{About, Bytes, Count};
use crate::driver::Compiled;
use crate::exec::run::{entry_name, resumes_at};
use crate::exec::store::Store;
use crate::files::space;
use crate::plan::disk::{Disk, together};
use crate::plan::estimate::Home;
use crate::plan::render::{batches, recomputed};
use crate::plan::solve::{Solution, solve};
use crate::plan::time::{Told, seconds};
use crate::plan::{Plan, Stage, render as plan_render};
use crate::program::device::{self, Device};
use crate::program::op::Machine;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Recipes
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Memory that may be used: 6GiB, 8GB, 900MiB
    #[arg(long)]
    budget: Option<String>,
    /// Print the largest value of this key that fits the budget or the card: batch, micro_batch,
    /// max_length, rank
    #[arg(long, value_name = "KEY")]
    solve: Option<String>,
    /// The stage to solve for, in a sweep with all its variants; every training stage if not given
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
    /// The store, to say what is finished already
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// What a budget has to hold for a plan.
pub(super) fn needed(plan: &Plan) -> u64 {
    let stages = plan.stages.iter();
    stages.map(|s| s.estimate.needs()).max().unwrap_or(0)
}

impl Check {
    pub(super) fn run(&self) -> i32 {
        let Some(asked) = self.common.prepare(self.budget.as_deref(), Intent::Tell) else {
            return exit::WRONG;
        };
        if self.solve.is_some() && asked.limit().is_none() {
            error(
                "`--solve` needs what to fit: `--budget SIZE`, or a card (`--device rtx3070-8gb`)",
            );
            return exit::WRONG;
        }
        // What is solved for is solved for the recipe as it is written.
        let to_fit = asked.limit().filter(|_| self.solve.is_none());
        let (world, machine) = (self.common.world(), asked.machine);
        let mut code = exit::DONE;
        let mut recipes = Vec::new();
        for file in &self.files {
            let store = store_of(file, self.store.as_deref());
            let compiled =
                self.common
                    .compile(file, &asked.sets, &world, &machine, (Some(&store), to_fit));
            let own = self.one(&compiled, &asked, &mut recipes);
            // 2 before 3 before 1 before 0
            let rank = |c: i32| match c {
                exit::WRONG => 3,
                exit::TOO_LARGE => 2,
                exit::FAILED => 1,
                _ => 0,
            };
            if rank(own) > rank(code) {
                code = own;
            }
        }
        if self.common.json {
            print(&format!("{}\n", json!({ "schema": 1, "recipes": recipes })));
        }
        code
    }

    fn one(&self, compiled: &Compiled, asked: &Prepared, recipes: &mut Vec<Json>) -> i32 {
        let store = Store::open(store_of(&compiled.path, self.store.as_deref()));
        let cached =
            |s: &Stage| s.fingerprint.is_some() && store.finished(&entry_name(s)).is_some();
        let (machine, limit) = (asked.machine, asked.limit());
        let rates = store.rates(machine.threads);
        let source = Told::by(&rates, &machine);
        let time = |s: &Stage| seconds(s, &rates, &machine);
        let peak = compiled.plan.as_ref().map(needed);
        let fits = limit.zip(peak).map(|(limit, peak)| peak <= limit);
        if self.common.json {
            let stages: Vec<Json> = compiled
                .plan
                .iter()
                .flat_map(|p| &p.stages)
                .map(|s| {
                    let mut json = plan_render::stage_json(s, cached(s), &self.common.device);
                    timed(&mut json, time(s), source);
                    stored(&mut json, s, &store);
                    json
                })
                .collect();
            let tensors = compiled
                .plan
                .iter()
                .flat_map(|p| &p.stages)
                .map(|s| s.estimate.peak())
                .max()
                .unwrap_or(0);
            recipes.push(json!({
                "recipe": compiled.path.display().to_string(), "peak_bytes": tensors, "fits": fits, "budget_bytes": asked.budget,
                "disk_bytes": compiled.plan.as_ref().map(|p| disk(p, &cached).most()),
                "device": plan_render::card_json(machine.device), "device_bytes": peak.filter(|_| machine.device != Device::Cpu), "stages": stages,
                "diagnostics": compiled.diags.iter().map(|d| render::json(d, &compiled.sources)).collect::<Vec<_>>(),
            }));
        } else {
            render::report(&compiled.diags, &compiled.sources, &self.common);
        }
        let Some(plan) = compiled.plan.as_ref().filter(|_| !compiled.rejected()) else {
            if !self.common.json {
                error(&format!(
                    "{} is rejected: nothing was executed",
                    compiled.path.display()
                ));
            }
            return exit::WRONG;
        };
        if let (Some(key), Some(limit)) = (&self.solve, limit) {
            return self.solve(plan, key, limit, &machine);
        }
        if !self.common.json {
            let name = compiled.path.display().to_string();
            let mark = |s: &Stage| match resumes_at(&store, s) {
                Some(step) => format!("resumes at {step}"),
                None if cached(s) => "finished".to_owned(),
                None => String::new(),
            };
            print(&table(plan, &name, (&mark, &time)));
            print(&on_disk(plan, &cached, &store));
            print(&told(&machine, source));
            if let Some(limit) = limit {
                print(&verdict(plan, limit));
                print(&fitted(plan));
            }
        }
        if fits == Some(false) {
            exit::TOO_LARGE
        } else {
            exit::DONE
        }
    }

    fn solve(&self, plan: &Plan, key: &str, budget: u64, machine: &Machine) -> i32 {
        let chosen: Vec<&Stage> = plan
            .stages
            .iter()
            .filter(|s| self.stage.as_ref().is_none_or(|n| s.is(n)))
            .collect();
        if let (true, Some(name)) = (chosen.is_empty(), &self.stage) {
            error(&format!("there is no stage `{name}`"));
            return exit::WRONG;
        }
        let (mut code, mut solved) = (exit::DONE, 0);
        for stage in chosen {
            match solve(stage, key, budget, machine) {
                Solution::Fits { value, needs } => {
                    solved += 1;
                    print(&format!(
                        "{}: {key} = {value} needs {} of {}\n",
                        stage.name.value,
                        Bytes(needs),
                        Bytes(budget)
                    ));
                }
                Solution::Never { needs } => {
                    solved += 1;
                    print(&format!(
                        "{}: nothing fits; the smallest {key} needs {} of {}\n",
                        stage.name.value,
                        Bytes(needs),
                        Bytes(budget)
                    ));
                    code = exit::TOO_LARGE;
                }
                Solution::NotAKey => {}
            }
        }
        if solved == 0 {
            error(&format!(
                "no stage here has a key `{key}` that can be solved for; try batch, micro_batch, max_length or rank"
            ));
            return exit::WRONG;
        }
        code
    }
}

/// Puts the disk that a stage takes, and the step that it goes on from, into its JSON.
pub(super) fn stored(json: &mut Json, stage: &Stage, store: &Store) {
    if let Some(map) = json.as_object_mut() {
        map.insert("disk_bytes".to_owned(), json!(Disk::of(stage).most()));
        map.insert("resumes_at".to_owned(), json!(resumes_at(store, stage)));
    }
}

/// What a run takes of the store's disk: the stages that are not finished.
fn disk(plan: &Plan, cached: &dyn Fn(&Stage) -> bool) -> Disk {
    together(plan, plan.stages.iter().filter(|s| !cached(s)))
}

/// The same for people, with what is free.
fn on_disk(plan: &Plan, cached: &dyn Fn(&Stage) -> bool, store: &Store) -> String {
    let all = disk(plan, cached);
    if all.most() == 0 {
        return String::new();
    }
    let mut parts = vec![format!("artifacts and logs {}", Bytes(all.artifact))];
    for (what, bytes) in [
        ("checkpoints", all.checkpoints),
        ("kept features", all.features),
    ] {
        if bytes > 0 {
            parts.push(format!("{what} {}", Bytes(bytes)));
        }
    }
    let free = space::free(store.dir()).map_or(String::new(), |free| {
        let fits = if free < all.most() {
            ": that is too little"
        } else {
            ""
        };
        format!(", {} are free{fits}", Bytes(free))
    });
    format!(
        "  A run writes at most {} to the disk{free}\n    ({})\n\n",
        Bytes(all.most()),
        parts.join(", ")
    )
}

/// Puts a stage's time, and what tells it, into its JSON.
pub(super) fn timed(json: &mut Json, time: Option<f64>, source: Option<Told>) {
    if let Some(map) = json.as_object_mut() {
        let source = source.filter(|_| time.is_some()).map(Told::name);
        map.insert("estimated_s".to_owned(), json!(time));
        map.insert("estimated_s_from".to_owned(), json!(source));
    }
}

/// The table of `check`, in 80 columns where names are short.
pub(super) fn table(
    plan: &Plan,
    recipe: &str,
    (mark, time): (&dyn Fn(&Stage) -> String, &dyn Fn(&Stage) -> Option<f64>),
) -> String {
    let mut text = format!("{recipe}\n\n");
    let on_device = plan.stages.iter().any(|s| s.estimate.home != Home::Cpu);
    let width = plan_render::name_width(plan.stages.iter().map(|s| s.name.value.as_str()), 14);
    let wide = |s: &Stage| {
        if s.kind.chooses() {
            s.filled.name.len()
        } else {
            0
        }
    };
    let kinds = plan.stages.iter().map(wide).max().unwrap_or(0).max(10);
    let _ = writeln!(
        text,
        "  {:<width$} {:<kinds$} {:>11} {:>8} {:>10} {:>10} {:>9}",
        "stage",
        "method",
        "trained",
        "steps",
        "tensors",
        if on_device { "device" } else { "process" },
        "time"
    );
    for stage in &plan.stages {
        let (_, trained) = stage.job.parameters();
        let methods = stage.methods().join("+");
        let steps = match &stage.job.routine {
            // A number of epochs says nothing without the data.
            crate::library::stage::job::Routine::Fit(_) if stage.steps_unknown() => "?".to_owned(),
            crate::library::stage::job::Routine::Fit(fit) => Count(fit.steps).to_string(),
            _ => "–".to_owned(),
        };
        let kind = if methods.is_empty() || stage.leaves.is_none() {
            stage.filled.name.clone()
        } else {
            methods
        };
        let mark = mark(stage);
        let mark = if mark.is_empty() {
            mark
        } else {
            format!("  ({mark})")
        };
        let trained = if trained == 0 {
            "–".to_owned()
        } else {
            Count(trained).to_string()
        };
        let e = &stage.estimate;
        let _ = writeln!(
            text,
            "  {:<width$} {kind:<kinds$} {trained:>11} {steps:>8} {:>10} {:>10} {:>9}{mark}",
            stage.name.value,
            Bytes(e.peak()).to_string(),
            match e.home {
                Home::Host => "on host".to_owned(),
                _ => Bytes(e.needs()).to_string(),
            },
            time(stage).map_or_else(|| "?".to_owned(), |s| About(s).to_string())
        );
    }
    for stage in &plan.stages {
        if let Some(prompt) = plan_render::prompt(stage) {
            let _ = writeln!(text, "\n  The prompt of `{}` is {prompt}", stage.name.value);
        }
    }
    // What runs on the host does not count among what is held on a device.
    let counted = |s: &&Stage| !on_device || s.estimate.home != Home::Host;
    let stages = plan.stages.iter().filter(counted);
    let held = |s: &&Stage| match s.estimate.home {
        Home::Device(_) => s.estimate.needs(),
        Home::Cpu | Home::Host => s.estimate.peak(),
    };
    if let Some(top) = stages.max_by_key(held) {
        let e = &top.estimate;
        let _ = writeln!(
            text,
            "\n  The peak is in `{}`, at {}:",
            top.name.value, e.peak_op
        );
        let lines = plan_render::lines(e);
        let all: u64 = lines.iter().map(|(_, bytes)| bytes).sum();
        for (name, bytes) in lines.into_iter().filter(|(_, bytes)| *bytes > 0) {
            let share = 100.0 * bytes as f64 / all.max(1) as f64;
            let _ = writeln!(
                text,
                "    {name:<36} {:>10} {share:>5.1} %",
                Bytes(bytes).to_string()
            );
        }
        if let Some((what, bytes)) = e.largest.first() {
            let _ = writeln!(text, "  largest tensor there: {} {what}", Bytes(*bytes));
        }
    }
    text.push('\n');
    text
}

/// The card, and what the times are told by.
pub(super) fn told(machine: &Machine, source: Option<Told>) -> String {
    let mut text = String::new();
    if let Some(card) = machine.device.card() {
        let _ = writeln!(
            text,
            "  {} has {}, of which its driver leaves about {}.",
            card.name,
            Bytes(card.memory()),
            Bytes(card.available())
        );
    }
    match source {
        Some(Told::DataSheet) => {
            let _ = writeln!(
                text,
                "  Times are computed from its data sheet, at {:.0} % of the arithmetic and {:.0} % of the bandwidth\n  \
                 there; nothing was measured.",
                100.0 * device::ARITHMETIC_EFFICIENCY,
                100.0 * device::BANDWIDTH_EFFICIENCY
            );
        }
        Some(Told::Usual) => text.push_str(
            "  Times are those of a usual processor; runs with this store will tell this machine's.\n",
        ),
        Some(Told::Measured) => {}
        None => text.push_str(
            "  No card is known here, so that there are no times and nothing to fit; name one\n  \
             (`--device rtx3070-8gb`, `peftc list devices`).\n",
        ),
    }
    text
}

/// What `fit = auto` chose, a line a stage.
pub(super) fn fitted(plan: &Plan) -> String {
    let stages = plan.stages.iter().filter(|s| s.fitted);
    stages
        .map(|stage| {
            let (batch, micro) = batches(stage);
            let blocks = recomputed(stage);
            let micro = (micro < batch).then(|| format!("micro-batches of {micro}"));
            let again = (blocks > 0).then(|| {
                let all = stage.model.facts().layers;
                format!("the inner values of {blocks} of {all} blocks recomputed")
            });
            let ways: Vec<String> = micro.into_iter().chain(again).collect();
            format!(
                "    `{}` fits by {}\n",
                stage.name.value,
                ways.join(" and ")
            )
        })
        .collect()
}

/// Whether a plan fits a budget, and what would.
pub(super) fn verdict(plan: &Plan, budget: u64) -> String {
    let needs = needed(plan);
    if needs <= budget {
        return format!("  fits: {} of {}\n", Bytes(needs), Bytes(budget));
    }
    let mut text = format!(
        "  does not fit: {} is needed, {} may be used\n",
        Bytes(needs),
        Bytes(budget)
    );
    for stage in plan.stages.iter().filter(|s| s.estimate.needs() > budget) {
        let _ = writeln!(
            text,
            "    `{}` needs {}",
            stage.name.value,
            Bytes(stage.estimate.needs())
        );
    }
    text.push_str(
        "  `fit = auto` in a training stage lets the compiler choose micro-batch and recompute; \
         `--solve micro_batch` (or batch, max_length, rank) prints the largest that fits\n",
    );
    text
}
