//! Packing batches.

use std::time::Instant;

use peftc::base::World as _;
use peftc::cli::world::RealWorld;
use peftc::library::data::batch::{order, pack};
use peftc::library::data::tokens::{EncodedExample, Maker, Notes, Target};
use peftc::library::model::Positions;
use peftc::program::{Axis, Feed, TargetKind};

use super::TOKENS;

/// Packing a batch of sentences whose tokens are in memory or in a file.
pub fn packing(filter: &str) {
    let tokens = TOKENS / 16;
    let dir = tempfile::tempdir().expect("a folder");
    let world = RealWorld::with_cache(true, dir.path().to_owned());
    for place in ["memory", "a file"] {
        let name = format!("pack 16x{tokens} from {place}");
        if !name.contains(filter) {
            continue;
        }
        let mut made = Maker::in_memory();
        if place == "a file" {
            let file = world.keep("tokens").expect("a file").expect("a folder");
            made = Maker::in_file(file).expect("it is begun");
        }
        for i in 0..4096 {
            let ids = (0..tokens as u32).map(|t| t * i as u32).collect();
            let segments = vec![0; tokens];
            let (mask, label) = (0, Target::Class(0));
            let example = EncodedExample {
                ids,
                segments,
                mask,
                label,
                learned: Vec::new(),
                task: 0,
            };
            made.add(i, i as u32, &example);
        }
        let set = made.finish(&Notes::default()).expect("it is written");
        let want = [
            Feed::TokenIds,
            Feed::Positions,
            Feed::Offsets,
            Feed::Keys(Axis::Tokens),
            Feed::Targets(TargetKind::Class),
        ];
        let mut times = Vec::new();
        for batch in order(4096, 1, 0, true).chunks(16) {
            let start = Instant::now();
            let packed = pack(&set, batch, Positions::default(), None, &want).expect("tokens");
            times.push(start.elapsed().as_secs_f64());
            drop(packed);
        }
        times.sort_by(f64::total_cmp);
        println!("{name:<34} {:>9.1} µs", times[times.len() / 2] * 1e6);
    }
}
