//! Products in the type of the result: f32, and f64 for the gradient tests.

use std::mem::MaybeUninit;

use super::operand::Source;
use super::panels::{Lines, Side, pack};
use super::{Arithmetic, Each, Set, Shape, Start, Task, Tile, WIDEST};
use crate::program::op::math::Elementary;

/// Multiplies in `T` with an instruction set.
#[derive(Debug)]
pub(super) struct Full<I, T>(I, std::marker::PhantomData<T>);

impl<I: Copy, T> Clone for Full<I, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<I: Copy, T> Copy for Full<I, T> {}

impl<I: Set, T: Elementary> Full<I, T> {
    pub const fn on(set: I) -> Self {
        Self(set, std::marker::PhantomData)
    }
}

impl<I: Set, T: Elementary> Arithmetic for Full<I, T> {
    type Out = T;
    type Packed = T;
    const PER: usize = 1;

    fn shape(self) -> Shape {
        self.0.run(Registers::<T>(std::marker::PhantomData))
    }

    fn pack<S: Source<T>>(
        self,
        panel: &mut [MaybeUninit<T>],
        from: &Side<'_, S>,
        here: usize,
        lines: Lines,
    ) {
        pack(panel, from, here, lines, S::read, T::zero());
    }

    fn run(self, task: &Task<'_, Self>) {
        self.walk(task);
    }
}

impl<I: Set, T: Elementary> Full<I, T> {
    /// Does a task of whatever packs as this does.
    pub fn walk<K: Arithmetic<Out = T, Packed = T>>(self, task: &Task<'_, K>) {
        self.0.run(Walk(task));
    }
}

/// A task's tiles, compiled for the instruction set.
struct Walk<'a, K: Arithmetic>(&'a Task<'a, K>);

impl<T: Elementary, K: Arithmetic<Out = T, Packed = T>> pulp::WithSimd for Walk<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        self.0.tiles(Multiply(simd));
    }
}

struct Multiply<S>(S);

impl<S: pulp::Simd, T: Elementary, K: Arithmetic<Out = T, Packed = T>> Each<K> for Multiply<S> {
    #[inline(always)]
    fn tile(&self, tile: &Tile<'_, T, T>, rows: usize, both: bool) {
        // SAFETY: the task promises the panels' lines and the result's rows and columns.
        unsafe { T::tiles(self.0, tile, rows, both) }
    }
}

/// The register tile of an instruction set.
struct Registers<T>(std::marker::PhantomData<T>);

impl<T: Elementary> pulp::WithSimd for Registers<T> {
    type Output = Shape;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Shape {
        Shape {
            rows: height::<S>(),
            columns: 2 * T::lanes::<S>(),
        }
    }
}

/// Rows of a tile: two vectors a row, two for the right operand and one for the left.
const fn height<S: pulp::Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 14 } else { 6 }
}

/// The inner loop, by element type.
pub trait Multiplied: Sized {
    /// Elements of a vector.
    fn lanes<S: pulp::Simd>() -> usize;

    /// A tile of `rows` rows and of two vectors (one, unless `both`).
    ///
    /// # Safety
    /// The panels hold `depth` lines of `rows` and of two vectors; `out` has `rows` rows of `columns`
    /// columns, which are at most the vectors'.
    unsafe fn tiles<S: pulp::Simd>(simd: S, x: &Tile<'_, Self, Self>, rows: usize, both: bool);
}

macro_rules! multiplied {
    ($T:ty, $vector:ident, $lanes:ident, $splat:ident, $fma:ident, $mul:ident, $add:ident; $($R:literal)*) => {
        impl Multiplied for $T {
            #[inline(always)]
            fn lanes<S: pulp::Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            unsafe fn tiles<S: pulp::Simd>(simd: S, x: &Tile<'_, Self, Self>, rows: usize, both: bool) {
                // SAFETY: passed on.
                unsafe {
                    match (rows, both) {
                        $(($R, true) => tile::<S, $R, 2>(simd, x),
                        ($R, false) => tile::<S, $R, 1>(simd, x),)*
                        _ => unreachable!("a panel has at most fourteen rows"),
                    }
                }

                #[inline(always)]
                unsafe fn tile<S: pulp::Simd, const R: usize, const V: usize>(simd: S, x: &Tile<'_, $T, $T>) {
                    if R > height::<S>() {
                        return;
                    }
                    let mut sums = [[simd.$splat(0.0); 2]; 14];
                    // SAFETY: the caller promises the panels' lines and the result's rows and columns.
                    unsafe {
                        let (mut left, mut right) = (x.left, x.right.cast::<S::$vector>());
                        for _ in 0..x.lines {
                            let line = [right.read_unaligned(), right.add(V - 1).read_unaligned()];
                            // Written out, since a loop that is not unrolled keeps its sums in memory.
                            $(if $R <= R {
                                let factor = simd.$splat(*left.add($R - 1));
                                sums[$R - 1][0] = simd.$fma(factor, line[0], sums[$R - 1][0]);
                                if V == 2 {
                                    sums[$R - 1][1] = simd.$fma(factor, line[1], sums[$R - 1][1]);
                                }
                            })*
                            left = left.add(R);
                            right = right.add(2);
                        }
                        let alpha = simd.$splat(x.alpha);
                        if x.columns == V * S::$lanes {
                            $(if $R <= R {
                                let to = x.out.add(($R - 1) * x.stride).cast::<S::$vector>();
                                put(simd, x, to, 0, simd.$mul(alpha, sums[$R - 1][0]));
                                if V == 2 {
                                    put(simd, x, to, 1, simd.$mul(alpha, sums[$R - 1][1]));
                                }
                            })*
                            return;
                        }
                        // No loop over the sums here either: indexing them would keep them in memory.
                        $(if $R <= R {
                            part::<S>(x, $R - 1, sums[$R - 1]);
                        })*
                    }
                }

                /// Writes a row that is not a whole number of vectors.
                unsafe fn part<S: pulp::Simd>(x: &Tile<'_, $T, $T>, r: usize, sums: [S::$vector; 2]) {
                    let mut row = [0.0; WIDEST];
                    // SAFETY: two vectors are at most the widest panel; the caller promises the row and its columns.
                    unsafe {
                        row.as_mut_ptr().cast::<[S::$vector; 2]>().write_unaligned(sums);
                        for (c, sum) in row.into_iter().take(x.columns).enumerate() {
                            let to = x.out.add(r * x.stride + c);
                            *to = match x.start {
                                Start::Zero => x.alpha * sum,
                                Start::Out => x.alpha * sum + *to,
                                Start::Row(bias) => x.alpha * sum + bias[c],
                            };
                        }
                    }
                }

                /// Writes vector `v` of a row.
                #[inline(always)]
                unsafe fn put<S: pulp::Simd>(simd: S, x: &Tile<'_, $T, $T>, row: *mut S::$vector, v: usize, y: S::$vector) {
                    // SAFETY: the caller promises that the result, and so the bias, has these columns.
                    unsafe {
                        let to = row.add(v);
                        to.write_unaligned(match x.start {
                            Start::Zero => y,
                            Start::Out => simd.$add(y, to.read_unaligned()),
                            Start::Row(bias) => {
                                simd.$add(y, bias.as_ptr().cast::<S::$vector>().add(v).read_unaligned())
                            }
                        });
                    }
                }
            }
        }
    };
}
multiplied!(f32, f32s, F32_LANES, splat_f32s, mul_add_f32s, mul_f32s, add_f32s; 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
multiplied!(f64, f64s, F64_LANES, splat_f64s, mul_add_f64s, mul_f64s, add_f64s; 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
