//! Polytropon: a few LoRAs on each map, the skills, which every task mixes in its own way; with several parts, multi-head routing.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Reading, START as BEGAN, Taken};
use super::super::schema::{Checked, Given, kind};
use super::lora::{self, MODULES_TO_SAVE, ON};
use super::tasks::{self, MIXED, TASK, TASKS};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{
    Arrange, BinaryKind, BlockProduct, Blocks, Broadcast, Constant, Epilogue, MatMul, UnaryKind,
};
use crate::program::{DType, Real};

/// Skills that tasks mix.
#[derive(Debug)]
pub struct Poly;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (8, "8"),
    "rank r of each skill's update",
);
const SKILLS: Given<u64> = Given::<u64>::new(
    "skills",
    kind::int(1, 1 << 12),
    (4, "4"),
    "LoRAs on each map; peft calls it `n_skills`",
);
const SPLITS: Given<u64> = Given::<u64>::new(
    "splits",
    kind::int(1, 1 << 12),
    (1, "1"),
    "parts of inputs and outputs that are mixed each in its own way; peft calls it `n_splits`",
);
const SAMPLE: Given<bool> = Given::<bool>::tacit(
    "sample",
    kind::BOOL,
    (true, "true"),
    "whether a training draws which skills a text uses; with `false` it mixes as an evaluation does",
);

static SCHEMA: Schema = Schema {
    name: "poly",
    summary: "Polytropon and multi-head routing: a few LoRAs on each map, which every task mixes in its own way",
    doc: "y = x W0ᵀ + b + (x Â) B̂ / rank, with Â and B̂ the mixtures Σ_s p_s A_s and Σ_s p_s B_s of `skills` pairs. p = σ(l) / Σ σ(l) for the \
          task's row l of a table [tasks, skills], which starts uniform in ±0.001. In training σ(l) is drawn anew for each text and map \
          from the relaxed Bernoulli distribution of that logit, at temperature 1. With `splits` the inputs of A_s and the outputs of B_s \
          fall into parts, each with its own row of p. A_s [in, rank] start uniform in ±1/√(in / splits), and B_s at 0, so the model starts \
          unchanged. With `mixed = true` a batch holds texts of several tasks. Backward goes to the lowest adapted map; 16 bytes a trained \
          number. For one `task` it merges exactly into plain weights. In peft it is POLY.",
    paper: "Ponti et al. 2023, \"Combining Modular Skills in Multitask Learning\" (arXiv 2202.13914); Caccia et al. 2023 (arXiv 2211.03831)",
    keys: &[
        RANK.key(),
        TASKS.key(),
        TASK.key(),
        MIXED.key(),
        SKILLS.key(),
        SPLITS.key(),
        SAMPLE.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// Names of the tensors, as peft has them.
const A: &str = "poly_lora_A";
const B: &str = "poly_lora_B";
const ROUTER: &str = "poly_router.module_logits";

/// Sizes at a site.
struct Sizes {
    rank: u64,
    skills: u64,
    splits: u64,
    input: u64,
    output: u64,
}

impl Sizes {
    fn of(values: &Values, site: &Site) -> Self {
        let splits = SPLITS.get(values);
        Self {
            rank: RANK.get(values),
            skills: SKILLS.get(values),
            splits,
            input: site.input() / splits,
            output: site.output() / splits,
        }
    }

    /// Skills of all parts.
    const fn all(&self) -> u64 {
        self.splits * self.skills
    }
}

/// The skills, `[skills of all parts, in · r]` and `[…, r · out]`, and the table of logits.
fn tensors(at: &At<'_>, net: &mut Net<'_>) -> [Value; 3] {
    let (site, s) = (at.site, Sizes::of(at.values, at.site));
    let a = Param::at(site, A).shape(&[s.all(), s.input * s.rank]);
    let b = Param::at(site, B).shape(&[s.all(), s.rank * s.output]);
    let router = Param::at(site, ROUTER).shape(&[TASKS.get(at.values), s.all()]);
    let bound = 1.0 / (s.input as f64).sqrt();
    [
        net.tensor(a.start(Init::Uniform(bound))),
        net.tensor(b),
        net.tensor(router.start(Init::Uniform(1e-3))),
    ]
}

fn constant(net: &mut Net<'_>, value: f64) -> Value {
    let value = Real::new(value);
    let dtype = DType::F32;
    net.b.push1(Constant { value, dtype }, &[])
}

/// Rows over their sums in each part.
fn shares(net: &mut Net<'_>, s: &Sizes, open: Value) -> Value {
    let (all, skills) = (s.all(), s.skills);
    let own = |c: u64| (0..skills).map(move |i| (c / skills * skills + i, false));
    let sums = net.arranged(open, Arrange::new(all, (0..all).map(own)));
    let tiny = constant(net, 1e-12);
    let sums = net.binary(BinaryKind::Add, Broadcast::Scalar, sums, tiny);
    net.binary(BinaryKind::Div, Broadcast::Full, open, sums)
}

/// What the texts of a step draw of logits `[S or 1, n]`: `σ(l + logit of a uniform number)`, `[S, n]`.
fn drawn(
    net: &mut Net<'_>,
    (site, s): (&Site, &Sizes),
    x: Value,
    (logits, of_texts): (Value, bool),
) -> Value {
    let n = s.all();
    // The logarithm of the ratio of two exponential numbers is a logistic one, and two squares of normal numbers make an
    // exponential one.
    let normal = net.noise_of_texts(x, 4 * n, &site.path);
    let squares = net.unary(UnaryKind::Square, normal);
    let mut pair = |first: u64| {
        let columns = (0..n).map(|c| [(first + c, false), (first + n + c, false)]);
        net.arranged(squares, Arrange::new(4 * n, columns))
    };
    let (above, below) = (pair(0), pair(2 * n));
    let tiny = constant(net, 1e-30);
    let below = net.binary(BinaryKind::Add, Broadcast::Scalar, below, tiny);
    let ratio = net.binary(BinaryKind::Div, Broadcast::Full, above, below);
    let less = net.unary(UnaryKind::Neg, logits);
    let less = net.unary(UnaryKind::Exp, less);
    // ratio / (ratio + e⁻ˡ)
    let sum = if of_texts {
        net.binary(BinaryKind::Add, Broadcast::Full, ratio, less)
    } else {
        let less = net.flat(less, n);
        net.binary(BinaryKind::Add, Broadcast::Row, ratio, less)
    };
    net.binary(BinaryKind::Div, Broadcast::Full, ratio, sum)
}

/// How the skills are mixed.
enum Mix {
    /// Alike for all texts: `[1, n]`.
    One(Value),
    /// For each token as its text does: `[T, n]`.
    Each(Value),
}

fn mix(at: &At<'_>, net: &mut Net<'_>, x: Value, table: Value) -> Mix {
    let (site, values) = (at.site, at.values);
    let s = Sizes::of(values, site);
    let logits = if MIXED.get(values) {
        net.of_tasks(table)
    } else {
        net.rows(table, vec![to_u32(TASK.get(values))])
    };
    let draws = net.is_training() && SAMPLE.get(values);
    let open = if draws {
        drawn(net, (site, &s), x, (logits, MIXED.get(values)))
    } else {
        net.unary(UnaryKind::Sigmoid, logits)
    };
    let own = shares(net, &s, open);
    if draws || MIXED.get(values) {
        Mix::Each(net.at_tokens(own))
    } else {
        Mix::One(own)
    }
}

/// The mixture of all skills, `Â [in, r]` and `B̂ [r, out]`.
fn combined(net: &mut Net<'_>, s: &Sizes, mix: Value, (a, b): (Value, Value)) -> (Value, Value) {
    let (all, splits, rank) = (s.all(), s.splits, s.rank);
    // Each part mixes its own skills.
    let own = |c: u64| {
        let skill = c % all;
        (skill / s.skills == c / all).then_some((skill, false))
    };
    let mix = net.arranged(mix, Arrange::new(all, (0..splits * all).map(own)));
    let mix = net.reshaped(mix, splits, all);
    let a = net.times((mix, false), (a, false));
    let b = net.times((mix, false), (b, false));
    let a = net.reshaped(a, splits * s.input, rank);
    // Rows of B̂ lie part by part; here those of all parts are beside one another.
    let b = net.reshaped(b, splits * rank, s.output);
    let order = (0..rank).flat_map(|i| (0..splits).map(move |q| to_u32(q * rank + i)));
    let b = net.listed(b, order.collect());
    (a, net.reshaped(b, rank, splits * s.output))
}

/// What the skills make of each token, each text with its own mixture, `[T, in] → [T, out]`.
fn each(net: &mut Net<'_>, s: &Sizes, (x, mix): (Value, Value), (a, b): (Value, Value)) -> Value {
    let (all, rank) = (s.all(), s.rank);
    // From a matrix a skill to one in which all skills of a part are beside one another.
    let a = net.reshaped(a, all * s.input, rank);
    let (splits, skills, input) = (s.splits, s.skills, s.input);
    let from = |q, d| (0..skills).map(move |i| to_u32((q * skills + i) * input + d));
    let order = (0..splits).flat_map(|q| (0..input).flat_map(move |d| from(q, d)));
    let a = net.listed(a, order.collect());
    let a = net.reshaped(a, splits * input, skills * rank);
    let wide = Arrange::new(all, (0..all * rank).map(|c| [(c / rank, false)]));
    let wide = net.arranged(mix, wide);
    let product = |net: &mut Net<'_>, x, blocks| match splits {
        1 => net.times((x, false), (blocks, false)),
        _ => {
            let op = BlockProduct::of_rows(to_u32(splits), Blocks::STACKED);
            net.b.push1(op, &[x, blocks])
        }
    };
    let hidden = product(net, x, a);
    let hidden = net.binary(BinaryKind::Mul, Broadcast::Full, hidden, wide);
    let sum = |k: u64| (0..all).map(move |j| (j * rank + k, false));
    let hidden = net.arranged(hidden, Arrange::new(all * rank, (0..rank).map(sum)));
    let copies = Arrange::new(rank, (0..all * rank).map(|c| [(c % rank, false)]));
    let hidden = net.arranged(hidden, copies);
    let hidden = net.binary(BinaryKind::Mul, Broadcast::Full, hidden, wide);
    let b = net.reshaped(b, all * rank, s.output);
    product(net, hidden, b)
}

const PEFT_KEYS: Keys = &[
    ("init_weights", WithoutEffect(BEGAN)),
    ("n_skills", Used),
    ("n_splits", Used),
    ("n_tasks", Used),
    ("poly_type", Only(&["\"poly\""])),
    ("r", Used),
];

impl Method for Poly {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn reads_texts(&self) -> bool {
        true
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    /// A text's mixture is that of all its tokens.
    fn reads_all(&self, values: &Values) -> bool {
        SAMPLE.get(values) || MIXED.get(values)
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let splits = SPLITS.get(values);
        let uneven = || {
            let parts = |n: u64| n.is_multiple_of(splits);
            (!parts(site.input()) || !parts(site.output())).then(|| Complaint {
                key: SPLITS.name(),
                code: &BAD_METHOD_VALUES,
                message: format!(
                    "`splits` is {splits}, which does not divide the {} inputs and {} outputs of `{}`",
                    site.input(),
                    site.output(),
                    site.path
                ),
                help: Some("write a number that divides both, or 1".to_owned()),
            })
        };
        tasks::check(values)
            .or_else(uneven)
            .or_else(|| lora::check_rank(values, &RANK, site))
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let s = Sizes::of(at.values, at.site);
        let [a, b, table] = tensors(at, net);
        let factor = 1.0 / s.rank as f64;
        match mix(at, net, x, table) {
            Mix::One(mix) => {
                let (a, b) = combined(net, &s, mix, (a, b));
                let z = net.times((x, false), (a, false));
                let op = MatMul {
                    epilogue: Epilogue::Accumulate,
                    ..MatMul::plain(false, false, Real::new(factor))
                };
                net.b.push1(op, &[z, b, base])
            }
            Mix::Each(mix) => {
                let y = each(net, &s, (x, mix), (a, b));
                let y = net.scaled(y, factor);
                net.add(base, y)
            }
        }
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        if MIXED.get(at.values) {
            return None;
        }
        let weight = at.weight(net)?;
        let s = Sizes::of(at.values, at.site);
        let [a, b, table] = tensors(at, net);
        let logits = net.rows(table, vec![to_u32(TASK.get(at.values))]);
        let open = net.unary(UnaryKind::Sigmoid, logits);
        let mix = shares(net, &s, open);
        let (a, b) = combined(net, &s, mix, (a, b));
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(true, true, Real::new(1.0 / s.rank as f64))
        };
        Some(net.b.push1(op, &[b, a, weight]))
    }

    fn tasks(&self, values: &Values) -> Option<(&'static str, u64)> {
        Some((TASK.name(), TASKS.get(values)))
    }

    fn tasks_of_examples(&self, values: &Values) -> Option<u64> {
        tasks::named_by_examples(values)
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("exclude_modules", Json::Null),
            ("init_weights", json!(true)),
            ("n_skills", json!(SKILLS.get(values))),
            ("n_splits", json!(SPLITS.get(values))),
            ("n_tasks", json!(TASKS.get(values))),
            ("poly_type", json!("poly")),
            ("r", json!(RANK.get(values))),
        ];
        Some(PeftForm {
            kind: "POLY",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "POLY").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, tasks) = (config.positive("r", 8)?, config.positive("n_tasks", 1)?);
        let (skills, splits) = (
            config.positive("n_skills", 4)?,
            config.positive("n_splits", 1)?,
        );
        let all = skills.saturating_mul(splits);
        for place in file.places()? {
            place.only(&[A, B, ROUTER])?;
            let site = place.site;
            let (input, output) = (site.input() / splits, site.output() / splits);
            let shapes = [
                (A, [input, rank], input.saturating_mul(rank)),
                (B, [rank, output], rank.saturating_mul(output)),
            ];
            for (name, [rows, width], numbers) in shapes {
                let from = place.name(name);
                file.check_shape(&from, &[splits, skills, rows, width])?;
                file.make(Taken {
                    own: place.own(name),
                    shape: vec![all, numbers],
                    from: vec![from],
                    make: Make::Same,
                })?;
            }
            file.idle(&place.name(B), 0.0);
            file.take(&place.name(ROUTER), place.own(ROUTER), &[tasks, all])?;
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (TASKS.name(), Checked::Int(tasks)),
                (SKILLS.name(), Checked::Int(skills)),
                (SPLITS.name(), Checked::Int(splits)),
            ];
            file.put(&Poly, site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let s = Sizes::of(values, site);
        let [rank, skills, splits] = [s.rank, s.skills, s.splits].map(|n| n as usize);
        let (input, output) = (s.input as usize, s.output as usize);
        let tasks = TASKS.get(values) as usize;
        Some(vec![
            (A.to_owned(), vec![splits, skills, input, rank], get(A)?),
            (B.to_owned(), vec![splits, skills, rank, output], get(B)?),
            (
                ROUTER.to_owned(),
                vec![tasks, splits * skills],
                get(ROUTER)?,
            ),
        ])
    }
}
