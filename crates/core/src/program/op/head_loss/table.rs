//! The head's table as products read it, a piece at a time.

use std::ops::Range;

use super::super::super::format::Ranges;
use super::super::product::{InBlocks, Operand, Source};
use super::super::tile::Strided;
use super::super::{Element, Storage, TensorRef};

/// Numbers of a row in blocks that are decoded at a time: whole blocks of every format.
const PART: usize = 256;

/// A head, of which a piece is read at a time.
pub(in super::super) trait Table<'a, T>: Copy + Sync {
    /// A piece as products read it.
    type Piece: Operand<T>;

    /// The head that is an input.
    fn of(head: TensorRef<'a>) -> Self;

    /// Some tokens' rows; as columns if they are `turned`.
    fn piece(self, tokens: &Range<usize>, turned: bool) -> Self::Piece;

    /// Calls `f(column, number)` for a token's row.
    fn each(self, token: usize, f: impl FnMut(usize, T));
}

/// Numbers, each by itself, in rows so wide.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Numbers<'a, H>(&'a [H], usize);

impl<'a, T, H: Source<T> + Element> Table<'a, T> for Numbers<'a, H> {
    type Piece = Strided<'a, H>;

    fn of(head: TensorRef<'a>) -> Self {
        Self(head.slice::<H>(), head.dims[1])
    }

    fn piece(self, tokens: &Range<usize>, turned: bool) -> Strided<'a, H> {
        let Self(data, d) = self;
        let (row, column) = if turned { (1, d) } else { (d, 1) };
        let data = &data[tokens.start * d..tokens.end * d];
        Strided { data, row, column }
    }

    fn each(self, token: usize, mut f: impl FnMut(usize, T)) {
        let Self(data, d) = self;
        let row = data[token * d..(token + 1) * d].iter().enumerate();
        row.for_each(|(c, &x)| f(c, Source::<T>::read(x)));
    }
}

impl<'a, T> Table<'a, T> for InBlocks<'a>
where
    f32: Source<T>,
{
    type Piece = Self;

    fn of(head: TensorRef<'a>) -> Self {
        let Storage::Blocks(format, data) = head.storage else {
            unreachable!("the caller looked")
        };
        Self {
            format: *format,
            data,
            width: head.dims[1],
            first: 0,
            transposed: true,
        }
    }

    fn piece(self, tokens: &Range<usize>, turned: bool) -> Self {
        Self {
            first: tokens.start,
            transposed: turned,
            ..self
        }
    }

    fn each(self, token: usize, mut f: impl FnMut(usize, T)) {
        let mut part = [0.0; PART];
        for start in (0..self.width).step_by(PART) {
            let end = self.width.min(start + PART);
            let part = &mut part[..end - start];
            let from = Ranges {
                data: self.data,
                width: self.width,
                rows: token..token + 1,
                columns: start..end,
            };
            self.format.rule().decode(&from, part);
            let row = part.iter().enumerate();
            row.for_each(|(c, &x)| f(start + c, Source::<T>::read(x)));
        }
    }
}
