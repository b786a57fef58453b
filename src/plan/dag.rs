//! The stage graph; the only file that names petgraph.

use std::collections::BTreeSet;

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

use super::error::CYCLE;
use crate::base::{Diag, Diags};
use crate::library::schema::Reference;
use crate::library::stage::keys;
use crate::resolve::{Declared, Recipe};

/// A stage of a name and all that it needs at the same point.
pub(super) fn needed<'a>(recipe: &'a Recipe, name: &'a str) -> BTreeSet<&'a str> {
    let stages: Vec<&Declared> = recipe.stages().collect();
    let place = |name: &str| stages.iter().position(|s| s.name.value == name);
    let mut todo: Vec<usize> = place(name).into_iter().collect();
    let mut found = BTreeSet::new();
    while let Some(stage) = todo.pop().and_then(|at| stages.get(at)) {
        if found.insert(stage.name.value.as_str()) {
            todo.extend(needs(stage, &stages).map(|(_, at)| at));
        }
    }
    found
}

/// Stages in an order in which each comes after those it needs; stages on a circle are left out,
/// with a diagnostic.
pub(super) fn order<'a>(recipe: &'a Recipe, diags: &mut Diags) -> Vec<&'a Declared> {
    let stages: Vec<&Declared> = recipe.stages().collect();
    let mut graph: DiGraph<usize, ()> = DiGraph::new();
    let nodes: Vec<NodeIndex> = (0..stages.len()).map(|i| graph.add_node(i)).collect();
    for (i, stage) in stages.iter().enumerate() {
        for (_, parent) in needs(stage, &stages) {
            if let (Some(&from), Some(&to)) = (nodes.get(parent), nodes.get(i)) {
                graph.add_edge(from, to, ());
            }
        }
    }
    if let Ok(sorted) = toposort(&graph, None) {
        return as_declared((&graph, &nodes), &sorted, &stages);
    }
    let on_circle = circles(&graph, &stages, diags);
    // What hangs on a circle cannot be planned either; the rest is, so that its mistakes show too.
    let mut list: Vec<&Declared> = Vec::new();
    let mut done = vec![false; stages.len()];
    let is = |flags: &[bool], i: usize| flags.get(i).copied().unwrap_or(false);
    while let Some(i) = (0..stages.len()).find(|&i| {
        let ready = |s: &&Declared| needs(s, &stages).all(|(_, parent)| is(&done, parent));
        !is(&done, i) && !is(&on_circle, i) && stages.get(i).is_some_and(ready)
    }) {
        if let Some(slot) = done.get_mut(i) {
            *slot = true;
        }
        list.extend(stages.get(i).copied());
    }
    list
}

/// The stages of a graph without circles, those that wait for the same in order of declaration: petgraph's order is
/// deterministic, but not the reader's.
fn as_declared<'a>(
    (graph, nodes): (&DiGraph<usize, ()>, &[NodeIndex]),
    sorted: &[NodeIndex],
    stages: &[&'a Declared],
) -> Vec<&'a Declared> {
    let mut done = vec![false; stages.len()];
    let mut list = Vec::new();
    let mut rest: Vec<usize> = sorted
        .iter()
        .filter_map(|&n| graph.node_weight(n).copied())
        .collect();
    rest.sort_unstable();
    while let Some(at) = rest.iter().position(|&i| {
        nodes.get(i).is_none_or(|&n| {
            graph
                .neighbors_directed(n, petgraph::Direction::Incoming)
                .all(|p| done.get(p.index()).copied().unwrap_or(true))
        })
    }) {
        let i = rest.remove(at);
        if let Some(slot) = done.get_mut(i) {
            *slot = true;
        }
        list.extend(stages.get(i).copied());
    }
    list
}

/// Which stages are on a circle; complains about each circle.
fn circles(graph: &DiGraph<usize, ()>, stages: &[&Declared], diags: &mut Diags) -> Vec<bool> {
    let mut on_circle = vec![false; stages.len()];
    for circle in tarjan_scc(graph) {
        let own = |&n: &NodeIndex| graph.contains_edge(n, n);
        if circle.len() < 2 && !circle.iter().any(own) {
            continue;
        }
        let members: Vec<usize> = circle
            .iter()
            .rev()
            .filter_map(|&n| graph.node_weight(n).copied())
            .collect();
        let names: Vec<&str> = members
            .iter()
            .filter_map(|&i| stages.get(i))
            .map(|s| s.name.value.as_str())
            .collect();
        for &i in &members {
            if let Some(slot) = on_circle.get_mut(i) {
                *slot = true;
            }
        }
        if let Some(first) = members.iter().min().and_then(|&i| stages.get(i)) {
            let around = names.first().copied().unwrap_or_default();
            let key = needs(first, stages)
                .find(|(_, i)| members.contains(i))
                .map_or("from", |(key, _)| key);
            diags.push(
                Diag::error(
                    &CYCLE,
                    first.filled.values.span(key),
                    format!("stages form a circle: {} → {around}", names.join(" → ")),
                )
                .label("part of the circle")
                .help("cut one of these links: a stage cannot wait for itself"),
            );
        }
    }
    on_circle
}

/// The stages a stage waits for, with the key that names each.
fn needs<'a>(
    stage: &'a Declared,
    stages: &'a [&Declared],
) -> impl Iterator<Item = (&'static str, usize)> + 'a {
    [
        keys::FROM,
        keys::PROMPT,
        keys::TUNED,
        keys::TEACHERS,
        keys::TEACHER_WEIGHTS,
    ]
    .map(|key| key.key().name)
    .into_iter()
    .filter_map(|key| {
        let (name, _) = stage.filled.values.find::<Reference>(key)?;
        let place = stages.iter().position(|s| s.name.value == name)?;
        Some((key, place))
    })
}
