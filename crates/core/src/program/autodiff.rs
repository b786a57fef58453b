//! Ahead-of-time reverse differentiation. It walks and adds up; it knows no op.
//!
//! **Invariant:** a gradient node exists only on a path from a trainable tensor to the loss. This
//! one set is where parameter-efficient tuning saves: frozen weights get no gradient, so what only
//! those needed dies early, and blocks below the first trainable tensor are never differentiated.

use std::collections::BTreeMap;

use super::builder::Builder;
use super::graph::{Phase, Value};
use super::op::{Add, At, Constant};
use super::types::Real;

/// Gradient of `loss` (one element) by each of `wrt`; `None` where the loss does not depend on it
/// through differentiable ops.
pub fn differentiate(b: &mut Builder, loss: Value, wrt: &[Value]) -> Vec<Option<Value>> {
    b.phase(Phase::Backward);
    let forward = b.program().nodes.len();
    b.enter(None);
    b.label("loss");
    let mut grads: BTreeMap<Value, Value> = BTreeMap::new();
    let one = b.push1(
        Constant {
            value: Real::new(1.0),
            dtype: b.ty(loss).dtype,
        },
        &[],
    );
    grads.insert(loss, one);
    for index in (0..forward).rev() {
        let Some(node) = b.program().nodes.get(index).cloned() else {
            continue;
        };
        let up: Vec<Option<Value>> = node.outputs.iter().map(|out| grads.remove(out)).collect();
        if up.iter().all(Option::is_none) {
            continue;
        }
        let rule = node.op.rule();
        let needs: Vec<bool> = node
            .inputs
            .iter()
            .enumerate()
            .map(|(i, &v)| b.depends(v) && rule.differentiable(i))
            .collect();
        if !needs.contains(&true) {
            continue;
        }
        b.follow(&node);
        let at = At {
            inputs: &node.inputs,
            outputs: &node.outputs,
            up: &up,
            needs: &needs,
        };
        let made = rule.grad(b, at);
        for (&input, grad) in node.inputs.iter().zip(made) {
            let Some(grad) = grad else { continue };
            let sum = match grads.remove(&input) {
                Some(earlier) => b.push1(Add, &[earlier, grad]),
                None => grad,
            };
            grads.insert(input, sum);
        }
    }
    wrt.iter().map(|v| grads.get(v).copied()).collect()
}
