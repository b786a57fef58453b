//! The method registry: parameter-efficient ways to adapt a model.
//!
//! A method is one file and one row here. It never names a model: it sees sites and parameters.

use std::fmt;

use serde_json::{Map, Value as Json, json};

use super::data::tokens::Marking;
use super::derive::places::Measure;
use super::model::{Facts, Model, Room};
use super::net::{Attend, Net, Normed, Owner, Param, Site};
use super::peft::{Keys, Misfit, Reading};
use super::schema::{Filled, Schema, Values};
use crate::program::Value;
use crate::program::op::Indices;

pub mod import;

// The model's own parameters, trained: whole, in part or by a mask.
mod bitfit;
mod child_tuning;
mod fish;
mod full;
mod head_only;
mod last_n;
mod lt_sft;
mod magnitude_mask;
mod shira;
mod smt;
mod sparse;
mod spiel;

// Scalings, rotations and spectra.
mod beft;
mod boft;
mod c3a;
mod fourierft;
mod hra;
mod ia3;
mod ln_tuning;
mod oft;
mod road;
mod rotation;
mod spectral_adapter;
mod svfit;
mod svft;

// Other forms of a linear map's weight: products, scalings, rotations, spectra.
mod adalora;
mod after;
mod delora;
mod dora;
mod dylora;
mod hira;
mod loha;
mod lora;
mod lora_import;
mod pair;
mod randlora;
mod side_lora;
mod siva;
mod sora;
mod vera;
mod weight_drop;

// Further layers: bottlenecks, prompts and prefixes, networks beside the model.
mod bottleneck;
mod encoder;
mod houlsby;
mod k_lst;
mod llama_adapter;
mod lst;
mod p_tuning;
mod parallel;
mod pasta;
mod pfeiffer;
mod prefix_tuning;
mod prompt_tuning;
mod series;
mod unipelt;

pub use after::After;

/// What ends the names of a sparse update's numbers and places.
pub const SPARSE: [&str; 2] = [sparse::VALUES, sparse::PLACES];

/// Keys that several methods have.
pub(crate) mod keys {
    pub(crate) use super::lora::{DROPOUT, MODULES_TO_SAVE, ON, START};
}

/// Every method.
pub const METHODS: &[&dyn Method] = &[
    // The model's own parameters.
    &full::Full,
    &head_only::HeadOnly,
    &last_n::LastN,
    &bitfit::BitFit,
    &child_tuning::ChildTuning,
    &shira::Shira,
    &fish::Fish,
    &magnitude_mask::MagnitudeMask,
    &lt_sft::LtSft,
    &smt::Smt,
    &spiel::Spiel,
    // Other forms of a linear map's weight.
    &lora::Lora,
    &siva::Siva,
    &side_lora::SideLora,
    &dora::Dora,
    &vera::Vera,
    &loha::Loha,
    &hira::Hira,
    &adalora::AdaLora,
    &sora::Sora,
    &dylora::DyLora,
    &delora::Delora,
    &randlora::RandLora,
    // Scalings, rotations and spectra.
    &ia3::Ia3,
    &ln_tuning::LnTuning,
    &beft::Beft,
    &oft::Oft,
    &boft::Boft,
    &hra::Hra,
    &road::Road,
    &c3a::C3a,
    &fourierft::FourierFt,
    &svfit::Svfit,
    &svft::Svft,
    &spectral_adapter::SpectralAdapter,
    // Further layers.
    &houlsby::Houlsby,
    &pfeiffer::Pfeiffer,
    &series::Series,
    &parallel::Parallel,
    &prefix_tuning::PrefixTuning,
    &prompt_tuning::PromptTuning,
    &p_tuning::PTuning,
    &pasta::Pasta,
    &llama_adapter::LlamaAdapter,
    &unipelt::Unipelt,
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

/// What an adapter is in the format of the library `peft`.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftForm {
    /// The config's `peft_type`.
    pub kind: &'static str,
    /// The config's keys beside those of every adapter; the same at all sites.
    pub keys: Vec<(&'static str, Json)>,
    /// The product that is added at a site, for kinds that let sites differ in it.
    pub product: Option<Product>,
}

/// A product `scale · B A` that peft adds to a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// Rank of the pair.
    pub rank: u64,
    /// Factor of the update.
    pub scale: f64,
    /// Dropout before A in training.
    pub dropout: f64,
    /// Whether it scales by `alpha / √rank`.
    pub rs_lora: bool,
}

impl PeftForm {
    /// peft's LoRA, with its keys that say the same at all sites; `dora` for one with magnitudes.
    #[must_use]
    pub fn lora(product: Product, dora: bool) -> Self {
        let keys = vec![
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("init_lora_weights", json!(true)),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("use_dora", json!(dora)),
        ];
        Self {
            kind: "LORA",
            keys,
            product: Some(product),
        }
    }
}

/// Keys of a config of peft's.
pub type PeftKeys = Vec<(&'static str, Json)>;

/// A tensor of an adapter in peft's format: name, shape, elements.
pub type PeftTensor = (String, Vec<usize>, Vec<f32>);

/// Keys of the config, and tensors of all sites, named below the model: what [`Method::peft_together`] gives.
pub type PeftTogether = Option<(Vec<(&'static str, Json)>, Vec<PeftTensor>)>;

/// A tensor of an exported adapter, made of resident tensors by name.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Vec<f32>> + 'a;

/// A part of each update of the model's own weights that is let through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masking {
    /// Share of the numbers.
    pub keep: f64,
    /// The gradients that choose the numbers of the blocks once; drawn in each step, of all tensors, if there are none.
    pub fixed: Option<Measure>,
    /// Whether the mask acts on the whole update, and not on its gradient alone.
    pub whole: bool,
}

/// How places that are trained change while training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selecting {
    /// Whether new places are those with the largest products of second moments by row and column (SM3), and not those with
    /// the largest gradients.
    pub sm3: bool,
    /// Steps from one change to the next.
    pub period: u64,
    /// Steps over which gradients are added up.
    pub accumulate: u64,
    /// Share of the places that change, at the first step.
    pub rate: f64,
    /// Whether that share falls as a cosine does, and not evenly.
    pub cosine: bool,
}

/// How what a method makes of a linear map goes together with other methods on the same map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacking {
    /// It stands alone.
    Alone,
    /// It stands in the place of the model's own weight; others may stand on it.
    Base,
    /// It changes the result of the map below it, whatever that is.
    Over,
}

/// Methods at one site, from the model's own map upwards.
pub type Stack<'a> = [(&'static dyn Method, &'a Values)];

/// A site as a method meets it, with what stands below the method there.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The site.
    pub site: &'a Site,
    /// The method's own values.
    pub values: &'a Values,
    below: &'a Stack<'a>,
    /// The norm behind the residual that a sub-layer adds to, if one stands there.
    pub norm: Option<Normed<'a>>,
}

impl<'a> At<'a> {
    /// A site as a method meets it that reads nothing of what stands below.
    #[must_use]
    pub const fn alone(site: &'a Site, values: &'a Values) -> Self {
        let below = &[];
        At {
            site,
            values,
            below,
            norm: None,
        }
    }

    /// What the linear map below gives, `[N, in] → [N, out]`.
    pub fn linear(&self, net: &mut Net<'_>, x: Value) -> Value {
        linear(net, self.site, self.below, x)
    }

    /// What the attention below gives, `[T, width]`.
    pub fn attention(&self, net: &mut Net<'_>, of: Attend) -> Value {
        attention(net, self.site, self.below, of)
    }

    /// The linear maps among the model's sites that the method is placed at.
    #[must_use]
    pub fn placed<'n>(&self, net: &'n Net<'_>) -> Vec<&'n Site> {
        let (on, n_layers) = (keys::ON.get(self.values), net.tuning().n_layers);
        let here = |s: &&Site| s.is_linear() && on.is_some_and(|p| p.matches(s, n_layers));
        net.known_sites().iter().filter(here).collect()
    }

    /// The bias `[out]` of the map below, if it has one.
    pub fn bias(&self, net: &mut Net<'_>) -> Option<Value> {
        bias(net, self.site, self.below)
    }

    /// Whether the model's own map stands below, and nothing else.
    #[must_use]
    pub const fn is_bare(&self) -> bool {
        self.below.is_empty()
    }

    /// The plain weight `[out, in]` of the map below; `None` if there is none that does the same.
    pub fn weight(&self, net: &mut Net<'_>) -> Option<Value> {
        weight(net, self.site, self.below)
    }
}

/// The first `rows` rows of a matrix that may have more.
fn first_rows(net: &mut Net<'_>, matrix: Value, (rows, all): (u64, u64)) -> Value {
    if rows == all {
        return matrix;
    }
    let list = (0..rows as u32).collect();
    let rows = net.b.push1(Indices { list }, &[]);
    net.gather(matrix, rows)
}

/// A matrix of so many columns, transposed.
fn columns(data: &[f32], width: usize) -> Vec<f32> {
    let column = |i| data.iter().skip(i).step_by(width.max(1)).copied();
    (0..width).flat_map(column).collect()
}

/// A whole number where it is one but for rounding: peft declares its scales as integers.
#[must_use]
pub fn number(x: f64) -> Json {
    let whole = x.round();
    if (x - whole).abs() <= 1e-12 * whole.abs() && whole.abs() < 1e15 {
        json!(whole as i64)
    } else {
        json!(x)
    }
}

/// The linear map at a site under its methods, `[N, in] → [N, out]`.
pub fn linear(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, x: Value) -> Value {
    match stack.split_last() {
        None => net.plain_linear(site, x),
        Some((&(method, values), below)) => {
            let at = At {
                site,
                values,
                below,
                norm: None,
            };
            method.linear(&at, net, x)
        }
    }
}

/// The plain weight `[out, in]` that does the same as the linear map under its methods; `None` if there is none.
pub fn weight(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>) -> Option<Value> {
    match stack.split_last() {
        None => Some(net.weight(site)),
        Some((&(method, values), below)) => {
            let at = At {
                site,
                values,
                below,
                norm: None,
            };
            method.merged(&at, net)
        }
    }
}

/// The bias `[out]` of the same linear map, if it has one.
pub fn bias(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>) -> Option<Value> {
    match stack.split_last() {
        None => net.bias(site),
        Some((&(method, values), below)) => {
            let at = At {
                site,
                values,
                below,
                norm: None,
            };
            method.merged_bias(&at, net)
        }
    }
}

/// What the attention at a site gives under its methods, `[T, width]`.
pub fn attention(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, of: Attend) -> Value {
    match stack.split_last() {
        None => net.plain_attention(of),
        Some((&(method, values), below)) => {
            let at = At {
                site,
                values,
                below,
                norm: None,
            };
            method.attention(&at, net, of)
        }
    }
}

/// What enters a block under the methods there.
pub fn entered(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, x: Value) -> Value {
    stack.iter().fold(x, |x, &(method, values)| {
        let at = At {
            site,
            values,
            below: &[],
            norm: None,
        };
        method.entered(&at, net, x)
    })
}

/// The rows of a table of embeddings under its methods.
pub fn embedded(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, rows: Value) -> Value {
    stack.iter().fold(rows, |rows, &(method, values)| {
        let at = At {
            site,
            values,
            below: &[],
            norm: None,
        };
        method.embedded(&at, net, rows)
    })
}

/// What a sub-layer adds to the residual under its methods: `x [N, width]` is what it read, `y [N, width]` what it gave.
/// `norm` stands behind the residual.
pub fn output(
    net: &mut Net<'_>,
    (site, norm): (&Site, Option<Normed<'_>>),
    stack: &Stack<'_>,
    (x, y): (Value, Value),
) -> Value {
    stack.iter().fold(y, |y, &(method, values)| {
        let at = At {
            site,
            values,
            below: &[],
            norm,
        };
        method.output(&at, net, x, y)
    })
}

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

    /// The part of each update that is let through, if not all of it.
    fn masking(&self, values: &Values) -> Option<Masking> {
        let _ = values;
        None
    }

    /// How the places that it trains change while training; they are [`SPARSE`] of each map.
    fn selecting(&self, values: &Values) -> Option<Selecting> {
        let _ = values;
        None
    }

    /// Whether the method adds tensors at sites (it then has a key `on`).
    fn adapts(&self) -> bool {
        false
    }

    /// Whether the method puts a network beside the model that reads the model's states ([`Self::side`]).
    fn ladders(&self) -> bool {
        false
    }

    /// What it puts into texts, or marks in them.
    fn marking(&self, values: &Values) -> Marking {
        let _ = values;
        Marking::default()
    }

    /// The positions that it takes from texts.
    fn room(&self, values: &Values) -> Room {
        Room {
            within: self.marking(values).virtual_tokens,
            ..Room::default()
        }
    }

    /// Whether it needs the states of all tokens in every block, also where the head reads a few.
    fn reads_all(&self, values: &Values) -> bool {
        let _ = values;
        self.ladders()
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

    /// Whether it adds tensors that all its sites share, so that a stage can name it once.
    fn shares(&self) -> bool {
        false
    }

    /// Whether what it adds folds into plain weights.
    fn folds(&self) -> bool {
        self.adapts()
    }

    /// Whether the method has something to do at such a site. Those that adapt stand on linear maps, mostly.
    fn fits(&self, site: &Site) -> bool {
        site.is_linear()
    }

    /// How it goes together with other methods on one linear map.
    fn stacking(&self) -> Stacking {
        Stacking::Alone
    }

    /// The same with these values.
    fn stands(&self, values: &Values) -> Stacking {
        let _ = values;
        self.stacking()
    }

    /// Factor of the learning rate of a trained parameter, beside that which the parameter itself says.
    fn rate(&self, values: &Values, param: &Param) -> f64 {
        let _ = (values, param);
        1.0
    }

    /// Whether a step needs [`Self::penalty`] or [`Self::after_update`], which there are where there are gradients.
    fn steps(&self, values: &Values) -> bool {
        let _ = values;
        false
    }

    /// What is added to the loss of a training once a step, `[1]`, made of weights at the method's sites alone.
    fn penalty(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Option<Value> {
        let _ = (values, sites, net);
        None
    }

    /// What is wrong with these values for a training of so many steps, if anything.
    fn check_steps(&self, values: &Values, steps: u64) -> Option<Complaint> {
        let _ = (values, steps);
        None
    }

    /// What is done to the tensors at the method's sites behind the optimizer's updates.
    fn after_update(&self, values: &Values, sites: &[&Site], after: &mut After<'_, '_>) {
        let _ = (values, sites, after);
    }

    /// The linear map at an adapted site: `[N, in] → [N, out]`.
    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        at.linear(net, x)
    }

    /// The plain weight `[out, in]` that does the same as the adapted map; `None` if there is none.
    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let _ = (at, net);
        None
    }

    /// Whether the bias that does the same as the adapted map is another than that of the map below.
    fn moves_bias(&self, values: &Values, site: &Site) -> bool {
        let _ = (values, site);
        false
    }

    /// The bias `[out]` that does the same as the adapted map, if it has one.
    fn merged_bias(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        at.bias(net)
    }

    /// What is added to the residual at an adapted sub-layer that read `x [N, width]` and gave `y [N, width]`.
    fn output(&self, at: &At<'_>, net: &mut Net<'_>, x: Value, y: Value) -> Value {
        let _ = (at, net, x);
        y
    }

    /// What an adapted attention gives, `[T, width]`.
    fn attention(&self, at: &At<'_>, net: &mut Net<'_>, of: Attend) -> Value {
        at.attention(net, of)
    }

    /// The rows of an adapted table of embeddings that a text's tokens become, `[T, width]`.
    fn embedded(&self, at: &At<'_>, net: &mut Net<'_>, rows: Value) -> Value {
        let _ = (at, net);
        rows
    }

    /// What enters an adapted block, `[T, hidden]`.
    fn entered(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let _ = (at, net);
        x
    }

    /// Modules of the backbone that are trained whole beside what the method adds: their paths, or ends of them.
    fn whole_modules<'a>(&self, values: &'a Values) -> &'a [String] {
        keys::MODULES_TO_SAVE.get(values).unwrap_or_default()
    }

    /// The keys of an adapter of peft's beside [`super::peft::COMMON`], if this method reads adapters of that type with this
    /// config.
    fn peft_keys(&self, kind: &str, config: &Map<String, Json>) -> Option<Keys> {
        let _ = (kind, config);
        None
    }

    /// Reads such an adapter: takes each tensor as the value of a parameter, and puts the method at sites.
    ///
    /// # Errors
    /// What of it is not built, or does not fit the model.
    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let _ = file;
        Ok(())
    }

    /// Whether peft's class for it takes maps that the model stores transposed, as GPT-2 does.
    fn peft_takes_transposed(&self) -> bool {
        true
    }

    /// The adapter in peft's format; `None` if peft has no equal.
    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let _ = values;
        None
    }

    /// The same at a site, where sites differ in it.
    fn peft_at(&self, values: &Values, site: &Site) -> Option<PeftForm> {
        let _ = site;
        self.peft(values)
    }

    /// Further keys of the adapter in peft's format, which say something of all its sites together.
    fn peft_targets(&self, values: &Values, sites: &[&Site]) -> Vec<(&'static str, Json)> {
        let _ = (values, sites);
        Vec::new()
    }

    /// Whether what it trains at a site are the site's own parameters, which its adapter keeps.
    fn trains_site(&self) -> bool {
        false
    }

    /// A site's tensors in peft's format, named below the module's path. `get` gives the adapter's tensors by suffix,
    /// and first values as `initial:<suffix>`. `None` if one is not there.
    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let _ = (values, site, get);
        None
    }

    /// The config's keys of a prompt or prefix, whose sizes are the model's; its sites are all that it is at.
    fn prompt_keys(&self, values: &Values, facts: &Facts, sites: &[&Site]) -> PeftKeys {
        let _ = (values, facts, sites);
        Vec::new()
    }

    /// The rows of a prompt or prefix as peft has them, `[tokens, width]` matrices one beside the other; none if the method has
    /// none, or not as peft has it.
    fn prompt_rows(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Vec<Value> {
        let _ = (values, sites, net);
        Vec::new()
    }

    /// Whether peft has its kind on maps whose files hold them transposed (`Conv1D`), too.
    fn peft_turned(&self) -> bool {
        true
    }

    /// For a method whose sites share one list: what is to be said of all of them, and their tensors, named below the
    /// model. `get` gives tensors by their whole names, and places by their bits. `None` where peft has no equal of them.
    fn peft_together(&self, values: &Values, sites: &[&Site], get: &Lookup<'_>) -> PeftTogether {
        let _ = (values, sites, get);
        Some((Vec::new(), Vec::new()))
    }

    /// The tensors in peft's format that all sites share, named below `base_model`. `get` gives tensors by their whole
    /// names. `None` if one is not there.
    fn peft_shared(&self, values: &Values, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let _ = (values, get);
        Some(Vec::new())
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

    /// What methods put into texts, or mark in them.
    #[must_use]
    pub fn marking(&self) -> Marking {
        let each = self.methods.iter().map(|(m, f)| m.marking(&f.values));
        each.fold(Marking::default(), |all, own| Marking {
            virtual_tokens: all.virtual_tokens + own.virtual_tokens,
            behind_first: all.behind_first || own.behind_first,
            specials: all.specials || own.specials,
        })
    }

    /// The positions that methods take from texts.
    #[must_use]
    pub fn room(&self) -> Room {
        let each = self.methods.iter().map(|(m, f)| m.room(&f.values));
        each.fold(Room::default(), |all, own| Room {
            prefix: all.prefix + own.prefix,
            shifts: all.shifts || own.shifts,
            within: all.within + own.within,
        })
    }

    /// What methods put into prompts behind which text is generated: there the keys of a prefix are those of tokens.
    #[must_use]
    pub fn prompt_marking(&self) -> Marking {
        let own = self.marking();
        Marking {
            virtual_tokens: own.virtual_tokens + self.room().prefix,
            ..own
        }
    }

    /// Whether a parameter is trained.
    #[must_use]
    pub fn trains(&self, param: &Param) -> bool {
        !self.frozen && self.has_trained(param)
    }

    /// Whether a parameter is trained, or was by these methods where nothing is trained any more.
    #[must_use]
    pub fn has_trained(&self, param: &Param) -> bool {
        match param.owner {
            Owner::Head => true,
            Owner::Adapter => param.trains,
            Owner::Base => self.methods.iter().any(|(m, f)| {
                m.trains(&f.values, param, self.n_layers)
                    || m.whole_modules(&f.values)
                        .iter()
                        .any(|module| param.is_in(module))
            }),
        }
    }

    /// The methods at a site, from the model's own map upwards: in the order of the recipe, but for one that stands in
    /// the place of the model's weight.
    #[must_use]
    pub fn stack(&self, site: &Site) -> Vec<(&'static dyn Method, &Values)> {
        let here = self.methods.iter().filter(|(m, f)| {
            let placement = keys::ON.get(&f.values);
            m.adapts() && m.fits(site) && placement.is_some_and(|p| p.matches(site, self.n_layers))
        });
        let mut stack: Vec<_> = here.map(|(m, f)| (*m, &f.values)).collect();
        stack.sort_by_key(|(m, v)| m.stands(v) != Stacking::Base);
        stack
    }

    /// The methods that have something to do with the whole of a step, each with its values and its sites among these.
    pub fn stepping<'s>(
        &'s self,
        sites: &'s [Site],
    ) -> impl Iterator<Item = (&'static dyn Method, &'s Values, Vec<&'s Site>)> {
        let own = self.methods.iter().filter(|(m, f)| m.steps(&f.values));
        own.map(|(method, filled)| {
            let here = |s: &&Site| {
                let mut stack = self.stack(s).into_iter();
                stack.any(|(_, values)| std::ptr::eq(values, &raw const filled.values))
            };
            let sites = sites.iter().filter(here).collect();
            (*method, &filled.values, sites)
        })
    }

    /// Factor of the learning rate of a parameter, as far as methods decide about it.
    #[must_use]
    pub fn rate(&self, param: &Param) -> f64 {
        let each = self.methods.iter().map(|(m, f)| m.rate(&f.values, param));
        each.product()
    }

    /// The same methods once they have begun: what they started from no longer matters.
    #[must_use]
    pub fn begun(&self) -> Self {
        let mut begun = self.clone();
        for (_, filled) in &mut begun.methods {
            filled.values.remove(keys::START.name());
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
