//! What methods that rotate share: rotations made of skew-symmetric blocks, and their products with rows.

use super::{Complaint, Net, Site, Value};
use crate::library::counts::to_u32;
use crate::library::error::BLOCKS_DO_NOT_FIT;
use crate::program::op::{Arrange, BlockProduct, Blocks, Inverse};

/// Rotations `[b, b]`, one below the other, as what is done to rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// How many.
    blocks: u64,
    /// `P` of `I + P`, or `M` of `2 M − I`.
    by: Value,
    /// Whether it is the second.
    exact: bool,
}

/// Elements above the diagonal of a matrix of so many rows.
pub(super) const fn above(size: u64) -> u64 {
    size * size.saturating_sub(1) / 2
}

/// Rows of the matrix that has so many elements above its diagonal, or less.
pub(super) fn side(elements: u64) -> u64 {
    let root = (8.0 * elements as f64 + 1.0).sqrt();
    ((1.0 + root) / 2.0).round() as u64
}

/// `[g, b(b−1)/2]`, which is what stands above the diagonals row by row, as skew-symmetric matrices `[g·b, b]`.
pub(super) fn skew(net: &mut Net<'_>, upper: Value, (groups, size): (u64, u64)) -> Value {
    let place = |row: u64, column: u64| row * size - above(row + 1) - row + column - 1;
    let places = (0..size * size).map(|i| {
        let (row, column) = (i / size, i % size);
        match row.cmp(&column) {
            std::cmp::Ordering::Less => Some((place(row, column), false)),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some((place(column, row), true)),
        }
    });
    let by = Arrange::new(above(size), places);
    let flat = net.arranged(upper, by);
    net.reshaped(flat, groups * size, size)
}

/// `A − Aᵀ` of matrices `[g·b, b]`, one below the other.
pub(super) fn antisymmetric(net: &mut Net<'_>, a: Value, (groups, size): (u64, u64)) -> Value {
    let flat = net.reshaped(a, groups, size * size);
    let terms = (0..size * size).map(|i| [(i, false), (i % size * size + i / size, true)]);
    let flat = net.arranged(flat, Arrange::new(size * size, terms));
    net.reshaped(flat, groups * size, size)
}

impl Rotation {
    /// Cayley's `(I − Q)(I + Q)⁻¹` of skew-symmetric blocks `Q`.
    pub(super) fn cayley(net: &mut Net<'_>, q: Value, blocks: u64) -> Self {
        let by = net.b.push1(Inverse, &[q]);
        let exact = true;
        Self { blocks, by, exact }
    }

    /// The same by so many terms of Neumann's series, as peft sums it: `I + 2Q + 2Q² + … + Qⁿ⁻¹`, of which three terms and
    /// four are the same. `None` for one term, which is the identity.
    pub(super) fn neumann(
        net: &mut Net<'_>,
        q: Value,
        (blocks, terms): (u64, u64),
    ) -> Option<Self> {
        let twice = net.scaled(q, 2.0);
        let mut sum = match terms {
            0 | 1 => return None,
            _ => twice,
        };
        if terms > 2 {
            let next = BlockProduct::new(to_u32(blocks), Blocks::STACKED, Blocks::STACKED);
            let mut power = net.b.push1(next.clone(), &[q, q]);
            let twice = net.scaled(power, 2.0);
            sum = net.add(sum, twice);
            for _ in 3..terms.saturating_sub(1) {
                power = net.b.push1(next.clone(), &[power, q]);
                let twice = net.scaled(power, 2.0);
                sum = net.add(sum, twice);
            }
            power = net.b.push1(next, &[power, q]);
            sum = net.add(sum, power);
        }
        let (by, exact) = (sum, false);
        Some(Self { blocks, by, exact })
    }

    /// The matrix that it is made of.
    pub(super) const fn matrix(self) -> Value {
        self.by
    }

    /// The one block, for each of so many parts of a row.
    pub(super) fn repeated(self, net: &mut Net<'_>, blocks: u64, size: u64) -> Self {
        let list = (0..blocks * size).map(|row| to_u32(row % size)).collect();
        let by = net.rows(self.by, list);
        Self { blocks, by, ..self }
    }

    /// Each part of each row of `x` times its rotation, or times the transpose of it.
    pub(super) fn of_rows(self, net: &mut Net<'_>, x: Value, transposed: bool) -> Value {
        let lie = if transposed {
            Blocks::STACKED.transposed()
        } else {
            Blocks::STACKED
        };
        let op = BlockProduct::of_rows(to_u32(self.blocks), lie);
        let moved = net.b.push1(op, &[x, self.by]);
        if self.exact {
            let twice = net.scaled(moved, 2.0);
            net.b.push1(
                crate::program::op::Elementwise {
                    kind: crate::program::op::BinaryKind::Sub,
                    broadcast: crate::program::op::Broadcast::Full,
                },
                &[twice, x],
            )
        } else {
            net.add(x, moved)
        }
    }
}

/// The complaint about blocks that a width is not cut into whole, if it is not.
pub(super) fn check_blocks(
    key: &'static str,
    size: u64,
    site: &Site,
    widths: &[(&str, u64)],
) -> Option<Complaint> {
    let (side, width) = widths
        .iter()
        .find(|(_, width)| !width.is_multiple_of(size))?;
    let fits = |n: &u64| widths.iter().all(|(_, width)| width.is_multiple_of(*n));
    let below = (1..size).rev().find(fits);
    let above = (size + 1..=*width).find(fits);
    let near: Vec<String> = below
        .into_iter()
        .chain(above)
        .map(|n| n.to_string())
        .collect();
    Some(Complaint {
        key,
        code: &BLOCKS_DO_NOT_FIT,
        message: format!(
            "`{key}` is {size}, but the {side} of `{}` is {width} wide, which is no multiple of it",
            site.path
        ),
        help: (!near.is_empty()).then(|| format!("write `{key} = {}`", near.join("` or `"))),
    })
}

#[cfg(test)]
mod tests {
    use super::{above, side};

    #[test]
    fn what_stands_above_the_diagonal_is_counted_row_by_row() {
        let size = 5;
        assert!((2..100).all(|n| side(above(n)) == n));
        let place = |row: u64, column: u64| row * size - above(row + 1) - row + column - 1;
        let mut next = 0;
        for row in 0..size {
            for column in row + 1..size {
                assert_eq!(place(row, column), next);
                next += 1;
            }
        }
    }
}
