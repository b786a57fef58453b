//! Some rows of a table of embeddings: what virtual tokens start at.

use super::{BaseParam, Derive};
use crate::program::Real;

/// Rows of a table `[entries, width]`, in any order and as often as they are named: one part, `[rows, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRows {
    /// The table.
    pub table: BaseParam,
    /// Its rows.
    pub rows: Vec<u32>,
    /// Factor of what is made.
    pub scale: Real,
}

impl Derive for TableRows {
    fn what(&self) -> &'static str {
        "rows of embeddings"
    }

    fn source(&self) -> &BaseParam {
        &self.table
    }

    fn scratch_bytes(&self) -> u64 {
        let width = self.table.shape.get(1).copied().unwrap_or(1);
        4 * self.rows.len() as u64 * width
    }

    fn make(&self, table: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let width = self.table.shape.get(1).map_or(1, |&n| n as usize);
        let mut made = Vec::with_capacity(self.rows.len() * width);
        for &row in &self.rows {
            let from = row as usize * width;
            let own = table.get(from..from + width);
            made.extend_from_slice(own.ok_or("it has fewer rows than a virtual token starts at")?);
        }
        let scale = self.scale.get() as f32;
        made.iter_mut().for_each(|x| *x *= scale);
        Ok(vec![made])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_picked_in_their_order() {
        let rows = TableRows {
            table: BaseParam::weight("a", [3, 2]),
            rows: vec![2, 0, 2],
            scale: Real::new(2.0),
        };
        let made = rows.make(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(made, Ok(vec![vec![8.0, 10.0, 0.0, 2.0, 8.0, 10.0]]));
        assert!(rows.make(vec![0.0; 2]).is_err());
    }
}
