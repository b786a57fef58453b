//! `plan --format argo`: the workflow has the fields that Argo's field reference names, and its tasks are the plan's stages.

use std::fs;

use serde_json::Value;

use super::{Cluster, SWEPT};
use crate::support::{done, stderr_of, stdout_of};

/// What is in a field.
enum Kind {
    Text,
    Number,
    Truth,
    Texts,
    Map,
    One(&'static [Field]),
    Each(&'static [Field]),
}

/// A field: its name, whether it has to be there, and what is in it.
type Field = (&'static str, bool, Kind);

const PARAMETERS: &[Field] = &[(
    "parameters",
    false,
    Kind::Each(&[("name", true, Kind::Text), ("value", false, Kind::Text)]),
)];

const CONTAINER: &[Field] = &[
    ("image", true, Kind::Text),
    ("command", false, Kind::Texts),
    ("args", false, Kind::Texts),
    ("workingDir", false, Kind::Text),
    (
        "volumeMounts",
        false,
        Kind::Each(&[("name", true, Kind::Text), ("mountPath", true, Kind::Text)]),
    ),
    (
        "resources",
        false,
        Kind::One(&[("requests", false, Kind::Map), ("limits", false, Kind::Map)]),
    ),
];

const TASK: &[Field] = &[
    ("name", true, Kind::Text),
    ("template", true, Kind::Text),
    ("dependencies", false, Kind::Texts),
    ("arguments", false, Kind::One(PARAMETERS)),
];

const TEMPLATE: &[Field] = &[
    ("name", true, Kind::Text),
    ("inputs", false, Kind::One(PARAMETERS)),
    (
        "dag",
        false,
        Kind::One(&[
            ("failFast", false, Kind::Truth),
            ("tasks", true, Kind::Each(TASK)),
        ]),
    ),
    ("container", false, Kind::One(CONTAINER)),
    (
        "retryStrategy",
        false,
        Kind::One(&[
            ("limit", false, Kind::Number),
            ("retryPolicy", false, Kind::Text),
        ]),
    ),
];

const VOLUME: &[Field] = &[
    ("name", true, Kind::Text),
    (
        "persistentVolumeClaim",
        false,
        Kind::One(&[("claimName", true, Kind::Text)]),
    ),
];

const WORKFLOW: &[Field] = &[
    ("apiVersion", true, Kind::Text),
    ("kind", true, Kind::Text),
    (
        "metadata",
        true,
        Kind::One(&[("generateName", true, Kind::Text)]),
    ),
    (
        "spec",
        true,
        Kind::One(&[
            ("entrypoint", true, Kind::Text),
            ("arguments", false, Kind::One(PARAMETERS)),
            ("volumes", false, Kind::Each(VOLUME)),
            ("templates", true, Kind::Each(TEMPLATE)),
        ]),
    ),
];

/// Compares a value with the fields that it may and has to have.
fn valid(value: &Value, fields: &[Field], way: &str) {
    let map = value
        .as_object()
        .unwrap_or_else(|| panic!("{way}: {value}"));
    for key in map.keys() {
        assert!(
            fields.iter().any(|(name, ..)| name == key),
            "{way}.{key} is no field"
        );
    }
    for (name, wanted, kind) in fields {
        let way = format!("{way}.{name}");
        let Some(own) = map.get(*name) else {
            assert!(!wanted, "{way} is missing");
            continue;
        };
        let texts = |v: &Value| v.as_array().is_some_and(|l| l.iter().all(Value::is_string));
        let right = match kind {
            Kind::Text => own.is_string(),
            Kind::Number => own.is_u64(),
            Kind::Truth => own.is_boolean(),
            Kind::Texts => texts(own),
            Kind::Map => own
                .as_object()
                .is_some_and(|m| m.values().all(Value::is_string)),
            Kind::One(inner) => {
                valid(own, inner, &way);
                true
            }
            Kind::Each(inner) => {
                let list = own.as_array().unwrap_or_else(|| panic!("{way} is no list"));
                list.iter().for_each(|one| valid(one, inner, &way));
                !list.is_empty()
            }
        };
        assert!(right, "{way}: {own}");
    }
}

/// The workflow of a sweep, and the cluster that it was planned on.
fn workflow() -> (Value, Cluster) {
    let cluster = Cluster::new(&SWEPT.replace("warm", "Warm_up"));
    let output =
        done(&mut cluster.peftc(&["plan", "r.peft", "--format", "argo", "--threads", "2"]));
    let text = stdout_of(&output);
    let flow = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    (flow, cluster)
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().expect("a list").clone()
}

#[test]
fn a_plan_for_argo_is_a_valid_workflow() {
    let (flow, cluster) = workflow();
    valid(&flow, WORKFLOW, "workflow");
    assert_eq!(
        (&flow["apiVersion"], &flow["kind"]),
        (&"argoproj.io/v1alpha1".into(), &"Workflow".into())
    );
    let templates = list(&flow["spec"]["templates"]);
    let names: Vec<&str> = templates
        .iter()
        .filter_map(|t| t["name"].as_str())
        .collect();
    assert!(names.contains(&flow["spec"]["entrypoint"].as_str().expect("a name")));
    let tasks = list(&templates[0]["dag"]["tasks"]);
    let tasks_names: Vec<&str> = tasks.iter().filter_map(|t| t["name"].as_str()).collect();
    let label = |name: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        name.len() <= 63
            && name.chars().all(plain)
            && !name.starts_with('-')
            && !name.ends_with('-')
    };
    for (at, task) in tasks.iter().enumerate() {
        assert!(label(tasks_names[at]), "{}", tasks_names[at]);
        assert!(
            !tasks_names[..at].contains(&tasks_names[at]),
            "twice {}",
            tasks_names[at]
        );
        assert!(names.contains(&task["template"].as_str().expect("a template")));
        for before in task["dependencies"].as_array().into_iter().flatten() {
            assert!(
                tasks_names[..at].contains(&before.as_str().expect("a name")),
                "{before}"
            );
        }
    }
    assert!(names[1..].iter().all(|n| label(n)));
    fs::copy(cluster.at("r.peft"), cluster.at("{{r.peft")).expect("copied");
    let output = cluster
        .peftc(&["plan", "{{r.peft", "--format", "argo"])
        .output()
        .expect("starts");
    assert!(
        stderr_of(&output).contains("behind which Argo looks for a name"),
        "{}",
        stderr_of(&output)
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn its_tasks_are_the_stages_with_what_they_need() {
    let (flow, _) = workflow();
    let templates = list(&flow["spec"]["templates"]);
    let tasks = list(&templates[0]["dag"]["tasks"]);
    let by = |stage: &str| {
        let own = |t: &&Value| t["arguments"]["parameters"][0]["value"] == stage;
        tasks
            .iter()
            .find(own)
            .unwrap_or_else(|| panic!("no `{stage}`"))
            .clone()
    };
    assert_eq!(tasks.len(), 8);
    assert_eq!(
        by("score@seed=2")["dependencies"],
        serde_json::json!([by("learn@seed=2")["name"]])
    );
    assert_eq!(
        by("learn@seed=2")["dependencies"],
        serde_json::json!([by("Warm_up")["name"]])
    );
    assert_eq!(by("Warm_up")["dependencies"], Value::Null);
    for template in &templates[1..] {
        let memory = template["container"]["resources"]["limits"]["memory"]
            .as_str()
            .expect("memory");
        let mib: u64 = memory
            .strip_suffix("Mi")
            .and_then(|n| n.parse().ok())
            .expect("MiB");
        assert!(mib > 256, "{memory}");
        assert!(
            template["container"]["args"]
                .as_array()
                .expect("args")
                .contains(&"{{inputs.parameters.stage}}".into())
        );
    }
}
