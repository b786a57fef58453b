//! k-ladder side-tuning (methods A11; report, section 3.2, equations 13 to 20).

use super::super::model::{Facts, Mirror, Model};
use super::super::net::{Init, Param, ParamKind, Role, Site};
use super::super::schema::{Bound, Given, kind};
use super::super::start;
use super::lst::{INIT, check_side, project};
use super::{Complaint, Method, Net, Schema, Value, Values};
use crate::library::counts::to_u32;
use crate::library::error::BAD_LADDER;
use crate::program::Real;
use crate::program::op::{Attention, Heads, Mask, Window};

/// A ladder whose blocks query a window of the backbone's states by cross-attention.
#[derive(Debug)]
pub struct KLst;

const K: Given<u64> = Given::<u64>::new(
    "k",
    kind::int(1, 1 << 20),
    (9, "9"),
    "states in a window; odd",
);
const R: Given<u64> = Given::<u64>::new(
    "r",
    kind::WIDTH,
    (8, "8"),
    "how many times narrower the side network is",
);
const DROPOUT: Given<f64> = Given::<f64>::new(
    "dropout",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "dropout on each feature of a window",
);
const DOWN: Given<str> = Given::<str>::new(
    "down",
    kind::choice(&["per_layer", "per_slot"]),
    ("per_layer", "per_layer"),
    "one down-projection a backbone layer, or one a slot of each window",
);
const SHARE: Given<bool> = Given::<bool>::new(
    "share",
    kind::BOOL,
    (false, "false"),
    "one cross-attention and one side block for all layers",
);
const RESIDUAL: Given<bool> = Given::<bool>::new(
    "residual",
    kind::BOOL,
    (false, "false"),
    "add the query to what the cross-attention gives",
);
const POOL: Given<bool> = Given::<bool>::new(
    "pool",
    kind::BOOL,
    (false, "false"),
    "the head reads the sum of all side blocks' results instead of the last one's",
);

static SCHEMA: Schema = Schema {
    name: "k_lst",
    summary: "k-ladder side-tuning: side blocks that attend to a window of k backbone states",
    doc: "Side block j queries, by cross-attention, the k states of the frozen backbone around block j: each through its \
          own down-projection to width hidden / r, with dropout and a trained code of its place in the window; slots \
          beyond the ends are zero. A block like the backbone's follows, and after the last an up-projection to the \
          head, behind a norm where the backbone's blocks end without one. No gradient enters the backbone.",
    paper: "Say, Coşlu and Gudelj 2023, \"Reducing Training Resource Cost by Selective Parameter Updating\", section 3.2 (equations 13 to 20) and figure 7",
    keys: &[
        K.key(),
        R.key(),
        DROPOUT.key(),
        DOWN.key(),
        SHARE.key(),
        RESIDUAL.key(),
        POOL.key(),
        INIT.key(),
    ],
};

/// A layer's state, `[N, s]`, with what it reads of the window of features around it.
fn cross(
    values: &Values,
    net: &mut Net<'_>,
    (own, s): (&str, u64),
    (state, window): (Value, Value),
    facts: &Facts,
) -> Value {
    let query = project(net, format!("side.cross.{own}.query"), state, s, s);
    let key = project(net, format!("side.cross.{own}.key"), window, s, s);
    let value = project(net, format!("side.cross.{own}.value"), window, s, s);
    let scale = Real::new(1.0 / ((s / facts.heads) as f64).sqrt());
    let attention = Attention {
        fold: to_u32(K.get(values)),
        // A token may not see the states of those behind it where the model's own do not.
        mask: if facts.causal {
            Mask::CAUSAL
        } else {
            Mask::FULL
        },
        ..Attention::plain(Heads::each(to_u32(facts.heads)), scale)
    };
    let read = net.attend(attention, (query, key, value), facts.attention_dropout);
    let x = project(net, format!("side.cross.{own}.output"), read, s, s);
    if RESIDUAL.get(values) {
        net.add(x, state)
    } else {
        x
    }
}

impl KLst {
    /// The projected state `i`, for slot `slot` of window `j` where those have their own projections.
    fn down(
        values: &Values,
        net: &mut Net<'_>,
        x: Value,
        at: (usize, u64, usize),
        sizes: (u64, u64),
    ) -> Value {
        let (i, j, slot) = at;
        let (path, number) = if DOWN.find(values) == Some("per_slot") && i > 0 {
            (format!("side.down.{j}.{slot}"), j)
        } else {
            (format!("side.down.{i}"), i as u64)
        };
        net.enter("side.down", number);
        project(net, path, x, sizes.0, sizes.1)
    }
}

impl Method for KLst {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn ladders(&self) -> bool {
        true
    }

    fn check_model(&self, values: &Values, facts: &Facts) -> Option<Complaint> {
        let k = K.get(values);
        if k.is_multiple_of(2) {
            return Some(Complaint {
                key: "k",
                code: &BAD_LADDER,
                message: format!("a window of {k} states has no middle: `k` must be odd"),
                help: Some(format!(
                    "write `k = {}` or `k = {}`",
                    k.saturating_sub(1),
                    k + 1
                )),
            });
        }
        let most = 2 * facts.layers - 1;
        if k > most {
            return Some(Complaint {
                key: "k",
                code: &BAD_LADDER,
                message: format!(
                    "a window of {k} states is wider than any around the model's {} blocks",
                    facts.layers
                ),
                help: Some(format!("write at most `k = {most}`")),
            });
        }
        if SHARE.get(values) && INIT.get(values).is_some() {
            return Some(Complaint {
                key: "init",
                code: &BAD_LADDER,
                message: "one side block for all layers is like none of the backbone's blocks"
                    .into(),
                help: Some("write `init = random`, or remove `share`".into()),
            });
        }
        check_side(values, facts, true)
    }

    fn side(&self, values: &Values, net: &mut Net<'_>, model: &dyn Model, hidden: Value) -> Value {
        let Some(narrow) = model.narrow() else {
            return hidden;
        };
        let facts = model.facts();
        let (d, r, k, layers) = (
            facts.hidden,
            R.get(values),
            K.get(values),
            facts.layers.cast_signed(),
        );
        let (s, p) = (d / r, DROPOUT.get(values));
        let half = k.cast_signed() / 2;
        let states = net.features();
        let per_slot = DOWN.find(values) == Some("per_slot");
        net.prune(start::importance(INIT.get(values)));
        net.aside(|net| {
            let codes = Param::shared("side.position").shape(&[k, s]);
            let codes = codes.kind(ParamKind::Embedding).start(Init::Normal(0.02));
            let positions = net.tensor(codes);
            let mut state = Self::down(values, net, states[0], (0, 0, 0), (d, s));
            let shared: Vec<Value> = if per_slot {
                Vec::new()
            } else {
                (1..states.len())
                    .map(|i| Self::down(values, net, states[i], (i, 0, 0), (d, s)))
                    .collect()
            };
            let mut pooled: Option<Value> = None;
            for j in 1..=layers {
                let (mut slots, mut inputs) = (Vec::new(), vec![positions]);
                for slot in 0..k as usize {
                    let i = j - half + (slot as u64).cast_signed();
                    if i < 1 || i > layers {
                        slots.push(None);
                        continue;
                    }
                    let feature = if per_slot {
                        Self::down(
                            values,
                            net,
                            states[i as usize],
                            (i as usize, j as u64, slot),
                            (d, s),
                        )
                    } else {
                        shared[i as usize - 1]
                    };
                    slots.push(Some(to_u32(inputs.len()) - 1));
                    inputs.push(net.dropout(feature, p));
                }
                let own = if SHARE.get(values) {
                    "all".to_owned()
                } else {
                    (j - 1).to_string()
                };
                let block = (!SHARE.get(values)).then_some(j as u64 - 1);
                net.enter("side.cross", block);
                net.b.label(&format!("side.cross.{own}"));
                let window = net.b.push1(Window { slots }, &inputs);
                let x = cross(values, net, (&own, s), (state, window), facts);
                let mirror = Mirror {
                    layer: j as u64 - 1,
                    reduction: r,
                    last: j == layers && !POOL.get(values),
                };
                net.enter("side.block", block);
                let path = format!("side.block.{own}");
                state = narrow.mirror(net, &path, mirror, x);
                if POOL.get(values) {
                    pooled = Some(pooled.map_or(state, |sum| net.add(sum, state)));
                }
            }
            net.enter("side", None);
            let mut last = net.picked(pooled.unwrap_or(state));
            if !narrow.ends_in_norm() {
                let site = Site::norm("side.norm", Role::Side, s);
                last = narrow.norm(net, &site, last);
            }
            project(net, "side.up".into(), last, s, d)
        })
    }
}
