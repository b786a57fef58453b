//! R-Drop: each text is read twice, with other dropout, and both predictions are to agree. A key that several tasks have.

use crate::base::Span;
use crate::library::schema::{Bound, Given, Values, kind};

pub(super) const R_DROP: Given<f64> = Given::<f64>::tacit(
    "r_drop",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.0, "0"),
    "α of R-Drop (Liang et al. 2021, arXiv 2106.14448): each text is read twice, with other dropout, and what is minimised is the mean \
          of both losses and α times the mean of both divergences between the two predictions; evaluations report the plain loss",
);

/// What a recipe writes of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RDrop {
    alpha: f64,
    at: Option<Span>,
}

impl RDrop {
    pub(super) fn of(values: &Values) -> Self {
        let key = R_DROP.name();
        Self {
            alpha: R_DROP.get(values),
            at: values.written(key).then(|| values.span(key)),
        }
    }

    /// α, if it acts.
    pub(super) fn alpha(self) -> Option<f64> {
        Some(self.alpha).filter(|&alpha| alpha > 0.0)
    }

    /// The key with its place, if it is written.
    pub(super) fn written(self) -> Option<(&'static str, Span)> {
        self.at.map(|at| (R_DROP.name(), at))
    }
}
