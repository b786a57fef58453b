//! Lengths of a split's examples: known from the data, or assumed.

/// Token counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// One an example.
    Known(Vec<u32>),
    /// The data are not at hand: every example is taken as this long.
    Assumed(u32),
}

impl Lengths {
    /// The lengths; when assumed, one batch of them.
    #[must_use]
    pub fn list(&self, batch: u64) -> Vec<u32> {
        match self {
            Self::Known(list) => list.clone(),
            Self::Assumed(n) => vec![*n; batch as usize],
        }
    }

    /// The lengths with texts cut at another length.
    #[must_use]
    pub fn cut(&self, most: u32) -> Self {
        match self {
            Self::Known(list) => Self::Known(list.iter().map(|&n| n.min(most)).collect()),
            Self::Assumed(_) => Self::Assumed(most),
        }
    }

    /// Number of examples, if known.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Known(list) => Some(list.len() as u64),
            Self::Assumed(_) => None,
        }
    }
}
