//! SVFit (methods R14): `W₀ = U Σ V`, of which the largest singular values are trained.

use super::super::derive::{BaseParam, Derivation, SingularVectors};
use super::super::net::{Init, Param};
use super::super::schema::{Maybe, kind};
use super::lora::ON;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site, Stacking,
    Value, Values,
};
use crate::library::error::RANK_TOO_LARGE;
use crate::program::Real;
use crate::program::op::{Epilogue, MatMul, MulRows};

/// Trained singular values.
#[derive(Debug)]
pub struct Svfit;

/// The tensors' names.
const MOVED: &str = "svfit_S_moved";
const LEFT: &str = "svfit_U";
const RIGHT: &str = "svfit_V";

const RANK: Maybe<u64> = Maybe::new(
    "rank",
    kind::WIDTH,
    "number r of trained singular values, the largest; all of them if not written",
);

static SCHEMA: Schema = Schema {
    name: "svfit",
    summary: "the largest singular values of each matrix are trained",
    doc: "W0 = U Σ V is decomposed once; y = x W0ᵀ + ((x Vᵀ) ⊙ (σ − σ0)) Uᵀ + b, where σ − σ0 [rank] is trained: how far \
          the singular values σ0 move, zero at first, so the model starts unchanged. That is the paper's W_e + U diag(σ) V with W0 kept whole, which \
          may so be stored in few bits. U [out, rank] and V [rank, in] are frozen and adapters keep them, since singular \
          vectors are not unique: rank · (out + in) numbers beside rank trained ones. Merges exactly; for peft it is a LoRA of \
          the same rank on W0.",
    paper: "Sun et al. 2024 (arXiv 2409.05926); by its abstract, no code being public",
    keys: &[RANK.key(), ON.key()],
};

/// Trained singular values of a site.
fn rank(values: &Values, site: &Site) -> u64 {
    RANK.get(values)
        .unwrap_or_else(|| site.input().min(site.output()))
}

/// A LoRA of a rank.
fn form(rank: u64) -> PeftForm {
    let product = Product {
        rank,
        scale: 1.0,
        dropout: 0.0,
        rs_lora: false,
    };
    PeftForm::lora(product, false)
}

struct Parts {
    u: Value,
    v: Value,
    /// `σ − σ₀`
    moved: Value,
}

fn parts(at: &At<'_>, net: &mut Net<'_>) -> Parts {
    let site = at.site;
    let (output, input, rank) = (site.output(), site.input(), rank(at.values, site));
    let by = Derivation::from(SingularVectors {
        weight: BaseParam::weight(&site.path, [output, input]),
        rank,
    });
    let part = |suffix, shape: &[u64], part| {
        let by = by.clone();
        Param::at(site, suffix)
            .shape(shape)
            .start(Init::Derived { by, part })
    };
    let u = net.tensor(part(LEFT, &[output, rank], SingularVectors::U).frozen());
    let v = net.tensor(part(RIGHT, &[rank, input], SingularVectors::V).frozen());
    let moved = net.tensor(Param::at(site, MOVED).shape(&[rank]));
    Parts { u, v, moved }
}

impl Method for Svfit {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (rank, most) = (RANK.get(values)?, site.input().min(site.output()));
        (rank > most).then(|| Complaint {
            key: RANK.name(),
            code: &RANK_TOO_LARGE,
            message: format!(
                "`rank` is {rank}, but `{}` has {most} singular values",
                site.path
            ),
            help: Some(format!("write at most `rank = {most}`, or leave it out")),
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let p = parts(at, net);
        let z = net.project(x, p.v);
        let scaled = net.b.push1(MulRows, &[z, p.moved]);
        net.project_onto(base, scaled, p.u, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let p = parts(at, net);
        let us = net.b.push1(MulRows, &[p.u, p.moved]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[us, p.v, weight]))
    }

    fn peft(&self, _: &Values) -> Option<PeftForm> {
        Some(form(1))
    }

    fn peft_at(&self, values: &Values, site: &Site) -> Option<PeftForm> {
        Some(form(rank(values, site)))
    }

    /// `A = V`, `B = U diag(σ − σ₀)`.
    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let rank = rank(values, site) as usize;
        let (u, v, moved) = (get(LEFT)?, get(RIGHT)?, get(MOVED)?);
        let rows = u.chunks_exact(rank.max(1));
        let b = rows.flat_map(|row| row.iter().zip(&moved).map(|(u, s)| u * s));
        let (input, output) = (site.input() as usize, site.output() as usize);
        Some(vec![
            ("lora_A.weight".to_owned(), vec![rank, input], v),
            ("lora_B.weight".to_owned(), vec![output, rank], b.collect()),
        ])
    }
}
