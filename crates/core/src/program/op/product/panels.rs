//! Copies of the operands in the order in which the inner loop reads them.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::Arithmetic;
use super::operand::{Corner, Operand};

/// A panel's measures.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// Rows or columns side by side.
    pub width: usize,
    /// Lines, one after another.
    pub depth: usize,
}

/// The elements of a panel, in its terms: `(i, p)` is at `i · across + p · along`.
pub struct Side<'a, T> {
    pub data: &'a [T],
    pub across: usize,
    pub along: usize,
}

/// What is packed of an operand: from a row and a column on.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The first row.
    pub row: usize,
    /// The first column.
    pub column: usize,
    /// Rows of the left operand, or columns of the right one.
    pub count: usize,
    /// Elements of each.
    pub depth: usize,
    /// Whether it is of the right operand: panels lie across its columns, and are whole, filled with zeros.
    pub right: bool,
}

/// Panels of `width` rows of the left (columns of the right) operand; a panel holds, one depth after
/// another, its elements of that depth side by side.
pub struct Panels<P> {
    data: Vec<MaybeUninit<P>>,
    /// Rows or columns of a panel.
    pub width: usize,
}

impl<P: Copy + Send + Sync> Panels<P> {
    pub fn new(elements: usize, width: usize) -> Self {
        let mut data = Vec::with_capacity(elements);
        // SAFETY: uninitialised elements are what the type says, and that many were reserved.
        unsafe { data.set_len(elements) };
        Self { data, width }
    }

    /// Copies a part of an operand.
    pub fn pack<K: Arithmetic<Packed = P>, S: Operand<K::Out>>(
        &mut self,
        by: K,
        from: &S,
        part: Part,
        shared: bool,
    ) {
        let Part { count, depth, .. } = part;
        let width = self.width;
        let total = if part.right {
            count.next_multiple_of(width)
        } else {
            count
        };
        let lines = depth.div_ceil(K::PER);
        let data = &mut self.data[..total * lines];
        let one = |decoded: &mut S::Decoded, (i, panel): (usize, &mut [MaybeUninit<P>])| {
            let (first, here) = (i * width, width.min(count - i * width));
            let (row, column) = if part.right {
                (part.row, part.column + first)
            } else {
                (part.row + first, part.column)
            };
            let at = Corner {
                row,
                column,
                here,
                depth,
                columns: part.right,
            };
            // The last panel of an unpadded operand is narrower.
            let width = panel.len() / lines;
            let side = from.side(at, decoded);
            by.pack(panel, &side, here, Lines { width, depth });
        };
        if shared && count * depth > 1 << 14 {
            let panels = data.par_chunks_mut(width * lines).enumerate();
            panels.for_each_init(S::Decoded::default, one);
        } else {
            let mut decoded = S::Decoded::default();
            let panels = data.chunks_mut(width * lines).enumerate();
            panels.for_each(|panel| one(&mut decoded, panel));
        }
    }

    /// The panel that begins with row or column `first`, its panels `lines` long.
    pub fn panel(&self, first: usize, lines: usize) -> *const P {
        self.data[first * lines..].as_ptr().cast()
    }
}

/// One panel: `here` rows or columns, in a width of `width`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
pub fn pack<S: Copy, P: Copy>(
    panel: &mut [MaybeUninit<P>],
    from: &Side<'_, S>,
    here: usize,
    lines: Lines,
    convert: impl Fn(S) -> P + Copy,
    zero: P,
) {
    let Lines { width, depth } = lines;
    assert!(panel.len() == depth * width);
    let data = from.data;
    if from.across == 1 {
        for (p, line) in panel.chunks_exact_mut(width).enumerate() {
            let source = &data[p * from.along..][..here];
            for (to, &x) in line.iter_mut().zip(source) {
                to.write(convert(x));
            }
            for to in &mut line[here..] {
                to.write(zero);
            }
        }
        return;
    }
    // Blocks, so that the lines read and those written stay in the first-level cache.
    const BLOCK: usize = 16;
    assert!((depth - 1) * from.along + (here - 1) * from.across < data.len());
    for p in (0..depth).step_by(BLOCK) {
        let count = BLOCK.min(depth - p);
        let mut i = 0;
        // SAFETY: the last element read was just checked; the panel is `depth` lines of `width`.
        unsafe {
            if from.along == 1 && count == BLOCK {
                while i + 4 <= here {
                    let source = data.as_ptr().add(i * from.across + p);
                    let to = panel.as_mut_ptr().add(p * width + i).cast::<P>();
                    for q in (0..BLOCK).step_by(4) {
                        transpose(
                            source.add(q),
                            from.across,
                            to.add(q * width),
                            width,
                            convert,
                        );
                    }
                    i += 4;
                }
            }
            for i in i..here {
                let source = data.as_ptr().add(i * from.across + p * from.along);
                let to = panel.as_mut_ptr().add(p * width + i).cast::<P>();
                for q in 0..count {
                    to.add(q * width)
                        .write(convert(*source.add(q * from.along)));
                }
            }
        }
    }
    if here < width {
        for line in panel.chunks_exact_mut(width) {
            for to in &mut line[here..] {
                to.write(zero);
            }
        }
    }
}

/// Four rows of four elements, transposed in registers.
///
/// # Safety
/// Both places hold four rows of four elements, at the given distances.
#[inline(always)]
unsafe fn transpose<S: Copy, P: Copy>(
    from: *const S,
    row: usize,
    to: *mut P,
    line: usize,
    convert: impl Fn(S) -> P + Copy,
) {
    // SAFETY: the caller promises it.
    unsafe {
        let rows: [[P; 4]; 4] =
            std::array::from_fn(|r| from.add(r * row).cast::<[S; 4]>().read().map(convert));
        let columns: [[P; 4]; 4] = std::array::from_fn(|q| rows.map(|row| row[q]));
        for (q, column) in columns.into_iter().enumerate() {
            to.add(q * line).cast::<[P; 4]>().write(column);
        }
    }
}
