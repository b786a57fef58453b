//! Householder reflection adaptation: `y = x Hᵣ … H₁ W₀ᵀ + b` with `Hᵢ = I − 2 uᵢ uᵢᵀ` of unit vectors.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, kind};
use super::lora::{ON, RANK, check_rank};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::program::op::{
    Arrange, BinaryKind, Broadcast, Inverse, MulRows, Over, ReduceKind, UnaryKind,
};

/// Reflections of a map's input.
#[derive(Debug)]
pub struct Hra;

/// The vectors' name in peft's format.
const VECTORS: &str = "hra_u";

const ORTHOGONAL: Given<bool> = Given::<bool>::new(
    "orthogonal",
    kind::BOOL,
    (false, "false"),
    "make the vectors orthogonal to each other first, as Gram and Schmidt do (peft's `apply_GS`)",
);

static SCHEMA: Schema = Schema {
    name: "hra",
    summary: "Householder reflection adaptation: the input of each matrix goes through a few trained reflections",
    doc: "y = x Hr … H1 W0ᵀ + b with Hi = I − 2 ui uiᵀ and ui the columns of U [in, rank] over their lengths. Uniform in ±1/√rank, \
          and where `rank` is even alike in pairs, in ±1/√(rank/2), so that each reflection undoes the one before and the model starts \
          unchanged. The product is formed as I − Û T Ûᵀ with T [rank, rank] an inverse, so that rows of x meet two \
          thin products. With `orthogonal = true` it is I − 2 Û (ÛᵀÛ)⁻¹ Ûᵀ of vectors that are drawn apart: the model starts \
          changed. Merges exactly; 16 bytes a trained parameter. In peft it is HRA.",
    paper: "Yuan et al. 2024 (arXiv 2405.17484)",
    keys: &[RANK.key(), ORTHOGONAL.key(), ON.key()],
};

/// `Û [in, r]` and `T [r, r]` of `I − Û T Ûᵀ = H₁ … Hᵣ`.
fn parts(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (rank, orthogonal) = (RANK.get(at.values), ORTHOGONAL.get(at.values));
    // peft's `kaiming_uniform` counts the columns that are drawn as what goes in.
    let bound = |columns: u64| 1.0 / (columns as f64).sqrt();
    let start = if rank.is_multiple_of(2) && !orthogonal {
        Init::UniformPairs(bound(rank / 2))
    } else {
        Init::Uniform(bound(rank))
    };
    let own = Param::at(at.site, VECTORS).shape(&[at.site.input(), rank]);
    let own = net.tensor(own.start(start));
    let squares = net.reduce(ReduceKind::SumOfSquares, Over::Rows, own);
    let lengths = net.unary(UnaryKind::Rsqrt, squares);
    let unit = net.b.push1(MulRows, &[own, lengths]);
    let gram = net.times((unit, true), (unit, false));
    let gram = net.reshaped(gram, 1, rank * rank);
    // T⁻¹ is half the identity and what stands above the diagonal of ÛᵀÛ; where the vectors are made orthogonal, half of all.
    let keep = |i: u64| match orthogonal {
        true => i / rank != i % rank,
        false => i / rank < i % rank,
    };
    let places = (0..rank * rank).map(|i| keep(i).then_some((i, false)));
    let off = net.arranged(gram, Arrange::new(rank * rank, places));
    let off = net.reshaped(off, rank, rank);
    let off = net.scaled(off, if orthogonal { 1.0 } else { 2.0 });
    let inverse = net.b.push1(Inverse, &[off]);
    (unit, net.scaled(inverse, 2.0))
}

/// `x − x Û T Ûᵀ`, or with the transpose of T.
fn reflected(
    net: &mut Net<'_>,
    x: Value,
    (unit, middle): (Value, Value),
    transposed: bool,
) -> Value {
    let z = net.times((x, false), (unit, false));
    let z = net.times((z, false), (middle, transposed));
    let z = net.times((z, false), (unit, true));
    net.binary(BinaryKind::Sub, Broadcast::Full, x, z)
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("apply_GS", Used),
    ("bias", Only(&["\"none\""])),
    ("init_weights", WithoutEffect(BEGAN)),
    ("r", WithoutEffect("the shapes of the tensors say it")),
];

impl Method for Hra {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        check_rank(values, &RANK, site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let parts = parts(at, net);
        // Rows meet the last reflection first.
        let x = reflected(net, x, parts, true);
        at.linear(net, x)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let parts = parts(at, net);
        Some(reflected(net, weight, parts, false))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "HRA",
            keys: vec![
                ("apply_GS", json!(ORTHOGONAL.get(values))),
                ("bias", json!("none")),
                ("exclude_modules", json!(null)),
                ("init_weights", json!(true)),
                ("layers_pattern", json!(null)),
                ("layers_to_transform", json!(null)),
                ("r", json!(RANK.get(values))),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "HRA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let orthogonal = file.config().flag("apply_GS", false)?;
        for place in file.places()? {
            place.only(&[VECTORS])?;
            let name = place.name(VECTORS);
            let rank = file.shape(&name).and_then(|s| s.get(1)).copied();
            let rank = rank.unwrap_or_default();
            file.take(&name, place.own(VECTORS), &[place.site.input(), rank])?;
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (ORTHOGONAL.name(), Checked::Bool(orthogonal)),
            ];
            file.put(&Hra, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let shape = vec![site.input() as usize, RANK.get(values) as usize];
        Some(vec![(VECTORS.to_owned(), shape, get(VECTORS)?)])
    }
}
