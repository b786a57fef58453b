//! `eval`: metrics and predictions on a split.

use std::sync::Arc;

use crate::library::counts::to_u32;

use super::super::error::NO_PROMPTS;
use super::super::generate::{self, Settings};
use super::super::net::CacheCapacity;
use super::super::schema::{
    Filled, Given, Maybe, RefKind, Reference, Registry, Schema, Values, kind,
};
use super::job::{Generate, Job, Routine, Score};
use super::keys;
use super::measures::{metrics, positive};
use super::network::{evaluation, generation, verified};
use super::reference::reference;
use super::train::exactly_one;
use super::{Diag, Diags, Sound, Span, StageCx, StageKind};

/// Evaluation.
#[derive(Debug)]
pub(super) struct Eval;

const FROM: Maybe<Reference> = Maybe::new(
    "from",
    kind::reference(RefKind::Stage),
    "the stage whose result to score",
);
const MODEL: Maybe<Reference> = Maybe::new(
    "model",
    kind::reference(RefKind::Model),
    "a model with a trained head, instead of `from`",
);
const DATA: Maybe<Reference> = Maybe::required(
    "data",
    kind::reference(RefKind::Split),
    "the split to score",
);
const PROMPT: Maybe<Reference> = Maybe::new(
    "prompt",
    kind::reference(RefKind::Prompt),
    "template around the text; with `from`, that stage's if not written",
);
const OBJECTIVE: Maybe<Filled> = Maybe::new(
    "objective",
    kind::entry(Registry::Objective),
    "what the scores mean; with `from`, as there if not written; `label_words` and `masked_lm` score a masked LM untrained",
);
const METRICS: Maybe<[String]> = Maybe::new(
    "metrics",
    kind::NAMES,
    "metrics; those that suit the task, if not written",
);
const BATCH: Given<u64> = Given::<u64>::new(
    "batch",
    kind::int(1, 1 << 20),
    (32, "32"),
    "examples at once",
);
const MAX_LENGTH: Maybe<u64> = Maybe::new(
    "max_length",
    kind::int(2, 1 << 20),
    "tokens after which text is cut; as in training if not written",
);

static SCHEMA: Schema = Schema {
    name: "eval",
    summary: "score a split: metrics and a file of predictions",
    doc: "Takes the result of another stage (`from = …`) or a model with a trained head (`model = …`). Leaves \
          `predictions.tsv` with one row an example; with predicted tokens, one row a token. With `generate` it also leaves \
          `predictions.jsonl`: of each row its index, prompt, reference and what the model generates behind the prompt. Of a \
          conversation that is the last of what assistants say.",
    paper: "",
    keys: &[
        FROM.key(),
        MODEL.key(),
        keys::APPLIED.key(),
        DATA.key(),
        PROMPT.key(),
        OBJECTIVE.key(),
        METRICS.key(),
        keys::POSITIVE.key(),
        keys::HEAD.key(),
        keys::DRAWS.key(),
        BATCH.key(),
        MAX_LENGTH.key(),
        keys::GENERATE.key(),
    ],
};

/// The capacity of the caches for so many texts at once, with so many tokens each, and in their sources.
fn caches(
    cx: &StageCx<'_>,
    settings: &Settings,
    (places, capacity, source): (u64, u64, u64),
) -> Result<CacheCapacity, [String; 2]> {
    if settings.beams.searches() && cx.model.facts().long.rereads {
        let why = "`num_beams` is not built for models that read a text again once it is long";
        return Err([why, "remove `num_beams`"].map(str::to_owned));
    }
    let beams = settings.beams.count;
    let caches = CacheCapacity {
        tokens: places.saturating_mul(beams).saturating_mul(capacity),
        longest: capacity,
        sources: places.saturating_mul(source),
    };
    if u32::try_from(caches.tokens.max(caches.sources)).is_ok() {
        return Ok(caches);
    }
    let longest = source.max(capacity.saturating_mul(beams));
    let why = format!("{places} texts of {longest} tokens are more than a cache can hold");
    Err([why, "write a smaller `batch`".to_owned()])
}

/// What is generated behind the prompts of the split.
fn generation_of(cx: &Sound<StageCx<'_>>, params: usize) -> Result<Option<Generate>, Vec<Diag>> {
    let Some(block) = keys::GENERATE.get(cx.values) else {
        return Ok(None);
    };
    let settings = Settings::of(&block.values);
    let most = cx.model.facts().max_length;
    let new = settings.max_new_tokens;
    let refuse = |message: String, help: &str| {
        let diag = Diag::error(&NO_PROMPTS, keys::GENERATE.span(cx.values), message);
        vec![diag.help(help)]
    };
    let known = cx
        .splits
        .first()
        .and_then(|split| split.as_ref()?.prompts.clone());
    let longest = known
        .as_ref()
        .map(|list| u64::from(list.iter().copied().max().unwrap_or(0)));
    // A target has a token before it. Where the data are not at hand, prompts are taken to be as long as they may be.
    let (before, source) = match cx.model.seq2seq() {
        Some(_) => {
            let cut = MAX_LENGTH.get(cx.values).unwrap_or(most).min(most);
            (1, longest.unwrap_or(cut).max(1))
        }
        None => (longest.unwrap_or(most.saturating_sub(new)), 0),
    };
    if before + new > most {
        return Err(refuse(
            format!(
                "the longest prompt has {before} tokens, and with {new} new ones it would be longer than the {most} that the model \
                 can read"
            ),
            "write a smaller `max_new_tokens`, or shorten the prompts",
        ));
    }
    let rows = known.as_ref().map_or(u64::MAX, |list| list.len() as u64);
    let places = BATCH.get(cx.values).min(rows).max(1);
    // What methods put before prompts is not among their tokens.
    let put = cx.tuning.prompt_marking().virtual_tokens;
    let capacity = before + new + u64::from(put);
    let caches = caches(cx, &settings, (places, capacity, source))
        .map_err(|[message, help]| refuse(message, &help))?;
    let (programs, built) = generation(cx, &cx.tuning.frozen(), caches).map_err(|why| {
        refuse(
            why,
            "remove `generate`, or adapt the model by another method",
        )
    })?;
    debug_assert_eq!(built.params.len(), params);
    let prompts = match known {
        Some(list) if put == 0 => list,
        Some(list) => Arc::new(list.iter().map(|n| n + put).collect()),
        None => Arc::new(vec![to_u32(source.max(before)) + put; places as usize]),
    };
    let facts = cx.model.facts();
    // A prefix that positions do not begin behind has none of its own among them.
    let apart = match facts.positions.shifts {
        true => 0,
        false => facts.positions.prefix,
    };
    let borders = facts.long.borders.iter();
    let again = borders.map(|border| border.saturating_add(1 + apart));
    Ok(Some(Generate {
        again: again.filter(|_| facts.long.rereads).collect(),
        programs,
        settings,
        places,
        capacity,
        source,
        prompts,
    }))
}

impl StageKind for Eval {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn splits(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        exactly_one(values, ("from", "model"), span, diags);
        if let Some(block) = keys::GENERATE.get(values) {
            generate::check(block, diags);
        }
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        let (program, built) = evaluation(cx, &cx.tuning.frozen(), true);
        let metrics = metrics(cx, "metrics")?;
        let batch = BATCH.get(cx.values).saturating_mul(cx.task.group());
        let score = Score {
            evaluate: verified(program),
            batch,
            reads: cx.reads(0),
            reference: reference(cx, batch),
            group: cx.task.group(),
            draws: keys::DRAWS.find(cx.values).unwrap_or(1),
            positive: positive(cx, metrics.iter().copied())?,
            generate: generation_of(cx, built.params.len())?,
            metrics,
        };
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Score(Box::new(score)),
        })
    }
}
