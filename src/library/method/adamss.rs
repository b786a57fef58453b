//! AdaMSS: the rows of a weight in clusters, each of which learns an update of low rank in the span of the first singular vectors.

use serde_json::{Map, Value as Json, json};

use super::super::derive::{BaseParam, Derivation, Subspaces};
use super::super::net::{Init, Param, ParamKind};
use super::super::peft::Fate::{Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Place, Reading, START as BEGAN, Taken};
use super::super::schema::{Checked, Given, Maybe, kind};
use super::lora::{MODULES_TO_SAVE, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{Arrange, BinaryKind, Broadcast, Epilogue, Identity, MatMul};
use crate::program::{DType, Real};

/// Updates of clusters of rows.
#[derive(Debug)]
pub struct AdaMss;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (100, "100"),
    "singular vectors R of the weight, in whose span updates are, or all where it has fewer; peft calls it `r`",
);
const SUBSPACES: Given<u64> = Given::<u64>::new(
    "subspaces",
    kind::int(1, 1 << 12),
    (5, "5"),
    "clusters K of the weight's rows",
);
const EACH: Given<u64> = Given::<u64>::new(
    "subspace_rank",
    kind::int(1, 1 << 12),
    (1, "1"),
    "rank of the update of each cluster",
);
const SEED: Given<u64> = Given::<u64>::new(
    "decomposition_seed",
    kind::int(0, u32::MAX as u64),
    (0, "0"),
    "seed of the randomised decomposition; peft calls it `random_seed`",
);
const SIZES: Maybe<[String]> = Maybe::new(
    "sizes",
    kind::NUMBERS,
    "rows of each cluster, as an adapter of peft's has them: others are an error. What is found if not written",
);

static SCHEMA: Schema = Schema {
    name: "adamss",
    summary: "adaptive multi-subspaces: clusters of a weight's rows, each with an update of low rank",
    doc: "[W0 b0] = U Σ V of the first `rank` singular triplets, by PyTorch's randomised decomposition; k-means puts the rows of U into \
          `subspaces` clusters, as peft does it, number for number. The rows of a cluster learn B_i A_i V, with V [rank, in + 1] frozen, \
          A_i [subspace_rank, rank] orthonormal at first and B_i [rows, subspace_rank] zero, so the model starts unchanged; where a map has a \
          bias, the last column of V moves it. out · subspace_rank + subspaces · subspace_rank · rank trained numbers a map, 16 bytes each. \
          Merges exactly. In peft it is ADAMSS. The clusters are in no file: they are found again from the weights when an adapter \
          is loaded. Pruning of subspaces while training (ASA) is not built.",
    paper: "Zheng et al. 2025, \"AdaMSS: Adaptive Multi-Subspace Approach for Parameter-Efficient Fine-Tuning\" (NeurIPS)",
    keys: &[
        RANK.key(),
        SUBSPACES.key(),
        EACH.key(),
        SEED.key(),
        SIZES.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const A: &str = "adamss_A";
const B: &str = "adamss_B";
const RIGHT: &str = "adamss_newB";
const CLUSTERS: &str = "adamss_clusters";
const PLACES: &str = "adamss_places";

/// How the rows of a site's weight are put into clusters.
fn subspaces(values: &Values, site: &Site) -> Subspaces {
    let sizes = SIZES.get(values).map(|list| {
        let sizes = list.iter().map(|n| n.parse().unwrap_or_default());
        sizes.collect()
    });
    Subspaces {
        weight: BaseParam::weight(&site.path, [site.output(), site.input()]),
        bias: site.has_bias().then(|| {
            let name = format!("{}.bias", site.path);
            BaseParam::new(name, &[site.output()], ParamKind::Bias)
        }),
        rank: RANK.get(values),
        count: clusters(values, site),
        each: EACH.get(values),
        seed: SEED.get(values),
        sizes,
    }
}

/// Clusters: no more than there are rows.
fn clusters(values: &Values, site: &Site) -> u64 {
    SUBSPACES.get(values).min(site.output())
}

/// What an update is made of.
struct Parts {
    /// `V` without the column of the bias, `[R, in]`.
    right: Value,
    /// That column, `[R]`.
    last: Option<Value>,
    /// The bases of all clusters, `[K r, R]`.
    bases: Value,
    /// `[out, K r]`: in each row the numbers of its cluster, and zeros.
    rows: Value,
}

fn parts(at: &At<'_>, net: &mut Net<'_>) -> Parts {
    let (site, values) = (at.site, at.values);
    let own = subspaces(values, site);
    let (vectors, count, each) = (own.vectors(), own.count, own.each);
    let (input, output, biased) = (site.input(), site.output(), site.has_bias());
    let by = Derivation::from(own);
    let start = |part| Init::Derived {
        by: by.clone(),
        part,
    };
    let right = Param::at(site, RIGHT).shape(&[vectors, input + u64::from(biased)]);
    let right = net.tensor(right.frozen().start(start(Subspaces::RIGHT)));
    let bases = Param::at(site, A).shape(&[count * each, vectors]);
    let bases = net.tensor(bases.start(start(Subspaces::BASES)));
    let numbers = net.tensor(Param::at(site, B).shape(&[output, each]));
    let mut list = |name, part| {
        let list = Param::at(site, name).shape(&[output]).of_places();
        net.places(list.start(start(part)).unsaved())
    };
    let (of, places) = (
        list(CLUSTERS, Subspaces::CLUSTERS),
        list(PLACES, Subspaces::PLACES),
    );
    // Each row has its numbers once for each cluster, and a 1 at its own.
    let numbers = net.gather(numbers, places);
    let all = 0..count * each;
    let copies = Arrange::new(each, all.clone().map(|c| [(c % each, false)]));
    let numbers = net.arranged(numbers, copies);
    let identity = Identity {
        n: to_u32(count),
        dtype: DType::F32,
    };
    let one = net.b.push1(identity, &[]);
    let wide = Arrange::new(count, all.map(|c| [(c / each, false)]));
    let one = net.arranged(one, wide);
    let own = net.gather(one, of);
    Parts {
        rows: net.binary(BinaryKind::Mul, Broadcast::Full, numbers, own),
        last: biased.then(|| {
            let last = net.columns(right, input, input + 1);
            net.flat(last, vectors)
        }),
        right: if biased {
            net.columns(right, 0, input)
        } else {
            right
        },
        bases,
    }
}

const PEFT_KEYS: Keys = &[
    ("asa_importance_beta", WithoutEffect(PRUNED)),
    ("asa_schedule_exponent", WithoutEffect(PRUNED)),
    ("asa_target_subspaces", WithoutEffect(PRUNED)),
    ("asa_uncertainty_beta", WithoutEffect(PRUNED)),
    ("final_warmup", WithoutEffect(PRUNED)),
    ("init_warmup", WithoutEffect(PRUNED)),
    ("init_weights", WithoutEffect(BEGAN)),
    ("mask_interval", WithoutEffect(PRUNED)),
    ("num_subspaces", Used),
    ("r", Used),
    ("random_seed", Used),
    ("subspace_rank", Used),
    (
        "svd_threshold",
        WithoutEffect("the shapes of the tensors say the ranks"),
    ),
    ("use_asa", WithoutEffect(PRUNED)),
    (
        "use_dynamic_rank",
        WithoutEffect("the shapes of the tensors say the ranks"),
    ),
];

/// Why keys of the pruning do not matter.
const PRUNED: &str = "says which subspaces peft went on training; what they learned is in the file";

impl Method for AdaMss {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let each = EACH.get(values);
        let most = subspaces(values, site).vectors();
        let bad = |key, message: String, help: String| {
            Some(Complaint {
                key,
                code: &BAD_METHOD_VALUES,
                message,
                help: Some(help),
            })
        };
        if each > most {
            let message = format!(
                "`subspace_rank` is {each}, and `{}` has {most} singular vectors within `rank`",
                site.path
            );
            return bad(
                EACH.name(),
                message,
                format!("write at most `subspace_rank = {most}`"),
            );
        }
        if SUBSPACES.get(values) > site.output() {
            let (own, most) = (SUBSPACES.get(values), site.output());
            let message = format!("`subspaces` is {own}, and `{}` has {most} rows", site.path);
            return bad(
                SUBSPACES.name(),
                message,
                format!("write at most `subspaces = {most}`"),
            );
        }
        let sizes = SIZES.get(values)?;
        let numbers: Vec<u64> = sizes.iter().filter_map(|n| n.parse().ok()).collect();
        let whole = numbers.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n));
        if numbers.len() as u64 != SUBSPACES.get(values) || whole != Some(site.output()) {
            let message = format!(
                "`sizes` is no list of {} numbers whose sum is {}, the rows of `{}`",
                SUBSPACES.get(values),
                site.output(),
                site.path
            );
            let help = "remove `sizes`: clusters are found in the weight";
            return bad(SIZES.name(), message, help.to_owned());
        }
        None
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let p = parts(at, net);
        let z = net.dense(x, p.right, p.last);
        let z = net.project(z, p.bases);
        net.project_onto(base, z, p.rows, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let p = parts(at, net);
        let inner = net.times((p.bases, false), (p.right, false));
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[p.rows, inner, weight]))
    }

    fn moves_bias(&self, _: &Values, site: &Site) -> bool {
        site.has_bias()
    }

    fn merged_bias(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let below = at.bias(net)?;
        let p = parts(at, net);
        let Some(last) = p.last else {
            return Some(below);
        };
        let vectors = subspaces(at.values, at.site).vectors();
        let last = net.reshaped(last, 1, vectors);
        let inner = net.times((last, false), (p.bases, true));
        let moved = net.times((inner, false), (p.rows, true));
        let moved = net.flat(moved, at.site.output());
        Some(net.add(below, moved))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("asa_importance_beta", json!(0.85)),
            ("asa_schedule_exponent", json!(3.0)),
            ("asa_target_subspaces", json!(50)),
            ("asa_uncertainty_beta", json!(0.85)),
            ("final_warmup", json!(1000)),
            ("init_warmup", json!(50)),
            ("init_weights", json!("orthogonal")),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("mask_interval", json!(100)),
            ("num_subspaces", json!(SUBSPACES.get(values))),
            ("r", json!(RANK.get(values))),
            ("random_seed", json!(SEED.get(values))),
            ("subspace_rank", json!(EACH.get(values))),
            ("svd_threshold", json!(0.1)),
            ("use_asa", json!(false)),
            ("use_dynamic_rank", json!(false)),
        ];
        Some(PeftForm {
            kind: "ADAMSS",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "ADAMSS").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, count) = (
            config.positive("r", 100)?,
            config.positive("num_subspaces", 5)?,
        );
        let each = config.positive("subspace_rank", 1)?;
        let seed = config.whole("random_seed", 0)?;
        for place in file.places()? {
            let site = place.site;
            let count = count.min(site.output());
            let most = site.output().min(site.input() + u64::from(site.has_bias()));
            // A cluster has no more singular vectors than the weight.
            let each = each.min(rank.min(most));
            let of = [rank.min(most), count, each];
            let sizes = read_clusters(file, &place, of)?;
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (SUBSPACES.name(), Checked::Int(count)),
                (EACH.name(), Checked::Int(each)),
                (SEED.name(), Checked::Int(seed)),
                (SIZES.name(), Checked::Names(sizes)),
            ];
            file.put(&AdaMss, site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let own = subspaces(values, site);
        let [vectors, each, columns] = [
            own.vectors(),
            own.each,
            site.input() + u64::from(site.has_bias()),
        ]
        .map(|n| n as usize);
        let (right, bases, numbers) = (get(RIGHT)?, get(A)?, get(B)?);
        let mut sizes = vec![0_usize; own.count as usize];
        for cluster in get(CLUSTERS)? {
            *sizes.get_mut(cluster.to_bits() as usize)? += 1;
        }
        let mut made = vec![(RIGHT.to_owned(), vec![vectors, columns], right)];
        let mut rest = numbers.as_slice();
        let bases = bases.chunks_exact((each * vectors).max(1));
        for (i, (base, &rows)) in bases.zip(&sizes).enumerate() {
            let (own, others) = rest.split_at_checked(rows * each)?;
            rest = others;
            // A cluster of few rows has a smaller basis.
            let rank = each.min(rows);
            let base = base.get(..rank * vectors)?.to_vec();
            let own = own.chunks_exact(each.max(1));
            let own: Vec<f32> = own.flat_map(|row| row.iter().take(rank)).copied().collect();
            made.push((format!("{A}.{i}"), vec![rank, vectors], base));
            made.push((format!("{B}.{i}"), vec![rows, rank], own));
        }
        Some(made)
    }
}

/// Takes the tensors of a site's clusters; gives their sizes.
fn read_clusters(
    file: &mut Reading<'_>,
    place: &Place<'_>,
    [vectors, count, each]: [u64; 3],
) -> Result<Vec<String>, Misfit> {
    let site = place.site;
    let columns = site.input() + u64::from(site.has_bias());
    file.take(&place.name(RIGHT), place.own(RIGHT), &[vectors, columns])?;
    let names = |part: &str| -> Vec<String> {
        (0..count)
            .map(|i| place.name(&format!("{part}.{i}")))
            .collect()
    };
    let (all_a, all_b) = (names(A), names(B));
    let mut sizes = Vec::new();
    for (a, b) in all_a.iter().zip(&all_b) {
        let own = file.shape(b).unwrap_or_default().to_vec();
        let &[rows, rank] = own.as_slice() else {
            return Err(Misfit::damaged(format!(
                "the adapter has no `{b}`, the rows of a cluster"
            )));
        };
        if rank > each {
            return Err(Misfit::of_config(format!(
                "`{b}` has {rank} columns, and `subspace_rank` is {each}"
            )));
        }
        file.check_shape(a, &[rank, vectors])?;
        file.idle(b, 0.0);
        sizes.push(rows);
    }
    if sizes.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n)) != Some(site.output()) {
        return Err(Misfit::damaged(format!(
            "the clusters of `{}` have {sizes:?} rows, and the module has {}",
            place.module,
            site.output()
        )));
    }
    // Ranks that a cluster does not have are rows and columns of zeros, which stay zero.
    let (width, high) = (vectors as usize, each as usize);
    let bases = Make::by(move |from| {
        let padded = from.iter().map(|(_, base)| {
            let mut base = base.clone();
            base.resize(high * width, 0.0);
            base
        });
        Ok(padded.flatten().collect())
    });
    let numbers = Make::by(move |from| {
        let mut all = Vec::new();
        for (dims, data) in from {
            let rank = dims.get(1).copied().unwrap_or_default();
            for row in data.chunks_exact(rank.max(1)) {
                all.extend_from_slice(row);
                all.extend(std::iter::repeat_n(0.0, high.saturating_sub(rank)));
            }
        }
        Ok(all)
    });
    let taken = |own, shape: [u64; 2], from, make| Taken {
        own,
        shape: shape.to_vec(),
        from,
        make,
    };
    file.make(taken(place.own(A), [count * each, vectors], all_a, bases))?;
    file.make(taken(place.own(B), [site.output(), each], all_b, numbers))?;
    Ok(sizes.iter().map(u64::to_string).collect())
}
