//! Flipped bits: whatever file of a store, an OUT or the caches they are in, they are noticed or without effect.
//!
//! A few for each kind of file here; many with `PEFTC_FLIPS=COUNT` (for each kind, and `PEFTC_FLIPS_SEED=N`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::store::{recipe, signal, start, wait_for};
use super::support::{program, stderr_of};
const STAGES: &str = "stage s = train { model = m, data = d.train, dev = d.dev, adapter = lst { r = 4 }, lr = 3e-3, epochs = 2, evaluate = 2 steps, best = loss }\n\
    stage l = train { model = m, data = d.train, adapter = lora { rank = 2 }, lr = 1e-3, steps = 2 }\n\
    stage f = merge { from = l }\n\
    stage e = eval { from = f, data = d.dev }\n";

/// Long enough to be stopped in between, with a best state that stays behind.
const STOPPED: &str = "stage s = train { model = m, data = d.train, dev = d.dev, adapter = lst { r = 4 }, lr = 3e-3, steps = 30, evaluate = 2 steps, best = loss }\n";

/// xorshift64*: the same flips each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % n.max(1)
    }
}

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Ground {
    dir: tempfile::TempDir,
    path: PathBuf,
    /// What the recipe comes to.
    right: BTreeMap<String, Vec<u8>>,
}

impl Ground {
    fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = recipe(dir.path(), body);
        std::fs::write(
            dir.path().join("in.jsonl"),
            "{\"sentence\": \"a good film\"}\n",
        )
        .expect("written");
        Self {
            dir,
            path,
            right: BTreeMap::new(),
        }
    }

    fn peftc(&self, args: &[&str]) -> Output {
        program()
            .args(args)
            .current_dir(self.dir.path())
            .env("XDG_CACHE_HOME", self.dir.path().join("cache"))
            .output()
            .expect("starts")
    }

    /// Keeps what is there, to begin again from.
    fn keep(&self) {
        copy(
            &self.dir.path().join(".peftc"),
            &self.dir.path().join("kept"),
        );
    }

    fn restore(&self) {
        copy(
            &self.dir.path().join("kept"),
            &self.dir.path().join(".peftc"),
        );
    }

    /// The files by kind: their paths with hashes left out.
    fn kinds(&self) -> BTreeMap<String, Vec<PathBuf>> {
        let root = self.dir.path().join(".peftc");
        let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in files(&root) {
            if path.metadata().expect("a file").len() == 0 {
                continue;
            }
            let inside = path.strip_prefix(&root).expect("inside");
            let plain = |part: &str| -> String {
                let stem = part.split('.').next().unwrap_or_default();
                let hash = stem.len() > 30 && stem.bytes().all(|c| c.is_ascii_hexdigit());
                let index = part.len() > 20 && part.ends_with(".json") && stem.contains('-');
                match (hash, index) {
                    (true, _) => part.replacen(stem, "*", 1),
                    (_, true) => "*.json".to_owned(),
                    _ => part.to_owned(),
                }
            };
            let parts = inside.iter().map(|p| plain(&p.to_string_lossy()));
            let kind = parts.collect::<Vec<_>>().join("/");
            kinds.entry(kind).or_default().push(path);
        }
        kinds
    }

    /// What a finished recipe is: results, weights, predictions, losses.
    fn come_to(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        let out = self.dir.path().join(".peftc/runs/r");
        for path in files(&out) {
            let name = path
                .strip_prefix(&out)
                .expect("inside")
                .display()
                .to_string();
            let bytes = std::fs::read(&path).expect("a file");
            let bytes = match name.rsplit('/').next().unwrap_or_default() {
                "metrics.jsonl" => each_line(&bytes),
                "result.json" => results(&bytes),
                // Times and measured bytes, and what is remembered of comparisons.
                "stage.json" | "README.md" | "verified.json" => continue,
                _ => bytes,
            };
            all.insert(name, bytes);
        }
        all
    }

    /// A flipped bit in a file, and what every command makes of it.
    fn flip(&self, path: &Path, bit: u64) -> usize {
        let mut bytes = std::fs::read(path).expect("a file");
        let at = (bit / 8) as usize;
        bytes[at] ^= 1 << (bit % 8);
        // In place: a file with two names is damaged under both.
        write_in_place(path, &bytes);
        let about = format!("bit {} of byte {at} of {}", bit % 8, path.display());
        let mut noticed = 0;
        let commands: [&[&str]; 2] = [
            &[
                "predict",
                ".peftc/runs/r",
                "--stage",
                "f",
                "--input",
                "in.jsonl",
            ],
            &["report", ".peftc/runs/r", "--json"],
        ];
        for args in commands {
            let name = args[0];
            if !self.right.contains_key(name) {
                continue;
            }
            let output = self.peftc(args);
            let said = stderr_of(&output);
            match output.status.code() {
                Some(0) => assert!(
                    self.right.get(name) == Some(&output.stdout),
                    "{about}: another `{name}`"
                ),
                Some(1) => {
                    noticed += 1;
                    let file = path.file_name().expect("a name").to_string_lossy();
                    let named = said.contains(&*file) || said.contains("no training or evaluation");
                    assert!(named, "{about}: {said}");
                }
                code => panic!("{about}: `{name}` ends with {code:?}: {said}"),
            }
        }
        // Kept features are read again where their stage runs again.
        let features = path.iter().any(|part| part == "features");
        let output = if features {
            self.peftc(&["run", "--fresh", "r.peft"])
        } else {
            self.peftc(&["run", "r.peft"])
        };
        let said = stderr_of(&output);
        assert_eq!(output.status.code(), Some(0), "{about}: {said}");
        noticed += usize::from(said.contains("damaged"));
        let now = self.come_to();
        let right = self.right.iter();
        for (name, bytes) in
            right.filter(|(name, _)| !["predict", "report"].contains(&name.as_str()))
        {
            assert!(
                now.get(name) == Some(bytes),
                "{about}: another {name}\n{said}"
            );
        }
        noticed
    }

    /// Flips for each kind of file; gives how many were made, and in how many somebody noticed.
    fn flips(&self, seed: u64) -> (usize, usize, usize) {
        let each = asked("PEFTC_FLIPS").unwrap_or(1);
        let mut dice = Dice(seed ^ asked("PEFTC_FLIPS_SEED").unwrap_or(0) << 32 | 1);
        // What was read since has left stamps beside the results.
        self.restore();
        let kinds = self.kinds();
        let (mut made, mut noticed) = (0, 0);
        for list in kinds.values() {
            for _ in 0..each {
                self.restore();
                let path = &list[dice.below(list.len() as u64) as usize];
                let length = path.metadata().expect("a file").len();
                let bit = dice.below(8 * length);
                noticed += usize::from(self.flip(path, bit) > 0);
                made += 1;
            }
        }
        println!(
            "{made} flips in {} kinds of files, {noticed} noticed",
            kinds.len()
        );
        (kinds.len(), made, noticed)
    }
}

fn write_in_place(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut file = std::fs::File::options()
        .write(true)
        .open(path)
        .expect("a file");
    file.write_all(bytes).expect("written");
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut list = Vec::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        for item in std::fs::read_dir(dir).expect("a folder").flatten() {
            match item.path().is_dir() {
                true => left.push(item.path()),
                false => list.push(item.path()),
            }
        }
    }
    list.sort();
    list
}

/// Copies a tree, links between its files and times included.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.expect("starts").success());
}

fn each_line(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| {
        let v: Value = serde_json::from_str(line).expect("JSON");
        format!(
            "{} {} {} {}\n",
            v["step"], v["loss"], v["grad_norm"], v["dev"]
        )
    });
    lines.collect::<String>().into_bytes()
}

fn results(text: &[u8]) -> Vec<u8> {
    let json: Value = serde_json::from_slice(text).expect("JSON");
    let stages = json["stages"].as_array().expect("stages").iter().map(|s| {
        format!(
            "{} {} {} {} {} {}\n",
            s["name"], s["metrics"], s["loss_first"], s["loss_last"], s["steps"], s["kept_step"]
        )
    });
    stages.collect::<String>().into_bytes()
}

#[test]
fn in_a_finished_store_and_its_results() {
    let mut ground = Ground::new(STAGES);
    let output = ground.peftc(&["run", "r.peft"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    ground.keep();
    let mut right = ground.come_to();
    for args in [
        &[
            "predict",
            ".peftc/runs/r",
            "--stage",
            "f",
            "--input",
            "in.jsonl",
        ] as &[&str],
        &["report", ".peftc/runs/r", "--json"],
    ] {
        let output = ground.peftc(args);
        assert!(output.status.success(), "{}", stderr_of(&output));
        right.insert(args[0].to_owned(), output.stdout);
    }
    ground.right = right;
    let (kinds, made, noticed) = ground.flips(7);
    assert!(
        kinds >= 30 && noticed * 2 > made,
        "{kinds} kinds, {noticed} of {made}"
    );
}

#[cfg(unix)]
#[test]
fn in_an_interrupted_store() {
    let mut ground = Ground::new(STOPPED);
    let output = ground.peftc(&["run", "r.peft"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    ground.right = ground.come_to();
    std::fs::remove_dir_all(ground.dir.path().join(".peftc")).expect("removed");
    let child = start(&ground.path, &["--checkpoint-every", "0"]);
    let checkpoint = || {
        let all = ground.dir.path().join(".peftc");
        all.is_dir() && files(&all).iter().any(|p| p.ends_with("best/b.state"))
    };
    wait_for("best state", checkpoint);
    signal("TERM", &child);
    let output = child.wait_with_output().expect("ends");
    let said = stderr_of(&output);
    assert_eq!(
        output.status.code(),
        Some(143),
        "it was over too soon: {said}"
    );
    ground.keep();
    let (kinds, made, noticed) = ground.flips(11);
    assert!(
        kinds >= 12 && noticed > 0,
        "{kinds} kinds, {noticed} of {made}"
    );
}
