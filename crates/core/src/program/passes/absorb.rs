//! Lets products read weights as they are stored: their kernel widens as it packs.

use super::super::graph::{Def, Program};
use super::super::op::Op;
use super::super::types::DType;
use super::Rebuild;

/// Takes casts of bf16 out from before the weights of products.
#[must_use]
pub fn absorb(program: &Program) -> Program {
    let mut rebuild = Rebuild::new(program);
    for node in &program.nodes {
        let mut node = node.clone();
        if let Some(weight) = node.op.weight()
            && let Some(right) = node.inputs.get_mut(weight)
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

#[cfg(test)]
mod tests {
    use super::super::super::autodiff::differentiate;
    use super::super::super::op::{Cast, HeadLoss, Precision};
    use super::super::super::types::{Real, TensorType};
    use super::super::super::{Builder, Class, Numbers};
    use super::*;

    #[test]
    fn a_vocabulary_in_bf16_is_read_as_it_is_stored_beside_the_gradient_too() {
        let products = Precision::Bf16;
        let activations = DType::F32;
        let mut b = Builder::with_numbers(
            "loss",
            Numbers {
                products,
                activations,
            },
        );
        let mut resident = |name: &str, dtype, shape: &[u64], class| {
            b.resident(name, TensorType::fixed(dtype, shape), class)
        };
        let x = resident("x", DType::F32, &[4, 6], Class::Trainable);
        let head = resident("head", DType::BF16, &[9, 6], Class::Frozen);
        let targets = resident("targets", DType::U32, &[4], Class::Frozen);
        let scale = resident("scale", DType::F32, &[1], Class::Frozen);
        let wide = b.push1(Cast { to: DType::F32 }, &[head]);
        let loss = HeadLoss::plain(Real::new(1.0));
        let loss = b.push1(loss, &[x, wide, targets, scale]);
        assert!(differentiate(&mut b, loss, &[x])[0].is_some());
        let made = absorb(&b.finish());
        let reads = made.nodes.iter().filter_map(|node| {
            let weight = *node.inputs.get(node.op.weight()?)?;
            let is_stored = matches!(made.def(weight), Def::Resident(_));
            Some((node.op.kernel(), is_stored, node.outputs.len()))
        });
        assert_eq!(reads.collect::<Vec<_>>(), [("head_loss_bf16", true, 4)]);
    }
}
