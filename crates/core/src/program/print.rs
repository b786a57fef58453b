//! The text form: stable, for people and goldens. Values are named by the site they were made for,
//! relative to the block of the line that reads them; equal blocks are printed once with `× n`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::graph::{Class, Def, Feed, Node, Phase, Program, Value};

/// Prints a program.
#[must_use]
pub fn print(program: &Program) -> String {
    let names = names(program);
    let mut text = format!("program {}\n", program.name);
    for class in [
        Class::Frozen,
        Class::Trainable,
        Class::Gradient,
        Class::Optimizer,
        Class::Cache,
        Class::Chosen,
    ] {
        let elements: u64 = program
            .residents
            .iter()
            .filter(|r| r.class == class)
            .map(|r| r.ty.elements(&Default::default()))
            .sum();
        let count = program
            .residents
            .iter()
            .filter(|r| r.class == class)
            .count();
        if count > 0 {
            let _ = writeln!(
                text,
                "  {}: {count} tensors, {elements} elements",
                class_name(class)
            );
        }
    }
    let mut groups: Vec<(Phase, Option<u64>, Vec<String>)> = Vec::new();
    for node in &program.nodes {
        let label = program
            .labels
            .get(node.label as usize)
            .map(String::as_str)
            .unwrap_or_default();
        let layer = split_layer(label).map(|(_, n, _)| n);
        let line = node_line(program, node, layer, &names);
        match groups.last_mut() {
            Some((phase, at, lines)) if *phase == node.phase && *at == layer => lines.push(line),
            _ => groups.push((node.phase, layer, vec![line])),
        }
    }
    let mut phase = None;
    let mut i = 0;
    while let Some((group_phase, layer, lines)) = groups.get(i) {
        if phase != Some(*group_phase) {
            phase = Some(*group_phase);
            let _ = writeln!(text, "{}", phase_name(*group_phase));
        }
        let same = groups.iter().skip(i).take_while(|(p, l, n)| {
            p == group_phase && l.is_some() == layer.is_some() && n == lines
        });
        let times = same.count().max(1);
        if let Some(layer) = layer {
            match times {
                1 => {
                    let _ = writeln!(text, "  block {layer}");
                }
                n => {
                    let _ = writeln!(text, "  block {layer} × {n}");
                }
            }
        }
        for line in lines {
            let _ = writeln!(text, "  {}{line}", if layer.is_some() { "  " } else { "" });
        }
        i += times;
    }
    for (name, value) in &program.outputs {
        let _ = writeln!(
            text,
            "output {name} = {}",
            names.get(value).map_or("?", String::as_str)
        );
    }
    text
}

const fn class_name(class: Class) -> &'static str {
    match class {
        Class::Frozen => "frozen",
        Class::Trainable => "trainable",
        Class::Gradient => "gradient accumulators",
        Class::Optimizer => "optimizer state",
        Class::Cache => "cache",
        Class::Chosen => "chosen places",
    }
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Forward => "forward",
        Phase::Backward => "backward",
        Phase::Update => "update",
    }
}

/// `a.layer.3.b` as (`a.layer`, 3, `b`).
fn split_layer(label: &str) -> Option<(String, u64, String)> {
    let parts: Vec<&str> = label.split('.').collect();
    let at = parts.iter().position(|p| p.parse::<u64>().is_ok())?;
    let number = parts.get(at)?.parse().ok()?;
    Some((
        parts.get(..at)?.join("."),
        number,
        parts.get(at + 1..)?.join("."),
    ))
}

fn names(program: &Program) -> BTreeMap<Value, String> {
    let mut counts: BTreeMap<(u32, Phase), usize> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (i, value) in program.values.iter().enumerate() {
        let value_id = Value(i as u32);
        let name = match value.def {
            Def::Resident(r) => program
                .residents
                .get(r as usize)
                .map(|r| r.name.clone())
                .unwrap_or_default(),
            Def::Feed(Feed::Feature { index, .. }) => format!("<feature {index}>"),
            Def::Feed(feed) => format!("<{}>", feed.name()),
            Def::Node { node, .. } => {
                let Some(node) = program.nodes.get(node as usize) else {
                    continue;
                };
                let label = program
                    .labels
                    .get(node.label as usize)
                    .map(String::as_str)
                    .unwrap_or_default();
                let count = counts.entry((node.label, node.phase)).or_insert(0);
                *count += 1;
                let mark = match node.phase {
                    Phase::Forward => "",
                    Phase::Backward => "'",
                    Phase::Update => "\"",
                };
                format!("%{label}{mark}{count}")
            }
        };
        names.insert(value_id, name);
    }
    names
}

/// A value's name as read from a block: the block's own number becomes `*`, others `*-1`, `*+1`.
fn relative(name: &str, layer: Option<u64>) -> String {
    match (split_layer(name), layer) {
        (Some((head, n, tail)), Some(own)) => {
            let offset = n.cast_signed() - own.cast_signed();
            let index = match offset {
                0 => "*".to_owned(),
                _ => format!("*{offset:+}"),
            };
            format!("{head}.{index}.{tail}")
        }
        _ => name.to_owned(),
    }
}

fn node_line(
    program: &Program,
    node: &Node,
    layer: Option<u64>,
    names: &BTreeMap<Value, String>,
) -> String {
    let name = |v: &Value| relative(names.get(v).map_or("?", String::as_str), layer);
    let inputs: Vec<String> = node.inputs.iter().map(name).collect();
    let attributes = attributes(node);
    let call = format!("{}{attributes}({})", node.op.name(), inputs.join(", "));
    if node.outputs.is_empty() {
        return call;
    }
    let outputs: Vec<String> = node
        .outputs
        .iter()
        .map(|v| format!("{}: {}", name(v), program.ty(*v)))
        .collect();
    format!("{} = {call}", outputs.join(", "))
}

/// The op's attributes out of its derived debug text; stream keys and what goes without saying are left
/// out, they are noise.
fn attributes(node: &Node) -> String {
    let debug = format!("{:?}", node.op);
    let inner = debug
        .split_once(" { ")
        .map(|(_, rest)| rest.trim_end_matches([')', '}', ' ']).to_owned());
    match inner {
        Some(text) => {
            let text = text
                .split(", stream:")
                .next()
                .unwrap_or_default()
                .replace(", precision: F32", "");
            format!("[{text}]")
        }
        None => String::new(),
    }
}
