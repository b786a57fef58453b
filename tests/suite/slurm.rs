//! Recipes on SLURM: what is submitted, what a job does at its limit, and what is told of it. `sbatch`, `squeue`, `sacct` and
//! `scontrol` are small scripts here; `tests/scale/slurm.sh` does the same on a real one.

mod argo;
mod ends;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::store::recipe;
use super::support::{done, json, printed, program, stderr_of, stdout_of};

/// Notes how it was called, and runs the jobs at once if there is a file `execute`.
const SBATCH: &str = r#"#!/bin/sh
dir=$(dirname "$0")/..
for script; do :; done
number=$(($(cat "$dir/count" 2>/dev/null || echo 100) + 1))
echo "$number" >"$dir/count"
echo "$number $*" >>"$dir/calls"
if [ -f "$dir/refuse" ] && [ "$number" -ge "$(cat "$dir/refuse")" ]; then
  echo "sbatch: error: invalid partition specified: nowhere" >&2
  exit 1
fi
if [ -f "$dir/execute" ]; then
  log=$(sed -n 's/^#SBATCH --output="\(.*\)"$/\1/p' "$script")
  last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$script")
  for element in $(seq 0 "${last:-0}"); do
    own=$(echo "$log" | sed "s/%A/$number/; s/%a/$element/; s/%j/$number/; s/%%/%/g")
    id=$number
    [ -z "$last" ] || id=${number}_$element
    state=COMPLETED
    SLURM_JOB_ID=$number SLURM_ARRAY_TASK_ID=$element bash "$script" >"$own" 2>&1 || state=FAILED
    echo "$id|$state|None" >>"$dir/queue"
  done
fi
echo "$number;somewhere"
"#;

const SQUEUE: &str = "#!/bin/sh\ncat \"$(dirname \"$0\")/../queue\" 2>/dev/null\nexit 0\n";

const SACCT: &str = r#"#!/bin/sh
dir=$(dirname "$0")/..
[ -f "$dir/ended" ] && exec cat "$dir/ended"
echo "Slurm accounting storage is disabled" >&2
exit 1
"#;

const SCONTROL: &str = "#!/bin/sh\necho \"$*\" >>\"$(dirname \"$0\")/../asked\"\nexit 1\n";

/// A cluster of scripts, with a recipe of its own.
struct Cluster {
    dir: tempfile::TempDir,
}

const SWEPT: &str = "let seed = 1\nsweep seeds = grid { seed = [1, 2, 3] }\n\
    stage warm = train { model = m, data = d.train, adapter = bitfit, lr = 1e-3, steps = 2 }\n\
    stage learn = train { from = warm, data = d.train, adapter = lora { rank = 2 }, lr = 1e-3, seed = seed, steps = 2 }\n\
    stage score = eval { from = learn, data = d.dev }\n\
    stage base = eval { from = warm, data = d.dev }\n";

/// A training that no test waits for.
const LONG: &str = "stage s = train { model = m, data = d.train, adapter = head_only, lr = 1e-4, steps = 60000, features = 0B }\n";

impl Cluster {
    fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        recipe(dir.path(), body);
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("made");
        for (name, text) in [
            ("sbatch", SBATCH),
            ("squeue", SQUEUE),
            ("sacct", SACCT),
            ("scontrol", SCONTROL),
        ] {
            fs::write(bin.join(name), text).expect("written");
            let made = Command::new("chmod").arg("+x").arg(bin.join(name)).status();
            assert!(made.expect("starts").success());
        }
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn site(&self, text: &str) {
        self.write("config/peftc/slurm.toml", text);
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    /// A command with the scripts in its search path.
    fn command(&self, mut command: Command) -> Command {
        let path = std::env::var("PATH").expect("a search path");
        let bin = self.at("bin");
        command
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("XDG_CONFIG_HOME", self.at("config"))
            .current_dir(self.dir.path());
        command
    }

    fn peftc(&self, args: &[&str]) -> Command {
        let mut command = self.command(program());
        command.args(args);
        command
    }

    fn submit(&self, args: &[&str]) -> Output {
        let all = ["run", "r.peft", "--on", "slurm", "--threads", "2"];
        let all: Vec<&str> = all.iter().chain(args).copied().collect();
        self.peftc(&all).output().expect("starts")
    }

    fn submitted(&self, args: &[&str]) -> String {
        let output = self.submit(args);
        assert!(output.status.success(), "{args:?}: {}", stderr_of(&output));
        stdout_of(&output)
    }

    /// The stages by `status --json`.
    fn status(&self) -> Vec<Value> {
        let output = done(&mut self.peftc(&["status", "r.peft", "--json"]));
        let json = printed(&output);
        json["stages"].as_array().expect("stages").clone()
    }

    /// What is told of one of them.
    fn of(&self, name: &str) -> Value {
        let all = self.status();
        let own = all.into_iter().find(|s| s["name"] == name);
        own.unwrap_or_else(|| panic!("no stage `{name}`"))
    }

    /// How `sbatch` was called, without folders.
    fn calls(&self) -> Vec<String> {
        let folder = format!("{}/.peftc/runs/r/.slurm/", self.real().display());
        let text = self.text("calls").replace(&folder, "");
        text.lines().map(str::to_owned).collect()
    }

    fn real(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("there")
    }

    /// A text that is the same on every machine and for every version of a fingerprint.
    fn anywhere(&self, text: &str) -> String {
        let text = text
            .replace(&self.real().display().to_string(), "/home/me")
            .replace(env!("CARGO_BIN_EXE_peftc"), "/bin/peftc");
        let is_print = |word: &str| word.len() == 64 && word.bytes().all(|c| c.is_ascii_hexdigit());
        let word = |word: &str| {
            if is_print(word) {
                "FINGERPRINT".to_owned()
            } else {
                word.to_owned()
            }
        };
        let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn the_printed_scripts_are_those_that_are_submitted() {
    let cluster = Cluster::new(SWEPT);
    cluster.site(
        "partition = \"long\"\naccount = \"lab\"\narray_limit = 2\nmodules = [\"gcc/13\"]\n\
         container = [\"apptainer\", \"exec\", \"my image.sif\"]\noptions = [\"--mail-type=END\", \"--exclusive\"]\n",
    );
    let script = cluster.submitted(&["--dry-run"]);
    assert!(!cluster.at("calls").exists() && !cluster.at(".peftc/runs").exists());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("slurm_scripts", cluster.anywhere(&script)));

    // A card to plan for is a GPU to run on.
    let on_card = cluster.submitted(&["--dry-run", "--device", "a100-80gb"]);
    assert!(
        on_card.contains("#SBATCH --gres=\"gpu:1\"\n") && on_card.contains(" --device cuda "),
        "{on_card}"
    );

    // By hand: `sh` needs nothing else.
    cluster.write("by_hand.sh", &script);
    let mut shell = cluster.command(Command::new("sh"));
    done(shell.arg("by_hand.sh"));
    let calls = cluster.calls();
    assert_eq!(
        calls,
        [
            "101 --parsable warm.sh",
            "102 --parsable --dependency=afterok:101 learn.sh",
            "103 --parsable --dependency=afterok:101 base.sh",
            "104 --parsable --dependency=aftercorr:102 score.sh",
        ]
    );
    let folder = ".peftc/runs/r/.slurm";
    let (journal, learn) = (
        cluster.text(&format!("{folder}/jobs.tsv")),
        cluster.text(&format!("{folder}/learn.sh")),
    );
    assert_eq!(journal.lines().count(), 8, "{journal}");
    assert!(
        journal.contains("102_2\t") && journal.contains("\tlearn@seed=3\n"),
        "{journal}"
    );
    // Submitted by the program, it is the same.
    for name in ["calls", "count"] {
        fs::remove_file(cluster.at(name)).expect("removed");
    }
    fs::remove_dir_all(cluster.at(folder)).expect("removed");
    let table = cluster.submitted(&[]);
    assert!(
        table.contains("learn × 3") && table.contains("peftc status r.peft"),
        "{table}"
    );
    assert_eq!(cluster.calls(), calls);
    assert_eq!(cluster.text(&format!("{folder}/jobs.tsv")), journal);
    assert_eq!(cluster.text(&format!("{folder}/learn.sh")), learn);
}

#[test]
fn jobs_leave_what_one_run_leaves() {
    let cluster = Cluster::new(SWEPT);
    cluster.write("execute", "");
    cluster.submitted(&[]);
    let states = cluster.status();
    assert!(states.iter().all(|s| s["state"] == "done"), "{states:#?}");
    assert_eq!(states.len(), 8);
    assert_eq!(states[1]["job"], "102_0");
    let own = json(cluster.at(".peftc/runs/r/result.json"));
    let args = [
        "run",
        "r.peft",
        "--quiet",
        "--store",
        "other",
        "--out",
        "out",
        "--threads",
        "2",
    ];
    done(&mut cluster.peftc(&args));
    let here = json(cluster.at("out/result.json"));
    let of = |result: &Value| -> Vec<(Value, Value, Value)> {
        let stages = result["stages"].as_array().expect("stages").iter();
        stages
            .map(|s| {
                (
                    s["name"].clone(),
                    s["fingerprint"].clone(),
                    s["metrics"].clone(),
                )
            })
            .collect()
    };
    assert_eq!(of(&own), of(&here));
    let file = "learn@seed=2/adapter/peftc.safetensors";
    let bytes = |out: &str| fs::read(cluster.at(out).join(file)).expect("an adapter");
    assert_eq!(bytes(".peftc/runs/r"), bytes("out"), "other bits");
    assert!(
        cluster
            .submitted(&[])
            .contains("nothing to submit: every stage is finished")
    );
    assert_eq!(cluster.calls().len(), 4);
}

/// A cluster in the middle of a sweep: one job runs, others wait, and two have ended badly.
fn half_way() -> Cluster {
    let cluster = Cluster::new(SWEPT);
    cluster.submitted(&["--stage", "score"]);
    let folder = ".peftc/runs/r/.slurm";
    cluster.write(
        "queue",
        "101|RUNNING|None\n102_0|PENDING|Dependency\n102_1|PENDING|Dependency\n102_2|PENDING|Dependency\n103_0|PENDING|Dependency\n\
         103_1|CANCELLED|None\n",
    );
    cluster.write("ended", "103_2|FAILED\n");
    cluster.write(
        &format!("{folder}/warm-101.log"),
        "{\"event\":\"stage\",\"stage\":\"warm\",\"total\":2}\n{\"event\":\"step\",\"step\":1,\"loss\":0.5}\n",
    );
    cluster.write(
        &format!("{folder}/score-103_2.log"),
        "{\"event\":\"failed\",\"message\":\"x: the disk is full\",\"exit_code\":1}\n",
    );
    cluster
}

#[test]
fn states_progress_and_failures_are_told() {
    let cluster = half_way();
    let states = cluster.status();
    let told: Vec<_> = states
        .iter()
        .map(|s| s["state"].as_str().expect("a state"))
        .collect();
    assert_eq!(
        told,
        [
            "running",
            "waiting",
            "waiting",
            "new",
            "waiting",
            "cancelled",
            "waiting",
            "failed"
        ],
        "{states:#?}"
    );
    assert_eq!(
        (&states[0]["done"], &states[0]["total"]),
        (&1.into(), &2.into())
    );
    assert_eq!(states[7]["error"], "x: the disk is full");
    let text = stdout_of(&done(&mut cluster.peftc(&["status", "r.peft"])));
    for words in [
        "step 1 of 2, loss 0.5000",
        "for learn@seed=1",
        "score@seed=3: x: the disk is full; its log:",
        "before it ran",
        "peftc run r.peft --on slurm",
    ] {
        let words = words.replace(' ', "");
        assert!(
            text.replace([' ', '\n'], "").contains(&words),
            "{words}: {text}"
        );
    }
}

#[test]
fn what_is_in_the_queue_is_not_submitted_again() {
    let cluster = half_way();
    // What is left waits for the jobs that are there.
    fs::remove_file(cluster.at("calls")).expect("removed");
    let json = cluster.submitted(&["--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["in_queue"], 5);
    assert_eq!(
        cluster.calls(),
        [
            "104 --parsable --dependency=afterok:101 base.sh",
            "105 --parsable --dependency=afterok:102_1:102_2 score.sh",
        ]
    );
    assert_eq!(
        json["jobs"][1]["stages"],
        serde_json::json!(["score@seed=2", "score@seed=3"])
    );

    // Without the queue nothing is guessed.
    fs::remove_file(cluster.at("bin/squeue")).expect("removed");
    let bin = cluster.at("bin");
    let alone = |args: &[&str]| {
        let mut command = cluster.peftc(args);
        command.env("PATH", &bin).output().expect("starts")
    };
    let output = alone(&["run", "r.peft", "--on", "slurm"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr_of(&output).contains("`squeue` does not start"),
        "{}",
        stderr_of(&output)
    );
    let output = alone(&["status", "r.peft", "--json"]);
    assert!(output.status.success() && stderr_of(&output).contains("comes from the store"));
    let states = printed(&output);
    assert_eq!(states["stages"][0]["state"], "unknown");
    assert_eq!(
        states["stages"][7]["state"], "unknown",
        "another job has it now"
    );
}

#[test]
fn what_cannot_be_submitted_is_refused_by_name() {
    let cluster = Cluster::new(LONG);
    let refused = |args: &[&str], code: i32, said: &str| {
        let output = cluster.submit(args);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let told = words(&stderr_of(&output));
        assert!(told.contains(said), "{args:?}: {told}");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
    };
    refused(&["--ranks", "0"], 2, "--ranks");
    refused(
        &["--fresh"],
        2,
        "`--fresh` cannot be given with `--on slurm`",
    );
    refused(&["--resume", "never"], 2, "`--resume never` cannot");
    refused(&["--stage", "t"], 2, "there is no stage `t`");
    refused(&["--budget", "1MiB"], 3, "over the budget");
    refused(&["--out", "a\"b"], 2, "holds a quotation mark");
    cluster.site("partitoin = \"x\"\n");
    refused(
        &["--dry-run"],
        2,
        "slurm.toml: there is no key `partitoin`; did you mean `partition`?",
    );
    cluster.site("");
    cluster.write("refuse", "0");
    refused(
        &[],
        1,
        "invalid partition specified: nowhere; nothing was submitted",
    );
    fs::remove_file(cluster.at("refuse")).expect("removed");
    cluster.write(".peftc/runs/r/.slurm/jobs.tsv", "101\tx\n");
    refused(&[], 1, "jobs.tsv: line 1 is not what was written");
    let status = cluster
        .peftc(&["status", "r.peft"])
        .output()
        .expect("starts");
    assert_eq!(status.status.code(), Some(1));
    // In the middle, what was submitted stays known.
    let cluster = Cluster::new(SWEPT);
    cluster.write("refuse", "103");
    let output = cluster.submit(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr_of(&output).contains("101, 102 were submitted before"),
        "{}",
        stderr_of(&output)
    );
    assert_eq!(
        cluster
            .text(".peftc/runs/r/.slurm/jobs.tsv")
            .lines()
            .count(),
        4
    );
}

#[test]
fn an_array_has_a_bound_and_its_parts_wait_for_parts() {
    let cluster = Cluster::new(SWEPT);
    cluster.site("array_size = 2\n");
    cluster.submitted(&[]);
    assert_eq!(
        cluster.calls(),
        [
            "101 --parsable warm.sh",
            "102 --parsable --dependency=afterok:101 learn.sh",
            "103 --parsable --dependency=afterok:101 learn.2.sh",
            "104 --parsable --dependency=afterok:101 base.sh",
            "105 --parsable --dependency=aftercorr:102 score.sh",
            "106 --parsable --dependency=afterok:103 score.2.sh",
        ]
    );
    // Where some variants are finished, the others are waited for all the same.
    let cluster = Cluster::new(SWEPT);
    done(&mut cluster.peftc(&["run", "r.peft", "--quiet", "--stage", "learn@seed=1"]));
    cluster.submitted(&[]);
    assert_eq!(
        cluster.calls(),
        [
            "101 --parsable base.sh",
            "102 --parsable learn.sh",
            "103 --parsable score.sh",
            "104 --parsable --dependency=aftercorr:102 score.2.sh",
        ]
    );
}
