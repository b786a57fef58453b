//! `train`: gradient descent on a split.

use super::super::metric::{self, Metric};
use super::super::net::Mode;
use super::super::objective::Objective;
use super::super::optimizer::{self, Optimizer};
use super::super::params::Param;
use super::super::schedule::{self, Rates};
use super::super::schema::{
    Bound, Checked, Default, Filled, Key, Kind, Length, RefKind, Registry, Schema, Values,
};
use super::job::{Fit, Job, Routine, Update};
use super::network::{evaluation, network, verified};
use super::{Diag, Diags, Span, StageCx, StageKind};
use crate::library::error::{CONFLICTING_KEYS, IDLE_KEY, METRIC_MISMATCH, NO_GRADIENT};
use crate::program::autodiff::differentiate;
use crate::program::op::{Accumulate, ClipFactor, Constant, Fill, GradNorm};
use crate::program::{Builder, Class, DType, Phase, Real, TensorType, Value};

/// Training by backpropagation.
#[derive(Debug)]
pub(super) struct Train;

static SCHEMA: Schema = Schema {
    name: "train",
    summary: "train a model, or an adapter on it, by backpropagation",
    doc: "Takes a model (`model = …`) or the result of another stage (`from = …`), adapts it with the methods named, and \
          leaves a model or an adapter. The task head is always trained.",
    paper: "",
    keys: &[
        Key {
            name: "model",
            kind: Kind::Ref(RefKind::Model),
            default: Default::Absent,
            doc: "the model to start from",
        },
        Key {
            name: "from",
            kind: Kind::Ref(RefKind::Stage),
            default: Default::Absent,
            doc: "the stage whose result to start from, instead of `model`",
        },
        Key {
            name: "data",
            kind: Kind::Ref(RefKind::Split),
            default: Default::Required,
            doc: "the split to train on",
        },
        Key {
            name: "objective",
            kind: Kind::Choice(Objective::NAMES),
            default: Default::Text("classify"),
            doc: "what is learned: a class, a number, or the word for a class at a prompt's mask",
        },
        Key {
            name: "prompt",
            kind: Kind::Ref(RefKind::Prompt),
            default: Default::Absent,
            doc: "template around the text",
        },
        Key {
            name: "adapter",
            kind: Kind::Entry(Registry::Method),
            default: Default::Absent,
            doc: "the method; when continuing an adapted stage, its own if not written",
        },
        Key {
            name: "adapters",
            kind: Kind::Entries(Registry::Method),
            default: Default::Absent,
            doc: "several methods on one model, instead of `adapter`",
        },
        Key {
            name: "optimizer",
            kind: Kind::Entry(Registry::Optimizer),
            default: Default::Text("adamw"),
            doc: "update rule",
        },
        Key {
            name: "lr",
            kind: Kind::Float(Bound::Excl(0.0), Bound::None),
            default: Default::Absent,
            doc: "learning rate, the schedule's peak",
        },
        Key {
            name: "schedule",
            kind: Kind::Entry(Registry::Schedule),
            default: Default::Text("constant"),
            doc: "how the learning rate changes",
        },
        Key {
            name: "epochs",
            kind: Kind::Int(1, u64::MAX),
            default: Default::Absent,
            doc: "walks over the data",
        },
        Key {
            name: "steps",
            kind: Kind::Int(1, u64::MAX),
            default: Default::Absent,
            doc: "optimizer steps, instead of `epochs`",
        },
        Key {
            name: "batch",
            kind: Kind::Int(1, 1 << 20),
            default: Default::Text("16"),
            doc: "examples of one optimizer step",
        },
        Key {
            name: "micro_batch",
            kind: Kind::Int(1, 1 << 20),
            default: Default::Absent,
            doc: "examples at once; their gradients are added up to `batch`",
        },
        Key {
            name: "max_length",
            kind: Kind::Int(2, 1 << 20),
            default: Default::Absent,
            doc: "tokens after which text is cut; the model's most if not written",
        },
        Key {
            name: "clip",
            kind: Kind::Float(Bound::Incl(0.0), Bound::None),
            default: Default::Text("1"),
            doc: "largest global gradient norm; 0 turns clipping off",
        },
        Key {
            name: "dropout",
            kind: super::super::decl::RATE,
            default: Default::Absent,
            doc: "replaces every dropout rate of the model's config",
        },
        Key {
            name: "dropout_frozen",
            kind: Kind::Bool,
            default: Default::Text("false"),
            doc: "dropout also before the first trained tensor",
        },
        Key {
            name: "shuffle",
            kind: Kind::Bool,
            default: Default::Text("true"),
            doc: "a new order in every epoch",
        },
        Key {
            name: "seed",
            kind: Kind::Int(0, u64::MAX),
            default: Default::Text("42"),
            doc: "seed of head and adapter weights, order and dropout",
        },
        Key {
            name: "dev",
            kind: Kind::Ref(RefKind::Split),
            default: Default::Absent,
            doc: "split to evaluate on during training",
        },
        Key {
            name: "evaluate",
            kind: Kind::Length,
            default: Default::Absent,
            doc: "how often to evaluate; every epoch if not written",
        },
        Key {
            name: "metrics",
            kind: Kind::Names,
            default: Default::Absent,
            doc: "metrics of the evaluations",
        },
        Key {
            name: "best",
            kind: Kind::Entry(Registry::Metric),
            default: Default::Absent,
            doc: "keep the state that is best by this metric, not the last",
        },
        Key {
            name: "patience",
            kind: Kind::Int(1, u64::MAX),
            default: Default::Absent,
            doc: "stop after so many evaluations without a better `best`",
        },
    ],
};

impl StageKind for Train {
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
        exactly_one(values, ("model", "from"), span, diags);
        exactly_one(values, ("epochs", "steps"), span, diags);
        if values.written("adapter") && values.written("adapters") {
            conflict(
                diags,
                values.span("adapters"),
                "`adapter` and `adapters` are both written",
                "keep one of them",
            );
        }
        let peak = values
            .entry("schedule")
            .is_some_and(|s| s.values.opt_float("peak").is_some());
        if peak && values.written("lr") {
            conflict(
                diags,
                values.span("lr"),
                "the learning rate is given twice, here and as the schedule's `peak`",
                "remove one of them",
            );
        } else if !peak && !values.written("lr") {
            conflict(
                diags,
                span,
                "the learning rate is missing",
                "write `lr = …`, or `peak = …` in the schedule",
            );
        }
        for (idle, needs) in [
            ("evaluate", "dev"),
            ("metrics", "dev"),
            ("best", "dev"),
            ("patience", "best"),
        ] {
            if values.written(idle) && !values.written(needs) {
                diags.push(
                    Diag::error(
                        &IDLE_KEY,
                        values.span(idle),
                        format!("`{idle}` has no effect without `{needs}`"),
                    )
                    .label("changes nothing")
                    .help(format!("write `{needs} = …`, or remove `{idle}`")),
                );
            }
        }
        if values
            .opt_int("micro_batch")
            .is_some_and(|m| m >= values.int("batch"))
        {
            diags.push(
                Diag::error(
                    &IDLE_KEY,
                    values.span("micro_batch"),
                    "`micro_batch` is not smaller than `batch`, so it has no effect",
                )
                .label("changes nothing"),
            );
        }
    }

    fn lower(&self, cx: &StageCx<'_>) -> Result<Job, Vec<Diag>> {
        let v = cx.values;
        let micro = v.opt_int("micro_batch").unwrap_or_else(|| v.int("batch"));
        let optimizer = entry(v, "optimizer", "adamw");
        let rule = optimizer::optimizer(&optimizer.name).unwrap_or(optimizer::OPTIMIZERS[0]);
        let (update, params, sites) = build(cx, rule, &optimizer.values, micro < v.int("batch"))?;
        let metrics = metrics(cx, "metrics")?;
        let has_dev = v.written("dev");
        let best = match v.entry("best") {
            Some(entry) => Some(checked_metric(cx, &entry.name, "best")?),
            None => None,
        };
        let steps_per_epoch = cx
            .splits
            .first()
            .and_then(|s| s.as_ref()?.examples)
            .unwrap_or(v.int("batch"))
            .div_ceil(v.int("batch"))
            .max(1);
        let steps = v
            .opt_int("steps")
            .unwrap_or_else(|| v.int("epochs").saturating_mul(steps_per_epoch));
        let every = match v.get("evaluate") {
            Some(Checked::Length(Length::Steps(n))) => *n,
            Some(Checked::Length(Length::Epochs(n))) => n.saturating_mul(steps_per_epoch),
            _ => steps_per_epoch,
        };
        let schedule = entry(v, "schedule", "constant");
        let kind = schedule::schedule(&schedule.name).unwrap_or(schedule::SCHEDULES[0]);
        let evaluate = has_dev.then(|| verified(evaluation(cx, &cx.tuning, true).0));
        let fit = Fit {
            update,
            evaluate,
            rates: Rates::new(kind, &schedule.values, v.opt_float("lr"), steps),
            batch: v.int("batch"),
            micro_batch: micro,
            steps,
            steps_per_epoch,
            seed: v.int("seed"),
            shuffle: v.bool("shuffle"),
            evaluate_every: has_dev.then_some(every),
            metrics,
            best,
            patience: v.opt_int("patience"),
        };
        Ok(Job {
            params,
            sites,
            routine: Routine::Fit(Box::new(fit)),
        })
    }
}

fn entry(values: &Values, key: &str, default: &str) -> Filled {
    values.entry(key).cloned().unwrap_or_else(|| Filled {
        name: default.to_owned(),
        values: Values::default(),
        span: Span::default(),
    })
}

fn conflict(diags: &mut Diags, span: Span, message: &str, help: &str) {
    diags.push(Diag::error(&CONFLICTING_KEYS, span, message).help(help));
}

/// Complains unless exactly one of two keys is written.
pub(super) fn exactly_one(values: &Values, (a, b): (&str, &str), span: Span, diags: &mut Diags) {
    match (values.written(a), values.written(b)) {
        (true, true) => conflict(
            diags,
            values.span(b),
            &format!("`{a}` and `{b}` are both written"),
            "keep one of them",
        ),
        (false, false) => conflict(
            diags,
            span,
            &format!("neither `{a}` nor `{b}` is written"),
            &format!("write `{a} = …` or `{b} = …`"),
        ),
        _ => {}
    }
}

/// The metrics a stage names, or those the objective suggests.
pub(super) fn metrics(cx: &StageCx<'_>, key: &str) -> Result<Vec<&'static dyn Metric>, Vec<Diag>> {
    let written = cx.values.names(key);
    if written.is_empty() {
        let defaults: &[&str] = match cx.objective {
            Objective::Classify | Objective::LabelWords => &["accuracy", "f1"],
            Objective::Regress => &["pearson", "spearman"],
        };
        return Ok(defaults
            .iter()
            .filter_map(|n| metric::metric(n))
            .filter(|m| m.fits(&cx.head))
            .collect());
    }
    written
        .iter()
        .map(|name| checked_metric(cx, name, key))
        .collect()
}

fn checked_metric(
    cx: &StageCx<'_>,
    name: &str,
    key: &str,
) -> Result<&'static dyn Metric, Vec<Diag>> {
    let at = cx.values.span(key);
    let names = metric::METRICS.iter().map(|m| m.schema().name);
    let Some(metric) = metric::metric(name) else {
        let mut diag = Diag::error(&METRIC_MISMATCH, at, format!("there is no metric `{name}`"));
        diag.help = crate::base::suggest::did_you_mean(name, names);
        return Err(vec![diag]);
    };
    if metric.fits(&cx.head) {
        return Ok(metric);
    }
    let fitting: Vec<String> = metric::METRICS
        .iter()
        .filter(|m| m.fits(&cx.head))
        .map(|m| format!("`{}`", m.schema().name))
        .collect();
    Err(vec![
        Diag::error(
            &METRIC_MISMATCH,
            at,
            format!("`{name}` cannot be computed for this stage's predictions"),
        )
        .help(format!("here {} can be computed", fitting.join(", "))),
    ])
}

type Parts = (Update, Vec<Param>, Vec<super::Site>);

/// Builds the programs of a step.
fn build(
    cx: &StageCx<'_>,
    rule: &dyn Optimizer,
    values: &Values,
    split: bool,
) -> Result<Parts, Vec<Diag>> {
    let mut b = Builder::new(if split { "accumulate" } else { "step" });
    let built = network(&mut b, cx, &cx.tuning, Mode::Train);
    let loss = cx.objective.loss(&mut b, built.scores);
    b.output("loss", loss);
    let trained: Vec<Param> = built
        .params
        .iter()
        .filter(|p| p.trainable)
        .cloned()
        .collect();
    let weights: Vec<Value> = trained.iter().map(|p| trainable(&mut b, p)).collect();
    let grads = differentiate(&mut b, loss, &weights);
    let cut: Vec<Diag> = trained
        .iter()
        .zip(&grads)
        .filter(|(_, g)| g.is_none())
        .map(|(p, _)| {
            Diag::error(
                &NO_GRADIENT,
                cx.span,
                format!(
                    "`{}` is to be trained, but the loss does not depend on it",
                    p.name
                ),
            )
            .label("in this stage")
        })
        .collect();
    if !cut.is_empty() {
        return Err(cut);
    }
    if trained.is_empty() {
        let diag = Diag::error(
            &NO_GRADIENT,
            cx.span,
            "nothing is trained: the methods train nothing of a masked-LM head's own",
        )
        .help("write `adapter = full`, or a method that adds tensors or trains blocks");
        return Err(vec![diag]);
    }
    let grads: Vec<Value> = grads.into_iter().flatten().collect();
    for (&weight, &grad) in weights.iter().zip(&grads) {
        b.gradient(weight, grad);
    }
    let update = if split {
        b.phase(Phase::Backward);
        for (param, &grad) in trained.iter().zip(&grads) {
            let acc = accumulator(&mut b, param);
            b.label(&param.name);
            b.push(Accumulate, &[acc, grad]);
        }
        let accumulate = verified(b.finish());
        let mut b = Builder::new("apply");
        let pairs: Vec<(Value, Value)> = trained
            .iter()
            .map(|p| (trainable(&mut b, p), accumulator(&mut b, p)))
            .collect();
        updates(&mut b, cx, rule, values, &trained, &pairs);
        for (_, acc) in &pairs {
            b.push(
                Fill {
                    value: Real::new(0.0),
                },
                &[*acc],
            );
        }
        Update::Split {
            accumulate,
            apply: verified(b.finish()),
        }
    } else {
        let pairs: Vec<(Value, Value)> = weights.iter().copied().zip(grads).collect();
        updates(&mut b, cx, rule, values, &trained, &pairs);
        Update::Whole(verified(b.finish()))
    };
    Ok((update, built.params, built.sites))
}

fn trainable(b: &mut Builder, param: &Param) -> Value {
    b.resident(
        &param.name,
        TensorType::fixed(DType::F32, &param.shape),
        Class::Trainable,
    )
}

fn accumulator(b: &mut Builder, param: &Param) -> Value {
    b.resident(
        &format!("gradient.{}", param.name),
        TensorType::fixed(DType::F32, &param.shape),
        Class::Gradient,
    )
}

/// Global norm, clipping factor, one update a parameter.
fn updates(
    b: &mut Builder,
    cx: &StageCx<'_>,
    rule: &dyn Optimizer,
    values: &Values,
    trained: &[Param],
    pairs: &[(Value, Value)],
) {
    b.phase(Phase::Update);
    b.label("clip");
    let grads: Vec<Value> = pairs.iter().map(|(_, g)| *g).collect();
    let norm = b.push1(GradNorm, &grads);
    b.output("grad_norm", norm);
    let max = cx.values.float("clip");
    let factor = if max > 0.0 {
        b.push1(
            ClipFactor {
                max: Real::new(max),
            },
            &[norm],
        )
    } else {
        b.push1(
            Constant {
                value: Real::new(1.0),
                dtype: DType::F32,
            },
            &[],
        )
    };
    for (param, &(weight, grad)) in trained.iter().zip(pairs) {
        optimizer::apply(
            (rule, values),
            b,
            &param.name,
            weight,
            grad,
            param.kind.decays(),
            factor,
        );
    }
}
