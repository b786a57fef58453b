//! SVFT (methods R13): `W = W₀ + U M Vᵀ` of `W₀ = U Σ Vᵀ`, with M trained at few places.

use super::super::derive::{Aligned, Alignment, BaseParam, Derivation, SingularVectors};
use super::super::net::{Init, Param};
use super::super::schema::{Given, Maybe, kind};
use super::lora::ON;
use super::{At, Complaint, Method, Net, Schema, Site, Stacking, Value, Values};
use crate::base::rng::Stream;
use crate::library::error::{BAD_METHOD_VALUES, IDLE_KEY, RANK_TOO_LARGE};
use crate::program::op::{
    Arrange, BinaryKind, Broadcast, MulRows, Places, SparseProduct, UnaryKind,
};

/// Trained coefficients between the singular vectors.
#[derive(Debug)]
pub struct Svft;

const PATTERN: Given<str> = Given::<str>::new(
    "pattern",
    kind::choice(&["banded", "plain", "random", "top_k"]),
    ("plain", "plain"),
    "where M is trained: on its diagonal, on `off_diag` diagonals on each side too, or at as many places, drawn or of the pairs of vectors with the largest scores",
);
const OFF_DIAG: Given<u64> = Given::<u64>::tacit(
    "off_diag",
    kind::int(1, 1 << 16),
    (1, "1"),
    "diagonals on each side of the main one, or as many places",
);
const RANK: Maybe<u64> = Maybe::new(
    "rank",
    kind::WIDTH,
    "singular vectors between which M is, the first; all of them if not written",
);
const SEED: Given<u64> = Given::<u64>::tacit(
    "seed",
    kind::SEED,
    (0, "0"),
    "seed of the random places, which depend on nothing else but the site's name",
);
const SCORE: Given<str> = Given::<str>::tacit(
    "topk_score",
    kind::choice(&["paper", "reference"]),
    ("paper", "paper"),
    "the scores of `top_k`: the paper's products of left and right vectors, of square matrices; or those of the authors' code, which multiplies rows, and which others have anyway",
);
const INIT: Given<str> = Given::<str>::new(
    "init",
    kind::choice(&["normal", "zeros"]),
    ("normal", "normal"),
    "what M starts at: normal of variance 2/k of k places, as the authors' code has it, or zero, which leaves the model unchanged",
);

static SCHEMA: Schema = Schema {
    name: "svft",
    summary: "singular vectors guided fine-tuning: few coefficients between a matrix' own singular vectors are trained",
    doc: "W0 = U Σ Vᵀ is decomposed once; y = x W0ᵀ + σ(g) ((x V) Mᵀ) Uᵀ + b, where the coefficients of M at the places of `pattern` are \
          trained, and the gate g, which starts at 0. That is the paper's U (Σ + M) Vᵀ with W0 kept whole, so a `rank` below the \
          full one loses nothing. U [out, n] and V [n, in] are frozen and adapters keep them, since singular vectors are not \
          unique: about twice a square matrix beside n to 33 n trained numbers, 16 bytes each. By default M starts as in the \
          authors' code, and the model slightly changed. Merges exactly; M is of full rank, so peft has no equal.",
    paper: "Lingam et al. 2024 (arXiv 2405.19597), section 3",
    keys: &[
        PATTERN.key(),
        OFF_DIAG.key(),
        RANK.key(),
        SEED.key(),
        SCORE.key(),
        INIT.key(),
        ON.key(),
    ],
};

/// Singular vectors of a site that M is between.
fn vectors(values: &Values, site: &Site) -> u64 {
    let most = site.input().min(site.output());
    RANK.get(values).map_or(most, |rank| rank.min(most))
}

/// The places of M, row and column, `None` for the diagonal.
fn places(values: &Values, site: &Site) -> Option<Vec<(u64, u64)>> {
    let n = vectors(values, site);
    let off = OFF_DIAG.get(values).min(n - 1);
    let banded =
        (0..n).flat_map(|i| (i.saturating_sub(off)..=(i + off).min(n - 1)).map(move |j| (i, j)));
    match PATTERN.find(values) {
        Some("banded") => Some(banded.collect()),
        Some("random") => {
            let stream = Stream::new(SEED.get(values), &format!("svft/{}", site.path));
            let draw = |i: u64| ((stream.uniform(i) * n as f64) as u64).min(n - 1);
            let k = banded.count() as u64;
            Some((0..k).map(|i| (draw(2 * i), draw(2 * i + 1))).collect())
        }
        _ => None,
    }
}

/// Where M is trained.
enum Where {
    Diagonal,
    Listed(Vec<(u64, u64)>),
    /// By what the weight is, `u32[k]` of places row by row.
    Chosen(Value),
}

struct Parts {
    u: Value,
    v: Value,
    /// `σ(g) m`, a number for each place.
    m: Value,
    places: Where,
    n: u64,
}

/// Places of a band of M.
fn band(values: &Values, site: &Site) -> u64 {
    let n = vectors(values, site);
    let off = OFF_DIAG.get(values).min(n - 1);
    n * (2 * off + 1) - off * (off + 1)
}

/// What the vectors, and the places where the weight says them, are computed by.
fn derivation(values: &Values, site: &Site) -> (Derivation, [usize; 2]) {
    let weight = BaseParam::weight(&site.path, [site.output(), site.input()]);
    let rank = vectors(values, site);
    if PATTERN.get(values) != "top_k" {
        let parts = [SingularVectors::U, SingularVectors::V];
        return (SingularVectors { weight, rank }.into(), parts);
    }
    let by = if SCORE.get(values) == "paper" && site.input() == site.output() {
        Alignment::Products
    } else {
        Alignment::Reference
    };
    let count = band(values, site);
    let by = Aligned {
        weight,
        rank,
        count,
        by,
    };
    (by.into(), [Aligned::U, Aligned::V])
}

fn parts(at: &At<'_>, net: &mut Net<'_>) -> Parts {
    let site = at.site;
    let (output, input) = (site.output(), site.input());
    let n = vectors(at.values, site);
    let (by, [left, right]) = derivation(at.values, site);
    let part = |suffix, shape: &[u64], part| {
        let by = by.clone();
        Param::at(site, suffix)
            .shape(shape)
            .start(Init::Derived { by, part })
            .frozen()
    };
    let u = net.tensor(part("svft_U", &[output, n], left));
    let v = net.tensor(part("svft_V", &[n, input], right));
    let places = if PATTERN.get(at.values) == "top_k" {
        let list = part("svft_places", &[band(at.values, site)], Aligned::PLACES);
        Where::Chosen(net.places(list.of_places()))
    } else {
        places(at.values, site).map_or(Where::Diagonal, Where::Listed)
    };
    let k = match &places {
        Where::Diagonal => n,
        Where::Listed(list) => list.len() as u64,
        Where::Chosen(_) => band(at.values, site),
    };
    let start = if INIT.find(at.values) == Some("zeros") {
        Init::Constant(0.0)
    } else {
        Init::Normal((2.0 / k as f64).sqrt())
    };
    let m = net.tensor(Param::at(site, "svft_M").shape(&[k]).start(start));
    let gate = net.tensor(Param::at(site, "svft_gate").shape(&[1]));
    let gate = net.unary(UnaryKind::Sigmoid, gate);
    let m = net.binary(BinaryKind::Mul, Broadcast::Scalar, m, gate);
    Parts { u, v, m, places, n }
}

/// `z Mᵀ` for `z [N, n]`, or `z M`: each place's column times its coefficient, summed by rows.
fn through(net: &mut Net<'_>, z: Value, p: &Parts, turned: bool) -> Value {
    let places = match &p.places {
        Where::Diagonal => return net.b.push1(MulRows, &[z, p.m]),
        Where::Chosen(ids) => {
            let op = SparseProduct {
                transposed: turned,
                ..SparseProduct::new(Places::entries(p.n, p.n), false)
            };
            return net.b.push1(op, &[z, p.m, *ids]);
        }
        Where::Listed(list) => list
            .iter()
            .map(|&(i, j)| if turned { (j, i) } else { (i, j) }),
    };
    let places: Vec<(u64, u64)> = places.collect();
    let from = places.iter().map(|&(_, column)| [(column, false)]);
    let each = net.arranged(z, Arrange::new(p.n, from));
    let each = net.b.push1(MulRows, &[each, p.m]);
    let mut rows = vec![Vec::new(); p.n as usize];
    for (i, &(row, _)) in places.iter().enumerate() {
        if let Some(terms) = rows.get_mut(row as usize) {
            terms.push((i as u64, false));
        }
    }
    net.arranged(each, Arrange::new(places.len() as u64, rows))
}

impl Method for Svft {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let most = site.input().min(site.output());
        if let Some(rank) = RANK.get(values).filter(|&rank| rank > most) {
            return Some(Complaint {
                key: RANK.name(),
                code: &RANK_TOO_LARGE,
                message: format!(
                    "`rank` is {rank}, but `{}` has {most} singular vectors on each side",
                    site.path
                ),
                help: Some(format!("write at most `rank = {most}`, or leave it out")),
            });
        }
        let idle = |key: &'static str, of: &str| Complaint {
            key,
            code: &IDLE_KEY,
            message: format!("`{key}` says something of {of} alone"),
            help: Some(format!("remove it, or write another `{}`", PATTERN.name())),
        };
        let pattern = PATTERN.find(values);
        if pattern == Some("plain") && OFF_DIAG.is_written(values) {
            return Some(idle(OFF_DIAG.name(), "other patterns"));
        }
        if pattern != Some("top_k") && SCORE.is_written(values) {
            return Some(idle(SCORE.name(), "the pattern `top_k`"));
        }
        let whole = site.input() == site.output() && SCORE.get(values) == "paper";
        if let Some(rank) = RANK.get(values).filter(|&rank| rank < most)
            && pattern == Some("top_k")
            && !whole
        {
            return Some(Complaint {
                key: RANK.name(),
                code: &BAD_METHOD_VALUES,
                message: format!(
                    "`rank` is {rank}, and the scores of `{}` are the numbers of its square matrix of all {most} singular vectors",
                    site.path
                ),
                help: Some("leave `rank` out, or write `pattern = random`".to_owned()),
            });
        }
        (pattern != Some("random") && SEED.is_written(values))
            .then(|| idle(SEED.name(), "random places"))
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let p = parts(at, net);
        let z = net.project(x, p.v);
        let z = through(net, z, &p, false);
        net.project_onto(base, z, p.u, 1.0)
    }

    /// `W + U M Vᵀ`
    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let p = parts(at, net);
        // Rows of U meet M from the other side.
        let um = through(net, p.u, &p, true);
        let update = net.times((um, false), (p.v, false));
        Some(net.add(weight, update))
    }
}
