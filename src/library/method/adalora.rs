//! AdaLoRA (methods R10): LoRA in the shape of an SVD, whose singular values are pruned under a budget that falls during the
//! training.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::{Keys, Misfit, Reading};
use super::super::schema::{Bound, Checked, Given, kind};
use super::lora::{self, ALPHA, DROPOUT, MODULES_TO_SAVE, ON};
use super::{
    After, At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, adalora_import, number,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{
    ActivationKind, BinaryKind, Broadcast, Constant, Epilogue, Identity, KthSmallest, MatMul,
    MulRows, Over, ReduceKind, UnaryKind,
};
use crate::program::{Budget, DType, Real, Signal};

/// Triplets with a budget.
#[derive(Debug)]
pub struct AdaLora;

const INIT_RANK: Given<u64> = Given::<u64>::new(
    "init_rank",
    kind::WIDTH,
    (12, "12"),
    "rank of each map at first",
);
const TARGET_RANK: Given<u64> = Given::<u64>::new(
    "target_rank",
    kind::WIDTH,
    (8, "8"),
    "rank that is left in the end, on the average of all maps",
);
const TINIT: Given<u64> = Given::<u64>::new(
    "tinit",
    kind::int(0, u64::MAX),
    (0, "0"),
    "steps before pruning begins",
);
const TFINAL: Given<u64> = Given::<u64>::new(
    "tfinal",
    kind::int(0, u64::MAX),
    (0, "0"),
    "steps at the end with the target rank",
);
const DELTA_T: Given<u64> = Given::<u64>::new(
    "delta_t",
    kind::COUNT,
    (1, "1"),
    "steps between two prunings",
);
const RATE: super::super::schema::Of<f64> = kind::float(Bound::Excl(0.0), Bound::Excl(1.0));
const BETA1: Given<f64> = Given::<f64>::new(
    "beta1",
    RATE,
    (0.85, "0.85"),
    "decay of the running mean of importance",
);
const BETA2: Given<f64> = Given::<f64>::new(
    "beta2",
    RATE,
    (0.85, "0.85"),
    "decay of the running mean of its uncertainty",
);
const ORTHOGONALITY: Given<f64> = Given::<f64>::new(
    "orthogonality",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.5, "0.5"),
    "weight in the loss of how far A and B are from orthogonal; peft calls it `orth_reg_weight`",
);

static SCHEMA: Schema = Schema {
    name: "adalora",
    summary: "adaptive budget allocation: LoRA as singular triplets, the least important of which are pruned during the training",
    doc: "y = x W0ᵀ + b + s · ((dropout(x) Aᵀ) ⊙ E) Bᵀ with A [init_rank, in], B [out, init_rank], E [init_rank] and s = alpha / \
          init_rank. A and B are normal with standard deviation 0.02 and E zero, so the model starts unchanged. The loss has \
          `orthogonality` times the mean of ‖A Aᵀ - I‖ and ‖Bᵀ B - I‖. After each step, counted from 0, the importance of \
          every number is |number · gradient| in a running mean, times that of how much it varies; a triplet's is that of E_i \
          and the means of those of a_i and b_i. From step `tinit` on the budget falls to the third power from init_rank to \
          target_rank a map, and E_i of the least important triplets of all maps is set to 0 every `delta_t` steps. They may \
          come back until `tfinal` steps before the end. Three numbers for each trained one are kept beside the optimizer's \
          state. Merges exactly into plain weights and is written in peft's format.",
    paper: "Zhang et al. 2023 (arXiv 2303.10512), sections 3.1 to 3.3",
    keys: &[
        INIT_RANK.key(),
        TARGET_RANK.key(),
        ALPHA.key(),
        DROPOUT.key(),
        TINIT.key(),
        TFINAL.key(),
        DELTA_T.key(),
        BETA1.key(),
        BETA2.key(),
        ORTHOGONALITY.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const A: &str = "lora_A";
const B: &str = "lora_B";
pub(super) const E: &str = "lora_E";

/// `A [r, in]`, `B [out, r]` and `E [r]`.
fn triplets(site: &Site, values: &Values, net: &mut Net<'_>) -> [Value; 3] {
    let rank = INIT_RANK.get(values);
    let normal = |suffix, shape: &[u64]| {
        Param::at(site, suffix)
            .shape(shape)
            .start(Init::Normal(0.02))
    };
    let a = net.tensor(normal(A, &[rank, site.input()]));
    let b = net.tensor(normal(B, &[site.output(), rank]));
    [a, b, net.tensor(Param::at(site, E).shape(&[rank]))]
}

/// The reference adds a little to the rank, that it divides by a rank of 0 too.
fn scale(values: &Values) -> f64 {
    ALPHA.get(values) / (INIT_RANK.get(values) as f64 + 1e-5)
}

/// `‖G − I‖` of a product of a matrix with itself.
pub(super) fn distance(net: &mut Net<'_>, gram: Value, rank: u64) -> Value {
    let dtype = DType::F32;
    let identity = Identity {
        n: to_u32(rank),
        dtype,
    };
    let identity = net.b.push1(identity, &[]);
    let off = net.binary(BinaryKind::Sub, Broadcast::Full, gram, identity);
    let squares = net.reduce(ReduceKind::SumOfSquares, Over::All, off);
    // A root has no slope at 0.
    let value = Real::new(1e-30);
    let least = net.b.push1(Constant { value, dtype }, &[]);
    let squares = net.add(squares, least);
    net.unary(UnaryKind::Sqrt, squares)
}

impl AdaLora {
    /// The mean over numbers of `|p · ∂L/∂p|`, times how much it varies, for each number of a tensor.
    fn importance(
        after: &mut After<'_, '_>,
        name: &str,
        param: Value,
        values: &Values,
    ) -> Option<Value> {
        let gradient = after.gradient(name)?;
        let mean = after.state(name, "importance", param);
        let varies = after.state(name, "uncertainty", param);
        let step = after.steps.saturating_sub(TFINAL.get(values));
        let net = &mut *after.net;
        // Both stand still once the last triplets were chosen.
        let mut share = |beta: f64| {
            let value = Real::new(1.0 - beta);
            net.signal(Signal::Until { step, value })
        };
        let (first, second) = (share(BETA1.get(values)), share(BETA2.get(values)));
        let full = Broadcast::Full;
        let now = net.binary(BinaryKind::Mul, full, param, gradient);
        let now = net.unary(UnaryKind::Abs, now);
        let change = net.binary(BinaryKind::Sub, full, now, mean);
        let change = net.binary(BinaryKind::Mul, Broadcast::Scalar, change, first);
        after.add(mean, change);
        let net = &mut *after.net;
        let off = net.binary(BinaryKind::Sub, full, now, mean);
        let off = net.unary(UnaryKind::Abs, off);
        let change = net.binary(BinaryKind::Sub, full, off, varies);
        let change = net.binary(BinaryKind::Mul, Broadcast::Scalar, change, second);
        after.add(varies, change);
        Some(after.net.binary(BinaryKind::Mul, full, mean, varies))
    }
}

impl Method for AdaLora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (init, target) = (INIT_RANK.get(values), TARGET_RANK.get(values));
        if target > init {
            return Some(Complaint {
                key: TARGET_RANK.name(),
                code: &BAD_METHOD_VALUES,
                message: format!("`target_rank` is {target}, and each map begins with {init}"),
                help: Some(format!("write at most `target_rank = {init}`")),
            });
        }
        lora::check_rank(values, &INIT_RANK, site)
    }

    fn check_steps(&self, values: &Values, steps: u64) -> Option<Complaint> {
        let (first, last) = (TINIT.get(values), TFINAL.get(values));
        (first.saturating_add(last) >= steps).then(|| Complaint {
            key: if last > 0 { TFINAL.name() } else { TINIT.name() },
            code: &BAD_METHOD_VALUES,
            message: format!(
                "`tinit` and `tfinal` are {first} and {last} steps of {steps}, so none are left in which triplets are pruned"
            ),
            help: Some("lower one of them, or train for more steps".to_owned()),
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn steps(&self, _: &Values) -> bool {
        true
    }

    fn penalty(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Option<Value> {
        let (weight, rank) = (ORTHOGONALITY.get(values), INIT_RANK.get(values));
        if weight == 0.0 {
            return None;
        }
        let mut sum = None;
        for site in sites {
            let [a, b, _] = triplets(site, values, net);
            let rows = MatMul::plain(false, true, Real::new(1.0));
            let columns = MatMul::plain(true, false, Real::new(1.0));
            for gram in [net.b.push1(rows, &[a, a]), net.b.push1(columns, &[b, b])] {
                let own = distance(net, gram, rank);
                sum = Some(sum.map_or(own, |sum| net.add(sum, own)));
            }
        }
        Some(net.scaled(sum?, weight / (2 * sites.len()) as f64))
    }

    fn after_update(&self, values: &Values, sites: &[&Site], after: &mut After<'_, '_>) {
        let (init, target) = (INIT_RANK.get(values), TARGET_RANK.get(values));
        let mut scores = Vec::new();
        for site in sites {
            let [a, b, e] = triplets(site, values, after.net);
            let path = &site.path;
            let mut of = |suffix: &str, value| {
                Self::importance(after, &format!("{path}.{suffix}"), value, values)
            };
            let (Some(of_a), Some(of_b), Some(of_e)) = (of(A, a), of(B, b), of(E, e)) else {
                continue;
            };
            let net = &mut *after.net;
            let of_a = net.reduce(ReduceKind::Mean, Over::Columns, of_a);
            let of_b = net.reduce(ReduceKind::Mean, Over::Rows, of_b);
            let pair = net.add(of_a, of_b);
            scores.push((e, net.add(of_e, pair)));
        }
        let maps = scores.len() as u64;
        let budget = Budget {
            from: maps * init,
            to: maps * target,
            begins: TINIT.get(values),
            last: TFINAL.get(values),
            every: DELTA_T.get(values),
            steps: after.steps,
        };
        if scores.is_empty() {
            return;
        }
        let net = &mut *after.net;
        let mut inputs = vec![net.signal(Signal::Pruned(budget))];
        inputs.extend(scores.iter().map(|(_, score)| *score));
        let threshold = net.b.push1(KthSmallest, &inputs);
        for (e, score) in scores {
            let net = &mut *after.net;
            let above = net.binary(BinaryKind::Sub, Broadcast::Scalar, score, threshold);
            let above = net.activation(ActivationKind::Relu, above);
            let kept = net.unary(UnaryKind::Sign, above);
            let left = net.binary(BinaryKind::Mul, Broadcast::Full, e, kept);
            after.set(e, left);
        }
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let [a, b, e] = triplets(at.site, at.values, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let z = net.project(x, a);
        let z = net.b.push1(MulRows, &[z, e]);
        net.project_onto(base, z, b, scale(at.values))
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let [a, b, e] = triplets(at.site, at.values, net);
        let b = net.b.push1(MulRows, &[b, e]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(scale(at.values)))
        };
        Some(net.b.push1(op, &[b, a, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let (first, last) = (TINIT.get(values), TFINAL.get(values));
        let keys = vec![
            ("beta1", json!(BETA1.get(values))),
            ("beta2", json!(BETA2.get(values))),
            ("bias", json!("none")),
            ("deltaT", json!(DELTA_T.get(values))),
            ("fan_in_fan_out", json!(false)),
            ("init_lora_weights", json!(true)),
            ("init_r", json!(INIT_RANK.get(values))),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("lora_alpha", number(ALPHA.get(values))),
            ("lora_dropout", json!(DROPOUT.get(values))),
            ("orth_reg_weight", json!(ORTHOGONALITY.get(values))),
            // Pruned triplets are there with a value of 0.
            ("rank_pattern", Json::Null),
            ("target_r", json!(TARGET_RANK.get(values))),
            ("tfinal", json!(last)),
            ("tinit", json!(first)),
            // peft wants one that has room for both; who trains on sets it.
            ("total_step", json!(first + last + 1)),
            ("use_dora", json!(false)),
            ("use_rslora", json!(false)),
        ];
        Some(PeftForm {
            kind: "ADALORA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "ADALORA").then_some(adalora_import::KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (init, target) = (
            config.positive("init_r", 12)?,
            config.positive("target_r", 8)?,
        );
        let alpha = config.number("lora_alpha", 8.0)?;
        let numbers = [
            (ALPHA.name(), alpha),
            (DROPOUT.name(), config.rate("lora_dropout")?),
            (BETA1.name(), config.number("beta1", 0.85)?),
            (BETA2.name(), config.number("beta2", 0.85)?),
            (ORTHOGONALITY.name(), config.number("orth_reg_weight", 0.5)?),
        ];
        let every = config.positive("deltaT", 1)?;
        let pattern = config.get("rank_pattern").cloned().unwrap_or_default();
        for place in file.places()? {
            place.only(&[A, B, E])?;
            let kept = adalora_import::kept(&pattern, &place.module, init)?;
            let (input, output) = (place.site.input(), place.site.output());
            adalora_import::take_kept(file, &place, (A, &kept), (input, false))?;
            adalora_import::take_kept(file, &place, (B, &kept), (output, true))?;
            adalora_import::take_kept(file, &place, (E, &kept), (1, false))?;
            file.idle(&place.name(E), 0.0);
            let mut values = vec![
                (INIT_RANK.name(), Checked::Int(init)),
                (TARGET_RANK.name(), Checked::Int(target.min(init))),
                (DELTA_T.name(), Checked::Int(every)),
            ];
            let numbers = numbers.iter();
            values.extend(numbers.map(|(key, x)| (*key, Checked::Float(*x))));
            file.put(&AdaLora, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (rank, input, output) = (
            INIT_RANK.get(values) as usize,
            site.input() as usize,
            site.output() as usize,
        );
        Some(vec![
            (A.to_owned(), vec![rank, input], get(A)?),
            (B.to_owned(), vec![output, rank], get(B)?),
            (E.to_owned(), vec![rank, 1], get(E)?),
        ])
    }
}
