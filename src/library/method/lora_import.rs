//! Adapters of peft's type `LORA`, as `lora` and `dora` read them.

use serde_json::{Map, Value as Json};

use super::lora::{ALPHA, B_BIAS, DROPOUT, LORA_BIAS, Lora, RANK, RS_LORA};
use super::{Method, columns, pair, rows_import, table};
use crate::library::net::{ParamKind, Role};
use crate::library::peft::Fate::{Refused, Used, WithoutEffect};
use crate::library::peft::{
    Config, Edit, HeadUpdate, Keys, Misfit, Patterns, Place, Reading, START as BEGAN,
};
use crate::library::schema::Checked;

/// The keys of peft's `LoraConfig`, up to 0.21, and those that older versions wrote.
pub(super) const KEYS: Keys = &[
    ("alora_invocation_tokens", Refused),
    ("alpha_pattern", Used),
    ("arrow_config", Refused),
    ("bias", Used),
    ("corda_config", WithoutEffect(BEGAN)),
    (
        "enable_lora",
        WithoutEffect("of fused projections, which these models do not have"),
    ),
    (TYING, Used),
    ("eva_config", WithoutEffect(BEGAN)),
    (INIT, Used),
    (KASA, Used),
    ("layer_replication", Refused),
    (
        "loftq_config",
        WithoutEffect("read beside `init_lora_weights` only"),
    ),
    ("lora_alpha", Used),
    ("lora_bias", Used),
    ("lora_dropout", Used),
    ("lora_ga_config", WithoutEffect(BEGAN)),
    ("megatron_config", Refused),
    (
        "megatron_core",
        WithoutEffect("read beside `megatron_config` only"),
    ),
    (
        "merge_weights",
        WithoutEffect("when peft folded the product in, not what it is"),
    ),
    ("monteclora_config", Refused),
    (
        "qalora_group_size",
        WithoutEffect("read beside `use_qalora` only"),
    ),
    ("r", Used),
    ("rank_pattern", Used),
    ("runtime_config", WithoutEffect("how peft runs")),
    ("target_parameters", Used),
    ("trainable_token_indices", Used),
    (BLOCK_DIAGONAL, Used),
    ("use_dora", Used),
    ("use_qalora", Refused),
    ("use_rslora", Used),
    (
        "velora_config",
        WithoutEffect("changes the backward pass of a training only"),
    ),
];

/// The key of whether a decoder reads the pair on its table.
pub(super) const TYING: &str = "ensure_weight_tying";
/// The key of how the pairs began.
pub(super) const INIT: &str = "init_lora_weights";
/// The key of KaSA's weights in the loss, which says that an adapter is one.
pub(super) const KASA: &str = "kasa_config";

/// The key of block-diagonal factors, which says that an adapter has such.
pub(super) const BLOCK_DIAGONAL: &str = "use_bdlora";

/// Whether an adapter has block-diagonal factors.
pub(super) fn is_block_diagonal(config: &Map<String, Json>) -> bool {
    config.get(BLOCK_DIAGONAL).is_some_and(|own| !own.is_null())
}

/// Whether an adapter is KaSA's.
pub(super) fn is_kasa(config: &Map<String, Json>) -> bool {
    config.get(KASA).is_some_and(|own| !own.is_null())
}

/// The sizes of an adapter of peft's at each of its modules.
struct Sizes {
    rank: u64,
    alpha: f64,
    ranks: Patterns<u64>,
    alphas: Patterns<f64>,
    dropout: f64,
    rs_lora: bool,
}

impl Sizes {
    fn read(config: &Config) -> Result<Self, Misfit> {
        let alpha = config.number("lora_alpha", 8.0)?;
        if alpha <= 0.0 {
            let what = format!("`lora_alpha` must be above 0, not {alpha}");
            return Err(Misfit::of_config(what));
        }
        Ok(Self {
            rank: config.positive("r", 8)?,
            alpha,
            ranks: config.patterns("rank_pattern", |v| v.as_u64().filter(|&r| r > 0))?,
            alphas: config.patterns("alpha_pattern", |v| v.as_f64().filter(|&a| a > 0.0))?,
            dropout: config.rate("lora_dropout")?,
            rs_lora: config.flag("use_rslora", false)?,
        })
    }

    /// Rank and alpha of a module.
    fn of(&self, module: &str) -> (u64, f64) {
        let rank = self.ranks.of(module).unwrap_or(self.rank);
        (rank, self.alphas.of(module).unwrap_or(self.alpha))
    }

    /// The values of a method with such a pair.
    fn values(&self, (rank, alpha): (u64, f64)) -> Own {
        vec![
            (RANK.name(), Checked::Int(rank)),
            (ALPHA.name(), Checked::Float(alpha)),
            (RS_LORA.name(), Checked::Bool(self.rs_lora)),
            (DROPOUT.name(), Checked::Float(self.dropout)),
        ]
    }

    /// The factor of a module's update.
    fn scale(&self, module: &str) -> f64 {
        let (rank, alpha) = self.of(module);
        let rank = rank as f64;
        alpha / if self.rs_lora { rank.sqrt() } else { rank }
    }
}

/// What a start has taken out of the weights below the pairs.
#[derive(Clone, Copy, PartialEq)]
enum Taken {
    Nothing,
    Top,
    First,
}

impl Taken {
    /// How a pair of ours begins that takes the same out of the weight; `None` for one that takes nothing.
    fn begins(self, file: &Reading<'_>, place: &Place<'_>) -> Result<Option<&'static str>, Misfit> {
        let weight = place.own("weight");
        Ok(match self {
            Self::Nothing => None,
            Self::Top => Some("pissa"),
            // peft takes the columns of the matrix as the file has it.
            Self::First if file.model().transposed(&weight) => {
                let what = format!("`init_lora_weights` = \"olora\" on the transposed `{weight}`");
                return Err(Misfit::not_built(what));
            }
            Self::First => Some("olora"),
        })
    }
}

/// What the start of the training did to the weights, of which peft does the same again as it loads the adapter.
fn taken_out(config: &Config) -> Result<Taken, Misfit> {
    match config.get(INIT) {
        None | Some(Json::Bool(_)) => Ok(Taken::Nothing),
        Some(Json::String(init)) => match init.as_str() {
            "gaussian" | "eva" | "orthogonal" | pair::MICA => Ok(Taken::Nothing),
            "pissa" => Ok(Taken::Top),
            "olora" => Ok(Taken::First),
            other => Err(Misfit::new(
                format!(
                    "`init_lora_weights` is \"{other}\", which changes the base weights or the training too and is not built yet"
                ),
                "convert the adapter to a plain LoRA with peft's `path_initial_model_for_weight_conversion`",
            )),
        },
        Some(other) => Err(Misfit::of_config(format!(
            "`init_lora_weights` must be a name or a truth value, not {other}"
        ))),
    }
}

/// Values of a method.
pub(super) type Own = Vec<(&'static str, Checked)>;

/// What a method takes beside the pairs of a rank, which values of its own it has then, and the names of it.
pub(super) type More<'a> = (
    &'a [&'a str],
    fn(&mut Reading<'_>, &Place<'_>, u64) -> Result<Own, Misfit>,
);

/// Reads an adapter and puts `method` where its pairs are.
pub(super) fn read(
    file: &mut Reading<'_>,
    method: &'static dyn Method,
    (names, more): More<'_>,
) -> Result<(), Misfit> {
    let config = file.config();
    let sizes = Sizes::read(config)?;
    let taken = taken_out(config)?;
    let mica = config.get(INIT).and_then(Json::as_str) == Some(pair::MICA);
    let bias = config.flag("lora_bias", false)?;
    let mut known = [&["lora_A.weight", "lora_B.weight"], names].concat();
    if bias {
        known.push(B_BIAS);
    }
    biases(file)?;
    if names.is_empty() {
        tables(file, (method, &sizes))?;
    }
    rows_import::read_beside(file)?;
    let (places, head) = match file.unread().is_empty() {
        true => (Vec::new(), Vec::new()),
        false => file.all_places()?,
    };
    for place in places.iter().chain(&head) {
        place.only(&known)?;
    }
    for place in &places {
        let (rank, alpha) = sizes.of(&place.module);
        let (site, [a, b]) = (place.site, ["lora_A.weight", "lora_B.weight"]);
        file.take(&place.name(a), place.own(a), &[rank, site.input()])?;
        file.take(&place.name(b), place.own(b), &[site.output(), rank])?;
        file.idle(&place.name(if mica { a } else { b }), 0.0);
        let own = more(file, place, rank)?;
        let mut values = sizes.values((rank, alpha));
        values.extend(own);
        if mica {
            values.push((pair::INIT.name(), Checked::Str(pair::MICA.to_owned())));
        }
        if bias {
            file.take(&place.name(B_BIAS), place.own(B_BIAS), &[site.output()])?;
            file.idle(&place.name(B_BIAS), 0.0);
            values.push((LORA_BIAS.name(), Checked::Bool(true)));
        }
        let product = (rank, sizes.scale(&place.module));
        match taken.begins(file, place)?.filter(|_| names.is_empty()) {
            Some(init) => values.push((pair::INIT.name(), Checked::Str(init.to_owned()))),
            None => less(file, place, (taken, product))?,
        }
        file.put(method, site, values);
    }
    for place in &head {
        if bias || taken != Taken::Nothing || !names.is_empty() {
            let what = format!("this form of LoRA on the head's `{}`", place.module);
            return Err(Misfit::not_built(what));
        }
        let (rank, _) = sizes.of(&place.module);
        let (a, b) = (place.name("lora_A.weight"), place.name("lora_B.weight"));
        file.check_shape(&a, &[rank, place.site.input()])?;
        // How many classes there are is known later.
        let rows = file.shape(&b).and_then(|shape| shape.first().copied());
        file.check_shape(&b, &[rows.unwrap_or_default(), rank])?;
        file.read(&a)?;
        file.read(&b)?;
        file.idle(&b, 0.0);
        file.put_in_head(HeadUpdate {
            module: place.site.path.clone(),
            a,
            b,
            scale: sizes.scale(&place.module),
        });
    }
    Ok(())
}

/// Takes a place of its own form; whether it has that form.
pub(super) type Takes<'a> =
    dyn Fn(&mut Reading<'_>, &Place<'_>, (u64, Own)) -> Result<bool, Misfit> + 'a;

/// Reads an adapter some of whose pairs have a form of their own; the others are plain.
pub(super) fn read_block_diagonal(file: &mut Reading<'_>, takes: &Takes<'_>) -> Result<(), Misfit> {
    let config = file.config();
    let sizes = Sizes::read(config)?;
    let plain = taken_out(config)? == Taken::Nothing && !config.flag("lora_bias", false)?;
    if !plain || config.flag("use_dora", false)? {
        return Err(Misfit::not_built(
            "another form of LoRA beside `use_bdlora`",
        ));
    }
    biases(file)?;
    rows_import::read_beside(file)?;
    for place in file.places()? {
        place.only(&["lora_A.weight", "lora_B.weight"])?;
        let (rank, alpha) = sizes.of(&place.module);
        let values = sizes.values((rank, alpha));
        if takes(file, &place, (rank, values.clone()))? {
            continue;
        }
        if file
            .config()
            .get(BLOCK_DIAGONAL)
            .and_then(|map| map.get("match_strict"))
            != Some(&Json::Bool(false))
        {
            return Err(Misfit::of_config(format!(
                "`use_bdlora` names `{}` for neither factor, which `match_strict` forbids",
                place.module
            )));
        }
        let (site, [a, b]) = (place.site, ["lora_A.weight", "lora_B.weight"]);
        file.take(&place.name(a), place.own(a), &[rank, site.input()])?;
        file.take(&place.name(b), place.own(b), &[site.output(), rank])?;
        file.idle(&place.name(b), 0.0);
        file.put(&Lora, site, values);
    }
    Ok(())
}

/// Takes out of a map's weight what the start took out.
fn less(
    file: &mut Reading<'_>,
    place: &Place<'_>,
    (taken, (rank, scale)): (Taken, (u64, f64)),
) -> Result<(), Misfit> {
    let weight = place.own("weight");
    let edit = match taken {
        Taken::Nothing => return Ok(()),
        Taken::Top => Edit::LessTop(rank),
        Taken::First => Edit::LessFirst(rank, scale),
    };
    let mut params = file.parts().params.iter();
    let param = params.find(|p| p.name == weight);
    let param =
        param.ok_or_else(|| Misfit::not_built(format!("a start that changes `{weight}`")))?;
    file.edit(param, edit);
    Ok(())
}

/// Biases of the model's own that were trained, under `bias = "all"`.
fn biases(file: &mut Reading<'_>) -> Result<(), Misfit> {
    match file.config().get("bias") {
        None => return Ok(()),
        Some(value) => match value.as_str() {
            Some("none" | "lora_only") => return Ok(()),
            Some("all") => {}
            _ => {
                let what = format!("`bias` must be none, all or lora_only, not {value}");
                return Err(Misfit::of_config(what));
            }
        },
    }
    for name in file.unread() {
        if let Some(param) = file.param(&name)
            && matches!(param.kind, ParamKind::Bias | ParamKind::NormBias)
        {
            file.replace(&name, param)?;
        }
    }
    Ok(())
}

/// Reads the pair of a decoder that is tied to its table, where it is that of the table; whether there is such a decoder.
fn tied_pair(file: &mut Reading<'_>) -> Result<bool, Misfit> {
    let parts = file.parts();
    let mut heads = parts.others.iter().filter(|s| s.role == Role::LmDecoder);
    let Some(head) = heads.next() else {
        return Ok(false);
    };
    let own = format!("{}.weight", head.path);
    if parts.params.iter().any(|p| p.name == own) {
        return Ok(false);
    }
    let [a, b] = ["A", "B"].map(|half| format!("{}.lora_{half}.weight", head.path));
    if file.shape(&a).is_none() && file.shape(&b).is_none() {
        return Ok(true);
    }
    let of_table = |half: &str| {
        let mut names = file.unread().into_iter();
        names.find(|n| n.ends_with(&format!(".lora_embedding_{half}")))
    };
    let (Some(table_a), Some(table_b)) = (of_table("A"), of_table("B")) else {
        return Ok(true);
    };
    // The decoder's A is the table's B, turned, and its B the table's A.
    for (own, other) in [(&a, &table_b), (&b, &table_a)] {
        let width = file.shape(other).and_then(|s| s.last().copied());
        let turned = columns(&file.numbers(other)?, width.unwrap_or(1) as usize);
        if file.numbers(own)? != turned {
            return Err(Misfit::damaged(format!(
                "`{own}` is not `{other}` turned, although `{TYING}` says that they are tied"
            )));
        }
        file.read(own)?;
    }
    Ok(true)
}

/// LoRA on tables of embeddings, and on the head of a language model.
fn tables(
    file: &mut Reading<'_>,
    (method, sizes): (&'static dyn Method, &Sizes),
) -> Result<(), Misfit> {
    let tying = file.config().flag(TYING, false)?;
    let tied = tying && tied_pair(file)?;
    for name in file.unread() {
        let embedding = name.strip_suffix(".lora_embedding_A");
        let module = embedding.or(name.strip_suffix(".lora_A.weight"));
        let Some((module, site)) = module.and_then(|m| Some((m, file.table(m)?))) else {
            continue;
        };
        if file.config().places(module) == Some(false) {
            return Err(Misfit::new(
                format!("nothing reads `{name}`: the config puts no adapter on `{module}`"),
                "add the module to `target_modules` in adapter_config.json, if it was trained; or remove the tensor",
            ));
        }
        let (rank, alpha) = sizes.of(module);
        let own = |suffix: &str| format!("{}.{suffix}", site.path);
        let none = if table::is_table(site) && embedding.is_some() {
            let other = format!("{module}.{}", table::B);
            file.take_turned(&name, own(table::A), [site.input(), rank])?;
            file.take(&other, own(table::B), &[site.output(), rank])?;
            name.clone()
        } else if site.role == Role::LmDecoder && embedding.is_none() {
            let [a, b] = ["lora_A.weight", "lora_B.weight"];
            let other = format!("{module}.{b}");
            file.take(&name, own(a), &[rank, site.input()])?;
            file.take(&other, own(b), &[site.output(), rank])?;
            other
        } else {
            let what = format!("nothing reads `{name}`: this form of adapter on `{module}`");
            return Err(Misfit::not_built(what));
        };
        file.idle(&none, 0.0);
        let mut values = sizes.values((rank, alpha));
        if tied && table::peft_ties(&site.path) {
            values.push((table::TIED.name(), Checked::Bool(true)));
        }
        if site.role == Role::LmDecoder {
            // What is on the head is added to its matrix, where no dropout acts.
            values.push((DROPOUT.name(), Checked::Float(0.0)));
        }
        file.put(method, site, values);
    }
    Ok(())
}
