//! The method registry: parameter-efficient ways to adapt a model.
//!
//! A method is one file and one row here. It never names a model: it sees sites and parameters.

use std::fmt;

use super::model::{Facts, Model};
use super::net::Net;
use super::params::{Owner, Param};
use super::placement::Site;
use super::schema::{Filled, Schema, Values};
use crate::program::Value;

mod bitfit;
mod full;
mod head_only;
mod k_lst;
mod last_n;
mod lora;
mod lst;
mod side_lora;
mod siva;

/// Every method.
pub const METHODS: &[&dyn Method] = &[
    &full::Full,
    &head_only::HeadOnly,
    &last_n::LastN,
    &bitfit::BitFit,
    &lora::Lora,
    &siva::Siva,
    &side_lora::SideLora,
    &lst::Lst,
    &k_lst::KLst,
];

/// A complaint about a value, found when a method meets a model.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// The key to blame.
    pub key: &'static str,
    /// What kind of diagnostic.
    pub code: &'static crate::base::Code,
    /// The fact.
    pub message: String,
    /// What to type instead.
    pub help: Option<String>,
}

/// What peft's LoRA has to be at a site to do the same as an adapter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeftAdapter {
    /// Rank of the pair.
    pub rank: u64,
    /// Factor of the update.
    pub scale: f64,
    /// Dropout before A in training.
    pub dropout: f64,
    /// Whether it scales by `alpha / √rank`.
    pub rs_lora: bool,
}

/// A tensor of an exported adapter, made of resident tensors by name.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Vec<f32>> + 'a;

/// A parameter-efficient way to adapt a model.
pub trait Method: Sync + Send + fmt::Debug {
    /// Name, doc, keys.
    fn schema(&self) -> &'static Schema;

    /// Whether one of the model's own parameters is trained. Heads are always trained and are not
    /// asked about.
    fn trains(&self, values: &Values, param: &Param, n_layers: u64) -> bool {
        let _ = (values, param, n_layers);
        false
    }

    /// Whether the method adds tensors at sites (it then has a key `on`).
    fn adapts(&self) -> bool {
        false
    }

    /// Whether the method puts a network beside the model that reads the model's states ([`Self::side`]).
    fn ladders(&self) -> bool {
        false
    }

    /// The network beside the model: from the features the backbone showed to what the head reads
    /// instead of the last hidden states, `[T, hidden]`.
    fn side(&self, values: &Values, net: &mut Net<'_>, model: &dyn Model, hidden: Value) -> Value {
        let _ = (values, net, model);
        hidden
    }

    /// What is wrong with these values at a site, if anything.
    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let _ = (values, site);
        None
    }

    /// What is wrong with these values for a model of these sizes, if anything.
    fn check_model(&self, values: &Values, facts: &Facts) -> Option<Complaint> {
        let _ = (values, facts);
        None
    }

    /// The linear map at an adapted site: `[N, in] → [N, out]`.
    fn linear(&self, values: &Values, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        let _ = values;
        net.plain_linear(site, x)
    }

    /// The plain weight `[out, in]` that does the same as the adapted map; `None` if there is none.
    fn merged(&self, values: &Values, net: &mut Net<'_>, site: &Site) -> Option<Value> {
        let _ = (values, net, site);
        None
    }

    /// Modules of the backbone that are trained whole beside what the method adds: their paths, or ends of them.
    fn whole_modules<'a>(&self, values: &'a Values) -> &'a [String] {
        let _ = values;
        &[]
    }

    /// The adapter in peft's format: rank and scale; `None` if peft has no equal.
    fn peft_config(&self, values: &Values) -> Option<PeftAdapter> {
        let _ = values;
        None
    }

    /// A site's tensors in peft's format: name below the module path, shape, elements. `get` gives
    /// the adapter's tensors by suffix, and initial ones as `initial:<suffix>`.
    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let _ = (values, site, get);
        Vec::new()
    }

    /// Suffixes of adapter tensors whose initial values an export needs.
    fn keeps_initial(&self, values: &Values) -> &'static [&'static str] {
        let _ = values;
        &[]
    }
}

/// Looks a method up by name.
#[must_use]
pub fn method(name: &str) -> Option<&'static dyn Method> {
    METHODS.iter().copied().find(|m| m.schema().name == name)
}

/// The methods of a stage with their values: what is trained and what wraps each site.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// Methods in the order of the recipe. Empty: nothing but the head is trainable.
    pub methods: Vec<(&'static dyn Method, Filled)>,
    /// Blocks of the model.
    pub n_layers: u64,
    /// Nothing is trainable: evaluation, prediction, merging.
    pub frozen: bool,
}

impl Tuning {
    /// Whether any method adds tensors of its own, so that the stage leaves an adapter.
    #[must_use]
    pub fn leaves_adapter(&self) -> bool {
        self.methods.iter().any(|(m, _)| m.adapts() || m.ladders())
    }

    /// Whether a parameter is trained.
    #[must_use]
    pub fn trains(&self, param: &Param) -> bool {
        if self.frozen {
            return false;
        }
        match param.owner {
            Owner::Head => true,
            Owner::Adapter => param.trainable_by_init(),
            Owner::Base => self.methods.iter().any(|(m, f)| {
                m.trains(&f.values, param, self.n_layers)
                    || m.whole_modules(&f.values)
                        .iter()
                        .any(|module| param.is_in(module))
            }),
        }
    }

    /// The method that wraps a site, if any; the resolver refuses two at one site.
    #[must_use]
    pub fn at(&self, site: &Site) -> Option<(&'static dyn Method, &Values)> {
        self.methods
            .iter()
            .find(|(m, f)| {
                m.adapts()
                    && f.values
                        .placement("on")
                        .is_some_and(|p| p.matches(site, self.n_layers))
            })
            .map(|(m, f)| (*m, &f.values))
    }

    /// The same methods once they have begun: what they started from no longer matters.
    #[must_use]
    pub fn begun(&self) -> Self {
        let mut begun = self.clone();
        for (_, filled) in &mut begun.methods {
            filled.values.remove("start");
        }
        begun
    }

    /// The same methods with nothing trained.
    #[must_use]
    pub fn frozen(&self) -> Self {
        Self {
            frozen: true,
            ..self.clone()
        }
    }
}
