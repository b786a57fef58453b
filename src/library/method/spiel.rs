//! SpIEL (methods S6 to S8): a sparse update whose places change while training.

use super::super::derive::places::Score;
use super::super::schema::{Bound, Given, kind};
use super::sparse::{self, ON};
use super::{
    At, Complaint, Facts, Lookup, Method, Net, PeftForm, PeftTensor, PeftTogether, Schema,
    Selecting, Site, Stacking, Value, Values,
};

/// Places that are dropped and grown.
#[derive(Debug)]
pub struct Spiel;

const DENSITY: Given<f64> = Given::<f64>::new(
    "density",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    (0.01, "0.01"),
    "share of the numbers of each matrix that is trained",
);
const GROW: Given<str> = Given::<str>::new(
    "grow",
    kind::choice(&["gradients", "sm3"]),
    ("gradients", "gradients"),
    "where new places are: gradients takes the largest accumulated ones (SpIEL-AG), sm3 the largest products of SM3's moments (SpIEL-MA)",
);
const PERIOD: Given<u64> = Given::<u64>::new(
    "period",
    kind::int(2, u64::MAX),
    (20, "20"),
    "steps from one change of places to the next",
);
const ACCUMULATE: Given<u64> = Given::<u64>::new(
    "accumulate",
    kind::COUNT,
    (5, "5"),
    "steps over which the gradients of candidates are added up; less than `period`",
);
const RATE: Given<f64> = Given::<f64>::new(
    "rate",
    kind::float(Bound::Incl(0.0), Bound::Incl(1.0)),
    (0.2, "0.2"),
    "share of the places that change, at the beginning; it falls to 0 at the end",
);
const POLICY: Given<str> = Given::<str>::new(
    "policy",
    kind::choice(&["linear", "cosine"]),
    ("linear", "linear"),
    "how that share falls; with linear all places change the first time",
);

const CANDIDATES: Given<str> = Given::<str>::new(
    "candidates",
    kind::choice(&["step", "first_micro_batch"]),
    ("step", "step"),
    "whose gradient names the candidates of `grow = gradients` where a step has micro-batches: step sums that of the whole step, in a copy of the matrices in f32; first_micro_batch takes that of the first one, as the authors' program does, with no copy",
);

static SCHEMA: Schema = Schema {
    name: "spiel",
    summary: "a sparse update whose places change: the smallest numbers are dropped, new ones grow where gradients are largest",
    doc: "y = x (W0 + S)ᵀ + b, where S has trained numbers at `density` of each matrix' places, drawn at first. After `accumulate` \
          steps, and then at every `period`th step more, the share `rate` · (1 - t/T) of them that is smallest is dropped, and as \
          many new places begin at 0. `grow = gradients`: in the first step of a phase the places with the largest gradients become \
          candidates, their gradients are added up until its end, and the largest become places, whose moments and age are those \
          of the phase; each number has an age for AdamW's correction. `grow = sm3`: the update keeps SM3's moments of rows and \
          columns instead, and the largest products grow. Where two are equal the first is taken. On matrices in blocks \
          (`dtype = nf4`) it is qSpIEL. A gradient of a whole matrix is there in the first step of a phase only, one matrix at a \
          time, or that of `candidates = step` with micro-batches. Needs `optimizer = adamw`. Merges exactly, and is written in peft's format as SHiRA where a matrix has room for \
          its rank.",
    paper: "Ansell et al. 2024 (arXiv 2401.16405)",
    keys: &[
        DENSITY.key(),
        GROW.key(),
        PERIOD.key(),
        ACCUMULATE.key(),
        RATE.key(),
        POLICY.key(),
        CANDIDATES.key(),
        ON.key(),
    ],
};

fn count(at: &At<'_>) -> u64 {
    sparse::share(DENSITY.get(at.values), sparse::size(at.site))
}

fn delta(at: &At<'_>, net: &mut Net<'_>) -> sparse::Delta {
    let seed = net.seed();
    sparse::own(at, net, count(at), Score::Random { seed })
}

impl Method for Spiel {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn selecting(&self, values: &Values) -> Option<Selecting> {
        Some(Selecting {
            sm3: GROW.get(values) == "sm3",
            whole: CANDIDATES.get(values) == "step",
            period: PERIOD.get(values),
            accumulate: ACCUMULATE.get(values),
            rate: RATE.get(values),
            cosine: POLICY.get(values) == "cosine",
        })
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (steps, period) = (ACCUMULATE.get(values), PERIOD.get(values));
        let complaint = (steps >= period).then(|| Complaint {
            key: ACCUMULATE.name(),
            code: &crate::library::error::CONFLICTING_KEYS,
            message: format!(
                "`accumulate` is {steps}, and a change of places comes every {period} steps"
            ),
            help: Some(format!("write at most `accumulate = {}`", period - 1)),
        });
        let idle =
            (GROW.get(values) == "sm3" && values.written(CANDIDATES.name())).then(|| Complaint {
                key: CANDIDATES.name(),
                code: &crate::library::error::IDLE_KEY,
                message: "`candidates` has no effect with `grow = sm3`, which has none".to_owned(),
                help: Some("remove it, or write `grow = gradients`".to_owned()),
            });
        let complaint = complaint.or(idle);
        complaint.or_else(|| sparse::check_size(site))
    }

    fn check_model(&self, values: &Values, facts: &Facts) -> Option<Complaint> {
        let shared = facts.blocks < facts.layers && GROW.get(values) != "sm3";
        shared.then(|| Complaint {
            key: GROW.name(),
            code: &crate::library::error::CONFLICTING_KEYS,
            message: "this model runs a block several times, and gradients of one run alone would choose its places"
                .to_owned(),
            help: Some("write `grow = sm3`".to_owned()),
        })
    }

    fn watches(&self, values: &Values) -> bool {
        GROW.get(values) != "sm3"
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let y = delta(at, net).linear(at, net, x);
        if GROW.get(at.values) == "sm3" {
            return y;
        }
        let whole = CANDIDATES.get(at.values) == "step";
        net.watch(at.site, (y, x), (count(at), whole))
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        delta(at, net).merged(at, net)
    }

    fn peft(&self, _: &Values) -> Option<PeftForm> {
        Some(sparse::form(None))
    }

    fn peft_turned(&self) -> bool {
        false
    }

    fn peft_tensors(&self, _: &Values, _: &Site, _: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        Some(Vec::new())
    }

    fn peft_together(&self, _: &Values, sites: &[&Site], get: &Lookup<'_>) -> PeftTogether {
        sparse::lists(sites, get)
    }
}
