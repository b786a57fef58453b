//! Derived values: tensors that are computed from the model's own weights before the first step.
//!
//! A derivation is one file and one row here. It says what it reads, what memory it takes and what it makes; the
//! parameters that are made say themselves whether adapters keep them ([`Param`]).

use std::fmt;

use super::net::{Param, ParamKind, Role};

mod aligned;
mod column_norm;
pub mod components;
mod halves;
mod joint;
mod minor_vectors;
pub mod places;
pub mod prune;
mod removal;
mod residual;
mod row_norm;
mod singular_vectors;
mod split;
pub mod spread;
mod subspaces;
mod svd;
mod table_rows;
mod truncated;

pub use aligned::{Aligned, Alignment};
pub use column_norm::ColumnNorm;
pub use halves::Halves;
pub use joint::Joint;
pub use minor_vectors::MinorVectors;
pub use removal::Removal;
pub use residual::Residual;
pub use row_norm::RowNorm;
pub use singular_vectors::SingularVectors;
pub use split::{Basis, Split};
pub use subspaces::Subspaces;
pub use svd::{DECOMPOSITION, Svd};
pub use table_rows::TableRows;
pub use truncated::Truncated;

/// A parameter of the model's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseParam {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its kind.
    pub kind: ParamKind,
}

impl BaseParam {
    /// The weight `[output, input]` of a linear map.
    #[must_use]
    pub fn weight(module: &str, shape: [u64; 2]) -> Self {
        Self::new(format!("{module}.weight"), &shape, ParamKind::Weight)
    }

    /// A parameter of this kind.
    #[must_use]
    pub fn new(name: String, shape: &[u64], kind: ParamKind) -> Self {
        let shape = shape.to_vec();
        Self { name, shape, kind }
    }

    /// The parameter as the model declares it.
    #[must_use]
    pub fn param(&self) -> Param {
        Param::own(&self.name, &self.shape, self.kind, Role::Side)
    }

    /// Its bytes in f32.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        4 * self.shape.iter().product::<u64>()
    }
}

/// The parts that are made again, or what is wrong with the weight.
pub type Remade = Result<Vec<Option<Vec<f32>>>, &'static str>;

/// How some tensors are computed together from one weight.
pub trait Derive: fmt::Debug + Send + Sync {
    /// What is computed, as reports call it.
    fn what(&self) -> &'static str;

    /// The weight that is read, in f32.
    fn source(&self) -> &BaseParam;

    /// Further parameters that are read; their numbers follow those of the weight.
    fn others(&self) -> Vec<&BaseParam> {
        Vec::new()
    }

    /// Bytes held of what is read: all of it, and where it is more than one the one that is put behind the others.
    fn read_bytes(&self) -> u64 {
        let others = self.others();
        let each = others.iter().map(|p| p.bytes());
        let (own, sum): (u64, u64) = (self.source().bytes(), each.clone().sum());
        match each.max() {
            Some(most) => own + sum + most.max(own),
            None => own,
        }
    }

    /// An upper bound of the heap bytes held while all parts are made: results included, the weight itself excluded.
    fn scratch_bytes(&self) -> u64;

    /// Whether it reads the numbers of the file, in whatever format the weight is stored. Otherwise it reads what that stands for.
    fn exact(&self) -> bool {
        false
    }

    /// All parts, row-major, in their order, places as numbers with their bits; the memory of `weight` may become one of them.
    ///
    /// # Errors
    /// What is wrong with the weight.
    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str>;

    /// The parts whose first values [`Self::remake`] wants, in that order.
    fn wanted_again(&self) -> &'static [usize] {
        &[]
    }

    /// An upper bound of the heap bytes held while parts are made again, beside what is read.
    fn remake_bytes(&self) -> u64 {
        0
    }

    /// Whether its parts are of several sites, so that they wait until those are loaded.
    fn is_of_many(&self) -> bool {
        false
    }

    /// [`Self::remake`], where it can fail.
    ///
    /// # Errors
    /// What is wrong with the weight.
    fn again(&self, weight: Vec<f32>, first: &[&[f32]]) -> Remade {
        Ok(self.remake(weight, first))
    }

    /// The parts that no adapter keeps, from the weight and the first values of [`Self::wanted_again`]; `None` for the
    /// others.
    fn remake(&self, weight: Vec<f32>, first: &[&[f32]]) -> Vec<Option<Vec<f32>>> {
        let _ = (weight, first);
        Vec::new()
    }
}

macro_rules! derivations {
    ($($derivation:ident,)+) => {
        /// Every derivation, with its attributes. Tensors with equal ones are made together.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is documented at its struct")]
        pub enum Derivation { $($derivation($derivation),)+ }

        impl Derivation {
            /// Its rule.
            #[must_use]
            pub fn rule(&self) -> &dyn Derive {
                match self { $(Self::$derivation(own) => own,)+ }
            }
        }

        $(impl From<$derivation> for Derivation { fn from(own: $derivation) -> Self { Self::$derivation(own) } })+
    };
}

derivations! {
    Aligned,
    ColumnNorm,
    Halves,
    Joint,
    MinorVectors,
    Removal,
    Residual,
    RowNorm,
    SingularVectors,
    Split,
    Subspaces,
    Svd,
    TableRows,
    Truncated,
}
