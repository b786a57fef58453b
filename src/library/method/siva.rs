//! SiVA, singular value adaptation (methods R4; Report, section 3.1, eqs 5–12):
//! `y = x W_rᵀ + ((x V_tᵀ) ⊙ S_t) U_tᵀ + b`, with `W₀ = U Σ V`, the top `rank` vectors trained and
//! the rest of the decomposition frozen in `W_r`.

use super::super::derive::{BaseParam, Derivation, Svd};
use super::super::net::{Init, Param};
use super::super::schema::{Given, Maybe, kind};
use super::lora::check_rank;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site, Stacking,
    Value, Values,
};
use crate::library::error::{CONFLICTING_KEYS, RANK_ABOVE_DECOMPOSITION};
use crate::library::placement::Placement;
use crate::program::op::{Epilogue, MatMul, MulRows};
use crate::program::{DType, Format, Real};

/// Trained singular vectors on a frozen remainder.
#[derive(Debug)]
pub struct Siva;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (4, "4"),
    "number r of trained singular vectors on each side",
);
const DECOMPOSITION: Maybe<u64> = Maybe::new(
    "decomposition",
    kind::WIDTH,
    "decomposition rank d: triplets kept in all; everything if not written",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "{attention.{query, key, value, output}, ffn.{up, down}}",
    "which linear maps are decomposed",
);

const TAIL: Maybe<str> = Maybe::new(
    "tail",
    kind::choice(&["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "nf4"]),
    "format in which the rest of each decomposition is stored; as the model's own matrices if not written, but in f32 where those are in \
          blocks. Rounding it changes the model a little, before anything is trained",
);

/// The format of the rest, where one is written.
fn tail(values: &Values) -> Option<Format> {
    TAIL.get(values).and_then(Format::named)
}

static SCHEMA: Schema = Schema {
    name: "siva",
    summary: "singular value adaptation: the top singular vectors of each matrix are trained",
    doc: "W0 = U Σ V is decomposed once. The top `rank` left and right vectors are trained with their singular values \
          as a fixed middle factor; the rest of the decomposition is a frozen matrix that takes W0's place in memory. \
          With `decomposition` below the matrix's full rank the smallest triplets are dropped: lossy, and the model \
          starts changed. Merges exactly; exported for peft as a LoRA of rank 2·rank on the original weights when \
          nothing was dropped, else as merged weights. `tail = nf4` stores the rest in four bits (QSiVA): the largest singular values are \
          taken out of it first, so that rounding loses less than of W0. Then there is no LoRA that does the same.",
    paper: "Say, Coşlu and Gudelj 2023, \"Reducing Training Resource Cost by Selective Parameter Updating\", section 3.1; related: PiSSA (arXiv 2404.02948), Spectral Adapter",
    keys: &[RANK.key(), DECOMPOSITION.key(), TAIL.key(), ON.key()],
};

struct Parts {
    rest: Value,
    u: Value,
    s: Value,
    v: Value,
}

fn parts(at: &At<'_>, net: &mut Net<'_>) -> Parts {
    let (site, rank) = (at.site, RANK.get(at.values));
    let (output, input) = (site.output(), site.input());
    let keep = DECOMPOSITION.get(at.values);
    let weight = BaseParam::weight(&site.path, [output, input]);
    let name = weight.name.clone();
    let svd = Svd {
        weight,
        rank,
        keep: keep.filter(|&d| d < input.min(output)),
    };
    let lossy = svd.keep.is_some();
    let by = Derivation::from(svd);
    let part = |suffix, shape: &[u64], part| {
        let by = by.clone();
        Param::at(site, suffix)
            .shape(shape)
            .start(Init::Derived { by, part })
    };
    let rest = part("siva_W", &[output, input], Svd::REST);
    let rest = rest.frozen().replacing(name).stored_in(tail(at.values));
    Parts {
        // What a lossy decomposition leaves is not to be had from the weight and the vectors alone.
        rest: net.tensor(if lossy { rest } else { rest.unsaved() }),
        u: net.tensor(part("siva_U", &[output, rank], Svd::U).keep_start()),
        s: net.tensor(part("siva_S", &[rank], Svd::S).frozen()),
        v: net.tensor(part("siva_V", &[rank, input], Svd::V).keep_start()),
    }
}

impl Method for Siva {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        if let Some(format) = tail(values) {
            let blamed = |message: String, help: &str| {
                Some(Complaint {
                    key: "tail",
                    code: &CONFLICTING_KEYS,
                    message,
                    help: Some(help.to_owned()),
                })
            };
            if DECOMPOSITION.get(values).is_some() {
                return blamed(
                    "`tail` rounds the rest, and `decomposition` takes something from it that adapters keep exactly".to_owned(),
                    "keep one of them",
                );
            }
            if !format.fits(site.input()) {
                return blamed(
                    format!(
                        "`{}` has rows of {} numbers, which are no whole blocks of {format}",
                        site.path,
                        site.input()
                    ),
                    "write another `tail`, or place the method elsewhere",
                );
            }
        }
        check_rank(values, &RANK, site).or_else(|| {
            let (rank, keep) = (RANK.get(values), DECOMPOSITION.get(values)?);
            (rank > keep).then(|| Complaint {
                key: "rank",
                code: &RANK_ABOVE_DECOMPOSITION,
                message: format!("`rank` is {rank}, but only {keep} singular triplets are kept"),
                help: Some(format!(
                    "write at most `rank = {keep}`, or a larger `decomposition`"
                )),
            })
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Base
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let p = parts(at, net);
        let base = net.affine(at.site, x, p.rest);
        let z = net.project(x, p.v);
        let scaled = net.b.push1(MulRows, &[z, p.s]);
        net.project_onto(base, scaled, p.u, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let p = parts(at, net);
        let us = net.b.push1(MulRows, &[p.u, p.s]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[us, p.v, p.rest]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        if DECOMPOSITION.get(values).is_some() || tail(values).is_some_and(|f| f != DType::F32) {
            return None; // the adapter on W0 would not give what was dropped, or rounded
        }
        let product = Product {
            rank: 2 * RANK.get(values),
            scale: 1.0,
            dropout: 0.0,
            rs_lora: false,
        };
        Some(PeftForm::lora(product, false))
    }

    /// `A = [V; V⁰]`, `B = [U∘S | −U⁰∘S]`: the change against `W₀` as a product of rank `2r`.
    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (r, input, output) = (
            RANK.get(values) as usize,
            site.input() as usize,
            site.output() as usize,
        );
        let (u, s, v) = (get("siva_U")?, get("siva_S")?, get("siva_V")?);
        let (u0, v0) = (get("initial:siva_U")?, get("initial:siva_V")?);
        let a = [v, v0].concat();
        let mut b = Vec::with_capacity(output * 2 * r);
        for (new, old) in u.chunks_exact(r).zip(u0.chunks_exact(r)) {
            b.extend(new.iter().zip(&s).map(|(x, s)| x * s));
            b.extend(old.iter().zip(&s).map(|(x, s)| -x * s));
        }
        Some(vec![
            ("lora_A.weight".to_owned(), vec![2 * r, input], a),
            ("lora_B.weight".to_owned(), vec![output, 2 * r], b),
        ])
    }
}
