//! The pair `A [r, in]`, `B [out, r]` of LoRA: how it begins, and at what rates it is learned.

use super::super::derive::{BaseParam, Basis, Derivation, MinorVectors, Residual, Split};
use super::super::net::{Init, Param};
use super::super::schema::{Bound, Given, kind};
use super::lora::{self, RANK};
use super::{
    At, Complaint, Lookup, Net, PeftForm, PeftTensor, Product, Site, Value, Values, eva,
    lora_import,
};
use crate::library::counts::to_u32;
use crate::library::error::{BAD_METHOD_VALUES, CONFLICTING_KEYS};
use crate::program::op::{BinaryKind, Broadcast, Identity, Inverse, MatMul};
use crate::program::{DType, Format, Real};

pub(crate) const INIT: Given<str> = Given::<str>::tacit(
    "init",
    kind::choice(&[
        "kaiming",
        "gaussian",
        "pissa",
        "olora",
        "mica",
        LOFTQ,
        eva::EVA,
    ]),
    ("kaiming", "kaiming"),
    "how A and B start: `kaiming`, A uniform in ±1/√in and B zero; `gaussian`, A normal with standard deviation 1/rank and B zero; `pissa`, both from the first singular triplets of the weight (arXiv 2404.02948); `olora`, from its QR decomposition (arXiv 2406.01775), both of which take the product out of the frozen weight, so that the model starts unchanged; `mica`, B from the weight's last left singular vectors, frozen, and A zero (arXiv 2604.01694); `loftq`, both from the first singular triplets of what rounding the frozen weight to `loftq_format` loses (arXiv 2310.08659); `eva`, A from the principal components of what enters the map, and B zero (arXiv 2410.07170)",
);
/// The start that makes good for what rounding loses.
pub(super) const LOFTQ: &str = "loftq";
pub(crate) const LOFTQ_FORMAT: Given<str> = Given::<str>::tacit(
    "loftq_format",
    kind::choice(&["nf4", "q4_0", "q4_k", "q8_0"]),
    ("nf4", "nf4"),
    "format of the frozen weights under `init = loftq`, whatever the model's own are stored in",
);
pub(crate) const LOFTQ_ITERATIONS: Given<u64> = Given::<u64>::tacit(
    "loftq_iterations",
    kind::int(1, 1000),
    (1, "1"),
    "how often `init = loftq` rounds what the pair leaves and takes the pair of what that loses; 5 is usual",
);
pub(crate) const RATE_B: Given<f64> = Given::<f64>::tacit(
    "rate_b",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1.0, "1"),
    "factor of the learning rate for B (LoRA+, arXiv 2402.12354; 16 is usual)",
);
pub(crate) const RATE_VECTORS: Given<bool> = Given::<bool>::tacit(
    "rate_vectors",
    kind::BOOL,
    (false, "false"),
    "whether `rate_b` is also that of every trained vector, such as a head's bias, as in peft's optimizer for LoRA+",
);

pub(crate) const FROZEN_A: Given<bool> = Given::<bool>::tacit(
    "lora_fa",
    kind::BOOL,
    (false, "false"),
    "whether A stays as it began, and B learns from its gradient times (AAᵀ)⁻¹/s², as LoRA-FA has it (arXiv 2308.03303)",
);

/// What the product is taken out of the weight by, if the weight is split at the start.
fn basis(values: &Values) -> Option<Basis> {
    match INIT.get(values) {
        "pissa" => Some(Basis::Singular),
        "olora" => Some(Basis::Orthogonal),
        _ => None,
    }
}

/// The format of the weight under LoftQ.
fn rounded(values: &Values) -> Option<Format> {
    let named = Format::named(LOFTQ_FORMAT.get(values));
    named.filter(|_| INIT.get(values) == LOFTQ)
}

/// The start that freezes B.
pub(super) const MICA: &str = "mica";

/// Whether what is left of the weight stands in its place.
pub(super) fn splits(values: &Values) -> bool {
    basis(values).is_some() || rounded(values).is_some()
}

fn derivation(site: &Site, values: &Values) -> Option<Derivation> {
    let weight = BaseParam::weight(&site.path, [site.output(), site.input()]);
    let (rank, scale) = (RANK.get(values), Real::new(lora::scale(values)));
    if let Some(format) = rounded(values).and_then(Format::blocks) {
        let by = Residual {
            weight,
            rank,
            scale,
            format,
            turns: LOFTQ_ITERATIONS.get(values),
        };
        return Some(by.into());
    }
    let by = Split {
        weight,
        rank,
        scale,
        basis: basis(values)?,
    };
    Some(by.into())
}

/// What is left of the weight `[out, in]`, if it was split.
pub(super) fn rest(at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
    let site = at.site;
    let by = derivation(site, at.values)?;
    let name = by.rule().source().name.clone();
    let part = Split::REST;
    let rest = Param::at(site, "lora_W")
        .shape(&[site.output(), site.input()])
        .start(Init::Derived { by, part })
        .stored_in(rounded(at.values));
    Some(net.tensor(rest.frozen().replacing(name).unsaved()))
}

/// `A [r, in]` and `B [out, r]` under peft's names.
pub(super) fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    if eva::begins(at.values) {
        return eva::factors(at, net);
    }
    let (site, rank) = (at.site, RANK.get(at.values));
    let a = Param::at(site, "lora_A.weight").shape(&[rank, site.input()]);
    let b = Param::at(site, "lora_B.weight").shape(&[site.output(), rank]);
    let b = b.rate(RATE_B.get(at.values));
    if INIT.get(at.values) == MICA {
        let weight = BaseParam::weight(&site.path, [site.output(), site.input()]);
        let by = MinorVectors { weight, rank }.into();
        let b = b.frozen().start(Init::Derived { by, part: 0 });
        return (net.tensor(a), net.tensor(b));
    }
    let (a, b) = match derivation(site, at.values) {
        Some(by) => {
            let part = |part| {
                let by = by.clone();
                Init::Derived { by, part }
            };
            let (a, b) = (a.start(part(Split::A)), b.start(part(Split::B)));
            match basis(at.values) {
                Some(_) => (a.keep_start(), b.keep_start()),
                None => (a, b),
            }
        }
        None if INIT.get(at.values) == "gaussian" => (a.start(Init::Normal(1.0 / rank as f64)), b),
        None => {
            let bound = 1.0 / (site.input() as f64).sqrt();
            (a.start(Init::Uniform(bound)), b)
        }
    };
    if !FROZEN_A.get(at.values) {
        return (net.tensor(a), net.tensor(b));
    }
    let (a, b) = (net.tensor(a.frozen()), net.tensor(b));
    (a, projected(at, net, a, b))
}

/// B, whose gradient is multiplied by `(A Aᵀ)⁻¹ / s²` (LoRA-FA): with C the product of B and that, the sum of C and of
/// B − C as a constant.
fn projected(at: &At<'_>, net: &mut Net<'_>, a: Value, b: Value) -> Value {
    if !net.is_training() {
        return b;
    }
    let n = to_u32(RANK.get(at.values));
    let identity = net.b.push1(
        Identity {
            n,
            dtype: DType::F32,
        },
        &[],
    );
    let gram = net.times((a, false), (a, true));
    let beyond = net.binary(BinaryKind::Sub, Broadcast::Full, gram, identity);
    let inverse = net.b.push1(Inverse, &[beyond]);
    let scale = lora::scale(at.values);
    let op = MatMul::plain(false, false, Real::new(1.0 / (scale * scale)));
    let moved = net.b.push1(op, &[b, inverse]);
    let rest = net.binary(BinaryKind::Sub, Broadcast::Full, b, moved);
    let rest = net.detach(rest);
    net.add(moved, rest)
}

/// What is wrong with how the pair begins or learns, if anything.
pub(super) fn check(values: &Values, site: &Site) -> Option<Complaint> {
    if let Some(format) = rounded(values).filter(|f| !f.fits(site.input())) {
        return Some(Complaint {
            key: LOFTQ_FORMAT.name(),
            code: &CONFLICTING_KEYS,
            message: format!(
                "`{}` has rows of {} numbers, which are no whole blocks of {format}",
                site.path,
                site.input()
            ),
            help: Some("write another `loftq_format`, or place the method elsewhere".to_owned()),
        });
    }

    let init = INIT.get(values);
    let wrong = |key: &'static str, message: String, help: &str| {
        Some(Complaint {
            key,
            code: &BAD_METHOD_VALUES,
            message,
            help: Some(help.to_owned()),
        })
    };
    if FROZEN_A.get(values) && !matches!(init, "kaiming" | "gaussian") {
        let message = format!("`lora_fa` freezes A as it is drawn, and `init = {init}` draws none");
        return wrong(FROZEN_A.name(), message, "remove one of the two");
    }
    let idle = [
        (LOFTQ_FORMAT.name(), LOFTQ_FORMAT.is_written(values)),
        (LOFTQ_ITERATIONS.name(), LOFTQ_ITERATIONS.is_written(values)),
    ];
    if let Some((key, _)) = idle.iter().find(|(_, written)| *written && init != LOFTQ) {
        let message = format!("`{key}` has no effect without `init = loftq`");
        return wrong(key, message, "write `init = loftq`, or remove the key");
    }
    if init == MICA && RATE_B.get(values) != 1.0 {
        let message = "`rate_b` is the rate of B, which `init = mica` freezes".to_owned();
        return wrong(RATE_B.name(), message, "remove `rate_b`");
    }
    None
}

/// Factor of the rate of a parameter that is no part of the pair.
pub(super) fn rate(values: &Values, param: &Param) -> f64 {
    let own = param.name.ends_with(".lora_B.weight");
    if RATE_VECTORS.get(values) && param.shape.len() == 1 && !own {
        RATE_B.get(values)
    } else {
        1.0
    }
}

/// Says in peft's format how the pair began, where that says what is trained.
pub(super) fn say_start(values: &Values, form: &mut PeftForm) {
    if INIT.get(values) == MICA {
        form.keys.retain(|(key, _)| *key != lora_import::INIT);
        form.keys.push((lora_import::INIT, MICA.into()));
    }
}

/// The update against the model's own weight, as peft has it: of twice the rank where that was split.
pub(super) fn product(values: &Values) -> Product {
    let rank = RANK.get(values);
    Product {
        rank: if basis(values).is_some() {
            2 * rank
        } else if eva::begins(values) {
            eva::room(values)
        } else {
            rank
        },
        scale: lora::scale(values),
        dropout: lora::DROPOUT.get(values),
        rs_lora: lora::RS_LORA.get(values),
    }
}

/// The pair under peft's names; where the weight was split `[A; A⁰]` and `[B | −B⁰]`, the change against it.
pub(super) fn peft_tensors(
    values: &Values,
    site: &Site,
    get: &Lookup<'_>,
) -> Option<Vec<PeftTensor>> {
    let (mut rank, input, output) = (
        RANK.get(values) as usize,
        site.input() as usize,
        site.output() as usize,
    );
    if eva::begins(values) {
        return eva::peft_tensors(values, site, get);
    }
    let (mut a, mut b) = (get("lora_A.weight")?, get("lora_B.weight")?);
    if basis(values).is_some() {
        a.extend(get("initial:lora_A.weight")?);
        let first = get("initial:lora_B.weight")?;
        let rows = b.chunks_exact(rank).zip(first.chunks_exact(rank));
        b = rows
            .flat_map(|(new, old)| new.iter().copied().chain(old.iter().map(|x| -x)))
            .collect();
        rank *= 2;
    }
    Some(vec![
        ("lora_A.weight".to_owned(), vec![rank, input], a),
        ("lora_B.weight".to_owned(), vec![output, rank], b),
    ])
}
