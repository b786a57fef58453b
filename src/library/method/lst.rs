//! Ladder side-tuning (methods A10): `u_i = μ_i θ_{i−1} + (1 − μ_i) D_i(B_i)`, `θ_i = block_i(u_i)`.

use super::super::model::{Facts, Mirror, Model};
use super::super::net::{Init, Param, ParamKind, Role, Site};
use super::super::schema::{Bound, Filled, Given, Maybe, Registry, kind};
use super::super::start;
use super::{Complaint, Method, Net, Schema, Value, Values};
use crate::library::error::{BAD_LADDER, LAYERS_OUT_OF_RANGE};
use crate::program::Real;
use crate::program::op::Mix;

/// A gated ladder network beside the frozen model.
#[derive(Debug)]
pub struct Lst;

const R: Given<u64> = Given::<u64>::new(
    "r",
    kind::WIDTH,
    (8, "8"),
    "how many times narrower the side network is",
);
const TEMPERATURE: Given<f64> = Given::<f64>::new(
    "temperature",
    kind::float(Bound::Excl(0.0), Bound::None),
    (0.1, "0.1"),
    "divisor of the gates' logits",
);
const DROPOUT: Given<f64> = Given::<f64>::new(
    "dropout",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "dropout on the features before they are projected",
);
const LAYERS: Maybe<[String]> = Maybe::new(
    "layers",
    kind::NUMBERS,
    "numbers of the blocks that have a side block, ascending from 0, as in `layers = [0, 4, 8, 11]`; every block if not \
                  written. The others are passed by: fewer side blocks take less memory and time",
);

static SCHEMA: Schema = Schema {
    name: "lst",
    summary: "ladder side-tuning: a narrow gated network beside the frozen model",
    doc: "Reads the states of the frozen backbone through down-projections D_i of width hidden / r. Side block i works on \
          μ_i θ_{i-1} + (1 - μ_i) D_i(B_i) with μ_i = sigmoid(gate_i / temperature), gates starting at 0; a norm and an \
          up-projection follow the last. No gradient enters the backbone and none of its activations are kept but the \
          states themselves. `layers` keeps some of the side blocks only.",
    paper: "Sung et al. 2022 (arXiv 2206.06522), section 3; Say, Coşlu and Gudelj 2023 (see `k_lst`), section 3.2",
    keys: &[
        R.key(),
        TEMPERATURE.key(),
        DROPOUT.key(),
        LAYERS.key(),
        INIT.key(),
    ],
};

/// What side blocks start with.
pub(super) const INIT: Maybe<Filled> = Maybe::tacit(
    "init",
    kind::entry(Registry::Start),
    "random",
    "what the side blocks begin with; `peftc list starts` names the ways",
);

/// Blocks that have a side block; none written means all.
fn kept(values: &Values) -> Vec<u64> {
    LAYERS
        .get(values)
        .unwrap_or_default()
        .iter()
        .filter_map(|n| n.parse().ok())
        .collect()
}

/// What is wrong with a width `hidden / r`, and with what side blocks begin with; `cross` says that heads attend to the
/// side network's own states, too.
pub(super) fn check_side(values: &Values, facts: &Facts, cross: bool) -> Option<Complaint> {
    if start::importance(INIT.get(values)).is_some() && !facts.narrow.prunes {
        return Some(Complaint {
            key: "init",
            code: &BAD_LADDER,
            message:
                "this architecture stores several maps as one, of which pruning is not built yet"
                    .to_owned(),
            help: Some("write `init = random`".to_owned()),
        });
    }
    let (r, hidden, heads) = (R.get(values), facts.hidden, facts.heads);
    let fits = |r: u64| {
        r > 0
            && hidden.is_multiple_of(r)
            && facts.narrow.unit.is_multiple_of(r)
            && (!cross || (hidden / r).is_multiple_of(heads))
    };
    (!fits(r)).then(|| {
        let good: Vec<String> = (1..=hidden)
            .filter(|&r| fits(r))
            .map(|r| r.to_string())
            .collect();
        Complaint {
            key: "r",
            code: &BAD_LADDER,
            message: format!(
                "a width of {hidden} / {r} cannot be split into the model's {heads} heads"
            ),
            help: Some(format!("`r` can be {}", good.join(", "))),
        }
    })
}

/// A projection of the side network.
pub(super) fn project(net: &mut Net<'_>, path: String, x: Value, input: u64, output: u64) -> Value {
    net.linear(Site::linear(path, Role::Side, (input, output)), x)
}

impl Method for Lst {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn ladders(&self) -> bool {
        true
    }

    fn check_model(&self, values: &Values, facts: &Facts) -> Option<Complaint> {
        let kept = kept(values);
        let ordered = kept.windows(2).all(|w| w[0] < w[1]);
        if kept.len() < LAYERS.get(values).unwrap_or_default().len()
            || kept.iter().any(|&i| i >= facts.layers)
            || !ordered
        {
            return Some(Complaint {
                key: "layers",
                code: &LAYERS_OUT_OF_RANGE,
                message: format!(
                    "`layers` must be ascending numbers of blocks from 0 to {}",
                    facts.layers - 1
                ),
                help: Some("write them in a list: `layers = [0, 1, 2]`".to_owned()),
            });
        }
        check_side(values, facts, false)
    }

    fn side(&self, values: &Values, net: &mut Net<'_>, model: &dyn Model, hidden: Value) -> Value {
        let facts = model.facts();
        let (d, r) = (facts.hidden, R.get(values));
        let s = d / r;
        let Some(narrow) = model.narrow() else {
            return hidden;
        };
        let features = net.features();
        let kept = kept(values);
        net.prune(start::importance(INIT.get(values)));
        net.aside(|net| {
            let down = |net: &mut Net<'_>, i: usize, s: u64| {
                let name = format!("side.down.{i}.weight");
                let weight = Param::shared(name).shape(&[s, d]).kind(ParamKind::Weight);
                let reader = net.tensor(weight.start(Init::Normal(0.02)));
                let x = net.dropout_before(features[i], DROPOUT.get(values), reader);
                net.enter("side.down", i as u64);
                project(net, format!("side.down.{i}"), x, d, s)
            };
            let mut state = down(net, 0, s);
            let last = kept.last().copied().unwrap_or(facts.layers - 1);
            for i in 0..facts.layers {
                if !kept.is_empty() && !kept.contains(&i) {
                    continue;
                }
                let feature = down(net, i as usize + 1, s);
                net.enter("side.gate", i);
                net.b.label(&format!("side.gate.{i}"));
                let gate = Param::shared(format!("side.gate.{i}")).shape(&[1]);
                let gate = net.tensor(gate.kind(ParamKind::Bias));
                let mixed = net.b.push1(
                    Mix {
                        temperature: Real::new(TEMPERATURE.get(values)),
                    },
                    &[state, feature, gate],
                );
                let mirror = Mirror {
                    layer: i,
                    reduction: r,
                    last: i == last,
                };
                net.enter("side.block", i);
                let path = format!("side.block.{i}");
                state = narrow.mirror(net, &path, mirror, mixed);
            }
            net.enter("side", None);
            let site = Site::norm("side.norm", Role::Side, s);
            let state = narrow.norm(net, &site, state);
            project(net, "side.up".into(), state, s, d)
        })
    }
}
