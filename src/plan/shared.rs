//! What served models have in common: their frozen prefixes as one program.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use crate::library::counts::to_u32;
use crate::program::graph::{Def, Node, Program, Value, ValueInfo};
use crate::program::meetings::{Meeting, are_most, meetings};
use crate::program::passes::pipeline;
use crate::program::prefix::{Cut, cut};
use crate::program::{Bindings, Feed, Verified};

/// Tokens of the texts by which it is weighed what is worth sharing.
const TYPICAL: [usize; 8] = [32; 8];

/// Rows from which on a program's products are as fast alone: packing a weight is then little beside multiplying with it, and copying
/// rows is more. Weights in blocks are decoded as well.
const ENOUGH: [(bool, u64); 2] = [(false, 96), (true, 512)];

/// Programs on their way to become one.
#[derive(Default)]
struct Joining {
    to: Program,
    residents: BTreeMap<String, Value>,
    feeds: BTreeMap<Feed, Value>,
}

impl Plan {
    /// A program cut behind what other models on the same weights can compute together with it. `None` where that is less
    /// than half of its operations. `is_own` tells which residents are the model's own.
    ///
    /// # Errors
    /// A pass broke a program: a bug of ours.
    pub fn parted(
        verified: &Verified,
        is_own: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Cut>, String> {
        let cut = cut(verified.program(), &Self::typical(), is_own)?;
        Ok(cut.filter(|cut| 2 * cut.flops.0 >= cut.flops.1))
    }

    /// The products of a program that others on the same weights can do together with it. None where they are less than
    /// half of its operations.
    #[must_use]
    pub fn met(verified: &Verified, is_own: &dyn Fn(&str) -> bool) -> Vec<Meeting> {
        let meetings = meetings(verified, is_own);
        match are_most(verified, &meetings, &Self::typical()) {
            true => meetings,
            false => Vec::new(),
        }
    }

    /// With how many rows a program's products are as fast alone as together with those of others.
    #[must_use]
    pub fn enough(verified: &Verified, met: &[Meeting]) -> u64 {
        let program = verified.program();
        let nodes = met.iter().filter_map(|own| program.nodes.get(own.node));
        let mut weights = nodes.filter_map(|node| node.inputs.get(1));
        let in_blocks = weights.any(|weight| program.ty(*weight).stored.blocks().is_some());
        let own = ENOUGH.iter().find(|(blocks, _)| *blocks == in_blocks);
        own.map_or(0, |(_, rows)| *rows)
    }

    /// The sizes of some short texts.
    fn typical() -> Bindings {
        let tokens: usize = TYPICAL.iter().sum();
        Bindings::of_lengths(TYPICAL).reading(tokens as u64)
    }

    /// The prefixes of several programs as one, in which equal expressions are there once. Its outputs are named by what
    /// they are ([`Kept::id`](crate::program::prefix::Kept)).
    ///
    /// # Errors
    /// A pass broke it: a bug of ours.
    pub fn joined(cuts: &[&Cut]) -> Result<Verified, String> {
        let mut joining = Joining::default();
        joining.to.name = "shared".to_owned();
        let mut made = BTreeSet::new();
        for cut in cuts {
            let from = cut.prefix.program();
            let map = joining.add(from);
            for (i, kept) in cut.kept.iter().enumerate() {
                let value = from.output(&format!("feature.{i}"));
                let value = value.and_then(|value| map.get(value.index()));
                let value = value.ok_or_else(|| format!("the prefix makes no `{}`", kept.id))?;
                if made.insert(&kept.id) {
                    joining.to.outputs.push((kept.id.clone(), *value));
                }
            }
        }
        pipeline(joining.to)
    }
}

impl Joining {
    /// Puts the nodes of a program behind those that are there. Gives its values' new ones, by their places.
    fn add(&mut self, from: &Program) -> Vec<Value> {
        let behind = to_u32(self.to.nodes.len());
        let each = from
            .values
            .iter()
            .map(|info| self.value(from, info, behind));
        let map: Vec<Value> = each.collect();
        let new = |list: &[Value]| -> Vec<Value> {
            let each = list.iter().filter_map(|value| map.get(value.index()));
            each.copied().collect()
        };
        for node in &from.nodes {
            let label = from.labels.get(node.label as usize);
            let label = label.cloned().unwrap_or_default();
            let there = self.to.labels.iter().position(|known| *known == label);
            let at = there.unwrap_or(self.to.labels.len());
            if there.is_none() {
                self.to.labels.push(label);
            }
            self.to.nodes.push(Node {
                inputs: new(&node.inputs),
                outputs: new(&node.outputs),
                label: to_u32(at),
                ..node.clone()
            });
        }
        map
    }

    /// A value: inputs and residents of one name are one.
    fn value(&mut self, from: &Program, info: &ValueInfo, behind: u32) -> Value {
        let resident = match info.def {
            Def::Resident(i) => from.residents.get(i as usize),
            Def::Feed(_) | Def::Node { .. } => None,
        };
        let known = match (info.def, resident) {
            (Def::Feed(feed), _) => self.feeds.get(&feed),
            (_, Some(resident)) => self.residents.get(&resident.name),
            _ => None,
        };
        if let Some(&known) = known {
            return known;
        }
        let new = Value(to_u32(self.to.values.len()));
        let def = match (info.def, resident) {
            (Def::Feed(feed), _) => {
                self.feeds.insert(feed, new);
                info.def
            }
            (Def::Node { node, output }, _) => Def::Node {
                node: node + behind,
                output,
            },
            (Def::Resident(i), None) => Def::Resident(i),
            (Def::Resident(_), Some(resident)) => {
                self.residents.insert(resident.name.clone(), new);
                self.to.residents.push(resident.clone());
                Def::Resident(to_u32(self.to.residents.len()) - 1)
            }
        };
        self.to.values.push(ValueInfo {
            ty: info.ty.clone(),
            def,
        });
        new
    }
}
