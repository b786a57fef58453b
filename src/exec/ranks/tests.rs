use std::time::Duration;

use super::threads::ranks;
use super::{Ranks, add_up};
use crate::library::stage::sharing::Exchange;

/// What each of so many ranks gives, in their order; the later ones begin first.
fn together<T: Send>(count: usize, work: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let started: Vec<_> = ranks(count)
            .into_iter()
            .map(|own| {
                let work = &work;
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(2 * (count - own.rank()) as u64));
                    work(&own)
                })
            })
            .collect();
        let ended = started.into_iter().map(|thread| thread.join());
        ended.map(|made| made.expect("no panic")).collect()
    })
}

/// A number of a rank; sums of such depend on their order.
fn number(rank: usize, at: usize) -> f32 {
    ((rank * 7919 + at * 104_729) % 1000) as f32 * 1.234_567e-3 - 0.5
}

#[test]
fn numbers_are_added_as_a_tree_of_ranks() {
    let mut five = [1e8_f32, 1.0, -1e8, 1.0, 0.5];
    add_up(&mut five, 1);
    // ((1e8 + 1) + (−1e8 + 1)) + 0.5, and 1e8 + 1 is 1e8 in f32.
    assert_eq!(five[0], 0.5 + ((1e8_f32 + 1.0) + (-1e8_f32 + 1.0)));
    let mut lists = [1, 2, 10, 20, 100, 200];
    add_up(&mut lists, 2);
    assert_eq!(lists[..2], [111, 222]);
}

#[test]
fn all_ranks_have_the_tree_s_sums_and_send_what_is_planned() {
    for (count, numbers) in [(2, 11), (3, 10), (4, 8), (5, 3)] {
        let exchange = Exchange {
            ranks: count as u64,
            numbers: numbers as u64,
        };
        let padded = exchange.part(numbers as u64) as usize * count;
        let made = together(count, |own| {
            let mut bucket: Vec<f32> = (0..numbers).map(|i| number(own.rank(), i)).collect();
            bucket.resize(padded, 0.0);
            own.sum(&mut bucket, &mut vec![0.0; padded]).expect("a sum");
            (bucket, own.sent())
        });
        let wanted = (0..numbers).map(|i| {
            let mut each: Vec<f32> = (0..count).map(|rank| number(rank, i)).collect();
            add_up(&mut each, 1);
            each[0].to_bits()
        });
        let wanted: Vec<u32> = wanted.collect();
        for (bucket, sent) in made {
            let bits: Vec<u32> = bucket[..numbers].iter().map(|x| x.to_bits()).collect();
            assert_eq!(bits, wanted, "{count} ranks");
            assert_eq!(sent, exchange.traffic().bytes, "{count} ranks");
        }
    }
}

#[test]
fn what_ranks_tell_each_other_is_known_to_all() {
    for count in [1, 2, 3, 5, 8] {
        let last = count - 1;
        let made = together(count, |own| {
            let rank = own.rank();
            let sum = own.add(0.1 * (rank + 1) as f64).expect("a sum");
            let asked = [if rank == last { 15 } else { 0 }, u8::from(rank == 0), 0];
            let word = own.most(asked).expect("a word");
            let received = own
                .broadcast([if own.leads() { 9 } else { 0 }])
                .expect("a word");
            let other = own.stranger([u8::from(rank > 1); 32]).expect("an answer");
            (sum.to_bits(), word, received, other)
        });
        assert!(made.iter().all(|one| *one == made[0]));
        let (_, word, received, other) = made[0];
        assert_eq!((word, received), ([15, 1, 0], [9]));
        assert_eq!(other, (count > 2).then_some(2));
    }
}

#[test]
fn rank_0_is_first_where_files_are_filled() {
    let filled = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    let seen = together(3, |own| {
        let seen = own.first(|| {
            let before = filled.load(order);
            if own.leads() {
                std::thread::sleep(Duration::from_millis(20));
                filled.store(true, order);
            }
            Ok(before)
        });
        seen.expect("no error")
    });
    assert_eq!(seen, [false, true, true]);
}
