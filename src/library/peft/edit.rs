//! Changes of the model's own parameters that an adapter makes beside its methods: LoRA on the task's head, what a start
//! has taken out of the weights. They are applied as the parameter is read.

use super::Floats;
use crate::library::derive::{BaseParam, Derive, Svd};

/// A change of one of the model's own parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Edited {
    /// The parameter's name.
    pub own: String,
    /// What changes.
    pub edit: Edit,
}

/// What changes in a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The file has the whole value, which is among its tensors.
    Replaced,
    /// `scale · B A` is added, with `B [rows, rank]` and `A [rank, width]`.
    Product {
        /// Name of A in the file.
        a: String,
        /// Name of B in the file.
        b: String,
        /// Factor of the product.
        scale: f64,
    },
    /// The best approximation of this rank is taken out.
    LessTop(u64),
    /// The projection onto the span of the first columns, so many, is taken out so many times.
    LessFirst(u64, f64),
}

/// A change with its numbers.
#[derive(Clone, Debug)]
pub enum Ready {
    /// `scale · B A`.
    Product {
        /// `A [rank, width]`
        a: Vec<f32>,
        /// `B [rows, rank]`
        b: Vec<f32>,
        /// Factor of the product.
        scale: f32,
    },
    /// The best approximation of this rank.
    LessTop(u64),
    /// A projection.
    LessFirst(u64, f64),
}

impl Edit {
    /// The change with its numbers; `None` where they are the parameter's value already.
    ///
    /// # Errors
    /// What reading says.
    pub fn ready<E>(&self, get: impl Fn(&str) -> Result<Floats, E>) -> Result<Option<Ready>, E> {
        Ok(Some(match self {
            Self::Replaced => return Ok(None),
            Self::Product { a, b, scale } => {
                let (a, b) = (get(a)?.1, get(b)?.1);
                let scale = *scale as f32;
                Ready::Product { a, b, scale }
            }
            Self::LessTop(rank) => Ready::LessTop(*rank),
            Self::LessFirst(count, times) => Ready::LessFirst(*count, *times),
        }))
    }
}

impl Ready {
    /// Changes a matrix of this width, or a vector.
    ///
    /// # Errors
    /// The decomposition fails, which numbers that are not finite make it do.
    pub fn apply(&self, matrix: &mut [f32], width: usize) -> Result<(), String> {
        let width = width.max(1);
        match self {
            Self::Product { a, b, scale } => {
                let rank = (a.len() / width).max(1);
                for (row, b) in matrix.chunks_exact_mut(width).zip(b.chunks_exact(rank)) {
                    for (a, &b) in a.chunks_exact(width).zip(b) {
                        row.iter_mut().zip(a).for_each(|(x, a)| *x += scale * b * a);
                    }
                }
            }
            Self::LessTop(rank) => {
                let rows = (matrix.len() / width) as u64;
                let weight = BaseParam::weight("", [rows, width as u64]);
                let rank = (*rank).min(rows).min(width as u64);
                let by = Svd {
                    weight,
                    rank,
                    keep: None,
                };
                let parts = by.make(matrix.to_vec()).map_err(|e| e.to_string())?;
                let rest = parts.into_iter().nth(Svd::REST);
                let rest = rest.ok_or("a decomposition has no rest")?;
                matrix.iter_mut().zip(rest).for_each(|(x, rest)| *x = rest);
            }
            Self::LessFirst(count, times) => less_first(matrix, width, *count as usize, *times),
        }
        Ok(())
    }
}

/// Takes the projection of all columns onto the span of the first ones out of a matrix, so many times.
fn less_first(matrix: &mut [f32], width: usize, count: usize, times: f64) {
    let rows = matrix.len() / width;
    let column = |matrix: &[f32], j: usize| -> Vec<f64> {
        let own = matrix.iter().skip(j).step_by(width);
        own.map(|&x| f64::from(x)).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for j in 0..count.min(width).min(rows) {
        let mut own = column(matrix, j);
        // Twice, so that rounding leaves nothing of the others.
        for _ in 0..2 {
            for other in &basis {
                let part = dot(&own, other);
                own.iter_mut().zip(other).for_each(|(x, o)| *x -= part * o);
            }
        }
        let length = dot(&own, &own).sqrt();
        if length > 0.0 {
            own.iter_mut().for_each(|x| *x /= length);
            basis.push(own);
        }
    }
    for j in 0..width {
        let own = column(matrix, j);
        let mut projected = vec![0.0_f64; rows];
        for other in &basis {
            let part = dot(&own, other);
            projected
                .iter_mut()
                .zip(other)
                .for_each(|(x, o)| *x += part * o);
        }
        let cells = matrix.iter_mut().skip(j).step_by(width);
        cells
            .zip(projected)
            .for_each(|(x, p)| *x = (f64::from(*x) - times * p) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed matrix without structure.
    fn matrix(rows: usize, width: usize) -> Vec<f32> {
        (0..rows * width)
            .map(|i| (((i * 37 + 11) % 101) as f32 / 50.0 - 1.0) * (1.0 + (i % 7) as f32))
            .collect()
    }

    #[test]
    fn products_and_projections_change_what_they_say() {
        let mut m = vec![0.0; 6];
        let (a, b) = (vec![1.0, 2.0, 3.0], vec![10.0, 20.0]);
        let scale = 0.5;
        Ready::Product { a, b, scale }.apply(&mut m, 3).unwrap();
        assert_eq!(m, [5.0, 10.0, 15.0, 10.0, 20.0, 30.0]);
        // Without its projection onto the first two columns these are gone, and the rest is orthogonal to them.
        let (rows, width) = (5, 4);
        let full = matrix(rows, width);
        let mut less = full.clone();
        Ready::LessFirst(2, 1.0).apply(&mut less, width).unwrap();
        for i in 0..2 {
            for j in 0..width {
                let dot: f32 = (0..rows)
                    .map(|k| full[k * width + i] * less[k * width + j])
                    .sum();
                assert!(dot.abs() < 1e-4, "{i} {j}: {dot}");
            }
        }
        // Less its best approximation of full rank nothing is left.
        let mut none = full;
        Ready::LessTop(4).apply(&mut none, width).unwrap();
        assert!(none.iter().all(|x| x.abs() < 1e-4), "{none:?}");
    }
}
