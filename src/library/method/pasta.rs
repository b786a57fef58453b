//! PaSTA (methods A9): a trained vector is added to the states of special tokens before each block.

use super::super::net::{Init, Param, ParamKind, Part};
use super::super::schema::{Given, Maybe, kind};
use super::{At, Marking, Method, Net, Schema, Site, Stacking, Value, Values};
use crate::library::decl::RATE;
use crate::library::placement::Placement;

/// Trained vectors at special tokens.
#[derive(Debug)]
pub struct Pasta;

const VECTORS: Given<u64> = Given::<u64>::new(
    "vectors",
    kind::int(1, 1 << 16),
    (2, "2"),
    "how many of a text's special tokens have a vector, from the first on: 2 for one text, 3 for a pair as BERT has it",
);
const SHARED: Given<bool> = Given::<bool>::new(
    "shared",
    kind::BOOL,
    (false, "false"),
    "one vector a block for all of them",
);
const DROPOUT: Given<f64> =
    Given::<f64>::new("dropout", RATE, (0.1, "0.1"), "dropout on the vectors");
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "block",
    "the blocks before which vectors are added",
);

static SCHEMA: Schema = Schema {
    name: "pasta",
    summary: "PaSTA: trained vectors added to the special tokens, such as [CLS] and [SEP], before each block",
    doc: "Before block l, h_t + v_p for the token t that is the p-th special token of its text, for p below `vectors`; other \
          tokens, and further special ones, stay. The vectors are normal of deviation 0.02 and, with the head, all that trains: \
          2 · layers · hidden numbers for single texts. Dropout acts on the sum of vectors that a token gets. Backward goes \
          through the whole model; 16 bytes a trained number. It cannot be merged, and peft has no equal.",
    paper: "Yang et al. 2023 (arXiv 2210.04382), section 3",
    keys: &[VECTORS.key(), SHARED.key(), DROPOUT.key(), ON.key()],
};

impl Method for Pasta {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn folds(&self) -> bool {
        false
    }

    fn fits(&self, site: &Site) -> bool {
        matches!(site.part, Part::Block { .. })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn marking(&self, _: &Values) -> Marking {
        Marking {
            specials: true,
            ..Marking::default()
        }
    }

    fn entered(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let (values, width) = (at.values, at.site.output());
        let most = VECTORS.get(values);
        let rows = if SHARED.get(values) { 1 } else { most };
        let vectors = Param::at(at.site, "pasta").shape(&[rows, width]);
        let vectors = vectors.kind(ParamKind::Adapter).start(Init::Normal(0.02));
        let mut vectors = net.tensor(vectors);
        if rows < most {
            vectors = net.listed(vectors, vec![0; most as usize]);
        }
        net.added_to_special(x, vectors, (most, DROPOUT.get(values)))
    }
}
