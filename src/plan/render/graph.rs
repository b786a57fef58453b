//! The stage graph for Graphviz and Mermaid.

use std::fmt::Write as _;

use super::super::{Plan, Stage};
use crate::base::units::Bytes;
use crate::base::visible;

/// The stage graph for Graphviz.
#[must_use]
pub fn dot(plan: &Plan) -> String {
    let mut out = String::from("digraph recipe {\n  rankdir = LR;\n  node [shape = box];\n");
    for stage in &plan.stages {
        let own = quoted(&[&stage.name.value]);
        let lines = label(stage);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let _ = writeln!(out, "  {own} [label = {}];", quoted(&lines));
        // No stage has a blank in its name in front of any `@`.
        let from = match &stage.parent {
            Some(parent) => quoted(&[parent]),
            None => quoted(&[&format!("model {}", stage.start.model.name)]),
        };
        let _ = writeln!(out, "  {from} -> {own} [label = \"model\"];");
        if let Some(chooser) = &stage.start.chooser {
            let from = quoted(&[&chooser.stage]);
            let _ = writeln!(out, "  {from} -> {own} [label = \"prompt\"];");
        }
        for (from, what) in taught(stage) {
            let from = quoted(&[from]);
            let _ = writeln!(out, "  {from} -> {own} [label = \"{what}\"];");
        }
    }
    out.push_str("}\n");
    out
}

/// The stages whose scores a stage learns, and those that weigh them, with what comes from each.
fn taught(stage: &Stage) -> impl Iterator<Item = (&str, &'static str)> {
    let what = match &stage.start.drawing {
        Some(_) => "labels",
        None => "scores",
    };
    stage.start.teachers.iter().flat_map(move |own| {
        let judge = own.judge.as_deref().map(|judge| (judge, "weight"));
        std::iter::once((own.stage.as_str(), what)).chain(judge)
    })
}

/// Lines as a string of DOT.
fn quoted(lines: &[&str]) -> String {
    let escaped = lines
        .iter()
        .map(|l| visible::line(l).replace('\\', "\\\\").replace('"', "\\\""));
    format!("\"{}\"", escaped.collect::<Vec<_>>().join("\\n"))
}

/// The stage graph for Mermaid. Its identifiers are counted: words such as `end` have a meaning there, and
/// a name may hold anything.
#[must_use]
pub fn mermaid(plan: &Plan) -> String {
    let mut out = String::from("flowchart LR\n");
    let names: Vec<&str> = plan.stages.iter().map(|s| s.name.value.as_str()).collect();
    let id = |name: &str| match names.iter().position(|n| *n == name) {
        Some(i) => format!("stage{i}"),
        None => "unknown".to_owned(),
    };
    let mut models: Vec<&str> = Vec::new();
    for (i, stage) in plan.stages.iter().enumerate() {
        let lines: Vec<String> = label(stage).iter().map(|l| entities(l)).collect();
        let _ = writeln!(out, "  stage{i}[\"{}\"]", lines.join("<br/>"));
        let from = match &stage.parent {
            Some(parent) => id(parent),
            None => {
                let name = stage.start.model.name.as_str();
                let known = models.iter().position(|m| *m == name);
                let at = known.unwrap_or_else(|| {
                    let at = models.len();
                    let _ = writeln!(out, "  model{at}([\"model {}\"])", entities(name));
                    models.push(name);
                    at
                });
                format!("model{at}")
            }
        };
        let _ = writeln!(out, "  {from} -->|model| stage{i}");
        if let Some(chooser) = &stage.start.chooser {
            let _ = writeln!(out, "  {} -->|prompt| stage{i}", id(&chooser.stage));
        }
        for (from, what) in taught(stage) {
            let _ = writeln!(out, "  {} -->|{what}| stage{i}", id(from));
        }
    }
    out
}

/// A text within a quoted label of Mermaid, where `#` begins an entity and markup is HTML.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible::line(text).chars() {
        match c {
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// The lines of a stage's box.
fn label(stage: &Stage) -> Vec<String> {
    let mut lines = vec![format!("{} = {}", stage.name.value, stage.filled.name)];
    let methods = stage.methods().join(", ");
    if !methods.is_empty() && stage.hands_on.is_some() {
        lines.push(methods);
    }
    lines.push(Bytes(stage.estimate.peak()).to_string());
    lines
}
