//! `peftc check`: what is wrong, and how much memory it takes.

mod table;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

pub(super) use table::{fitted, source_of_times, table, verdict};

use super::options::{Common, Intent, Prepared, Within, error, print, ranks, size, store_of};
use super::screen::Screen;
use super::{exit, render};
use crate::base::units::Bytes;
use crate::base::visible;
use crate::driver::Compiled;
use crate::exec::run::{entry_name, resumes_at};
use crate::exec::store::Store;
use crate::files::space;
use crate::plan::disk::Disk;
use crate::plan::solve::{Solution, solve};
use crate::plan::time::RateSource;
use crate::plan::{Plan, Stage, render as plan_render};
use crate::program::device::Device;
use crate::program::op::Machine;

mod data;
mod ranks;

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
    /// Processes that trainings are to be shared among (`mpirun -n N peftc run`)
    #[arg(long, value_name = "N", value_parser = ranks)]
    ranks: Option<u64>,
    /// Bytes a second between them: 1.25GB, which is 10 Gbit/s, if not given
    #[arg(long, value_name = "SIZE", requires = "ranks")]
    bandwidth: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What a budget has to hold for some stages.
pub(super) fn needed(stages: &[&Stage]) -> u64 {
    let stages = stages.iter();
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
        if let (Some(stage), None) = (&self.stage, &self.solve) {
            error(&format!(
                "`--stage {stage}` says which stage `--solve KEY` is for; `check` looks at all of them"
            ));
            return exit::WRONG;
        }
        let bandwidth = match self.bandwidth.as_deref().map(size) {
            None => ranks::BANDWIDTH,
            Some(Some(bandwidth)) if bandwidth > 0 => bandwidth,
            Some(Some(_)) => {
                error(
                    "`--bandwidth` is nothing; write what crosses the wire in a second, such as 1.25GB",
                );
                return exit::WRONG;
            }
            Some(None) => return exit::WRONG,
        };
        // What is solved for is solved for the recipe as it is written.
        let to_fit = asked.limit().filter(|_| self.solve.is_none());
        let world = self.common.world();
        let mut code = exit::DONE;
        let mut recipes = Vec::new();
        for file in &self.files {
            let store = store_of(file, self.store.as_deref());
            let within = Within {
                ranks: self.ranks.unwrap_or(1),
                ..Within::alone(Some(&store), to_fit)
            };
            let compiled = self.common.compile(file, &asked, &world, within);
            let own = self.one(&compiled, (&asked, bandwidth), &mut recipes);
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

    fn one(
        &self,
        compiled: &Compiled,
        (asked, bandwidth): (&Prepared, u64),
        recipes: &mut Vec<Json>,
    ) -> i32 {
        let store = Store::open(store_of(&compiled.path, self.store.as_deref()));
        let cached =
            |s: &Stage| s.fingerprint.is_some() && store.finished(&entry_name(s)).is_some();
        let (machine, limit) = (asked.machine, asked.limit());
        let rates = store.rates(machine.threads);
        let source = RateSource::by(&rates, &machine);
        let time = |s: &Stage| s.seconds(&rates, &machine);
        let by = ranks::By {
            wire: ranks::wire(bandwidth),
            rates: &rates,
            machine: &machine,
        };
        let all: Vec<&Stage> = compiled.plan.iter().flat_map(|p| &p.stages).collect();
        let peak = compiled.plan.as_ref().map(|_| needed(&all));
        let fits = limit.zip(peak).map(|(limit, peak)| peak <= limit);
        if self.common.json {
            let own = |s: &&Stage| {
                let mut json = plan_render::stage_json(s, cached(s), &self.common.device);
                timed(&mut json, time(s), source);
                stored(&mut json, s, &store);
                ranks::put(&mut json, s, by);
                json
            };
            let stages: Vec<Json> = all.iter().map(own).collect();
            let data = compiled.plan.as_ref().map_or(json!([]), data::json);
            let tensors = all.iter().map(|s| s.estimate.peak()).max().unwrap_or(0);
            recipes.push(json!({
                "recipe": compiled.path.display().to_string(), "peak_bytes": tensors, "fits": fits, "budget_bytes": asked.budget,
                "disk_bytes": compiled.plan.as_ref().map(|p| disk(p, &cached).most()),
                "device": plan_render::card_json(machine.device), "device_bytes": peak.filter(|_| machine.device != Device::Cpu), "stages": stages,
                "data": data,
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
            let (code, solved) = self.solve(plan, key, limit, &machine);
            let json = recipes.last_mut().and_then(Json::as_object_mut);
            if let Some(json) = json.filter(|_| self.common.json) {
                json.insert("solved".to_owned(), json!(solved));
            }
            return code;
        }
        if !self.common.json {
            self.tell((compiled, plan), &store, (limit, source), by);
        }
        if fits == Some(false) {
            exit::TOO_LARGE
        } else {
            exit::DONE
        }
    }

    /// Prints what a plan takes, for people.
    fn tell(
        &self,
        (compiled, plan): (&Compiled, &Plan),
        store: &Store,
        (limit, source): (Option<u64>, Option<RateSource>),
        by: ranks::By<'_>,
    ) {
        let cached =
            |s: &Stage| s.fingerprint.is_some() && store.finished(&entry_name(s)).is_some();
        let time = |s: &Stage| s.seconds(by.rates, by.machine);
        let all: Vec<&Stage> = plan.stages.iter().collect();
        let name = compiled.path.to_string_lossy();
        let name = visible::line(&name);
        let screen = Screen::out(self.common.color);
        let mark = |s: &Stage| match resumes_at(store, s) {
            Some(step) => format!("resumes at {step}"),
            None if cached(s) => "finished".to_owned(),
            None => String::new(),
        };
        print(&format!("{name}\n\n"));
        if let Some(limit) = limit {
            print(&verdict(&all, limit, screen));
            print(&screen.fold(&fitted(plan), 6));
            print("\n");
        }
        print(&table(plan, limit, (&cached, &mark, &time), screen));
        print(&screen.fold(&on_disk(plan, &cached, store), 4));
        print(&source_of_times(
            by.machine,
            source,
            &store.rated_threads(),
            screen,
        ));
        if let Some(count @ 2..) = self.ranks {
            print(&ranks::block(plan, count, by, screen));
        }
        print(&data::block(plan, screen.prose()));
    }

    /// Tells the largest value of a key that fits, a line a stage; the exit code, and the same as JSON.
    fn solve(&self, plan: &Plan, key: &str, budget: u64, machine: &Machine) -> (i32, Vec<Json>) {
        let mut list = Vec::new();
        let mut tell = |stage: &Stage, value: Option<u64>, needs: u64| {
            let name = &stage.name.value;
            list.push(json!({ "stage": name, "key": key, "value": value, "needs_bytes": needs }));
            if !self.common.json {
                print(&match value {
                    Some(value) => format!(
                        "{name}: {key} = {value} needs {} of {}\n",
                        Bytes(needs),
                        Bytes(budget)
                    ),
                    None => format!(
                        "{name}: nothing fits; the smallest {key} needs {} of {}\n",
                        Bytes(needs),
                        Bytes(budget)
                    ),
                });
            }
        };
        let chosen: Vec<&Stage> = plan
            .stages
            .iter()
            .filter(|s| self.stage.as_ref().is_none_or(|n| s.is(n)))
            .collect();
        if let (true, Some(name)) = (chosen.is_empty(), &self.stage) {
            error(&format!("there is no stage `{name}`"));
            return (exit::WRONG, Vec::new());
        }
        let (mut code, mut solved) = (exit::DONE, 0);
        for stage in chosen {
            match solve(stage, key, budget, machine) {
                Solution::Fits { value, needs } => {
                    solved += 1;
                    tell(stage, Some(value), needs);
                }
                Solution::Never { needs } => {
                    solved += 1;
                    tell(stage, None, needs);
                    code = exit::TOO_LARGE;
                }
                Solution::NotAKey => {}
            }
        }
        if solved == 0 {
            error(&format!(
                "no stage here has a key `{key}` that can be solved for; try batch, micro_batch, max_length or rank"
            ));
            return (exit::WRONG, Vec::new());
        }
        (code, list)
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
    plan.disk(plan.stages.iter().filter(|s| !cached(s)))
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
pub(super) fn timed(json: &mut Json, time: Option<f64>, source: Option<RateSource>) {
    if let Some(map) = json.as_object_mut() {
        let source = source.filter(|_| time.is_some()).map(RateSource::name);
        map.insert("estimated_s".to_owned(), json!(time));
        map.insert("estimated_s_from".to_owned(), json!(source));
    }
}
