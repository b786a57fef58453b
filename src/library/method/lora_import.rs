//! Adapters of peft's type `LORA`, as `lora` and `dora` read them.

use serde_json::{Map, Value as Json};

use super::lora::{ALPHA, B_BIAS, DROPOUT, LORA_BIAS, RANK, RS_LORA};
use super::{Method, pair};
use crate::library::net::ParamKind;
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
    (
        "ensure_weight_tying",
        WithoutEffect("of tied embeddings, which are refused as targets"),
    ),
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
    ("use_bdlora", Refused),
    ("use_dora", Used),
    ("use_qalora", Refused),
    ("use_rslora", Used),
    (
        "velora_config",
        WithoutEffect("changes the backward pass of a training only"),
    ),
];

/// The key of how the pairs began.
pub(super) const INIT: &str = "init_lora_weights";
/// The key of KaSA's weights in the loss, which says that an adapter is one.
pub(super) const KASA: &str = "kasa_config";

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
    tables(file, &sizes)?;
    tokens(file)?;
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
        let mut values = vec![
            (RANK.name(), Checked::Int(rank)),
            (ALPHA.name(), Checked::Float(alpha)),
            (RS_LORA.name(), Checked::Bool(sizes.rs_lora)),
            (DROPOUT.name(), Checked::Float(sizes.dropout)),
        ];
        values.extend(own);
        if mica {
            values.push((pair::INIT.name(), Checked::Str(pair::MICA.to_owned())));
        }
        if bias {
            file.take(&place.name(B_BIAS), place.own(B_BIAS), &[site.output()])?;
            file.idle(&place.name(B_BIAS), 0.0);
            values.push((LORA_BIAS.name(), Checked::Bool(true)));
        }
        file.put(method, site, values);
        less(file, place, (taken, rank, sizes.scale(&place.module)))?;
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

/// Takes out of a map's weight what the start took out.
fn less(
    file: &mut Reading<'_>,
    place: &Place<'_>,
    (taken, rank, scale): (Taken, u64, f64),
) -> Result<(), Misfit> {
    let weight = place.own("weight");
    let edit = match taken {
        Taken::Nothing => return Ok(()),
        Taken::Top => Edit::LessTop(rank),
        // peft takes the columns of the matrix as the file has it.
        Taken::First if file.model().transposed(&weight) => {
            let what = format!("`init_lora_weights` = \"olora\" on the transposed `{weight}`");
            return Err(Misfit::not_built(what));
        }
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

/// LoRA on tables of embeddings, and on the decoder behind the last block.
fn tables(file: &mut Reading<'_>, sizes: &Sizes) -> Result<(), Misfit> {
    for name in file.unread() {
        let embedding = name.strip_suffix(".lora_embedding_A");
        let module = embedding.or(name.strip_suffix(".lora_A.weight"));
        let Some(module) = module else { continue };
        let param = file.param(&format!("{module}.weight"));
        let Some(param) = param.filter(|p| p.kind == ParamKind::Embedding) else {
            continue;
        };
        if file.config().places(module) == Some(false) {
            return Err(Misfit::new(
                format!("nothing reads `{name}`: the config puts no adapter on `{module}`"),
                "add the module to `target_modules` in adapter_config.json, if it was trained; or remove the tensor",
            ));
        }
        let (rank, _) = sizes.of(module);
        let (rows, width) = match param.shape.as_slice() {
            &[rows, width] => (rows, width),
            _ => continue,
        };
        let other = match embedding {
            Some(_) => format!("{module}.lora_embedding_B"),
            None => format!("{module}.lora_B.weight"),
        };
        let ([a, b], none) = match embedding {
            Some(_) => ([[rank, rows], [width, rank]], &name),
            None => ([[rank, width], [rows, rank]], &other),
        };
        file.check_shape(&name, &a)?;
        file.check_shape(&other, &b)?;
        file.read(&name)?;
        file.read(&other)?;
        file.idle(none, 0.0);
        let edit = Edit::Product {
            a: name.clone(),
            b: other,
            scale: sizes.scale(module),
            turned: embedding.is_some(),
        };
        file.edit(param, edit);
    }
    Ok(())
}

/// Rows of tables that were trained: `trainable_token_indices`.
fn tokens(file: &mut Reading<'_>) -> Result<(), Misfit> {
    const KEY: &str = "trainable_token_indices";
    let Some(value) = file.config().get(KEY) else {
        return Ok(());
    };
    let wrong = || {
        Misfit::of_config(format!(
            "`{KEY}` must be a list of tokens, or map tables to such lists, not {value}"
        ))
    };
    let list =
        |value: &Json| -> Option<Vec<u64>> { value.as_array()?.iter().map(Json::as_u64).collect() };
    let tables: Vec<(String, Vec<u64>)> = match value {
        Json::Object(map) => {
            let own = map.iter();
            let own = own.map(|(table, value)| Some((table.clone(), list(value)?)));
            own.collect::<Option<_>>().ok_or_else(wrong)?
        }
        value => vec![("embed_tokens".to_owned(), list(value).ok_or_else(wrong)?)],
    };
    for name in file.unread() {
        const SUFFIX: &str = ".token_adapter.trainable_tokens_delta";
        let Some(module) = name.strip_suffix(SUFFIX) else {
            continue;
        };
        let own = |table: &str| crate::library::net::ends_with(module, table);
        let Some((_, rows)) = tables.iter().find(|(table, _)| own(table)) else {
            continue;
        };
        rows_of(file, &name, (module, rows))?;
    }
    tied(file, ".token_adapter.trainable_tokens_delta")
}

/// Reads the rows of a decoder that is tied to a table where they are those of the table.
fn tied(file: &mut Reading<'_>, suffix: &str) -> Result<(), Misfit> {
    for name in file.unread() {
        let decoder = name
            .strip_suffix(suffix)
            .is_some_and(|module| module.ends_with("lm_head"));
        if !decoder {
            continue;
        }
        let own = file.numbers(&name)?;
        for table in file.row_edits() {
            if file.numbers(&table)? == own {
                file.read(&name)?;
                break;
            }
        }
    }
    Ok(())
}

/// Replaces rows of the table of a module.
pub(super) fn rows_of(
    file: &mut Reading<'_>,
    name: &str,
    (module, rows): (&str, &[u64]),
) -> Result<(), Misfit> {
    let param = file.param(&format!("{module}.weight"));
    let param = param.filter(|p| p.kind == ParamKind::Embedding);
    let Some((param, &[all, width])) = param.and_then(|p| Some((p, p.shape.first_chunk()?))) else {
        return Err(Misfit::not_built(format!("rows of `{module}`")));
    };
    if let Some(row) = rows.iter().find(|&&row| row >= all) {
        return Err(Misfit::of_config(format!(
            "row {row} of `{module}` is named, which has {all}"
        )));
    }
    file.check_shape(name, &[rows.len() as u64, width])?;
    file.read(name)?;
    let (values, rows) = (name.to_owned(), rows.to_vec());
    file.edit(param, Edit::Rows { values, rows });
    Ok(())
}

/// The type of adapters that hold rows of tables and nothing else.
pub(super) const ROWS: &str = "TRAINABLE_TOKENS";

/// The keys of peft's `TrainableTokensConfig`.
pub(super) const ROWS_KEYS: Keys = &[
    ("ensure_weight_tying", WithoutEffect(TIED)),
    ("init_weights", WithoutEffect(BEGAN)),
    ("token_indices", Used),
];

/// Why a key of tied tables says nothing.
const TIED: &str = "a decoder that is tied to its table reads the changed rows here, as in peft";

/// Reads an adapter that holds rows of tables.
pub(super) fn read_rows(file: &mut Reading<'_>) -> Result<(), Misfit> {
    let list = file.config().get("token_indices").and_then(|value| {
        let rows = value.as_array()?.iter();
        rows.map(Json::as_u64).collect::<Option<Vec<u64>>>()
    });
    let Some(rows) = list.filter(|rows| !rows.is_empty()) else {
        return Err(Misfit::of_config(
            "`token_indices` must be a list of tokens",
        ));
    };
    let mut seen = false;
    for name in file.unread() {
        let Some(module) = name.strip_suffix(".trainable_tokens_delta") else {
            continue;
        };
        if file.param(&format!("{module}.weight")).is_none() {
            // Looked at below.
            continue;
        }
        if file.config().places(module) == Some(false) {
            let what = format!("nothing reads `{name}`: `target_modules` does not name `{module}`");
            return Err(Misfit::of_config(what));
        }
        rows_of(file, &name, (module, &rows))?;
        seen = true;
    }
    tied(file, ".trainable_tokens_delta")?;
    match seen {
        true => Ok(()),
        false => Err(Misfit::damaged(
            "the adapter has no `trainable_tokens_delta`",
        )),
    }
}
