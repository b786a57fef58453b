//! The program that gives keys and values of a text, before a training whose prefixes begin with them.

use std::collections::BTreeSet;

use super::super::method::Tuning;
use super::super::net::{Init, Mode, Net, Param, Text};
use super::activations::output_bytes;
use super::network::{measured, options, verified};
use super::{Diag, StageCx, keys};
use crate::base::rng::Stream;
use crate::library::counts::to_u32;
use crate::library::error::{BAD_METHOD_VALUES, BAD_VIRTUAL_TOKENS};
use crate::program::passes::remove_dead;
use crate::program::{Bindings, Builder, Verified};

/// What is run before such a training.
#[derive(Debug)]
pub struct Prefill {
    /// The bare backbone over the text. Its outputs are the keys and values of all attentions that are asked for.
    pub program: Verified,
    /// The network it is of.
    pub params: Vec<Param>,
    /// The text.
    pub tokens: Vec<u32>,
    /// The tensors that begin with what it comes to.
    pub begun: Vec<Begun>,
}

/// A tensor that begins so: some rows of an output.
#[derive(Debug)]
pub struct Begun {
    /// Its name.
    pub name: String,
    /// The output.
    pub output: String,
    /// The first row, and the one behind the last.
    pub rows: [u64; 2],
    /// Numbers of a row.
    pub width: u64,
}

impl Prefill {
    /// The sizes of the run.
    #[must_use]
    pub fn sizes(&self) -> Bindings {
        Bindings::of_lengths([self.tokens.len()])
    }

    /// Bytes of what the tensors begin with.
    #[must_use]
    pub fn made_bytes(&self) -> u64 {
        let all = self.begun.iter();
        all.map(|one| 4 * (one.rows[1] - one.rows[0]) * one.width)
            .sum()
    }

    /// Bytes of the program's outputs.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        output_bytes(&self.program, &self.sizes())
    }
}

/// Name of an output.
fn output(site: &str, values: bool) -> String {
    let half = if values { "values" } else { "keys" };
    format!("{site}.{half}")
}

/// The tokens of a text.
fn tokens(cx: &StageCx<'_>, text: &Text) -> Vec<u32> {
    match text {
        Text::Given(tokens) => tokens.to_vec(),
        Text::Drawn(count) => {
            let stream = Stream::new(keys::SEED.get(cx.values), "virtual tokens");
            let drawn = |i: u64| {
                let [word, ..] = stream.block([to_u32(i), 0, 0, 0]);
                to_u32((u64::from(word) * cx.model.facts().vocab) >> 32)
            };
            (0..*count).map(drawn).collect()
        }
    }
}

/// Complains about a token that the model does not know.
fn check(cx: &StageCx<'_>, tokens: &[u32]) -> Result<(), Vec<Diag>> {
    let vocab = cx.model.facts().vocab;
    let Some(token) = tokens.iter().find(|&&token| u64::from(token) >= vocab) else {
        return Ok(());
    };
    let message = format!("the model's vocabulary has {vocab} tokens, and none is {token}");
    let help = "write ids of the tokenizer's vocabulary";
    Err(vec![
        Diag::error(&BAD_VIRTUAL_TOKENS, cx.span, message).help(help),
    ])
}

/// The program, if any of a stage's parameters begins with keys or values of a text.
///
/// # Errors
/// A token that the vocabulary has not, or an attention that several layers share.
pub(super) fn prefill(cx: &StageCx<'_>, params: &[Param]) -> Result<Option<Prefill>, Vec<Diag>> {
    let asked = |param: &Param| match &param.init {
        Init::Cached(of) => Some((param.name.clone(), of.clone(), param.shape.last().copied())),
        _ => None,
    };
    let asked: Vec<_> = params.iter().filter_map(asked).collect();
    // One method of a stage puts something before texts.
    let Some(tokens) = asked.first().map(|(_, of, _)| tokens(cx, &of.text)) else {
        return Ok(None);
    };
    check(cx, &tokens)?;
    let paths: BTreeSet<String> = asked.iter().map(|(_, of, _)| of.site.clone()).collect();
    let bare = Tuning::bare(cx.tuning.n_layers);
    let mut b = Builder::with_numbers("prefill", measured(cx));
    let mut net = Net::new(&mut b, &bare, options(cx, &bare, Mode::Evaluate));
    net.note(paths.clone());
    cx.model.encode(&mut net);
    let (found, own) = (net.cached().to_vec(), net.finish().0);
    for path in &paths {
        let times = found.iter().filter(|(site, _)| site == path).count();
        if times != 1 {
            let message = format!(
                "{times} layers share `{path}`; a text has other keys in each of them, and there is one prefix for all"
            );
            let help =
                "begin with random numbers: remove `text`, `token_ids` or `init = vocabulary`";
            return Err(vec![
                Diag::error(&BAD_METHOD_VALUES, cx.span, message).help(help),
            ]);
        }
    }
    for (site, [key, value]) in &found {
        b.output(&output(site, false), *key);
        b.output(&output(site, true), *value);
    }
    Ok(Some(Prefill {
        program: verified(remove_dead(&b.finish())),
        params: own,
        tokens,
        begun: asked
            .into_iter()
            .map(|(name, of, width)| Begun {
                name,
                output: output(&of.site, of.values),
                rows: of.rows,
                width: width.unwrap_or(0),
            })
            .collect(),
    }))
}
