//! What a method is: the hooks of the network, of planning and of peft's format, each with what it means to have none.

use std::fmt;

use serde_json::{Map, Value as Json};

use super::super::data::tokens::Marking;
use super::super::model::{Facts, Model, Reserved};
use super::super::net::{Attend, Net, Param, Role, Site};
use super::super::peft::{Keys, Misfit, Reading};
use super::super::schema::{Schema, Values};
use super::{
    After, At, Complaint, Lookup, Masking, PeftForm, PeftKeys, PeftTensor, PeftTogether, Selecting,
    Stacking, keys,
};
use crate::program::Value;

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

    /// The step before which a parameter begins to be trained, in a training with so many steps an epoch of a model with so many
    /// blocks, and the factor of its rate; `None` where it is trained from the start or not by this method.
    fn joins(
        &self,
        values: &Values,
        param: &Param,
        (n_layers, epoch): (u64, u64),
    ) -> Option<(u64, f64)> {
        let _ = (values, param, n_layers, epoch);
        None
    }

    /// The part of each update that is let through, if not all of it.
    fn masking(&self, values: &Values) -> Option<Masking> {
        let _ = values;
        None
    }

    /// How the places that it trains change while training; they are [`super::SPARSE`] of each map.
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

    /// The tokens that it is for, as texts of one token each; the planner makes their numbers the value of `token_ids`.
    fn tokens<'a>(&self, values: &'a Values) -> Option<&'a [String]> {
        let _ = values;
        None
    }

    /// The text whose tokens it starts at; the planner makes them the value of `token_ids`.
    fn text<'a>(&self, values: &'a Values) -> Option<&'a str> {
        let _ = values;
        None
    }

    /// The key that says which task is meant, and how many there are, where an adapter is of several.
    fn tasks(&self, values: &Values) -> Option<(&'static str, u64)> {
        let _ = values;
        None
    }

    /// How many tasks there are, where each example is of a task of its own, which the data name.
    fn tasks_of_examples(&self, values: &Values) -> Option<u64> {
        let _ = values;
        None
    }

    /// The positions that it takes from texts.
    fn reserved(&self, values: &Values) -> Reserved {
        Reserved {
            within: self.marking(values).virtual_tokens,
            ..Reserved::default()
        }
    }

    /// Whether a layer of it depends on which text a token is of, or on the whole text, and not on its row alone.
    fn reads_texts(&self) -> bool {
        false
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

    /// What is wrong with these values at all the sites that the method is placed at, if anything.
    fn check_sites(&self, values: &Values, sites: &[&Site]) -> Option<Complaint> {
        let _ = (values, sites);
        None
    }

    /// What is wrong with these values for a model of these sizes, if anything.
    fn check_model(&self, values: &Values, facts: &Facts) -> Option<Complaint> {
        let _ = (values, facts);
        None
    }

    /// Whether what it does at a map depends on a mean over the text.
    fn averages_texts(&self) -> bool {
        false
    }

    /// Whether it looks at the gradients of a map's weight, use by use.
    fn watches(&self, values: &Values) -> bool {
        let _ = values;
        false
    }

    /// Whether it adds tensors that all its sites share, so that a stage can name it once.
    fn shares(&self) -> bool {
        false
    }

    /// Whether what it adds folds into plain weights.
    fn folds(&self) -> bool {
        self.adapts()
    }

    /// Whether the method has something to do at such a site. Those that adapt stand on linear maps, mostly; the head of a
    /// language model is read as a plain matrix, so what stands there has to make one ([`Self::merged`]).
    fn fits(&self, site: &Site) -> bool {
        site.is_linear() && site.role != Role::LmDecoder
    }

    /// How it goes together with other methods on one linear map.
    fn stacking(&self) -> Stacking {
        Stacking::Alone
    }

    /// The same with these values.
    fn stacking_with(&self, values: &Values) -> Stacking {
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

    /// How much the divergence between the predictions of two routes through its experts counts in the loss; `None` where a step
    /// has one route.
    fn consistency(&self, values: &Values) -> Option<f64> {
        let _ = values;
        None
    }

    /// Whether a layer of it depends on how many steps its training has ([`Net::steps`]).
    fn reads_steps(&self) -> bool {
        false
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

    /// An adapted table of embeddings, in storage or compute type, as the decoder that is tied to it reads it. Methods whose
    /// decoder reads what they make of the rows say so by [`Self::ties`], too.
    fn tabled(&self, at: &At<'_>, net: &mut Net<'_>, table: Value) -> Value {
        let _ = (at, net);
        table
    }

    /// Whether a decoder that is tied to an adapted table reads the table as it is adapted.
    fn ties(&self, values: &Values) -> bool {
        let _ = values;
        false
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

    /// The modules of the model that are named to be trained, and the key that names them.
    fn modules<'a>(&self, values: &'a Values) -> (&'static str, &'a [String]) {
        (keys::MODULES_TO_SAVE.name(), self.whole_modules(values))
    }

    /// The keys of an adapter of peft's beside [`crate::library::peft::COMMON`], if this method reads adapters of that type with this
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
