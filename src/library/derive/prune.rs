//! Structural pruning: which rows and columns of the backbone's matrices a narrower copy keeps
//! (methods A10 d; Sung et al. 2022, section 3.2, variant without residual).
//!
//! A [`Choice`] says which indices of one width stay. It ranks rows over the columns that an earlier
//! choice kept, so a parameter's choices hang together as a chain from the token embedding to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use crate::library::counts::to_u32;

use super::super::net::{Init, Param, ParamKind};
use super::BaseParam;

/// What the entries of the backbone's matrices are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Importance {
    /// Their absolute values.
    Magnitude,
    /// Their empirical Fisher information over so many training examples.
    Fisher {
        /// Examples.
        samples: u64,
    },
}

/// Which indices of one width stay: those of the most important rows (or columns) of some matrices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Matrices of one shape that are ranked jointly: an entry counts as the product of theirs.
    pub of: Vec<BaseParam>,
    /// What makes an entry important.
    pub importance: Importance,
    /// Rows are ranked by the columns kept here; `None` ranks the columns of a table by all its rows.
    pub within: Option<Arc<Choice>>,
    /// How many stay.
    pub keep: u64,
}

impl Choice {
    /// What tells it from the others of a chain.
    #[must_use]
    pub fn name(&self) -> &str {
        self.of.first().map(|s| s.name.as_str()).unwrap_or_default()
    }

    /// Indices that are ranked.
    fn candidates(&self) -> u64 {
        let axis = usize::from(self.within.is_none());
        let shape = self.of.first().map(|s| s.shape.as_slice());
        shape.and_then(|s| s.get(axis)).copied().unwrap_or(0)
    }

    /// Bytes of the matrices that must be brought into memory to rank.
    fn read_bytes(&self) -> u64 {
        match self.importance {
            Importance::Magnitude => self.of.iter().map(BaseParam::bytes).sum(),
            Importance::Fisher { .. } => 0,
        }
    }

    /// Bytes of the scores.
    #[must_use]
    pub fn score_bytes(&self) -> u64 {
        8 * self.candidates()
    }
}

/// A parameter cut out of one of the backbone's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What it is cut from.
    pub of: BaseParam,
    /// Rows (entries of a vector) that stay.
    pub rows: Arc<Choice>,
    /// Columns that stay; `None` for vectors.
    pub columns: Option<Arc<Choice>>,
}

/// Walks through the backbone in the order of its forward pass and notes what each parameter of the
/// narrower copy is cut from.
#[derive(Debug)]
pub struct Pruner {
    importance: Importance,
    kept: Option<Arc<Choice>>,
    cuts: BTreeMap<String, Cut>,
}

impl Pruner {
    /// Before the first step.
    #[must_use]
    pub const fn new(importance: Importance) -> Self {
        Self {
            importance,
            kept: None,
            cuts: BTreeMap::new(),
        }
    }

    /// Enters by the token embedding `[rows, width]` at module path `table`; nothing, and `false`, if the walk is
    /// under way.
    pub fn enter(&mut self, table: &str, (rows, width): (u64, u64), keep: u64) -> bool {
        if self.kept.is_some() {
            return false;
        }
        let name = format!("{table}.weight");
        self.kept = Some(Arc::new(Choice {
            of: vec![BaseParam::new(name, &[rows, width], ParamKind::Embedding)],
            importance: self.importance,
            within: None,
            keep,
        }));
        true
    }

    /// Goes through linear maps `[output, input]` that read the same and are ranked jointly, given as
    /// module paths `(copy, backbone)`.
    pub fn maps(&mut self, pairs: &[(&str, &str)], (output, input): (u64, u64), keep: u64) {
        let Some(columns) = self.kept.clone() else {
            return;
        };
        let weight = |path: &str| {
            let name = format!("{path}.weight");
            BaseParam::new(name, &[output, input], ParamKind::Weight)
        };
        let rows = Arc::new(Choice {
            of: pairs.iter().map(|(_, own)| weight(own)).collect(),
            importance: self.importance,
            within: Some(columns.clone()),
            keep,
        });
        for (copy, own) in pairs {
            let cut = Cut {
                of: weight(own),
                rows: rows.clone(),
                columns: Some(columns.clone()),
            };
            self.cuts.insert(format!("{copy}.weight"), cut);
            self.vector((copy, own), "bias", (ParamKind::Bias, output), &rows);
        }
        self.kept = Some(rows);
    }

    /// Goes through something and comes back: what follows reads what was read before.
    pub fn aside(&mut self, walk: impl FnOnce(&mut Self)) {
        let before = self.kept.clone();
        walk(self);
        self.kept = before;
    }

    /// Goes through a norm of this width, given as module paths `(copy, backbone)`.
    pub fn norm(&mut self, paths: (&str, &str), width: u64) {
        if let Some(rows) = self.kept.clone() {
            self.vector(paths, "weight", (ParamKind::NormWeight, width), &rows);
            self.vector(paths, "bias", (ParamKind::NormBias, width), &rows);
        }
    }

    fn vector(
        &mut self,
        (copy, own): (&str, &str),
        suffix: &str,
        (kind, width): (ParamKind, u64),
        rows: &Arc<Choice>,
    ) {
        let cut = Cut {
            of: BaseParam::new(format!("{own}.{suffix}"), &[width], kind),
            rows: rows.clone(),
            columns: None,
        };
        self.cuts.insert(format!("{copy}.{suffix}"), cut);
    }

    /// How a parameter of the copy starts, if the walk met it.
    #[must_use]
    pub fn init(&self, name: &str) -> Option<Init> {
        self.cuts.get(name).cloned().map(Init::Pruned)
    }
}

/// Importance of each row of matrices `[n, width]`: the sum, over `columns`, of the product of their
/// entries' absolute values.
#[must_use]
pub fn row_scores(matrices: &[&[f32]], width: usize, columns: &[u32]) -> Vec<f64> {
    let rows = matrices.first().map_or(0, |m| m.len() / width.max(1));
    let score = |row: usize| -> f64 {
        let entry = |column: u32| -> f64 {
            let at = row * width + column as usize;
            let values = matrices.iter().filter_map(|m| m.get(at));
            values.map(|&x| f64::from(x.abs())).product()
        };
        columns.iter().map(|&c| entry(c)).sum()
    };
    (0..rows).into_par_iter().map(score).collect()
}

/// Importance of each column of a matrix `[n, width]`: the sum of its entries' absolute values.
#[must_use]
pub fn column_scores(matrix: &[f32], width: usize) -> Vec<f64> {
    let mut scores = vec![0.0; width];
    for row in matrix.chunks_exact(width.max(1)) {
        for (score, x) in scores.iter_mut().zip(row) {
            *score += f64::from(x.abs());
        }
    }
    scores
}

/// The indices of the `keep` highest scores, ascending; of equal scores the first stay.
#[must_use]
pub fn best(scores: &[f64], keep: usize) -> Vec<u32> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let score = |i: usize| scores.get(i).copied().unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    let mut kept: Vec<u32> = order.into_iter().take(keep).map(to_u32).collect();
    kept.sort_unstable();
    kept
}

/// Rows, and columns if given, of a matrix `[n, width]`; a vector has a width of 1.
#[must_use]
pub fn cut(matrix: &[f32], width: usize, rows: &[u32], columns: Option<&[u32]>) -> Vec<f32> {
    // Of the right size from the start: a vector that grows would hold more than is counted.
    let mut data = Vec::with_capacity(rows.len() * columns.map_or(width, <[u32]>::len));
    for &r in rows {
        let from = r as usize * width;
        let row = matrix.get(from..from + width).unwrap_or_default();
        match columns {
            None => data.extend_from_slice(row),
            Some(columns) => {
                let entries = columns.iter().filter_map(|&c| row.get(c as usize));
                data.extend(entries);
            }
        }
    }
    data
}

/// The matrices that some parameters' choices rank, each once.
#[must_use]
pub fn ranked(params: &[Param]) -> Vec<BaseParam> {
    let mut sources = Vec::new();
    let mut made: BTreeSet<&str> = BTreeSet::new();
    for param in params {
        for choice in choices(param, &mut made) {
            sources.extend(choice.of.iter().cloned());
        }
    }
    sources
}

/// The choices that a parameter is cut by and that were not made before, marking them as made.
fn choices<'a>(param: &'a Param, made: &mut BTreeSet<&'a str>) -> Vec<&'a Choice> {
    let Init::Pruned(cut) = &param.init else {
        return Vec::new();
    };
    let mut links: Vec<&Choice> = cut.columns.as_deref().into_iter().collect();
    links.push(&cut.rows);
    let mut fresh = Vec::new();
    while let Some(link) = links.pop() {
        if made.insert(link.name()) {
            fresh.push(link);
            links.extend(link.within.as_deref());
        }
    }
    fresh
}

/// What pruning takes at its peak, in bytes, while nothing else is loaded: Fisher information, what was
/// cut already, the matrices being ranked or cut, and scores. 0 if nothing is pruned. Each choice is made
/// once, when the first parameter asks for it.
#[must_use]
pub fn peak_bytes(params: &[Param]) -> u64 {
    let fisher = |p: &Param| matches!(&p.init, Init::Pruned(cut) if matches!(cut.rows.importance, Importance::Fisher { .. }));
    let mut live = if params.iter().any(fisher) {
        ranked(params).iter().map(BaseParam::bytes).sum()
    } else {
        0
    };
    let mut peak = 0;
    let mut made: BTreeSet<&str> = BTreeSet::new();
    for param in params {
        let Init::Pruned(cut) = &param.init else {
            continue;
        };
        for choice in choices(param, &mut made) {
            peak = peak.max(live + choice.read_bytes() + choice.score_bytes());
        }
        let own = 4 * param.elements();
        peak = peak.max(live + cut.of.bytes() + own);
        live += own;
    }
    peak
}

#[cfg(test)]
#[path = "prune_tests.rs"]
mod tests;
