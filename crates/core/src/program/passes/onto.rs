//! Lets sampled products be added to what is summed already, in place: of a list that many matrices share, each has a few
//! numbers, and nothing is made or added for the others.

use std::collections::BTreeMap;

use super::super::graph::{Def, Node, Program, Value};
use super::super::op::{Op, SampledProduct};
use super::Rebuild;

/// Makes one node of a sampled product and the sum that is its only reader.
#[must_use]
pub fn onto(program: &Program) -> Program {
    let mut uses: BTreeMap<Value, usize> = BTreeMap::new();
    let read = program.nodes.iter().flat_map(|n| &n.inputs);
    let named = program.outputs.iter().map(|(_, v)| v);
    for &value in read.chain(named) {
        *uses.entry(value).or_default() += 1;
    }
    // The node that makes a value by a product, if one sum is all that reads it.
    let sampled = |value: Value| -> Option<&Node> {
        let Def::Node { node, .. } = program.def(value) else {
            return None;
        };
        let node = program.nodes.get(node as usize)?;
        let fits = matches!(&node.op, Op::SampledProduct(op) if !op.onto);
        (fits && uses.get(&value) == Some(&1)).then_some(node)
    };
    let joined = |node: &Node| -> Option<Node> {
        let (Op::Add(_), &[earlier, last]) = (&node.op, node.inputs.as_slice()) else {
            return None;
        };
        let product = sampled(last)?;
        let Op::SampledProduct(op) = &product.op else {
            return None;
        };
        let mut inputs = vec![earlier];
        inputs.extend(&product.inputs);
        let op = SampledProduct { onto: true, ..*op };
        Some(Node {
            op: op.into(),
            inputs,
            outputs: node.outputs.clone(),
            ..product.clone()
        })
    };
    let mut rebuild = Rebuild::new(program);
    for node in &program.nodes {
        match joined(node) {
            Some(joined) => rebuild.emit(&joined),
            None => rebuild.emit(node),
        }
    }
    rebuild.finish()
}

#[cfg(test)]
mod tests {
    use super::super::super::op::{Add, Places};
    use super::super::super::types::{DType, TensorType};
    use super::super::super::{Builder, Class};
    use super::*;

    #[test]
    fn sums_over_a_shared_list_are_made_in_place() {
        let mut b = Builder::new("sums");
        let mut resident = |name: &str, dtype, shape: &[u64]| {
            b.resident(name, TensorType::fixed(dtype, shape), Class::Frozen)
        };
        let (g, x) = (
            resident("g", DType::F32, &[3, 6]),
            resident("x", DType::F32, &[3, 4]),
        );
        let (ids, bounds) = (
            resident("ids", DType::U32, &[5]),
            resident("bounds", DType::U32, &[4]),
        );
        let parts: Vec<Value> = (0..3)
            .map(|segment| {
                let places = Places {
                    segment: Some(segment),
                    ..Places::entries(6, 4)
                };
                b.push1(
                    SampledProduct {
                        places,
                        onto: false,
                    },
                    &[g, x, ids, bounds],
                )
            })
            .collect();
        let two = b.push1(Add, &[parts[0], parts[1]]);
        let all = b.push1(Add, &[two, parts[2]]);
        b.output("all", all);
        let made = super::super::remove_dead(&onto(&b.finish()));
        let names: Vec<bool> = made
            .nodes
            .iter()
            .map(|n| matches!(&n.op, Op::SampledProduct(op) if op.onto))
            .collect();
        assert_eq!(names, [false, true, true]);
    }
}
