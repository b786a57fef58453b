//! The task registry: what a stage learns of its texts. A task is one file and one row here.
//!
//! **Invariant:** no code outside this folder asks which task it has. It asks what the task reads, scores and writes.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::data;
use super::data::form::Learn;
use super::data::tokens::{EncodedSet, Target};
use super::metric::{Predictions, best};
use super::model::Model;
use super::net::Net;
use super::rows::Added;
use super::schema::{Schema, Values};
use super::tokenizer::Tokenizer;
use crate::base::{Diag, Span};
use crate::program::{Builder, Pick, Value};

mod calibration;
mod causal_lm;
mod choose;
mod classify;
mod cpo;
mod distil;
mod dpo;
mod embed;
mod extract;
mod foreign;
mod kto;
mod label_likelihood;
mod label_words;
mod masked_lm;
mod multi_label;
mod multiple_choice;
mod named;
mod next_token;
mod one_class;
mod ordinal;
mod orpo;
mod parts;
mod places;
mod preference;
mod r_drop;
mod regress;
mod seq2seq;
mod simpo;
mod token_classify;
mod weighting;
mod words;

pub use distil::taught;
pub use embed::{Modules, POOLING_MODULE};
pub use extract::{BEGINS, ENDS, Windows};
pub use foreign::{labels_texts, of_config, of_peft, with_options};
pub use masked_lm::masking::Masking;
use named::kind;
pub use named::{MASKED, NEXT_TOKEN, OPTIONS, TARGETS, VECTORS, of_words, task, usual, written};
pub use ordinal::{ORDINAL_LABELS, ranks};
pub use parts::{Answer, Asked, Classes, Details, Form, Gathered, Head, Names, Scored};
use parts::{added, label_keys, number, words};
pub use places::{ReadDraw, ReadPlace, Reads};
pub use seq2seq::TARGET_LENGTH;
pub use words::Pieces;

/// A row of the registry.
#[derive(Debug)]
pub struct TaskKind {
    /// Name, doc, keys.
    pub schema: &'static Schema,
    /// The `problem_type` of a `config.json` whose head was trained for it.
    pub problem_type: Option<&'static str>,
    /// What the names of classes of `transformers` end with whose head is one for it alone.
    pub class: Option<&'static str>,
    /// The task with these values; a key that is absent has its default.
    pub make: fn(&Values) -> Arc<dyn Task>,
}

/// Every task.
pub const TASKS: &[&TaskKind] = &[
    &classify::KIND,
    &distil::KIND,
    &regress::KIND,
    &ordinal::KIND,
    &label_words::KIND,
    &label_likelihood::KIND,
    &masked_lm::KIND,
    &multi_label::KIND,
    &causal_lm::KIND,
    &dpo::KIND,
    &simpo::KIND,
    &orpo::KIND,
    &cpo::KIND,
    &kto::KIND,
    &multiple_choice::KIND,
    &choose::KIND,
    &embed::KIND,
    &extract::KIND,
    &token_classify::KIND,
    &seq2seq::KIND,
];

/// What a stage learns of its texts. What is not said otherwise is that of a task with one class a text.
pub trait Task: fmt::Debug + Send + Sync {
    /// Name, doc, keys.
    fn schema(&self) -> &'static Schema;

    /// Its name.
    fn name(&self) -> &'static str {
        self.schema().name
    }

    /// The values of its keys that predictions depend on, so that an artifact can say them.
    fn options(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// What it predicts.
    fn answer(&self) -> Answer {
        Answer::Class
    }

    /// The least number of classes it can learn.
    fn least_classes(&self) -> usize {
        2
    }

    /// Whether an example's tokens differ from epoch to epoch, so that nothing the model makes of them,
    /// not even its frozen part, is a function of the example alone.
    fn inputs_vary(&self) -> bool {
        false
    }

    /// Which places of a text the head reads, where those are any number of its tokens. `pair` says whether texts come
    /// in pairs, `prompt_mask` whether a prompt puts a mask of its own into each.
    ///
    /// # Errors
    /// Why the tokenizer does not serve, and what to do about it.
    fn reads(
        &self,
        tokenizer: Option<&Tokenizer>,
        pair: bool,
        prompt_mask: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        let _ = (tokenizer, pair, prompt_mask);
        Ok(None)
    }

    /// Which tokens of rows of this form are learned.
    ///
    /// # Errors
    /// Why it cannot learn them, and what to do about it.
    fn learns(&self, form: data::form::Form) -> Result<Learn, [String; 2]> {
        if form == data::form::Form::Text {
            return Ok(Learn::Nothing);
        }
        let message = format!(
            "`{}` reads texts, and these data have {}",
            self.name(),
            form.what()
        );
        let help = match form {
            data::form::Form::Anchor => {
                "write `objective = embed`, or name the column of the text: `text = COLUMN`"
            }
            _ => "write `objective = causal_lm`, or name the column of the text: `text = COLUMN`",
        };
        Err([message, help.to_owned()])
    }

    /// Which pieces of a word are labelled, where its rows are words.
    fn words(&self) -> Option<Pieces> {
        None
    }

    /// Whether rows of which nothing is learned are left out.
    fn skips_empty(&self) -> bool {
        false
    }

    /// The rows of the states that its head reads.
    fn pick(&self, model: &dyn Model) -> Pick {
        model.sequence_pick()
    }

    /// The head that it is learned on.
    fn needs(&self) -> Head {
        Head::Sequence
    }

    /// Whether the token that ends a text is put behind each.
    fn ends_texts(&self) -> bool {
        false
    }

    /// The most tokens of a target, where it learns what is to be made of a source.
    fn target_length(&self) -> Option<u64> {
        None
    }

    /// Whether what it learns goes on with a text.
    fn generates(&self) -> bool {
        false
    }

    /// Its name among the task types of peft, if it has one.
    fn peft_type(&self) -> Option<&'static str> {
        self.needs().peft_type()
    }

    /// Its name among the tasks of the hub, if it has one there.
    fn pipeline_tag(&self) -> Option<&'static str> {
        let head = match self.needs() {
            Head::MaskedLm if self.reads_words() => Head::Sequence,
            head => head,
        };
        Some(head.pipeline_tag())
    }

    /// Last components of the module paths of its head, for peft's `modules_to_save`.
    fn head_modules(&self, model: &dyn Model) -> &'static [&'static str] {
        model.head_modules()
    }

    /// Scores and loss at once, where the loss is taken without the scores of all classes in memory: of each row its
    /// loss and its prediction, and the summed loss, times the step's loss scale.
    fn fused(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<(Value, Value)> {
        let _ = (model, net, hidden);
        None
    }

    /// The logits of all tokens at the places that are read, where [`Self::fused`] takes the loss without them.
    fn logits(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<Value> {
        let _ = (model, net, hidden);
        None
    }

    /// Sequences that a row of its data becomes, which are always in one micro-batch.
    fn group(&self) -> u64 {
        1
    }

    /// Whether each place that a head reads has scores of its own, where it reads any number of them; else each sequence
    /// has.
    fn scores_places(&self) -> bool {
        true
    }

    /// Whether it compares with a reference: numbers that are computed once a text, with the model as it is without the
    /// stage's adapter.
    fn compares(&self) -> bool {
        false
    }

    /// What stands between a prompt and its options, and whether the tokenizer's special tokens stand before it, where options are
    /// compared.
    fn option(&self) -> Option<(&str, bool)> {
        None
    }

    /// Whether the labels of the classes are read as texts that go on with a prompt; and if so, whether the tokenizer's special tokens
    /// stand before it.
    fn label_texts(&self) -> Option<bool> {
        None
    }

    /// Texts without content that scores are set off against.
    fn content_free(&self) -> &[String] {
        &[]
    }

    /// Whether [`gather`](Self::gather) reads the scores of sequences.
    fn gathers_scores(&self) -> bool {
        false
    }

    /// Whether each option is read with its prompt as a pair of texts.
    fn pairs_options(&self) -> bool {
        false
    }

    /// How contexts are cut into windows, where its rows are questions with contexts. The scores of a window's tokens are one row of scores.
    fn windows(&self) -> Option<Windows> {
        None
    }

    /// Whether each text of a row is read by itself, as a sequence of its own.
    fn texts_apart(&self) -> bool {
        false
    }

    /// Whether the loss of a row depends on the others of its batch, which then is no sum over parts of the batch.
    fn compares_rows(&self) -> bool {
        false
    }

    /// Whether a batch of one row has nothing to compare that row with.
    fn needs_others(&self) -> bool {
        self.compares_rows()
    }

    /// Whether each answer is read behind its prompt, and that of the row that follows behind the same prompt.
    fn mismatches(&self) -> bool {
        false
    }

    /// Whether rows of this form have labels, where the task reads labels at all.
    fn labels_rows(&self, form: data::form::Form) -> bool {
        let _ = form;
        true
    }

    /// Whether its head reads the states of all tokens of a text together.
    fn pools(&self) -> bool {
        false
    }

    /// The task as modules behind a model have it, where its keys do not say otherwise; `None` where it does not read them.
    /// The inner error is what of them is not built.
    fn of_modules(&self, modules: &Modules) -> Option<Result<Arc<dyn Task>, String>> {
        let _ = modules;
        None
    }

    /// Files beside an exported model that say what is made of its states, of so many numbers, for texts of so many tokens.
    fn files(&self, width: u64, max_length: u64) -> Vec<(&'static str, Json)> {
        let _ = (width, max_length);
        Vec::new()
    }

    /// The task on rows of so many options, or texts, where it depends on that.
    fn of_options(&self, options: u64) -> Option<Arc<dyn Task>> {
        let _ = options;
        None
    }

    /// Whether a training learns scores that other stages gave its texts, and no labels.
    fn learns_scores(&self) -> bool {
        false
    }

    /// Whether something is trained by it.
    fn trains(&self) -> bool {
        self.answer() != Answer::Choice
    }

    /// Whether [`gather`](Self::gather) says what is predicted.
    fn gathers(&self) -> bool {
        self.answer() == Answer::Choice
    }

    /// What is predicted of rows, from what is predicted of their sequences, where a row has several of them.
    fn gather(&self, set: &EncodedSet, all: &Predictions, asked: Asked<'_>) -> Option<Gathered> {
        let _ = (set, all, asked);
        None
    }

    /// The numbers that a reference gives of the texts: `[S, 1]`.
    fn losses(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<Value> {
        let _ = (model, net, hidden);
        None
    }

    /// Whether words at a prompt's mask stand for the classes.
    fn reads_words(&self) -> bool {
        false
    }

    /// Scores of a row of a sequence head with so many classes; 0 where the model itself decides.
    fn width(&self, classes: usize) -> u64 {
        classes as u64
    }

    /// The scores of the rows that the head reads: of so many classes, or of `words`.
    fn scores(
        &self,
        model: &dyn Model,
        net: &mut Net<'_>,
        hidden: Value,
        (classes, words): (usize, &[u32]),
    ) -> Value {
        let _ = words;
        model.classify(net, hidden, self.width(classes))
    }

    /// The summed loss of the scores, times the step's loss scale: `[1]`.
    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        one_class::loss(b, scores)
    }

    /// The same loss as a training minimises it: with the weights that the recipe gives it. Evaluations report
    /// [`loss`](Self::loss).
    fn training_loss(&self, b: &mut Builder, scores: Value) -> Value {
        self.loss(b, scores)
    }

    /// The weight of an example in the mean that a training minimises, by its label.
    fn weight_of(&self, label: &Target) -> f64 {
        let _ = label;
        1.0
    }

    /// The weights of the classes, where the training's loss reads them.
    fn class_weights(&self) -> &[f32] {
        &[]
    }

    /// The task on the classes of a stage, where its training depends on them.
    ///
    /// # Errors
    /// What of the task's keys does not fit the classes.
    fn on_classes(&self, classes: Classes<'_>) -> Result<Option<Arc<dyn Task>>, Box<Diag>> {
        let _ = classes;
        Ok(None)
    }

    /// The factor of the divergence between two readings of each text with other dropout, if a training minimises it.
    fn r_drop(&self) -> Option<f64> {
        None
    }

    /// The written keys that nothing but a training reads, with their places.
    fn training_keys(&self) -> Vec<(&'static str, Span)> {
        Vec::new()
    }

    /// The loss of one row of scores.
    fn loss_of(&self, scores: &[f32], target: &Target) -> f64 {
        one_class::loss_of(scores, target)
    }

    /// Names of the metrics that suit it.
    fn metrics(&self) -> &'static [&'static str] {
        &["accuracy", "f1"]
    }

    /// What a row of scores predicts: all that metrics read of it.
    fn predict(&self, scores: &[f32]) -> Target {
        Target::Class(best(scores))
    }

    /// The columns of a table of predictions, behind the row's number.
    fn columns(&self, classes: &[String]) -> Vec<String> {
        one_class::columns(classes)
    }

    /// Bytes that a row of that table takes, about.
    fn row_bytes(&self, classes: &[String]) -> u64 {
        24 + 13 * self.width(classes.len()).max(1)
    }

    /// The cells of a row in these columns.
    fn cells(&self, names: Names<'_>, row: Scored<'_>) -> Vec<String> {
        one_class::cells(names, row)
    }

    /// What an evaluation's result says beside its metrics.
    fn details(&self, classes: &[String], predictions: &Predictions) -> Details {
        one_class::details(classes, predictions)
    }

    /// What `predict` adds to a row.
    ///
    /// # Errors
    /// Why the task has no such answer.
    fn answers(&self, classes: &[String], form: Form) -> Result<Vec<Added>, String> {
        Ok(one_class::answers(classes, form))
    }

    /// The values of these columns for a row of scores.
    fn values(&self, classes: &[String], form: Form, scores: &[f32]) -> Vec<Json> {
        one_class::values(classes, form, scores)
    }

    /// Class name in `transformers` of the exported model.
    fn exported_class(&self, model: &dyn Model) -> String {
        if self.needs().is_lm() {
            model.lm_class()
        } else {
            model.exported_class()
        }
    }

    /// Writes what its head gives into the `config.json` of an exported model.
    fn export(&self, config: &mut Map<String, Json>, classes: &[String]) {
        one_class::export(config, classes);
    }
}

#[cfg(test)]
mod tests;
