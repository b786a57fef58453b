//! The walk on matrices small enough to do by hand.

use super::*;

#[test]
fn rows_count_by_the_columns_that_were_kept() {
    // Row 1 is the largest, but not where columns were kept.
    let matrix = [1.0, 0.0, -3.0, 0.5, 9.0, 0.5, 2.0, 0.0, -2.5];
    let scores = row_scores(&[&matrix], 3, &[0, 2]);
    assert_eq!(scores, [4.0, 1.0, 4.5]);
    assert_eq!(best(&scores, 2), [0, 2]);
    assert_eq!(column_scores(&matrix, 3), [3.5, 9.0, 6.0]);
}

#[test]
fn matrices_ranked_jointly_count_by_the_product_of_their_entries() {
    let (q, k, v) = (
        [1.0, 2.0, 3.0, 1.0],
        [2.0, 0.0, 1.0, 1.0],
        [1.0, 9.0, -1.0, 2.0],
    );
    // Row 0: 1·2·1 + 2·0·9 = 2; row 1: 3·1·1 + 1·1·2 = 5, though row 0 has the larger sums.
    assert_eq!(row_scores(&[&q, &k, &v], 2, &[0, 1]), [2.0, 5.0]);
}

#[test]
fn kept_indices_ascend_and_of_equals_the_first_stay() {
    assert_eq!(best(&[1.0, 3.0, 2.0, 3.0], 2), [1, 3]);
    assert_eq!(best(&[2.0, 2.0, 2.0, 2.0], 2), [0, 1]);
    assert_eq!(best(&[1.0], 3), [0]);
}

#[test]
fn a_cut_takes_rows_and_columns() {
    let matrix: Vec<f32> = (0..12).map(|i| i as f32).collect();
    assert_eq!(
        cut(&matrix, 4, &[0, 2], Some(&[1, 3])),
        [1.0, 3.0, 9.0, 11.0]
    );
    assert_eq!(cut(&matrix, 1, &[2, 5], None), [2.0, 5.0]);
    // It holds no more than is counted, whatever its size.
    let part = cut(&matrix, 4, &[0, 1, 2], Some(&[0, 1, 3]));
    assert_eq!((part.len(), part.capacity()), (9, 9));
}

/// A block of one map with a norm, after an embedding of 4 rows and width 4; the copy is half as wide.
fn walk() -> Pruner {
    let mut pruner = Pruner::new(Importance::Magnitude);
    pruner.enter("table", (4, 4), 2);
    pruner.maps(&[("copy.q", "own.q"), ("copy.k", "own.k")], (4, 4), 2);
    pruner.norm(("copy.norm", "own.norm"), 4);
    pruner.enter("another", (4, 4), 2);
    pruner.maps(&[("copy.up", "own.up")], (8, 4), 4);
    pruner
}

fn cut_of(pruner: &Pruner, name: &str) -> Cut {
    match pruner.init(name) {
        Some(Init::Pruned(cut)) => cut,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn the_walk_hands_the_rows_of_one_map_to_the_columns_of_the_next() {
    let pruner = walk();
    let (q, k) = (
        cut_of(&pruner, "copy.q.weight"),
        cut_of(&pruner, "copy.k.weight"),
    );
    assert_eq!(q.of.name, "own.q.weight");
    assert_eq!(q.rows, k.rows);
    assert_eq!(q.rows.of.len(), 2);
    assert_eq!(q.columns.as_ref().map(|c| c.name()), Some("table.weight"));
    let (norm, up) = (
        cut_of(&pruner, "copy.norm.weight"),
        cut_of(&pruner, "copy.up.weight"),
    );
    assert_eq!(norm.rows, q.rows);
    assert_eq!(norm.columns, None);
    assert_eq!(norm.of.param().init, Init::Constant(1.0));
    assert_eq!(up.columns, Some(q.rows));
    assert_eq!((up.rows.keep, up.rows.name()), (4, "own.up.weight"));
    assert_eq!(cut_of(&pruner, "copy.up.bias").rows, up.rows);
    assert!(pruner.init("copy.gate").is_none());
}

#[test]
fn memory_is_that_of_the_largest_moment() {
    let pruner = walk();
    let param = |name: &str, shape: &[u64]| Param {
        name: name.to_owned(),
        shape: shape.to_vec(),
        init: pruner.init(name).expect("met by the walk"),
        ..cut_of(&pruner, name).of.param()
    };
    let params = [
        param("copy.q.weight", &[2, 2]),
        param("copy.up.weight", &[4, 2]),
    ];
    // Ranking q and k: two matrices of 64 bytes and 4 scores of 8; the embedding: one and 4 scores.
    assert_eq!(peak_bytes(&params[..1]), 2 * 64 + 32);
    // Ranking up while q is held: 16 + 128 + 64; cutting it: 16 + 128 + 32.
    assert_eq!(peak_bytes(&params), 16 + 128 + 64);
    assert_eq!(peak_bytes(&[]), 0);
}
