//! Trainings shared among processes, as far as one process can tell: what `check` says of them, what is refused, what jobs start.
//! `tests/scale/mpi.sh` starts several by MPI.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::store::recipe;
use super::support::{printed, program, stderr_of, stdout_of};

const BODY: &str = "stage s = train { model = m, data = d.train, adapter = bitfit, lr = 1e-3, steps = 2, batch = 8 }\n\
                    stage e = eval { from = s, data = d.dev }\n";

fn scratch() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    recipe(dir.path(), BODY);
    dir
}

fn go(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = program();
    command.args(args).current_dir(dir);
    command.envs(variables.iter().copied());
    command.output().expect("starts")
}

#[test]
fn check_says_what_ranks_hold_and_send() {
    let dir = scratch();
    let of = |args: &[&str]| -> Value {
        let all: Vec<&str> = ["check", "r.peft", "--json", "--threads", "1"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let output = go(dir.path(), &all, &[]);
        assert!(output.status.success(), "{}", stderr_of(&output));
        printed(&output)["recipes"][0]["stages"].clone()
    };
    let (alone, four) = (of(&[]), of(&["--ranks", "4"]));
    // Other ranks, other bits, also of what comes from them.
    for stage in 0..2 {
        assert_ne!(alone[stage]["fingerprint"], four[stage]["fingerprint"]);
    }
    assert!(alone[0]["ranks"].is_null() && four[1]["ranks"].is_null());
    let said = &four[0]["ranks"];
    let trained = four[0]["parameters"]["trainable"]
        .as_u64()
        .expect("a number");
    // A rank sends each of the three others a part of its gradients, and then of the sums; its loss; and in two rounds what it was
    // asked for.
    let sent = 2 * 3 * trained.div_ceil(4) * 4 + 3 * 8 + 2 * 3;
    assert_eq!(said["sent_bytes_per_step"], sent);
    assert_eq!(said["messages_per_step"], 2 * 3 + 3 + 2);
    let number = |value: &Value| value.as_f64().expect("a number");
    let seconds = sent as f64 / 1.25e9 + 11.0 * 20e-6;
    assert!((number(&said["exchange_s"]) - seconds).abs() < 1e-12);
    let slow = of(&["--ranks", "4", "--bandwidth", "1MB"]);
    assert!(number(&slow[0]["ranks"]["exchange_s"]) > 100.0 * seconds);
    // A rank holds less of the batch, and buckets beside it.
    let counts: Vec<u64> = said["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| step["ranks"].as_u64().expect("a number"))
        .collect();
    assert_eq!(counts, [1, 2, 4, 8]);
    let output = go(dir.path(), &["check", "r.peft", "--ranks", "4"], &[]);
    let text = stdout_of(&output);
    assert!(
        text.contains("4 ranks") && text.contains("pays up to"),
        "{text}"
    );
}

#[test]
fn processes_that_would_each_train_alone_are_refused() {
    let dir = scratch();
    let refused = |args: &[&str], variables: &[(&str, &str)], said: &str| {
        let output = go(dir.path(), args, variables);
        let told = stderr_of(&output);
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(said), "{args:?}: {told}");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(!dir.path().join(".peftc").exists(), "{args:?}");
        told
    };
    let run = ["run", "r.peft", "--quiet"];
    let two = [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "0")];
    let second = [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")];
    let tasks = [("SLURM_STEP_NUM_TASKS", "3"), ("SLURM_PROCID", "0")];
    if cfg!(not(feature = "mpi")) {
        refused(&run, &two, "`mpirun` started this as one of 2 processes");
        refused(&run, &tasks, "`srun` started this as one of 3 processes");
        // It is said once.
        assert_eq!(refused(&run, &second, ""), "");
    }
    let three = ["run", "r.peft", "--quiet", "--ranks", "3"];
    refused(&three, &two, "`mpirun` started 2 processes");
    refused(&three, &[], "start them with `mpirun -n 3 peftc run …`");
    let check = ["check", "r.peft", "--ranks", "2", "--device", "a100-80gb"];
    refused(&check, &[], "ranks on GPUs are not built");
    refused(&["check", "r.peft", "--ranks", "0"], &[], "from 1 to 1024");
    refused(&["check", "r.peft", "--bandwidth", "1GB"], &[], "--ranks");
    let dry = go(
        dir.path(),
        &["run", "r.peft", "--ranks", "3", "--dry-run"],
        &[],
    );
    assert!(stdout_of(&dry).contains("train"), "{}", stderr_of(&dry));
}

#[test]
fn a_job_starts_the_ranks_of_a_training_and_of_nothing_else() {
    let dir = scratch();
    let args = [
        "run",
        "r.peft",
        "--on",
        "slurm",
        "--dry-run",
        "--threads",
        "2",
        "--ranks",
        "3",
    ];
    let output = go(dir.path(), &args, &[("XDG_CONFIG_HOME", "none")]);
    let script = stdout_of(&output);
    let jobs: Vec<&str> = script.split("\ncat >").skip(1).collect();
    assert_eq!(jobs.len(), 2, "{script}{}", stderr_of(&output));
    let step = "srun --mpi=pmix --ntasks=3 --cpus-per-task=2 --kill-on-bad-exit=1 ";
    assert!(
        jobs[0].contains("#SBATCH --ntasks=3\n") && jobs[0].contains(step),
        "{script}"
    );
    assert!(
        jobs[0].contains("#SBATCH --mem-per-cpu=") && !jobs[0].contains("--mem="),
        "{script}"
    );
    assert!(
        jobs[1].contains("#SBATCH --ntasks=1\n") && !jobs[1].contains("srun"),
        "{script}"
    );
    assert!(
        jobs.iter().all(|job| job.contains(" --ranks 3 ")),
        "{script}"
    );
}
