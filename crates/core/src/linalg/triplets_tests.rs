use super::*;
use crate::base::rng::Stream;
use faer::Mat;

fn random(out: usize, input: usize) -> Vec<f32> {
    let stream = Stream::new(7, "matrix");
    (0..out * input)
        .map(|i| stream.normal(i as u64) as f32)
        .collect()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
}

/// A matrix of the embedded model, whose file has a header in JSON and numbers in f16 behind it.
fn real(name: &str) -> (Vec<f32>, usize, usize) {
    let file = std::fs::read("../../recipes/reviews-mini/model.safetensors").unwrap();
    let (length, rest) = file.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let tensor = &header[name];
    assert_eq!(tensor["dtype"], "F16");
    let size = |key: &str, i: usize| tensor[key][i].as_u64().unwrap() as usize;
    let numbers = data[size("data_offsets", 0)..size("data_offsets", 1)].chunks_exact(2);
    let numbers = numbers.map(|x| half::f16::from_le_bytes([x[0], x[1]]).to_f32());
    (numbers.collect(), size("shape", 0), size("shape", 1))
}

fn join(d: &Decomposition, out: usize) -> Triplets {
    let Some((tu, ts, tv)) = &d.tail else {
        return (d.u.clone(), d.s.clone(), d.v.clone());
    };
    let (r, t) = (d.s.len(), ts.len());
    let u = (0..out)
        .flat_map(|i| {
            d.u[i * r..][..r]
                .iter()
                .chain(&tu[i * t..][..t])
                .copied()
                .collect::<Vec<_>>()
        })
        .collect();
    (u, [&d.s[..], ts].concat(), [&d.v[..], tv].concat())
}

/// Compares with a full decomposition in f64: values, triplet equations, orthonormality, signs.
fn check(w: &[f32], out: usize, input: usize, rank: usize, keep: Option<usize>) {
    let d = decompose(w, out, input, rank, keep).unwrap();
    let (u, s, v) = join(&d, out);
    let k = keep.unwrap_or(rank).min(out.min(input));
    assert_eq!(s.len(), k);
    let exact = Mat::from_fn(out, input, |i, j| f64::from(w[i * input + j]));
    let values = exact.as_ref().singular_values().unwrap();
    let top = values[0].max(1e-30);
    let (u, v) = (
        Mat::from_fn(out, k, |i, j| f64::from(u[i * k + j])),
        Mat::from_fn(input, k, |i, j| f64::from(v[j * input + i])),
    );
    let (wv, wu) = (&exact * &v, exact.transpose() * &u);
    for j in 0..k {
        assert!(
            (f64::from(s[j]) - values[j]).abs() <= 1e-6 * top,
            "value {j}: {} for {}",
            s[j],
            values[j]
        );
        let sigma = f64::from(s[j]);
        let left = (0..out)
            .map(|i| (wv[(i, j)] - sigma * u[(i, j)]).powi(2))
            .sum::<f64>()
            .sqrt();
        let right = (0..input)
            .map(|i| (wu[(i, j)] - sigma * v[(i, j)]).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!(
            left.max(right) <= 3e-6 * top,
            "residual {j}: {left} {right} of {top}"
        );
        let largest = (0..out)
            .map(|i| u[(i, j)])
            .fold(0.0f64, |a, b| if b.abs() > a.abs() { b } else { a });
        assert!(largest > 0.0);
    }
    for (x, n) in [(&u, "u"), (&v, "v")] {
        let gram = x.transpose() * x;
        for i in 0..k {
            for j in 0..k {
                assert!(
                    (gram[(i, j)] - f64::from(u8::from(i == j))).abs() < 1e-6,
                    "{n} {i} {j} {}",
                    gram[(i, j)]
                );
            }
        }
    }
    // What is left, and the triplets in front of it, make the matrix (or its best part) again.
    let mut left = w.to_vec();
    rest(&mut left, &d);
    let energy: f64 = values
        .iter()
        .skip(rank)
        .take(keep.map_or(usize::MAX, |d| d.saturating_sub(rank)))
        .map(|s| s * s)
        .sum();
    let norm: f64 = left.iter().map(|x| f64::from(*x).powi(2)).sum();
    assert!(
        (norm.sqrt() - energy.sqrt()).abs() <= 1e-4 * top,
        "{norm} {energy}"
    );
    let error: f64 = (0..out * input)
        .map(|at| {
            let (i, j) = (at / input, at % input);
            let r = d.s.len();
            let front: f64 = (0..r)
                .map(|t| {
                    f64::from(d.u[i * r + t]) * f64::from(d.s[t]) * f64::from(d.v[t * input + j])
                })
                .sum();
            (front + f64::from(left[at]) - f64::from(w[at])).powi(2)
        })
        .sum();
    let lost: f64 = keep.map_or(0.0, |d| values.iter().skip(d).map(|s| s * s).sum());
    assert!(
        (error.sqrt() - lost.sqrt()).abs() <= 1e-4 * top,
        "{error} {lost}"
    );
}

#[test]
fn random_matrices_of_every_form_are_decomposed() {
    for (out, input, rank, keep) in [
        (300, 200, 4, None),
        (200, 300, 4, None),
        (700, 160, 4, Some(9)),
        (160, 700, 1, None),
        (40, 30, 8, Some(20)),
        (90, 90, 90, None),
        (64, 64, 4, Some(64)),
    ] {
        check(&random(out, input), out, input, rank, keep);
    }
}

#[test]
fn real_weights_are_decomposed() {
    for (name, rank, keep) in [
        ("bert.encoder.layer.0.attention.self.key.weight", 4, None),
        (
            "bert.encoder.layer.1.attention.self.value.weight",
            8,
            Some(16),
        ),
        ("bert.encoder.layer.0.intermediate.dense.weight", 4, None),
        ("bert.encoder.layer.0.output.dense.weight", 4, Some(384)),
    ] {
        let (w, out, input) = real(name);
        check(&w, out, input, rank, keep);
    }
}

#[test]
fn degenerate_matrices_are_decomposed() {
    let (out, input) = (200, 150);
    check(&vec![0.0; out * input], out, input, 3, None);
    let rank_two: Vec<f32> = (0..out * input)
        .map(|at| ((at / input) as f32).sin() + ((at % input) as f32).cos())
        .collect();
    check(&rank_two, out, input, 4, None);
    let identity: Vec<f32> = (0..out * out)
        .map(|at| f32::from(u8::from(at % (out + 1) == 0)))
        .collect();
    check(&identity, out, out, 4, None);
    assert!(decompose(&[f32::NAN; 4], 2, 2, 1, None).is_err());
    assert!(decompose(&[1.0; 4], 2, 3, 1, None).is_err());
    check(&[2.0], 1, 1, 5, None);
}

#[test]
fn threads_do_not_change_a_bit() {
    let w = random(320, 280);
    let run = |threads| {
        pool(threads).install(|| {
            let d = decompose(&w, 320, 280, 4, None).unwrap();
            let mut left = w.clone();
            rest(&mut left, &d);
            (d.u, d.s, d.v, left)
        })
    };
    assert_eq!(run(1), run(3));
}
