//! What one call of `gemm` allocates: an upper bound from the algorithm it uses to cut a product.
//!
//! Follows `gemm_basic_generic` and `kernel_params` of gemm-common 0.19. A product is cut into blocks
//! of depth `kc`, which are packed: the left operand whole if it has at most two blocks of rows, and
//! otherwise piece by piece into a slab, of the second-level cache's size, that each thread keeps for
//! good; the right operand if its elements do not lie well. The register tile depends on the
//! instruction set, so the bound is the largest over the sets, and does not vary by machine beyond
//! [`Machine`]. The slabs are counted with every product: once touched they stay.

use super::Machine;

/// A product in gemm's eyes: `m × n × k`, and whether a column of the left operand is contiguous.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub m: u64,
    pub n: u64,
    pub k: u64,
    pub size: u64,
    pub lhs_contiguous: bool,
}

/// A register tile: rows in bytes, columns, vector in bytes, and the greatest depth of a block with
/// any first-level cache of today (32 KiB in 8 ways to 48 KiB in 12).
struct Tile {
    rows: u64,
    columns: u64,
    vector: u64,
    depth: u64,
}

const TILES: [Tile; 2] = [
    Tile {
        rows: 256,
        columns: 6,
        vector: 64,
        depth: 512,
    },
    Tile {
        rows: 64,
        columns: 6,
        vector: 32,
        depth: 1024,
    },
];

const ALIGN: u64 = 128;

/// Row tiles above which the right operand is packed. gemm's own bound for operands that are contiguous
/// in depth is 128; reading those where they lie halves the speed of our products, so [`super::matmul`]
/// sets the bound that other operands have.
pub(super) const PACKED_FROM: u64 = 2;

/// Bytes of scratch of a product on all of the machine's threads.
pub(super) fn scratch(x: Extent, machine: &Machine) -> u64 {
    let slabs = machine.threads as u64 * (machine.l2 as u64).next_multiple_of(ALIGN);
    let packed = TILES
        .iter()
        .map(|tile| packing(x, tile, machine))
        .max()
        .unwrap_or(0);
    slabs + packed
}

fn packing(x: Extent, tile: &Tile, machine: &Machine) -> u64 {
    let (m, n, k) = (x.m, x.n, x.k);
    // These have kernels that read their operands where they lie.
    if m <= 1 || n <= 1 || k <= 2 {
        return 0;
    }
    let (l2, l3) = (machine.l2 as u64, machine.l3 as u64);
    let rows = tile.rows / x.size;
    let small = m <= 64 && n <= 64;
    let depth = if small {
        k.min(512)
    } else {
        k.div_ceil(k.div_ceil(tile.depth))
    };
    let fit = l2 / (x.size * depth) / rows * rows;
    let block = if small {
        fit
    } else {
        fit.min(8 * rows).max(rows)
    };
    let whole = m <= 2 * block && (!x.lhs_contiguous || m % (tile.vector / x.size) != 0);
    let lhs = if whole {
        depth * m.next_multiple_of(rows) * x.size
    } else {
        0
    };
    let packs = m > PACKED_FROM * rows;
    let rhs = if packs {
        let columns = depth * n.next_multiple_of(tile.columns) * x.size;
        if l3 > 0 { columns.min(l3) } else { columns }
    } else {
        0
    };
    // A byte a row block and thread says what was packed already.
    let marks = machine.threads as u64 * if small { fit / rows } else { 8 };
    lhs.next_multiple_of(ALIGN) + rhs.next_multiple_of(ALIGN) + marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_counted_where_they_are_packed() {
        let machine = Machine {
            threads: 2,
            l2: 1 << 20,
            l3: 32 << 20,
        };
        let slabs = 2 << 20;
        let of = |m, n, k, lhs_contiguous| {
            scratch(
                Extent {
                    m,
                    n,
                    k,
                    size: 4,
                    lhs_contiguous,
                },
                &machine,
            ) - slabs
        };
        // A linear layer's weights lie by rows of inputs: packed whole while they are few.
        assert_eq!(of(768, 416, 768, false), 384 * 768 * 4 + 384 * 420 * 4 + 16);
        assert_eq!(of(3072, 416, 768, false), 768 * 420 * 4 + 16);
        // The gradient by the input of such a layer packs the right operand only, as its weight gradient.
        assert_eq!(of(768, 416, 768, true), 768 * 420 * 4 + 16);
        assert_eq!(of(768, 3072, 416, true), 416 * 3072 * 4 + 16);
        assert_eq!(of(1, 416, 768, false), 0);
        assert_eq!(of(1, 416, 768, false), 0);
    }
}
