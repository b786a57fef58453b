//! A converting stage: what adapters change of each matrix, as a pair of matrices in peft's format.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::Work;
use super::fold::Folding;
use crate::exec::export::{Parts, write_parts};
use crate::files::RunError;
use crate::files::peft;
use crate::files::peft::Lora;
use crate::library::combine::{self, Keep, Pair, combined_pairs, low_rank};
use crate::library::method::{PeftTensor, Product};
use crate::library::net::{Owner, Param, Site};
use crate::library::peft::Stored;
use crate::library::stage::job::{Fold, Mix};
use crate::library::stage::network::anatomy;

/// The pairs of some sites, with tensors of modules that are kept whole and the paths of those.
type Made = (Vec<(Site, Pair)>, Vec<PeftTensor>, Vec<String>);

impl Work<'_> {
    /// Writes the adapter; gives for each matrix its rank and what is lost.
    pub(super) fn convert(
        &self,
        dir: &Path,
        (job, keep): (&Fold, Keep),
        folding: &Folding<'_>,
        tell: &mut dyn FnMut(u64, bool),
    ) -> Result<Json, RunError> {
        let (pairs, mut tensors, whole) = match &job.mix {
            Some(mix) => self.mixed(mix, keep, tell)?,
            None => self.updates(job, keep, folding, tell)?,
        };
        let named = |path: &str, half: &str| format!("model.{path}.lora_{half}.weight");
        let (mut products, mut said) = (Vec::new(), Vec::new());
        for (site, pair) in pairs {
            let [out, input] = [site.output(), site.input()].map(|n| n as usize);
            said.push(json!({ "name": site.path, "rank": pair.rank, "error": pair.error }));
            tensors.push((named(&site.path, "A"), vec![pair.rank, input], pair.a));
            tensors.push((named(&site.path, "B"), vec![out, pair.rank], pair.b));
            let product = Product {
                rank: pair.rank as u64,
                scale: 1.0,
                dropout: 0.0,
                rs_lora: false,
            };
            products.push((site.path, product));
        }
        // A file of several adapters says what the first of them was made for, unless it has a head.
        let own = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_owned();
        let params = &self.stage.job.params;
        let head = |name: &String| {
            params
                .iter()
                .any(|p| p.owner == Owner::Head && p.name == *name)
        };
        let headless = !tensors.iter().any(|(name, ..)| head(&own(name)));
        let task = match &job.mix {
            Some(mix) if headless => Some(first_task(mix)?),
            _ => None,
        };
        let base = self.base()?;
        if base.name.is_none() {
            let what = "its model has random weights, which are in no file that peft could load";
            return Err(RunError::file(dir, what));
        }
        let parts = Parts {
            products,
            whole,
            tensors,
            task,
        };
        write_parts(dir, self.stage, &base, parts)?;
        Ok(Json::Array(said))
    }

    /// What the adapter of a stage, or one that is applied, changes.
    fn updates(
        &self,
        job: &Fold,
        keep: Keep,
        folding: &Folding<'_>,
        tell: &mut dyn FnMut(u64, bool),
    ) -> Result<Made, RunError> {
        let plain = self.stage.job.plain_params();
        let mut pairs = Vec::new();
        for (site, _) in &job.sites {
            let name = format!("{}.weight", site.path);
            let param = plain.iter().find(|p| p.name == name);
            let param = param.ok_or_else(|| RunError::bug(format!("no parameter `{name}`")))?;
            let (after, peak) = folding.tensor(param)?;
            let (before, _) = folding.loaded(param)?;
            let (Some(mut update), Some(before)) = (after.into_vec::<f32>(), before.slice::<f32>())
            else {
                return Err(RunError::bug("a weight is not in f32"));
            };
            update.iter_mut().zip(before).for_each(|(x, w)| *x -= w);
            let sizes = (site.output(), site.input());
            tell(peak.max(combine::bytes(sizes, keep, 0)), true);
            let pair = low_rank(update, sizes, keep, 0);
            let pair = pair.map_err(|why| RunError::bug(format!("`{name}`: {why}")))?;
            pairs.push((site.clone(), pair));
        }
        let tuning = &self.stage.trained_with;
        let mut whole: Vec<String> = Vec::new();
        for param in &self.stage.job.params {
            if param.owner == Owner::Base && tuning.has_trained(param) {
                let module = param.module();
                if pairs.iter().any(|(site, _)| site.path == module) {
                    let what = format!(
                        "`{}` was trained beside the adapter on its module, and peft has no place for both; convert a stage without that",
                        param.name
                    );
                    return Err(RunError::file(&self.options.recipe, what));
                }
                if !whole.iter().any(|m| m == module) {
                    whole.push(module.to_owned());
                }
            }
        }
        let kept = |p: &&Param| p.owner == Owner::Head || whole.iter().any(|m| m == p.module());
        let mut tensors = Vec::new();
        for param in self.stage.job.params.iter().filter(kept) {
            let (tensor, peak) = folding.loaded(param)?;
            tell(peak, false);
            let data = tensor.into_vec::<f32>();
            let data = data.ok_or_else(|| RunError::bug("a weight is not in f32"))?;
            let dims = param.shape.iter().map(|&n| n as usize).collect();
            tensors.push((format!("model.{}", param.name), dims, data));
        }
        Ok((pairs, tensors, whole))
    }

    /// Several adapters made one.
    fn mixed(
        &self,
        mix: &Mix,
        keep: Keep,
        tell: &mut dyn FnMut(u64, bool),
    ) -> Result<Made, RunError> {
        let parts = anatomy(self.stage.model.as_ref());
        // Of each site the pairs, with their scales and weights.
        let mut at: BTreeMap<String, Vec<(Pair, f64, f64)>> = BTreeMap::new();
        let (mut tensors, mut whole) = (Vec::new(), Vec::new());
        for (folder, weight) in mix.folders.iter().zip(&mix.weights) {
            let read = peft::read(folder)?;
            let refuse = |why: String| RunError::file(folder, why);
            let fitted = read.fit(self.stage.model.as_ref(), &parts);
            let fitted = fitted.map_err(|misfit| refuse(misfit.message))?;
            for lora in read.pairs(&fitted).map_err(refuse)? {
                let Lora {
                    module,
                    a,
                    b,
                    product,
                } = lora;
                let get = |name: &str| read.tensors.numbers(name).map_err(refuse);
                let pair = Pair {
                    rank: product.rank as usize,
                    a: get(&a)?.1,
                    b: get(&b)?.1,
                    error: 0.0,
                };
                let own = (pair, product.scale, *weight);
                at.entry(module).or_default().push(own);
            }
            for taken in fitted
                .tensors
                .iter()
                .filter(|t| parts.params.iter().any(|p| p.name == t.own))
            {
                let from: Result<Vec<_>, String> =
                    taken.from.iter().map(|n| read.tensors.numbers(n)).collect();
                let data = from
                    .and_then(|from| taken.make.numbers(from))
                    .map_err(refuse)?;
                let dims = taken.shape.iter().map(|&n| n as usize).collect();
                tensors.push((format!("model.{}", taken.own), dims, data));
            }
            whole.extend(fitted.whole);
        }
        let mut pairs = Vec::new();
        for site in &parts.sites {
            let Some(list) = at.remove(&site.path) else {
                continue;
            };
            let pair = self.combined(mix, keep, (site, list), tell)?;
            pairs.push((site.clone(), pair));
        }
        Ok((pairs, tensors, whole))
    }

    /// The pairs of a site, each with its scale and weight, made one: of their updates, or of the pairs themselves.
    fn combined(
        &self,
        mix: &Mix,
        keep: Keep,
        (site, list): (&Site, Vec<(Pair, f64, f64)>),
        tell: &mut dyn FnMut(u64, bool),
    ) -> Result<Pair, RunError> {
        let sizes = (site.output(), site.input());
        let [out, input] = [sizes.0, sizes.1].map(|n| n as usize);
        if mix.how.updates {
            let largest = list.iter().map(|(pair, ..)| pair.rank).max().unwrap_or(1) as u64;
            let each: Vec<Vec<f32>> = list
                .iter()
                .map(|(pair, scale, _)| combine::update(pair, *scale, input))
                .collect();
            let weights: Vec<f32> = list.iter().map(|(.., weight)| *weight as f32).collect();
            let update = mix.how.combine(&each, &weights, &site.path);
            let updates = each.len() as u64 * 4 * site.output() * site.input();
            tell(updates + combine::bytes(sizes, keep, largest), true);
            return low_rank(update, sizes, keep, largest)
                .map_err(|why| RunError::bug(format!("`{}`: {why}", site.path)));
        }
        let list: Vec<(Pair, f64)> = list
            .into_iter()
            .map(|(pair, scale, weight)| (pair, scale * weight))
            .collect();
        let made = combined_pairs(&mix.how, &list, (out, input), &site.path);
        made.ok_or_else(|| {
            let what = format!("the adapters have different ranks on `{}`", site.path);
            RunError::file(&self.options.recipe, what)
        })
    }
}

/// What the first of several adapters was made for, where that needs no head of its own.
fn first_task(mix: &Mix) -> Result<Option<String>, RunError> {
    let Some(folder) = mix.folders.first() else {
        return Ok(None);
    };
    let task = peft::read(folder)?.config.task;
    Ok(task.filter(|task| task != "SEQ_CLS"))
}
