//! The frozen prefix: what of a program is a function of the example alone, and the two programs it
//! falls into when that part is computed once and its results are kept.
//!
//! A value belongs to the prefix if it is made, in the forward, of frozen weights and of what an
//! example is (its tokens and their places), never of dropout, labels, the step or a trained tensor.
//! What the rest reads of it is the *frontier*: rows that can be stored by example.

use std::collections::BTreeSet;

use super::graph::{Axis, Class, Def, Feed, Node, Phase, Program, Value};
use super::memory::sized;
use super::passes::{Rebuild, pipeline};
use super::types::{Bindings, DType, TensorType};
use super::verify::Verified;

/// Below so many operations a byte, reading a stored value back is no gain over making it again.
const LEAST_FLOPS_PER_BYTE: u64 = 64;

/// A value that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it is, whichever program it was found in: the hash of the expression that makes it.
    pub id: String,
    /// The input of the rest that it becomes; also its place among the prefix' outputs.
    pub feed: Feed,
}

/// A program cut in two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Makes the kept values: outputs `feature.0`, …
    pub prefix: Verified,
    /// The program, reading them as inputs.
    pub rest: Verified,
    /// The kept values, in order.
    pub kept: Vec<Kept>,
    /// Operations of the prefix, and of the whole program, under the sizes it was cut for.
    pub flops: (u64, u64),
}

/// What a value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Made {
    /// Of frozen weights only.
    Constant,
    /// Of the example, too.
    Example,
    /// Of anything else.
    Varies,
}

/// Cuts a program behind its frozen prefix; `None` if there is nothing to keep. `sizes` are those of
/// a typical batch, for weighing what is worth keeping. Frozen residents that `stays` names are read by
/// the rest alone.
///
/// # Errors
/// A pass broke one of the two programs: a bug of ours.
pub fn cut(
    program: &Program,
    sizes: &Bindings,
    stays: &dyn Fn(&str) -> bool,
) -> Result<Option<Cut>, String> {
    let mut demoted = BTreeSet::new();
    let (made, frontier) = loop {
        let made = classify(program, &demoted, stays);
        let frontier = frontier(program, &made);
        let Some(node) = unkeepable(program, &made, &frontier, sizes) else {
            break (made, frontier);
        };
        demoted.insert(node);
    };
    if frontier.is_empty() {
        return Ok(None);
    }
    let class = |node: &Node| node.outputs.first().map(|v| made[v.index()]);
    let kept: Vec<(Value, Kept)> = frontier
        .iter()
        .enumerate()
        .filter_map(|(index, &value)| {
            let ty = program.ty(value);
            let (of, width) = row_type(ty)?;
            let feed = Feed::Feature {
                index: index as u16,
                width,
                of,
                stored: ty.stored.dtype(),
            };
            let id = identity(program, value);
            Some((value, Kept { id, feed }))
        })
        .collect();

    let mut first = program.clone();
    first.name = "features".to_owned();
    first.gradients.clear();
    first.outputs = frontier
        .iter()
        .enumerate()
        .map(|(i, &v)| (format!("feature.{i}"), v))
        .collect();
    let mut prefix = Rebuild::new(&first);
    for node in first
        .nodes
        .iter()
        .filter(|n| class(n) < Some(Made::Varies) && n.phase == Phase::Forward)
    {
        prefix.emit(node);
    }
    let mut rest = Rebuild::new(program);
    for (value, kept) in &kept {
        rest.feed_instead(*value, kept.feed);
    }
    for node in program
        .nodes
        .iter()
        .filter(|n| class(n) != Some(Made::Example))
    {
        rest.emit(node);
    }
    let (prefix, rest) = (pipeline(prefix.finish())?, pipeline(rest.finish())?);
    let flops = (
        super::memory::cost(prefix.program(), sizes).flops,
        super::memory::cost(program, sizes).flops,
    );
    Ok(Some(Cut {
        prefix,
        rest,
        kept: kept.into_iter().map(|(_, k)| k).collect(),
        flops,
    }))
}

fn classify(
    program: &Program,
    demoted: &BTreeSet<usize>,
    stays: &dyn Fn(&str) -> bool,
) -> Vec<Made> {
    let mut made: Vec<Made> = program
        .values
        .iter()
        .map(|value| match value.def {
            Def::Resident(i) => match program.residents.get(i as usize) {
                Some(r) if r.class == Class::Frozen && !stays(&r.name) => Made::Constant,
                _ => Made::Varies,
            },
            Def::Feed(feed) if feed.is_example() => Made::Example,
            Def::Feed(_) | Def::Node { .. } => Made::Varies,
        })
        .collect();
    for (index, node) in program.nodes.iter().enumerate() {
        let of_inputs = node.inputs.iter().map(|v| made[v.index()]).max();
        let own = if node.phase != Phase::Forward
            || demoted.contains(&index)
            || !node.op.rule().updates().is_empty()
        {
            Made::Varies
        } else {
            match of_inputs {
                // Rows of other examples of the batch are in it.
                Some(Made::Example) if node.op.rule().mixes_rows() => Made::Varies,
                of_inputs => of_inputs.unwrap_or(Made::Constant),
            }
        };
        for out in &node.outputs {
            made[out.index()] = own;
        }
    }
    made
}

/// Values of the prefix that the rest, or the caller, reads; in order of making.
fn frontier(program: &Program, made: &[Made]) -> Vec<Value> {
    let mut read: BTreeSet<Value> = program.outputs.iter().map(|(_, v)| *v).collect();
    for node in &program.nodes {
        if node
            .outputs
            .first()
            .is_none_or(|v| made[v.index()] == Made::Varies)
        {
            read.extend(&node.inputs);
        }
    }
    read.retain(|v| {
        made[v.index()] == Made::Example && matches!(program.def(*v), Def::Node { .. })
    });
    read.into_iter().collect()
}

/// A node behind the frontier that is better made again: its result has no row an example could own,
/// or it costs next to nothing and reads only what is kept anyway.
fn unkeepable(
    program: &Program,
    made: &[Made],
    frontier: &[Value],
    sizes: &Bindings,
) -> Option<usize> {
    frontier.iter().find_map(|&value| {
        let Def::Node { node: index, .. } = program.def(value) else {
            return None;
        };
        let node = program.nodes.get(index as usize)?;
        let free = node.inputs.iter().all(|v| {
            made[v.index()] != Made::Example
                || frontier.contains(v)
                || matches!(program.def(*v), Def::Feed(_))
        });
        let cost = node.op.rule().cost(&sized(program, node, sizes)).flops;
        let cheap = cost < LEAST_FLOPS_PER_BYTE * program.ty(value).bytes(sizes).max(1);
        (row_type(program.ty(value)).is_none() || (free && cheap)).then_some(index as usize)
    })
}

/// Whose rows a value has, and how many numbers a row; `None` if it cannot be stored by example.
fn row_type(ty: &TensorType) -> Option<(Axis, u32)> {
    let (_, columns) = ty.matrix()?;
    let width = u32::try_from(columns.as_const()?).ok()?;
    // How many places are read depends on the step, where they are masked ones; those of sources are not kept.
    let of = Axis::of(ty).filter(|of| !matches!(of, Axis::Read | Axis::Source))?;
    (ty.dtype == DType::F32).then_some((of, width))
}

/// The hash of the expression that makes a value: ops with their attributes, weights by name and
/// type, inputs by name.
#[must_use]
pub fn identity(program: &Program, value: Value) -> String {
    let mut hashes: Vec<Option<blake3::Hash>> = vec![None; program.values.len()];
    let of = |v: Value, inputs: &str| {
        let text = match program.def(v) {
            Def::Resident(_) => program
                .resident(v)
                .map(|r| format!("resident {} {}", r.name, r.ty))
                .unwrap_or_default(),
            Def::Feed(feed) => format!("feed {}", feed.name()),
            Def::Node { node, output } => match program.nodes.get(node as usize) {
                Some(node) => format!("{:?} {output} of {inputs}", node.op),
                None => String::new(),
            },
        };
        blake3::hash(text.as_bytes())
    };
    for (i, info) in program.values.iter().enumerate() {
        if !matches!(info.def, Def::Node { .. }) {
            hashes[i] = Some(of(Value(i as u32), ""));
        }
    }
    for node in &program.nodes {
        let inputs: Vec<String> = node
            .inputs
            .iter()
            .map(|v| {
                hashes[v.index()]
                    .map(|h| h.to_hex().to_string())
                    .unwrap_or_default()
            })
            .collect();
        let inputs = inputs.join(" ");
        for out in &node.outputs {
            let mut inputs = inputs.clone();
            if program.ty(*out).is_narrow() {
                inputs.push_str(&format!(" held in {}", program.ty(*out).stored));
            }
            hashes[out.index()] = Some(of(*out, &inputs));
        }
        if node.outputs.contains(&value) {
            break;
        }
    }
    hashes[value.index()]
        .map(|h| h.to_hex().to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::builder::Builder;
    use super::super::op::{
        BinaryKind, Broadcast, Elementwise, Gather, MatMul, Over, Reduce, ReduceKind,
    };
    use super::super::types::Real;
    use super::super::verify;
    use super::*;

    /// Two linear maps of embedded tokens, between which something over rows or columns is taken off, and a
    /// trained one: how much of it is kept, in operations.
    fn kept(over: Over) -> (u64, u64) {
        let mut b = Builder::new("prefix");
        let mut resident = |name, dims: &[u64], class| {
            b.resident(name, TensorType::fixed(DType::F32, dims), class)
        };
        let table = resident("table", &[50, 256], Class::Frozen);
        let first = resident("first", &[256, 256], Class::Frozen);
        let second = resident("second", &[256, 256], Class::Frozen);
        let trained = resident("trained", &[8, 256], Class::Trainable);
        let ids = b.feed(Feed::TokenIds);
        let linear = || MatMul::plain(false, true, Real::new(1.0));
        let x = b.push1(Gather { out: DType::F32 }, &[table, ids]);
        let x = b.push1(linear(), &[x, first]);
        let kind = ReduceKind::Mean;
        let mean = b.push1(Reduce { kind, over }, &[x]);
        let broadcast = match over {
            Over::Rows => Broadcast::Row,
            Over::Columns => Broadcast::Column,
            Over::All => Broadcast::Scalar,
        };
        let kind = BinaryKind::Sub;
        let x = b.push1(Elementwise { kind, broadcast }, &[x, mean]);
        let x = b.push1(linear(), &[x, second]);
        let y = b.push1(linear(), &[x, trained]);
        b.output("y", y);
        let program = verify(b.finish()).expect("a program").program().clone();
        let sizes = Bindings::of_lengths([10, 20]);
        let cut = cut(&program, &sizes, &|_| false).expect("cut");
        cut.expect("something is kept").flops
    }

    #[test]
    fn what_mixes_the_rows_of_a_batch_is_not_kept() {
        let (both, all) = kept(Over::Columns);
        for over in [Over::Rows, Over::All] {
            let (one, same) = kept(over);
            assert_eq!((2 * one, all), (both, same), "{over:?}");
        }
    }
}
