//! LN tuning: the norms are trained, and what they become is kept as an adapter.

use serde_json::{Map, Value as Json, json};

use super::super::net::ParamKind;
use super::super::peft::{Keys, Misfit, Reading};
use super::super::schema::{Maybe, kind};
use super::{Lookup, Method, Param, PeftForm, PeftTensor, Schema, Site, Stacking, Values};
use crate::library::placement::Placement;

/// The norms are trained.
#[derive(Debug)]
pub struct LnTuning;

/// What stands between a norm's path and its tensors' names in peft's format.
const INSIDE: &str = ".ln_tuning_layers.";

const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "{attention.{norm, post_norm}, ffn.{norm, post_norm}, norm}",
    "which norms are trained",
);

static SCHEMA: Schema = Schema {
    name: "ln_tuning",
    summary: "layer-norm tuning: scales and shifts of the norms are trained",
    doc: "The norms of the blocks, and the last one, are trained in place, so the model starts unchanged; `on` names others, such \
          as `embeddings.norm` or `attention.query_norm`. An adapter keeps these norms alone. The backward pass needs the \
          normalised states: 16 bytes a trained parameter. A merge writes the norms as they are; in peft it is LN_TUNING.",
    paper: "Zhao et al. 2024 (arXiv 2312.11420)",
    keys: &[ON.key()],
};

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[];

impl Method for LnTuning {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn fits(&self, site: &Site) -> bool {
        site.is_norm()
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn trains(&self, values: &Values, param: &Param, n_layers: u64) -> bool {
        let norm = matches!(param.kind, ParamKind::NormWeight | ParamKind::NormBias);
        let site = Site::norm(param.module(), param.role, 0).in_layer(param.layer);
        norm && ON
            .get(values)
            .is_some_and(|placement| placement.matches(&site, n_layers))
    }

    fn trains_site(&self) -> bool {
        true
    }

    fn peft(&self, _: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "LN_TUNING",
            keys: vec![("exclude_modules", json!(null))],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "LN_TUNING").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let parts = file.parts();
        for name in file.unread() {
            let Some(plain) = name.contains(INSIDE).then(|| name.replace(INSIDE, ".")) else {
                continue;
            };
            let norm = |p: &&Param| matches!(p.kind, ParamKind::NormWeight | ParamKind::NormBias);
            let Some(param) = file.param(&plain).filter(norm) else {
                return Err(Misfit::damaged(format!(
                    "`{name}` is on no norm of this model"
                )));
            };
            file.take(&name, param.name.clone(), &param.shape)?;
            let site = Site::norm(param.module(), param.role, param.elements());
            if param.kind == ParamKind::NormWeight {
                file.put(&LnTuning, &site.in_layer(param.layer), Vec::new());
            }
        }
        // A norm that the config names has tensors.
        let known: Vec<String> = file.taken();
        let missing = parts.params.iter().find(|p| {
            let theirs = file.theirs(p.module());
            let norm = matches!(p.kind, ParamKind::NormWeight | ParamKind::NormBias);
            norm && file.config().places(theirs) == Some(true) && !known.contains(&p.name)
        });
        match missing {
            Some(param) => Err(Misfit::damaged(format!(
                "the adapter has no tensor of `{}`, which its `target_modules` name",
                param.name
            ))),
            None if known.is_empty() => Err(Misfit::damaged(
                "the adapter has no tensors of norms".to_owned(),
            )),
            None => Ok(()),
        }
    }

    fn peft_tensors(&self, _: &Values, site: &Site, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let shape = vec![site.output() as usize];
        let part = |name: &str| {
            let own = get(name)?;
            Some((format!("ln_tuning_layers.{name}"), shape.clone(), own))
        };
        // An RMS norm has no shift.
        Some(
            std::iter::once(part("weight")?)
                .chain(part("bias"))
                .collect(),
        )
    }
}
