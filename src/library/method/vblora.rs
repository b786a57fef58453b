//! VB-LoRA: LoRA whose factors are mixtures of vectors of one bank that all sites share.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Reading, START as BEGAN, Taken};
use super::super::schema::{Bound, Checked, Given, kind};
use super::lora::{DROPOUT, MODULES_TO_SAVE, ON, check_rank};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::Real;
use crate::program::op::{Epilogue, MatMul, TopSoftmax};

/// Mixtures of a bank's vectors.
#[derive(Debug)]
pub struct VbLora;

const RANK: Given<u64> = Given::<u64>::new("rank", kind::WIDTH, (4, "4"), "rank r of the update");
const VECTORS: Given<u64> = Given::<u64>::new(
    "vectors",
    kind::int(1, 1 << 24),
    (256, "256"),
    "vectors of the bank; peft calls it `num_vectors`",
);
const LENGTH: Given<u64> = Given::<u64>::new(
    "length",
    kind::WIDTH,
    (256, "256"),
    "numbers of a vector, which divide both sides of every map; peft calls it `vector_length`",
);
const TOP_K: Given<u64> = Given::<u64>::new(
    "top_k",
    kind::int(1, 1 << 24),
    (2, "2"),
    "vectors that each piece is a mixture of",
);
const BOUND: Given<f64> = Given::<f64>::new(
    "bound",
    kind::float(Bound::Excl(0.0), Bound::None),
    (0.02, "0.02"),
    "the bank starts uniform in ± this",
);
const LOGITS: Given<f64> = Given::<f64>::new(
    "logits_std",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.1, "0.1"),
    "standard deviation of the logits at first",
);

static SCHEMA: Schema = Schema {
    name: "vblora",
    summary: "vector-bank adaptation: LoRA's factors as mixtures of the vectors of one trained bank",
    doc: "y = x W0ᵀ + b + (dropout(x) Aᵀ) Bᵀ, where each piece of `length` numbers of A's rows and B's columns is a mixture of \
          the bank's vectors: the softmax of the `top_k` largest of its logits weighs them. The bank [vectors, length] is \
          shared by all sites and trained, and so are the logits of each site. The model does not start unchanged, but by an \
          update of the size of bound². Merges exactly into plain weights and is written in peft's format.",
    paper: "Li et al. 2024 (arXiv 2405.15179)",
    keys: &[
        RANK.key(),
        VECTORS.key(),
        LENGTH.key(),
        TOP_K.key(),
        BOUND.key(),
        LOGITS.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const BANK: &str = "vblora_vector_bank";
const A: &str = "vblora_logits_A";
const B: &str = "vblora_logits_B";

/// `A [r, in]` and `Bᵀ [r, out]`.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, values) = (at.site, at.values);
    let [rank, vectors, length, k] = [&RANK, &VECTORS, &LENGTH, &TOP_K].map(|key| key.get(values));
    let bank = Param::shared(BANK).shape(&[vectors, length]);
    let bank = net.tensor(bank.start(Init::Uniform(BOUND.get(values))));
    let mut factor = |suffix, width: u64| {
        let logits = Param::at(site, suffix).shape(&[rank * (width / length), vectors]);
        let logits = net.tensor(logits.start(Init::Normal(LOGITS.get(values))));
        let weights = net.b.push1(TopSoftmax { k: to_u32(k) }, &[logits]);
        let op = MatMul::plain(false, false, Real::new(1.0));
        let pieces = net.b.push1(op, &[weights, bank]);
        net.reshaped(pieces, rank, width)
    };
    (factor(A, site.input()), factor(B, site.output()))
}

const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("init_logits_std", WithoutEffect(BEGAN)),
    ("init_vector_bank_bound", WithoutEffect(BEGAN)),
    ("num_vectors", Used),
    ("r", Used),
    ("save_only_topk_weights", Only(&["false"])),
    ("topk", Used),
    ("vblora_dropout", Used),
    ("vector_length", Used),
];

impl Method for VbLora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn shares(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        if let Some(complaint) = check_rank(values, &RANK, site) {
            return Some(complaint);
        }
        let (length, k, vectors) = (LENGTH.get(values), TOP_K.get(values), VECTORS.get(values));
        let (input, output, path) = (site.input(), site.output(), &site.path);
        let (key, message, help) = if k > vectors {
            let message = format!("`top_k` is {k}, and the bank has {vectors} vectors");
            (
                TOP_K.name(),
                message,
                format!("write at most `top_k = {vectors}`"),
            )
        } else if input % length != 0 || output % length != 0 {
            let message = format!(
                "`{path}` of {output} × {input} is not made of vectors of {length} numbers"
            );
            let help = "write a `length` that divides both sides of every map";
            (LENGTH.name(), message, help.to_owned())
        } else {
            return None;
        };
        Some(Complaint {
            key,
            code: &BAD_METHOD_VALUES,
            message,
            help: Some(help),
        })
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (a, b) = factors(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let z = net.project(x, a);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        net.b.push1(op, &[z, b, base])
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (a, b) = factors(at, net);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(true, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[b, a, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("init_logits_std", json!(LOGITS.get(values))),
            ("init_vector_bank_bound", json!(BOUND.get(values))),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("num_vectors", json!(VECTORS.get(values))),
            ("r", json!(RANK.get(values))),
            ("save_only_topk_weights", json!(false)),
            ("topk", json!(TOP_K.get(values))),
            ("vblora_dropout", json!(DROPOUT.get(values))),
            ("vector_length", json!(LENGTH.get(values))),
        ];
        Some(PeftForm {
            kind: "VBLORA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "VBLORA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, dropout) = (config.positive("r", 4)?, config.rate("vblora_dropout")?);
        let vectors = config.positive("num_vectors", 256)?;
        let (length, k) = (
            config.positive("vector_length", 256)?,
            config.positive("topk", 2)?,
        );
        file.take(BANK, BANK.to_owned(), &[vectors, length])?;
        for place in file.places()? {
            place.only(&[A, B])?;
            let (input, output) = (place.site.input() / length, place.site.output() / length);
            let (a, b) = (place.name(A), place.name(B));
            file.check_shape(&a, &[rank, input, vectors])?;
            file.check_shape(&b, &[output, rank, vectors])?;
            file.make(Taken {
                own: place.own(A),
                shape: vec![rank * input, vectors],
                from: vec![a],
                make: Make::Same,
            })?;
            // peft has the pieces of the output first.
            let [n, pieces, ranks] = [vectors, output, rank].map(|n| n as usize);
            let turned = move |from: &[(Vec<usize>, Vec<f32>)]| {
                let data = from.first().map(|(_, data)| data.as_slice());
                let data = data.unwrap_or_default();
                let row = |k: usize, piece: usize| data.chunks(n.max(1)).nth(piece * ranks + k);
                let rows = (0..ranks).flat_map(|k| (0..pieces).filter_map(move |p| row(k, p)));
                Ok(rows.flatten().copied().collect())
            };
            file.make(Taken {
                own: place.own(B),
                shape: vec![rank * output, vectors],
                from: vec![b],
                make: Make::by(turned),
            })?;
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (VECTORS.name(), Checked::Int(vectors)),
                (LENGTH.name(), Checked::Int(length)),
                (TOP_K.name(), Checked::Int(k)),
                (DROPOUT.name(), Checked::Float(dropout)),
            ];
            file.put(&VbLora, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let [rank, vectors, length] = [&RANK, &VECTORS, &LENGTH].map(|k| k.get(values) as usize);
        let (input, output) = (
            site.input() as usize / length,
            site.output() as usize / length,
        );
        // peft has the pieces of the output first.
        let own = get(B)?;
        let mut turned = Vec::with_capacity(own.len());
        for piece in 0..output {
            for k in 0..rank {
                let from = (k * output + piece) * vectors;
                turned.extend_from_slice(own.get(from..from + vectors)?);
            }
        }
        Some(vec![
            (A.to_owned(), vec![rank, input, vectors], get(A)?),
            (B.to_owned(), vec![output, rank, vectors], turned),
        ])
    }

    fn peft_shared(&self, values: &Values, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let shape = vec![VECTORS.get(values) as usize, LENGTH.get(values) as usize];
        Some(vec![(BANK.to_owned(), shape, get(BANK)?)])
    }
}
