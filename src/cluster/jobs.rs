//! The stages that are left to run, as jobs: variants of a stage are one job with an element each.

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;

use crate::library::stage::job::Routine;
use crate::plan::estimate::Residence;
use crate::plan::{Plan, Stage};

/// Bytes that are asked for beside a stage's estimate and its margin.
const MORE: u64 = 256 << 20;

/// Bytes of a program's node in memory with all that a plan holds beside it, and a quarter more: 2.0 KiB were measured over 500
/// points of a sweep of LoRA on a BERT of three layers.
const NODE: u64 = 2560;

/// Bytes that a job takes beside its stage: it plans the whole recipe, with all points of its sweeps.
#[must_use]
pub fn beside(plan: &Plan) -> u64 {
    let nodes = |stage: &Stage| -> usize {
        let programs = stage.job.first().chain(stage.job.programs());
        programs.map(|p| p.program().nodes.len()).sum()
    };
    let nodes: usize = plan.stages.iter().map(nodes).sum();
    MORE + NODE * nodes as u64
}

/// Where a stage stands before anything is submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in the store.
    Finished,
    /// A job of this number has it already.
    Queued(String),
    /// It is to be submitted.
    Open,
}

/// Stages that are submitted together.
#[derive(Debug)]
pub struct Job<'a> {
    /// The stage's name in the recipe, with a number where it takes several jobs: `learn`, `learn.2`. No name of a stage holds a point.
    pub name: String,
    /// One, or the variants that are its elements.
    pub stages: Vec<&'a Stage>,
    /// The jobs before it.
    pub needs: Vec<Need>,
    /// Numbers of jobs that were submitted earlier and have to end well first.
    pub queued: Vec<String>,
}

/// A job that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its place in the list of jobs.
    pub job: usize,
    /// Whether each element waits for the one of the same number alone, and not for all of them.
    pub each: bool,
}

/// What the stages of a job need, the most of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wants {
    /// Bytes of the process, as estimated.
    pub memory: u64,
    /// Seconds of its arithmetic; `None` where nothing tells them for one of the stages.
    pub seconds: Option<f64>,
    /// Seconds of an optimizer step, the longest; `None` where nothing is trained, so that there is no checkpoint.
    pub step: Option<f64>,
    /// Whether tensors are on a GPU.
    pub gpu: bool,
}

impl Job<'_> {
    /// Whether it has elements.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.stages.len() > 1
    }

    /// Processes that its trainings are shared among.
    #[must_use]
    pub fn ranks(&self) -> u64 {
        let ranks = self.stages.iter().map(|stage| stage.ranks);
        ranks.max().unwrap_or(1)
    }

    /// What it needs, by the seconds that each stage takes.
    #[must_use]
    pub fn wants(&self, seconds: &dyn Fn(&Stage) -> Option<f64>) -> Wants {
        let mut wants = Wants {
            seconds: Some(0.0),
            ..Wants::default()
        };
        for stage in &self.stages {
            let own = seconds(stage);
            wants.memory = wants.memory.max(stage.estimate.process());
            wants.seconds = wants.seconds.zip(own).map(|(a, b)| a.max(b));
            wants.gpu |= matches!(stage.estimate.residence, Residence::Device(_));
            if let Routine::Fit(fit) = &stage.job.routine {
                let step = own.unwrap_or(0.0) / fit.steps.max(1) as f64;
                wants.step = Some(wants.step.unwrap_or(0.0).max(step));
            }
        }
        wants
    }
}

/// A stage's place among the jobs: the job, and the element in it.
type Place = (usize, usize);

/// The jobs of stages that are listed after those they need, in an order in which each job is, too; one has `most`
/// elements at most.
pub fn group<'a>(
    stages: &[&'a Stage],
    standing: &dyn Fn(&Stage) -> Standing,
    most: usize,
) -> Vec<Job<'a>> {
    let mut queued: HashMap<&str, String> = HashMap::new();
    let mut depths: HashMap<&str, usize> = HashMap::new();
    let mut open: IndexMap<(usize, &str), Vec<&'a Stage>> = IndexMap::new();
    for stage in stages.iter().copied() {
        let before = stage.needs().filter_map(|name| depths.get(name));
        let depth = before.max().map_or(0, |depth| depth + 1);
        depths.insert(&stage.name.value, depth);
        match standing(stage) {
            Standing::Finished => {}
            Standing::Queued(id) => {
                queued.insert(&stage.name.value, id);
            }
            Standing::Open => {
                let together = open.entry((depth, &stage.declared)).or_default();
                together.push(stage);
            }
        }
    }
    // What a stage needs is less deep; at one depth they stay in the order of the plan.
    open.sort_by(|a, _, b, _| a.0.cmp(&b.0));
    let mut jobs: Vec<Job<'a>> = Vec::new();
    let mut places: HashMap<&str, Place> = HashMap::new();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for ((_, declared), variants) in open {
        for together in alike(&variants, &jobs, &places).into_values() {
            for part in together.chunks(most.max(1)) {
                let count = counts.entry(declared).or_default();
                *count += 1;
                let name = match count {
                    1 => declared.to_owned(),
                    n => format!("{declared}.{n}"),
                };
                for (element, stage) in part.iter().enumerate() {
                    places.insert(&stage.name.value, (jobs.len(), element));
                }
                jobs.push(Job {
                    name,
                    needs: needs(part, &jobs, &places),
                    queued: earlier(part, &queued),
                    stages: part.to_vec(),
                });
            }
        }
    }
    jobs
}

/// The stages that a stage needs and that are to be submitted, by their places.
fn parents(stage: &Stage, places: &HashMap<&str, Place>) -> Vec<Place> {
    let all = stage.needs().filter_map(|name| places.get(name));
    all.copied().collect()
}

/// Variants by the jobs that they need; those that need the same element of one are in different groups, so that an
/// element can wait for an element.
fn alike<'a>(
    variants: &[&'a Stage],
    jobs: &[Job<'_>],
    places: &HashMap<&str, Place>,
) -> IndexMap<(Vec<usize>, usize), Vec<&'a Stage>> {
    let mut born: HashMap<Vec<Place>, usize> = HashMap::new();
    let mut groups: IndexMap<(Vec<usize>, usize), Vec<(Vec<Place>, &'a Stage)>> = IndexMap::new();
    for stage in variants.iter().copied() {
        let parents = parents(stage, places);
        let array = |(job, _): &Place| jobs.get(*job).is_some_and(Job::is_array);
        let rank = if parents.iter().any(array) {
            let next = born.entry(parents.clone()).or_default();
            *next += 1;
            *next
        } else {
            0
        };
        let own: BTreeSet<usize> = parents.iter().map(|(job, _)| *job).collect();
        let key = (own.into_iter().collect(), rank);
        groups.entry(key).or_default().push((parents, stage));
    }
    let in_order = |mut group: Vec<(Vec<Place>, &'a Stage)>| {
        group.sort_by(|a, b| a.0.cmp(&b.0));
        group.into_iter().map(|(_, stage)| stage).collect()
    };
    groups.into_iter().map(|(k, g)| (k, in_order(g))).collect()
}

/// The jobs that a job needs.
fn needs(part: &[&Stage], jobs: &[Job<'_>], places: &HashMap<&str, Place>) -> Vec<Need> {
    let all: Vec<Vec<Place>> = part.iter().map(|s| parents(s, places)).collect();
    let wanted: BTreeSet<usize> = all.iter().flatten().map(|(job, _)| *job).collect();
    let need = |job: usize| {
        let size = jobs.get(job).map_or(0, |j| j.stages.len());
        let own = |(element, parents): (usize, &Vec<Place>)| {
            let mut of_job = parents.iter().filter(|(j, _)| *j == job);
            of_job.clone().count() > 0 && of_job.all(|(_, other)| *other == element)
        };
        let each = size > 1 && size == part.len() && all.iter().enumerate().all(own);
        Need { job, each }
    };
    wanted.into_iter().map(need).collect()
}

/// Numbers of earlier jobs that a job's stages need, each once.
fn earlier(part: &[&Stage], queued: &HashMap<&str, String>) -> Vec<String> {
    let needs = part.iter().flat_map(|stage| stage.needs());
    let ids: BTreeSet<&String> = needs.filter_map(|name| queued.get(name)).collect();
    ids.into_iter().cloned().collect()
}
