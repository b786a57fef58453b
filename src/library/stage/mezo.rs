//! `mezo`: training with two forward passes a step and no gradient (methods Z1).

use super::super::net::Mode;
use super::super::net::Param;
use super::super::schema::{Bound, Default, Key, Kind, Registry, Schema, Values};
use super::job::{Fit, Job, Routine, Update};
use super::network::{evaluation, network, verified};
use super::train::{self, check_common};
use super::{Diag, Diags, Sound, Span, StageCx, StageKind, keys};
use crate::base::rng::Stream;
use crate::library::error::NO_GRADIENT;
use crate::program::op::Perturb;
use crate::program::{Builder, Feed, Phase, Real};

/// Zeroth-order training.
#[derive(Debug)]
pub(super) struct Mezo;

static SCHEMA: Schema = Schema {
    name: "mezo",
    summary: "train without gradients, in the memory of inference",
    doc: "Each step draws a direction z, measures the loss at θ + εz and θ - εz, and moves against \
          g = (L+ - L-) / 2ε along z. Directions are drawn again from their seed wherever they are needed, so neither \
          they nor a copy of the weights are stored. The log holds each step's projected gradient, from which \
          `peftc replay` rebuilds the weights. A prompt with `objective = label_words` matters: without it the loss is \
          too rough for so few measurements. Trains everything unless `adapter` says what.",
    paper: "Malladi et al. 2023 (arXiv 2305.17333); Spall 1992",
    keys: &[
        keys::MODEL,
        keys::FROM,
        keys::DATA,
        keys::OBJECTIVE,
        keys::PROMPT,
        Key {
            name: "adapter",
            kind: Kind::Entry(Registry::Method),
            default: Default::Text("full"),
            doc: "the method whose tensors are trained; when continuing an adapted stage, its own if not written",
        },
        keys::ADAPTERS,
        Key {
            name: "epsilon",
            kind: Kind::Float(Bound::Excl(0.0), Bound::None),
            default: Default::Text("1e-3"),
            doc: "distance from the weights at which the loss is measured",
        },
        Key {
            name: "perturbations",
            kind: Kind::Int(1, 1 << 16),
            default: Default::Text("1"),
            doc: "directions of a step; their gradients are averaged",
        },
        Key {
            name: "weight_decay",
            kind: Kind::Float(Bound::Incl(0.0), Bound::None),
            default: Default::Text("0"),
            doc: "decay of weights, not of biases and norms",
        },
        keys::LR,
        keys::SCHEDULE,
        keys::EPOCHS,
        keys::STEPS,
        keys::BATCH,
        keys::MICRO_BATCH,
        keys::FIT,
        keys::MAX_LENGTH,
        keys::FEATURES,
        keys::FEATURES_DTYPE,
        keys::SHUFFLE,
        keys::SEED,
        keys::DEV,
        keys::EVALUATE,
        keys::METRICS,
        keys::POSITIVE,
        keys::BEST,
        keys::PATIENCE,
    ],
};

impl StageKind for Mezo {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn trains(&self) -> bool {
        true
    }

    fn splits(&self) -> &'static [&'static str] {
        &["data", "dev"]
    }

    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        check_common(values, span, diags);
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        let v = cx.values;
        let mut b = Builder::with_numbers("loss", cx.numbers);
        let built = network(&mut b, cx, &cx.tuning, Mode::Evaluate);
        let loss = built.training_loss(&mut b, cx.task.as_ref());
        b.output("loss", loss);
        let loss = verified(b.finish());
        let trained: Vec<&Param> = built.params.iter().filter(|p| p.trainable).collect();
        if trained.is_empty() {
            return Err(vec![
                Diag::error(&NO_GRADIENT, cx.span, "nothing is trained")
                    .help("write `adapter = full`, or a method that adds tensors"),
            ]);
        }
        let mut b = Builder::new("perturb");
        b.phase(Phase::Update);
        let (by, draw) = (b.feed(Feed::Perturbation), b.feed(Feed::Draw));
        for param in trained {
            b.label(&param.name);
            let weight = train::trainable(&mut b, param);
            let decay = if param.kind.decays() {
                v.float("weight_decay")
            } else {
                0.0
            };
            let stream = Stream::new(v.int("seed"), &format!("perturb/{}", param.name)).key();
            b.push(
                Perturb {
                    stream,
                    weight_decay: Real::new(decay),
                },
                &[weight, by, draw],
            );
        }
        let update = Update::Zeroth {
            loss,
            perturb: verified(b.finish()),
            epsilon: v.float("epsilon"),
            samples: v.int("perturbations"),
        };
        let evaluate = v
            .written("dev")
            .then(|| verified(evaluation(cx, &cx.tuning, true).0));
        let fit: Fit = train::fit(cx, &built.params, update, evaluate)?;
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Fit(Box::new(fit)),
        })
    }
}
