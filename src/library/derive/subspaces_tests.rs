use super::*;

/// Weights that a formula makes, and the clusters that peft finds in them with PyTorch and scikit-learn.
#[test]
fn clusters_are_those_of_peft() {
    let cases: [(u64, u64, u64, u64, u64, &[u32]); 3] = [
        (
            24,
            10,
            4,
            3,
            0,
            &[
                1, 2, 0, 1, 1, 2, 0, 1, 2, 0, 2, 0, 0, 2, 1, 2, 2, 1, 0, 2, 1, 0, 2, 1,
            ],
        ),
        (10, 24, 6, 2, 7, &[1, 1, 0, 0, 1, 0, 1, 1, 0, 0]),
        (
            40,
            40,
            8,
            5,
            1,
            &[
                3, 3, 0, 3, 3, 2, 4, 3, 3, 4, 3, 3, 4, 3, 0, 3, 0, 3, 0, 0, 1, 0, 0, 3, 4, 3, 2, 4,
                2, 3, 2, 4, 2, 3, 4, 3, 3, 0, 3, 3,
            ],
        ),
    ];
    let projections = [
        [0.12993, -0.10311, 0.52501],
        [0.67503, -0.23539, 0.50501],
        [0.29221, -0.04568, 0.302],
    ];
    for ((rows, columns, rank, count, seed, wanted), near) in cases.into_iter().zip(projections) {
        let by = subspaces((rows, columns), (rank, count, 2), seed);
        let weight = made(rows, columns);
        let parts = by.make(weight.clone()).expect("finite");
        let clusters: Vec<u32> = parts[Subspaces::CLUSTERS]
            .iter()
            .map(|x| x.to_bits())
            .collect();
        assert_eq!(clusters, wanted);
        // The vectors' signs are nobody's; their projection has none.
        let right = &parts[Subspaces::RIGHT];
        let along = |i: usize, j: usize| -> f32 {
            let rows = right.chunks_exact(columns as usize);
            rows.map(|v| v[i] * v[j]).sum()
        };
        for (own, near) in [along(0, 0), along(1, 3), along(2, 2)]
            .into_iter()
            .zip(near)
        {
            assert!((own - near).abs() < 1e-4, "{own} {near}");
        }
        // Places are a permutation in which those of a cluster follow each other.
        let places: Vec<u32> = parts[Subspaces::PLACES]
            .iter()
            .map(|x| x.to_bits())
            .collect();
        let mut at: Vec<u32> = vec![0; rows as usize];
        for (row, &place) in places.iter().enumerate() {
            at[place as usize] = clusters[row];
        }
        assert!(at.is_sorted());
        let again = by.again(weight, &[]).expect("finite");
        assert_eq!(
            again[Subspaces::PLACES].as_ref(),
            Some(&parts[Subspaces::PLACES])
        );
    }
}

#[test]
fn bases_are_orthonormal_and_other_sizes_are_refused() {
    let mut by = subspaces((24, 10), (4, 3, 2), 0);
    let parts = by.make(made(24, 10)).expect("finite");
    let bases: Vec<&[f32]> = parts[Subspaces::BASES].chunks_exact(4).collect();
    assert_eq!(bases.len(), 6);
    for pair in bases.chunks_exact(2) {
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
        assert!((dot(pair[0], pair[0]) - 1.0).abs() < 1e-5 && dot(pair[0], pair[1]).abs() < 1e-5);
    }
    by.sizes = Some(vec![7, 8, 9]);
    assert!(by.make(made(24, 10)).is_ok());
    by.sizes = Some(vec![8, 8, 8]);
    assert!(by.again(made(24, 10), &[]).is_err());
    assert!(by.make(vec![f32::NAN; 240]).is_err());
}

fn subspaces(shape: (u64, u64), (rank, count, each): (u64, u64, u64), seed: u64) -> Subspaces {
    Subspaces {
        weight: BaseParam::weight("a", [shape.0, shape.1]),
        bias: None,
        rank,
        count,
        each,
        seed,
        sizes: None,
    }
}

fn made(rows: u64, columns: u64) -> Vec<f32> {
    let at = |i: u64, j: u64| {
        let (i, j) = (i as f64, j as f64);
        (1.7 * i + 0.3 * j * j + 0.11 * i * j).sin() as f32
    };
    (0..rows)
        .flat_map(|i| (0..columns).map(move |j| at(i, j)))
        .collect()
}
