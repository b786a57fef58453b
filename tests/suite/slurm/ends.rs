//! How jobs end: at their limit, cancelled, killed, several at once.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Cluster, LONG};
use crate::store::{recipe, signal, start, wait_for};
use crate::support::{json, program, stderr_of};

#[cfg(unix)]
#[test]
fn a_job_at_its_limit_keeps_a_checkpoint_and_goes_back_into_the_queue() {
    let cluster = Cluster::new(LONG);
    cluster.submitted(&["--checkpoint-every", "1000"]);
    let script = cluster.at(".peftc/runs/r/.slurm/s.sh");
    let log = cluster.at(".peftc/runs/r/.slurm/s-101.log");
    let job = || {
        let file = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log");
        let again = file.try_clone().expect("a log");
        let mut command = cluster.command(Command::new("bash"));
        command
            .arg(&script)
            .env("SLURM_JOB_ID", "101")
            .stdout(file)
            .stderr(again);
        command.spawn().expect("starts")
    };
    let steps = |n: usize| {
        fs::read_to_string(&log).is_ok_and(|t| t.matches("\"event\":\"step\"").count() > n)
    };
    let mut first = job();
    wait_for("steps", || steps(3));
    signal("USR1", &first);
    let ended = first.wait().expect("ends");
    assert_eq!(ended.code(), Some(143));
    assert_eq!(cluster.text("asked"), "requeue 101\n");
    cluster.write("queue", "101|PENDING|BeginTime\n");
    let told = cluster.of("s");
    let step = told["resumes_at"].as_u64().expect("a checkpoint");
    assert!(step > 0 && told["state"] == "waiting", "{told}");
    // Cancelled in its second start: a checkpoint, and no third one.
    let before = fs::read_to_string(&log)
        .expect("a log")
        .matches("\"event\":\"step\"")
        .count();
    let mut second = job();
    wait_for("steps", || steps(before + 3));
    signal("TERM", &second);
    assert_eq!(second.wait().expect("ends").code(), Some(143));
    assert_eq!(cluster.text("asked"), "requeue 101\n");
    assert!(
        fs::read_to_string(&log)
            .expect("a log")
            .contains(&format!("\"step\":{step},\"of\":60000"))
    );
    cluster.write("queue", "101|CANCELLED|None\n");
    let told = cluster.of("s");
    assert_eq!(told["state"], "cancelled");
    assert!(
        told["error"]
            .as_str()
            .expect("why")
            .contains("interrupted by SIGTERM"),
        "{told}"
    );
    let later = told["resumes_at"].as_u64().expect("a checkpoint");
    assert!(later > step, "{later} after {step}");
    let table = cluster.submitted(&[]);
    assert!(
        table.contains("102"),
        "the next submission takes it up: {table}"
    );
}

/// Jobs of several machines meet in the store: the lock of an entry is the system's, so that it ends with its holder.
#[cfg(unix)]
#[test]
fn a_killed_holder_of_a_stage_gives_it_to_the_process_that_waits() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(dir.path(), LONG);
    let mut first = start(&path, &["--checkpoint-every", "0"]);
    let store = dir.path().join(".peftc/store");
    let entry = || {
        fs::read_dir(&store)
            .ok()?
            .flatten()
            .map(|e| e.path())
            .find(|p| p.join("checkpoint").exists())
    };
    wait_for("checkpoint", || entry().is_some());
    let mut command = program();
    command
        .args(["run", "--checkpoint-every", "1000", "--log-format", "json"])
        .arg(&path);
    let log = dir.path().join("log");
    let file = fs::File::create(&log).expect("a log");
    let second = command
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .expect("starts");
    let said = |words: &str| fs::read_to_string(&log).is_ok_and(|text| text.contains(words));
    wait_for("waiting", || {
        said(&format!("waiting: process {} is running `s`", first.id()))
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!said("\"event\":\"stage\""), "two at once");
    first.kill().expect("killed");
    first.wait().expect("ends");
    wait_for("a step", || said("\"event\":\"step\""));
    assert!(
        said("\"event\":\"resumed\""),
        "{}",
        fs::read_to_string(&log).expect("a log")
    );
    signal("TERM", &second);
    let ended = second.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(143));
}

/// Results of jobs that end at once are all in the document.
#[test]
fn results_of_runs_side_by_side_are_all_kept() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let names = ["a", "b", "c", "e"];
    let stages = ["1e-3", "2e-3", "3e-3", "4e-3"].map(|lr| {
        format!("train {{ model = m, data = d.train, adapter = bitfit, lr = {lr}, steps = 1 }}\n")
    });
    let stages: Vec<String> = names
        .iter()
        .zip(stages)
        .map(|(n, s)| format!("stage {n} = {s}"))
        .collect();
    let path = recipe(dir.path(), &stages.concat());
    let children = names.map(|name| start(&path, &["--stage", name]));
    for child in children {
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{}", stderr_of(&output));
    }
    let result = json(dir.path().join(".peftc/runs/r/result.json"));
    let kept: Vec<&str> = result["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .filter_map(|s| s["name"].as_str())
        .collect();
    assert_eq!(kept, names);
}
