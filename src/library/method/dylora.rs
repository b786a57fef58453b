//! DyLoRA (methods R12): one LoRA of which every first few ranks work by themselves.

use super::super::net::{Init, Param};
use super::super::schema::{Bound, Given, Maybe, kind};
use super::lora::{self, DROPOUT, ON, RANK};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site, Stacking,
    Value, Values, first_rows,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{BinaryKind, Broadcast, Epilogue, MatMul, MulRows};
use crate::program::{Real, Signal};

/// A pair that is trained at a rank drawn for each step.
#[derive(Debug)]
pub struct DyLora;

const ALPHA: Given<f64> = Given::<f64>::new(
    "alpha",
    kind::float(Bound::Excl(0.0), Bound::None),
    (16.0, "16"),
    "scale: the update at rank n is multiplied by alpha / n",
);
const FROZEN: Given<bool> = Given::<bool>::new(
    "frozen",
    kind::BOOL,
    (true, "true"),
    "whether a step at rank n trains the n-th row of A and column of B alone, as the reference does; else the first n",
);
const USED: Maybe<u64> = Maybe::new(
    "used",
    kind::WIDTH,
    "rank that evaluations, predictions, merges and exports use; all of it if not written",
);

static SCHEMA: Schema = Schema {
    name: "dylora",
    summary: "dynamic search-free low-rank adaptation: one training after which every rank up to `rank` can be used",
    doc: "y = x W0ᵀ + b + (alpha / n) · (dropout(x) A_nᵀ) B_nᵀ with the first n rows of A [rank, in] and columns of B [out, rank], \
          which start as LoRA's. Each step of a training draws n from 1 to rank, the same for all maps; steps of zeroth \
          order have none. Elsewhere n is `used`. Merges exactly into plain weights and is written in peft's format as LoRA \
          of rank `used`.",
    paper: "Valipour et al. 2023 (arXiv 2210.07558), section 3",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        DROPOUT.key(),
        FROZEN.key(),
        USED.key(),
        ON.key(),
    ],
};

const A: &str = "dylora_A";
const B: &str = "dylora_B";

/// `A [r, in]` and `B [out, r]`.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, rank) = (at.site, RANK.get(at.values));
    let bound = 1.0 / (site.input() as f64).sqrt();
    let a = Param::at(site, A).shape(&[rank, site.input()]);
    let b = Param::at(site, B).shape(&[site.output(), rank]);
    (net.tensor(a.start(Init::Uniform(bound))), net.tensor(b))
}

fn used(values: &Values) -> u64 {
    USED.get(values).unwrap_or_else(|| RANK.get(values))
}

/// The first ranks of the pair, as they are used outside of trainings, and the factor of their product.
fn in_use(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value, f64) {
    let (a, mut b) = factors(at, net);
    let (rank, n) = (RANK.get(at.values), used(at.values));
    let a = first_rows(net, a, (n, rank));
    if n < rank {
        b = net.columns(b, 0, n);
    }
    (a, b, ALPHA.get(at.values) / n as f64)
}

/// A matrix of which only what `mask` leaves has a gradient.
fn trained_where(net: &mut Net<'_>, x: Value, mask: Value, broadcast: Broadcast) -> Value {
    let own = net.binary(BinaryKind::Mul, broadcast, x, mask);
    let others = net.binary(BinaryKind::Sub, Broadcast::Full, x, own);
    let others = net.detach(others);
    net.add(others, own)
}

impl Method for DyLora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (rank, used) = (RANK.get(values), used(values));
        if used > rank {
            return Some(Complaint {
                key: USED.name(),
                code: &BAD_METHOD_VALUES,
                message: format!("`used` is {used}, and the pair has a rank of {rank}"),
                help: Some(format!("write at most `used = {rank}`")),
            });
        }
        lora::check_rank(values, &RANK, site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn steps(&self, _: &Values) -> bool {
        true
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let values = at.values;
        if !net.is_training() {
            let (a, b, scale) = in_use(at, net);
            let z = net.project(x, a);
            return net.project_onto(base, z, b, scale);
        }
        let (mut a, mut b) = factors(at, net);
        let rank = RANK.get(values);
        let (stream, of) = (net.signal_key(SCHEMA.name), to_u32(rank));
        if FROZEN.get(values) {
            let drawn = net.signal(Signal::Drawn { stream, of });
            a = trained_where(net, a, drawn, Broadcast::Column);
            b = trained_where(net, b, drawn, Broadcast::Row);
        }
        let first = net.signal(Signal::First { stream, of });
        let x = net.dropout_before(x, DROPOUT.get(values), a);
        let z = net.project(x, a);
        let z = net.b.push1(MulRows, &[z, first]);
        net.project_onto(base, z, b, ALPHA.get(values) / rank as f64)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (a, b, scale) = in_use(at, net);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(scale))
        };
        Some(net.b.push1(op, &[b, a, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let rank = used(values);
        let product = Product {
            rank,
            scale: ALPHA.get(values) / rank as f64,
            dropout: DROPOUT.get(values),
            rs_lora: false,
        };
        Some(PeftForm::lora(product, false))
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (rank, n) = (RANK.get(values) as usize, used(values) as usize);
        let (input, output) = (site.input() as usize, site.output() as usize);
        let (mut a, b) = (get(A)?, get(B)?);
        a.truncate(n * input);
        let rows = b.chunks_exact(rank.max(1));
        let b = rows.flat_map(|row| row.iter().take(n).copied()).collect();
        Some(vec![
            ("lora_A.weight".to_owned(), vec![n, input], a),
            ("lora_B.weight".to_owned(), vec![output, n], b),
        ])
    }
}
