//! `peftc plan`: the compiled plan.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use super::check::{source_of_times, stored, timed};
use super::exit;
use super::options::{Common, Intent, Within, error, print, stem, store_of};
use super::screen::Screen;
use crate::base::units::About;
use crate::cluster::argo::{self, Pods};
use crate::exec::run::is_finished;
use crate::exec::store::Store;
use crate::plan::time::RateSource;
use crate::plan::{Plan, Stage, render as plan_render};
use crate::program::device::Device;
use crate::program::op::Machine;
use crate::program::print::print as program_text;

/// Output formats.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Dot,
    Mermaid,
    /// An Argo Workflows DAG, for Kubernetes.
    Argo,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The recipe
    file: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Print the op-level programs of this stage instead
    #[arg(long, value_name = "STAGE")]
    program: Option<String>,
    /// The store, to say what is finished already
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// A plan as JSON; the recipe and the device by their names.
pub(super) fn json(
    plan: &Plan,
    (name, device): (&str, &str),
    store: &Store,
    machine: &Machine,
) -> Json {
    let cached = |stage: &Stage| is_finished(store, stage);
    let rates = store.rates(machine.threads);
    let source = RateSource::by(&rates, machine);
    let mut json = plan_render::json(plan, name, &cached, device);
    if let Some(map) = json.as_object_mut() {
        map.insert("device".to_owned(), plan_render::card_json(machine.device));
    }
    let list = json.get_mut("stages").and_then(Json::as_array_mut);
    for (json, stage) in list.into_iter().flatten().zip(&plan.stages) {
        timed(json, stage.seconds(&rates, machine), source);
        stored(json, stage, store);
    }
    json
}

impl PlanArgs {
    pub(super) fn run(&self) -> i32 {
        let Some(asked) = self.common.prepare(None, Intent::Tell) else {
            return exit::WRONG;
        };
        let (world, machine) = (self.common.world(), asked.machine);
        let dir = store_of(&self.file, self.store.as_deref());
        let compiled = self.common.compiled(
            &self.file,
            &asked,
            &world,
            Within::alone(Some(&dir), asked.limit()),
        );
        let Some(plan) = &compiled.plan else {
            return exit::WRONG;
        };
        let name = self.file.display().to_string();
        if let Some(wanted) = &self.program {
            return programs(plan, wanted);
        }
        let store = Store::open(dir);
        let format = if self.common.json {
            Format::Json
        } else {
            self.format
        };
        let rates = store.rates(machine.threads);
        let source = RateSource::by(&rates, &machine);
        let time = |s: &Stage| s.seconds(&rates, &machine);
        match format {
            Format::Text => {
                print(&Screen::out(self.common.color).fold(&plan_render::text(plan, &name), 14));
                let times = plan
                    .stages
                    .iter()
                    .filter_map(|s| Some(format!("{} {}", s.name.value, About(time(s)?))));
                let times = times.collect::<Vec<_>>().join(", ");
                let screen = Screen::out(self.common.color);
                print(&screen.fold(&format!("\ntimes: {times}\n"), 2));
                print(&source_of_times(
                    &machine,
                    source,
                    &store.rated_threads(),
                    screen,
                ));
            }
            Format::Json => {
                let own = json(plan, (&name, &self.common.device), &store, &machine);
                print(&format!("{own:#}\n"));
            }
            Format::Dot => print(&plan_render::dot(plan)),
            Format::Mermaid => print(&plan_render::mermaid(plan)),
            Format::Argo => match argo::workflow(plan, &self.pods(&machine)) {
                Ok(text) => print(&text),
                Err(why) => {
                    error(&why);
                    return exit::WRONG;
                }
            },
        }
        exit::DONE
    }
    /// What pods of this plan have in common.
    fn pods(&self, machine: &Machine) -> Pods {
        // In the claim's volume, the recipe's folder is the working directory.
        let file = self.file.file_name().unwrap_or_default();
        let mut words = vec!["run".to_owned(), file.to_string_lossy().into_owned()];
        let mut add = |flag: &str, value: &str| words.extend([flag.to_owned(), value.to_owned()]);
        for set in &self.common.sets {
            add("--set", set);
        }
        if machine.device != Device::Cpu {
            add("--device", "cuda");
        }
        add("--threads", &machine.threads.to_string());
        add("--log-format", "json");
        if self.common.offline {
            words.push("--offline".to_owned());
        }
        Pods {
            recipe: stem(&self.file),
            arguments: words,
            cpus: machine.threads,
        }
    }
}

/// Prints the programs of the stages of a name; gives the exit code.
fn programs(plan: &Plan, wanted: &str) -> i32 {
    let stages: Vec<&Stage> = plan.named(wanted).collect();
    if stages.is_empty() {
        error(&format!("there is no stage `{wanted}`"));
        return exit::WRONG;
    }
    for stage in &stages {
        if stages.len() > 1 {
            print(&format!("# {}\n", stage.name.value));
        }
        for program in stage.job.first().chain(stage.job.programs()) {
            print(&program_text(program.program()));
        }
    }
    exit::DONE
}
