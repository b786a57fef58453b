//! LoRA (methods R1): `y = x W₀ᵀ + b + s · (Drop(x) Aᵀ) Bᵀ`, `A: [r, in]`, `B: [out, r]`.

use serde_json::{Map, Value as Json};

use super::super::net::{Param, ParamKind, Role};
use super::super::peft::{Keys, Misfit, Reading};
use super::super::schema::{Bound, ByPlace, Given, Kind, Maybe, kind};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, eva, lora_import, pair, table,
};
use crate::library::error::RANK_TOO_LARGE;
use crate::library::placement::Placement;
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast, Epilogue, MatMul};

/// Low-rank additive update.
#[derive(Debug)]
pub struct Lora;

// Keys of every method with LoRA's tensors.
pub(crate) const RANK: Given<u64> =
    Given::<u64>::new("rank", kind::WIDTH, (8, "8"), "rank r of the update");
pub(crate) const ALPHA: Given<f64> = Given::<f64>::new(
    "alpha",
    kind::float(Bound::Excl(0.0), Bound::None),
    (8.0, "8"),
    "scale: the update is multiplied by alpha / rank",
);
/// Ranks of places that differ from the others.
pub(crate) const RANKS: Maybe<ByPlace> = Maybe::new(
    "ranks",
    kind::by_place(&Kind::Int(1, kind::WIDEST)),
    "ranks of some of the places: a map from placement, in quotes, to rank; the first that matches counts, and `rank` is that of all others",
);
/// Scales of places that differ from the others.
pub(crate) const ALPHAS: Maybe<ByPlace> = Maybe::new(
    "alphas",
    kind::by_place(&Kind::Float(Bound::Excl(0.0), Bound::None)),
    "values of `alpha` of some of the places, as `ranks` has them",
);
pub(crate) const DROPOUT: Given<f64> = Given::<f64>::new(
    "dropout",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "dropout on the adapter's input",
);
pub(crate) const RS_LORA: Given<bool> = Given::<bool>::new(
    "rs_lora",
    kind::BOOL,
    (false, "false"),
    "scale by alpha / √rank instead",
);
pub(crate) const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "attention.{query, value}",
    "which linear maps get an adapter",
);

/// A bias behind B.
pub(super) const LORA_BIAS: Given<bool> = Given::<bool>::tacit(
    "lora_bias",
    kind::BOOL,
    (false, "false"),
    "train a bias behind B too, which is scaled as the update is; it does not fold into weights",
);
/// Its name in peft's format.
pub(super) const B_BIAS: &str = "lora_B.bias";

pub(crate) const START: Maybe<str> = Maybe::new(
    "start",
    kind::STR,
    "directory of a peft LoRA adapter to start from, relative to the recipe; rank, alpha, scaling, placement and saved modules are then the adapter's, and so is dropout where it is not written",
);
pub(crate) const MODULES_TO_SAVE: Maybe<[String]> = Maybe::new(
    "modules_to_save",
    kind::NAMES,
    "modules trained whole beside the update, by their paths or ends of them, and kept with the adapter; the head always is",
);

static SCHEMA: Schema = Schema {
    name: "lora",
    summary: "low-rank adaptation: a trained product B·A beside each frozen matrix",
    doc: "y = x W0ᵀ + b + s · (dropout(x) Aᵀ) Bᵀ with A [rank, in] and B [out, rank], which start as `init` says, so that the \
          model starts unchanged. s = alpha / rank, or alpha / √rank with `rs_lora`. With `init = pissa` or `olora` what is left \
          of W0 takes its place in memory, and peft's format gets the change as a LoRA of rank 2·rank on W0. With `init = loftq` the frozen \
          weights are stored in blocks and the pair begins as what that loses: nothing but a merged model holds both. With `init = eva` A \
          begins with the principal components of what enters the map in the first epoch's micro-batches, the largest first, until all that \
          count are known, and ranks are shared out among the maps by the variance that components explain: a pair has room for \
          `eva_rho` times its rank, and what it does not get stays zero. Merges exactly \
          into plain weights and is written in peft's format. On a table of embeddings (`embeddings.word`), A has a column for \
          each row of the table and starts at zero, B is normal, and there is no dropout. On the head of a language model \
          (`lm_head.decoder`) the product is added to its matrix. Where head and embeddings are one matrix, each of them is changed \
          alone, as in peft, and nothing can be merged; with `tied = true` the head reads the pair on the embeddings, too.",
    paper: "Hu et al. 2021 (arXiv 2106.09685); rsLoRA: Kalajdzievski 2023 (arXiv 2312.03732)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        RANKS.key(),
        ALPHAS.key(),
        DROPOUT.key(),
        RS_LORA.key(),
        LORA_BIAS.key(),
        pair::INIT.key(),
        pair::LOFTQ_FORMAT.key(),
        pair::LOFTQ_ITERATIONS.key(),
        eva::RHO.key(),
        eva::TAU.key(),
        eva::WHITEN.key(),
        eva::SCALES.key(),
        eva::LEARNED.key(),
        pair::FROZEN_A.key(),
        pair::RATE_B.key(),
        pair::RATE_VECTORS.key(),
        table::RATE.key(),
        table::TIED.key(),
        START.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// `base + s · (Drop(x) Aᵀ) Bᵀ`
pub(super) fn add_update(at: &At<'_>, net: &mut Net<'_>, base: Value, x: Value) -> Value {
    let (a, bt) = pair::factors(at, net);
    let dropped = net.dropout_before(x, DROPOUT.get(at.values), a);
    let z = net.project(dropped, a);
    net.project_onto(base, z, bt, scale(at.values))
}

/// `W + s · B A`
pub(super) fn add_product(at: &At<'_>, net: &mut Net<'_>, weight: Value) -> Value {
    let (a, b) = pair::factors(at, net);
    let op = MatMul {
        epilogue: Epilogue::Accumulate,
        ..MatMul::plain(false, false, Real::new(scale(at.values)))
    };
    net.b.push1(op, &[b, a, weight])
}

/// The factor of the update.
#[must_use]
pub(super) fn scale(values: &Values) -> f64 {
    let rank = RANK.get(values) as f64;
    ALPHA.get(values)
        / if RS_LORA.get(values) {
            rank.sqrt()
        } else {
            rank
        }
}

/// The complaint about a rank larger than the matrix, if it is.
pub(super) fn check_rank(values: &Values, of: &Given<u64>, site: &Site) -> Option<Complaint> {
    let key = of.name();
    let (rank, most) = (of.get(values), site.input().min(site.output()));
    (rank > most).then(|| Complaint {
        key,
        code: &RANK_TOO_LARGE,
        message: format!(
            "`{key}` is {rank}, but `{}` is a matrix of {} × {}",
            site.path,
            site.output(),
            site.input()
        ),
        help: Some(format!("write at most `{key} = {most}`")),
    })
}

impl Method for Lora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        check_rank(values, &RANK, site)
            .or_else(|| pair::check(values, site))
            .or_else(|| eva::check(values, site))
            .or_else(|| table::check(values, site))
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn stacking_with(&self, values: &Values) -> Stacking {
        if pair::splits(values) {
            Stacking::Base
        } else {
            Stacking::Over
        }
    }

    fn rate(&self, values: &Values, param: &Param) -> f64 {
        pair::rate(values, param)
    }

    /// Linear maps, tables of embeddings, and the head of a language model.
    fn fits(&self, site: &Site) -> bool {
        site.is_linear() || table::is_table(site)
    }

    fn embedded(&self, at: &At<'_>, net: &mut Net<'_>, rows: Value) -> Value {
        table::embedded(at, net, rows)
    }

    fn tabled(&self, at: &At<'_>, net: &mut Net<'_>, table: Value) -> Value {
        if !self.ties(at.values) {
            return table;
        }
        let table = net.widen(table);
        table::added(at, net, table)
    }

    fn ties(&self, values: &Values) -> bool {
        table::TIED.get(values)
    }

    fn check_sites(&self, values: &Values, sites: &[&Site]) -> Option<Complaint> {
        table::check_sites(values, sites)
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = match pair::rest(at, net) {
            Some(rest) => net.affine(at.site, x, rest),
            None => at.linear(net, x),
        };
        let sum = add_update(at, net, base, x);
        if !LORA_BIAS.get(at.values) {
            return sum;
        }
        let bias = Param::at(at.site, B_BIAS).shape(&[at.site.output()]);
        let bias = net.tensor(bias.kind(ParamKind::Bias));
        let bias = net.scaled(bias, scale(at.values));
        net.binary(BinaryKind::Add, Broadcast::Row, sum, bias)
    }

    /// A bias of B's is in no weight.
    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        if LORA_BIAS.get(at.values) {
            return None;
        }
        if table::is_table(at.site) {
            let own = at.weight(net)?;
            return Some(table::added(at, net, own));
        }
        let weight = match pair::rest(at, net) {
            Some(rest) => rest,
            None => at.weight(net)?,
        };
        Some(add_product(at, net, weight))
    }

    /// peft's LoftQ rounds the weight with another quantiser, so that its adapter would be of another base.
    fn peft(&self, values: &Values) -> Option<PeftForm> {
        if pair::INIT.get(values) == pair::LOFTQ {
            return None;
        }
        let mut form = PeftForm::lora(pair::product(values), false);
        pair::say_start(values, &mut form);
        if self.ties(values) {
            form.keys.push((lora_import::TYING, true.into()));
        }
        if LORA_BIAS.get(values) {
            form.keys.push(("lora_bias", true.into()));
        }
        Some(form)
    }

    fn peft_at(&self, values: &Values, site: &Site) -> Option<PeftForm> {
        let tied = self.ties(values) && site.role == Role::WordEmbedding;
        self.peft(values)
            .filter(|_| !tied || table::peft_ties(&site.path))
    }

    fn peft_keys(&self, kind: &str, config: &Map<String, Json>) -> Option<Keys> {
        let dora = config.get("use_dora") == Some(&Json::Bool(true));
        let of_others =
            |config| lora_import::is_kasa(config) || lora_import::is_block_diagonal(config);
        match kind {
            "LORA" if !dora && !of_others(config) => Some(lora_import::KEYS),
            _ => None,
        }
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        lora_import::read(file, &Lora, (&[], |_, _, _| Ok(Vec::new())))
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        if table::is_table(site) {
            return table::peft_tensors(values, site, get);
        }
        let mut tensors = pair::peft_tensors(values, site, get)?;
        if LORA_BIAS.get(values) {
            let output = site.output() as usize;
            tensors.push((B_BIAS.to_owned(), vec![output], get(B_BIAS)?));
        }
        Some(tensors)
    }
}
