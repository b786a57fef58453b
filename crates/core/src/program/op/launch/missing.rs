//! Ops of a program that have no launches, and why.

use super::super::super::graph::Program;
use super::super::super::memory::sized;
use super::super::super::stored;
use super::super::super::types::Bindings;
use super::super::{AttentionGrad, Op, SizedCx};

/// An op that cannot run on a GPU as a program uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its kernel's name.
    pub op: &'static str,
    /// What there is no kernel for.
    pub why: String,
    /// What it belongs to: the label of the first such node.
    pub label: String,
}

/// The ops of a program that cannot run on a GPU, one for each reason. Shapes that vary do not matter.
#[must_use]
pub fn without_launches(program: &Program) -> Vec<Missing> {
    let sizes = Bindings::of_lengths([1]);
    let mut list: Vec<Missing> = Vec::new();
    for node in &program.nodes {
        let cx = sized(program, node, &sizes);
        if stored::launches(&node.op, &cx).is_some() {
            continue;
        }
        let (op, why) = (node.op.kernel(), reason(&node.op, &cx));
        if list.iter().any(|m| m.op == op && m.why == why) {
            continue;
        }
        let label = program.labels.get(node.label as usize);
        let label = label.cloned().unwrap_or_default();
        list.push(Missing { op, why, label });
    }
    list.sort_by(|a, b| (a.op, &a.why).cmp(&(b.op, &b.why)));
    list
}

/// Why an op that has no launches has none: the width of its heads, or the types of its operands.
fn reason(op: &Op, cx: &SizedCx) -> String {
    let heads = match op {
        Op::Attention(a) | Op::AttentionGrad(AttentionGrad(a)) => Some(a.heads.queries),
        Op::CachedAttention(a) => Some(a.heads.queries),
        Op::KeptAttention(a) => Some(a.heads.queries),
        _ => None,
    };
    let most = super::super::attention::WIDEST_HEAD;
    if let Some(head) = heads.map(|n| cx.width(0) / u64::from(n.max(1)))
        && head > most
    {
        return format!("heads are {head} wide, and kernels hold at most {most} columns");
    }
    let all = cx.inputs.iter().chain(&cx.outputs);
    let mut types: Vec<String> = all.map(|x| x.stored.to_string()).collect();
    types.sort();
    types.dedup();
    format!("it would be of {}", types.join(", "))
}
