//! Argo Workflows: a plan as a DAG of Kubernetes pods, as a file.
//!
//! A template holds what the variants of a stage have in common: the command and what it asks for. A task of the DAG
//! is a stage; it names its template and the tasks before it.

use std::fmt::Write as _;

use super::jobs::{Job, Standing, beside, group};
use super::site::Site;
use super::slurm::Asked;
use crate::base::units::Bytes;
use crate::plan::Plan;

/// Where the claim's volume is in a pod.
const MOUNT: &str = "/work";

/// How often a pod starts again whose node was lost: it goes on from its checkpoint.
const AGAIN: u32 = 5;

/// What the pods have in common.
#[derive(Debug)]
pub struct Pods {
    /// The recipe's name without its ending.
    pub recipe: String,
    /// Arguments of the program but for the stage.
    pub arguments: Vec<String>,
    /// Processors of a pod.
    pub cpus: usize,
}

/// A name as Kubernetes takes it: small letters, digits and `-`.
fn name(text: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let text: String = text.chars().map(plain).collect();
    let text = text.trim_matches('-');
    let cut: String = text.chars().take(40).collect();
    match cut.trim_end_matches('-') {
        "" => "stage".to_owned(),
        cut => cut.to_owned(),
    }
}

/// A text as YAML takes it.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The workflow, in YAML.
///
/// # Errors
/// An argument holds `{{`, which Argo would replace.
pub fn workflow(plan: &Plan, pods: &Pods) -> Result<String, String> {
    let stages: Vec<_> = plan.stages.iter().collect();
    let stages_names = stages.iter().map(|s| &s.name.value);
    if let Some(wrong) = pods
        .arguments
        .iter()
        .chain(stages_names)
        .find(|a| a.contains("{{"))
    {
        return Err(format!(
            "`{wrong}` holds `{{{{`, behind which Argo looks for a name; write it otherwise"
        ));
    }
    let jobs = group(&stages, &|_| Standing::Open, usize::MAX);
    let more = beside(plan);
    let mut out = format!(
        "# The stages of `{recipe}` for Argo Workflows: `argo submit THIS_FILE -p image=… -p claim=…`.\n\
         # The claim's volume holds the recipe's folder, with all that the recipe reads, and takes the store; its pods\n\
         # have to be allowed to write there. Memory is the plan's, with {margin} % and {more} more.\n\
         apiVersion: argoproj.io/v1alpha1\n\
         kind: Workflow\n\
         metadata:\n  generateName: {generate}\n\
         spec:\n  entrypoint: recipe\n  \
           arguments:\n    parameters:\n      - name: image\n        value: {image}\n      - name: claim\n        value: peftc\n  \
           volumes:\n    - name: work\n      persistentVolumeClaim:\n        claimName: \"{{{{workflow.parameters.claim}}}}\"\n  \
           templates:\n    - name: recipe\n      dag:\n        failFast: false\n        tasks:\n",
        recipe = pods.recipe,
        margin = Site::default().memory_margin,
        more = Bytes(more),
        generate = text(&format!("{}-", name(&pods.recipe))),
        image = text(&format!("peftc:{}", env!("CARGO_PKG_VERSION"))),
    );
    for (at, job) in jobs.iter().enumerate() {
        for (element, stage) in job.stages.iter().enumerate() {
            let _ = write!(
                out,
                "          - name: {}\n            template: {}\n",
                task(at, job, element),
                template(at, job)
            );
            let before: Vec<String> = stage
                .needs()
                .filter_map(|needed| place(&jobs, job, needed))
                .collect();
            if !before.is_empty() {
                let _ = writeln!(out, "            dependencies: [{}]", before.join(", "));
            }
            let _ = write!(
                out,
                "            arguments:\n              parameters:\n                - name: stage\n                  value: {}\n",
                text(&stage.name.value)
            );
        }
    }
    for (at, job) in jobs.iter().enumerate() {
        pod(&mut out, (at, job), (pods, more));
    }
    Ok(out)
}

/// A job's template. A name of a stage may be another's with `-`, so the place is in it.
fn template(at: usize, job: &Job<'_>) -> String {
    format!("s{at}-{}", name(&job.name))
}

fn task(at: usize, job: &Job<'_>, element: usize) -> String {
    match job.is_array() {
        true => format!("{}-{element}", template(at, job)),
        false => template(at, job),
    }
}

/// The task of a stage that a job needs.
fn place(jobs: &[Job<'_>], job: &Job<'_>, needed: &str) -> Option<String> {
    job.needs.iter().find_map(|need| {
        let before = jobs.get(need.job)?;
        let element = before.stages.iter().position(|s| s.name.value == needed)?;
        Some(task(need.job, before, element))
    })
}

/// A job's template: a pod that runs one of its stages.
fn pod(out: &mut String, (at, job): (usize, &Job<'_>), (pods, more): (&Pods, u64)) {
    let wants = job.wants(&|_| None);
    let asked = Asked::of(&wants, more, &Site::default());
    let _ = write!(
        out,
        "    - name: {name}\n      \
           inputs:\n        parameters:\n          - name: stage\n      \
           retryStrategy:\n        limit: {AGAIN}\n        retryPolicy: OnError\n      \
           container:\n        image: \"{{{{workflow.parameters.image}}}}\"\n        command: [peftc]\n        args:\n",
        name = template(at, job)
    );
    for argument in &pods.arguments {
        let _ = writeln!(out, "          - {}", text(argument));
    }
    out.push_str("          - \"--stage\"\n          - \"{{inputs.parameters.stage}}\"\n");
    let _ = write!(
        out,
        "        workingDir: {MOUNT}\n        \
           volumeMounts:\n          - name: work\n            mountPath: {MOUNT}\n        \
           resources:\n          requests:\n            cpu: {cpus}\n            memory: {memory}Mi\n          limits:\n            memory: {memory}Mi\n",
        cpus = text(&pods.cpus.to_string()),
        memory = asked.memory
    );
    if wants.gpu {
        out.push_str("            nvidia.com/gpu: \"1\"\n");
    }
}
