//! The lengths of a weight's rows: what DoRA's magnitudes start at.

use super::{BaseParam, Derive};

/// `‖W_i‖₂` of each row of a weight `[out, in]`: one part, `[out]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowNorm {
    /// The weight.
    pub weight: BaseParam,
}

impl Derive for RowNorm {
    fn what(&self) -> &'static str {
        "row norms"
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        4 * self.weight.shape.first().copied().unwrap_or(0)
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let width = self.weight.shape.get(1).map_or(1, |&n| n as usize);
        let norm = |row: &[f32]| {
            let squares = row.iter().map(|&x| f64::from(x) * f64::from(x));
            squares.sum::<f64>().sqrt() as f32
        };
        let norms: Vec<f32> = weight.chunks(width.max(1)).map(norm).collect();
        if norms.iter().all(|x| x.is_finite()) {
            Ok(vec![norms])
        } else {
            Err("it holds numbers that are not finite, so its rows have no lengths")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_length() {
        let norm = RowNorm {
            weight: BaseParam::weight("a", [2, 3]),
        };
        let made = norm.make(vec![3.0, 0.0, -4.0, 1.0, 2.0, 2.0]);
        assert_eq!(made, Ok(vec![vec![5.0, 3.0]]));
        assert!(norm.make(vec![f32::NAN; 6]).is_err());
    }
}
