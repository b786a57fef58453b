//! Lets products read weights as they are stored: their kernel widens as it packs.

use super::super::graph::{Def, Program};
use super::super::op::Op;
use super::super::types::DType;
use super::Rebuild;

/// Takes casts of bf16 out from before the right operand of products.
#[must_use]
pub fn absorb(program: &Program) -> Program {
    let mut rebuild = Rebuild::new(program);
    for node in &program.nodes {
        let mut node = node.clone();
        if let (Op::MatMul(_), [_, right, ..]) = (&node.op, node.inputs.as_mut_slice())
            && let Def::Node { node: cast, .. } = program.def(*right)
            && let Some(cast) = program.nodes.get(cast as usize)
            && let (Op::Cast(_), [stored]) = (&cast.op, cast.inputs.as_slice())
            && program.ty(*stored).dtype == DType::BF16
        {
            *right = *stored;
        }
        rebuild.emit(&node);
    }
    rebuild.finish()
}
