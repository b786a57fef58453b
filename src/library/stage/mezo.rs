//! `mezo`: training with two forward passes a step and no gradient (methods Z1).

use super::super::net::{Init, Mode, Param};
use super::super::schema::{Bound, Filled, Given, Maybe, Registry, Schema, Values, kind};
use super::descent::trainable;
use super::job::{Fit, Job, Routine, Update};
use super::network::{evaluation, network, verified};
use super::train::{self, check_common};
use super::{Diag, Diags, Sound, Span, StageCx, StageKind, keys};
use crate::base::rng::Stream;
use crate::library::error::{NEEDS_GRADIENTS, NO_GRADIENT};
use crate::program::op::Perturb;
use crate::program::{Builder, Feed, Phase, Real};

/// Zeroth-order training.
#[derive(Debug)]
pub(super) struct Mezo;

const ADAPTER: Maybe<Filled> = Maybe::filled(
    "adapter",
    kind::entry(Registry::Method),
    "full",
    "the method whose tensors are trained; when continuing an adapted stage, its own if not written",
);
const EPSILON: Given<f64> = Given::<f64>::new(
    "epsilon",
    kind::float(Bound::Excl(0.0), Bound::None),
    (0.001, "1e-3"),
    "distance from the weights at which the loss is measured",
);
const PERTURBATIONS: Given<u64> = Given::<u64>::new(
    "perturbations",
    kind::int(1, 1 << 16),
    (1, "1"),
    "directions of a step; their gradients are averaged",
);
const WEIGHT_DECAY: Given<f64> = Given::<f64>::new(
    "weight_decay",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.0, "0"),
    "decay of weights, not of biases and norms",
);

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
        keys::MODEL.key(),
        keys::FROM.key(),
        keys::DATA.key(),
        keys::OBJECTIVE.key(),
        keys::PROMPT.key(),
        ADAPTER.key(),
        keys::ADAPTERS.key(),
        EPSILON.key(),
        PERTURBATIONS.key(),
        WEIGHT_DECAY.key(),
        keys::LR.key(),
        keys::SCHEDULE.key(),
        keys::EPOCHS.key(),
        keys::STEPS.key(),
        keys::BATCH.key(),
        keys::MICRO_BATCH.key(),
        keys::FIT.key(),
        keys::MAX_LENGTH.key(),
        keys::FEATURES.key(),
        keys::FEATURES_DTYPE.key(),
        keys::SHUFFLE.key(),
        keys::SEED.key(),
        keys::DEV.key(),
        keys::EVALUATE.key(),
        keys::METRICS.key(),
        keys::POSITIVE.key(),
        keys::BEST.key(),
        keys::PATIENCE.key(),
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
        refuse_steps(cx)?;
        let mut b = Builder::with_numbers("loss", cx.numbers);
        let built = network(&mut b, cx, &cx.tuning, Mode::Evaluate);
        let loss = built.training_loss(&mut b, cx.task.as_ref());
        b.output("loss", loss);
        let loss = verified(b.finish());
        let trained: Vec<&Param> = built.params.iter().filter(|p| p.trainable).collect();
        if super::masks::masking(cx).is_some() || super::select::selecting(cx).is_some() {
            let message = "`mezo` moves all trained numbers along one direction, and this method has updates of its own";
            let help = "write `adapter = full`, or a `train` stage";
            return Err(vec![Diag::error(&NO_GRADIENT, cx.span, message).help(help)]);
        }
        let component = |p: &&&Param| matches!(p.init, Init::Component { .. });
        if let Some(param) = trained.iter().find(component) {
            let message = format!(
                "`{}` has rows of zeros where `init = eva` gives its map a smaller rank, and `mezo` moves all that it trains",
                param.name
            );
            let help = "write another `init`, or a `train` stage";
            return Err(vec![Diag::error(&NO_GRADIENT, cx.span, message).help(help)]);
        }
        if cx.task.r_drop().is_some() {
            let message = "`r_drop` compares two readings with other dropout, and `mezo` reads without dropout";
            let help = "remove `r_drop`, or write a `train` stage";
            return Err(vec![
                Diag::error(&NEEDS_GRADIENTS, cx.span, message).help(help),
            ]);
        }
        if trained.is_empty() {
            return Err(vec![
                Diag::error(&NO_GRADIENT, cx.span, "nothing is trained")
                    .help("write `adapter = full`, or a method that adds tensors"),
            ]);
        }
        if let Some(param) = trained.iter().find(|p| p.rate != 1.0) {
            let message = format!(
                "`{}` is to be learned at {} times the learning rate, and `mezo` moves all that it trains at one",
                param.name, param.rate
            );
            let diag = Diag::error(&NEEDS_GRADIENTS, cx.span, message).label("in this stage");
            return Err(vec![
                diag.help("leave the method's rates at 1, or write `train`"),
            ]);
        }
        let mut b = Builder::new("perturb");
        b.phase(Phase::Update);
        let (by, draw) = (b.feed(Feed::Perturbation), b.feed(Feed::Draw));
        for param in trained {
            b.label(&param.name);
            let weight = trainable(&mut b, param);
            let decay = if param.decays() {
                WEIGHT_DECAY.get(v)
            } else {
                0.0
            };
            let stream = Stream::new(keys::SEED.get(v), &format!("perturb/{}", param.name)).key();
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
            epsilon: EPSILON.get(v),
            samples: PERTURBATIONS.get(v),
        };
        let evaluate = keys::DEV
            .is_written(v)
            .then(|| verified(evaluation(cx, &cx.tuning, true).0));
        let fit: Fit = train::fit(cx, &built.params, update, evaluate)?;
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Fit(Box::new(fit)),
        })
    }
}

/// Complains about methods whose steps need gradients.
fn refuse_steps(cx: &StageCx<'_>) -> Result<(), Vec<Diag>> {
    let mut methods = cx.tuning.methods.iter();
    match methods.find(|(m, f)| m.steps(&f.values)) {
        None => Ok(()),
        Some((method, filled)) => {
            let name = method.schema().name;
            let message =
                format!("`{name}` works with the gradients of each step, and `mezo` has none");
            let diag = Diag::error(&NEEDS_GRADIENTS, filled.span, message).label("in this stage");
            Err(vec![diag.help("write `train`, or another method")])
        }
    }
}
