//! The lengths of a weight's columns: what DeLoRA's updates are measured by.

use super::{BaseParam, Derive};

/// `‖W_·j‖₂` of each column of a weight `[out, in]`: one part, `[in]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnNorm {
    /// The weight.
    pub weight: BaseParam,
}

impl ColumnNorm {
    fn width(&self) -> u64 {
        self.weight.shape.get(1).copied().unwrap_or(1)
    }
}

impl Derive for ColumnNorm {
    fn what(&self) -> &'static str {
        "column norms"
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        12 * self.width()
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let width = self.width() as usize;
        let mut squares = vec![0.0_f64; width];
        for row in weight.chunks(width.max(1)) {
            for (sum, &x) in squares.iter_mut().zip(row) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        let norms: Vec<f32> = squares.iter().map(|x| x.sqrt() as f32).collect();
        if norms.iter().all(|x| x.is_finite()) {
            Ok(vec![norms])
        } else {
            Err("it holds numbers that are not finite, so its columns have no lengths")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_has_its_length() {
        let norm = ColumnNorm {
            weight: BaseParam::weight("a", [2, 3]),
        };
        let made = norm.make(vec![3.0, 0.0, -5.0, 4.0, 2.0, 12.0]);
        assert_eq!(made, Ok(vec![vec![5.0, 2.0, 13.0]]));
        assert!(norm.make(vec![f32::INFINITY; 6]).is_err());
    }
}
