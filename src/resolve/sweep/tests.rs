use super::*;
use crate::base::SourceId;
use crate::syntax::ast::{File, Item};
use crate::syntax::parse;

fn file(text: &str) -> File {
    parse(text, SourceId(0)).ok().expect("parses").0
}

/// The points of a text, each as `axis=value …`, and the codes of what is wrong.
fn points(text: &str, fixed: &[&str]) -> (Vec<String>, Vec<&'static str>) {
    let file = file(text);
    let mut scope = Scope::default();
    let mut sweeps = Vec::new();
    for item in &file.items {
        match item {
            Item::Let(l) => {
                scope.lets.insert(&l.name.value, &l.value);
            }
            Item::Decl(d) => sweeps.push(d),
            Item::Import(_) => {}
        }
    }
    let mut diags = Diags::default();
    let points = expand(sweeps.into_iter(), &scope, fixed, &mut diags);
    let shown = |point: usize| {
        let pair = |axis: &Axis| format!("{}={}", axis.name, points.label(point, axis));
        let pairs: Vec<String> = points.axes.iter().map(pair).collect();
        pairs.join(" ")
    };
    (
        (0..points.count()).map(shown).collect(),
        diags.iter().map(|d| d.code.name).collect(),
    )
}

const LETS: &str = "let a = 1\nlet b = 2\nlet c = 3\n";

fn good(sweeps: &str, fixed: &[&str]) -> Vec<String> {
    let (points, codes) = points(&format!("{LETS}{sweeps}"), fixed);
    assert!(codes.is_empty(), "{sweeps}: {codes:?}");
    points
}

fn bad(sweeps: &str) -> Vec<&'static str> {
    points(&format!("{LETS}{sweeps}"), &[]).1
}

#[test]
fn a_grid_is_the_product_of_its_axes() {
    assert_eq!(
        good("sweep s = grid { a = [1, 2], b = [x, y] }", &[]),
        ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]
    );
    assert_eq!(good("", &[]), [""], "without a sweep there is one point");
}

#[test]
fn a_zip_pairs_its_axes() {
    assert_eq!(
        good("sweep s = zip { a = [1, 2, 2], b = [x, y, z] }", &[]),
        ["a=1 b=x", "a=2 b=y", "a=2 b=z"]
    );
    assert_eq!(
        bad("sweep s = zip { a = [1, 2], b = [1] }"),
        ["resolve::unequal_axes"]
    );
}

#[test]
fn sweeps_multiply() {
    let both = "sweep s = grid { c = [7, 8] }\nsweep t = zip { a = [1, 2], b = [x, y] }";
    assert_eq!(
        good(both, &[]),
        ["c=7 a=1 b=x", "c=7 a=2 b=y", "c=8 a=1 b=x", "c=8 a=2 b=y"]
    );
}

#[test]
fn a_fixed_axis_is_lost() {
    let both = "sweep s = grid { c = [7, 8] }\nsweep t = zip { a = [1, 2, 2], b = [x, y, z] }";
    assert_eq!(good(both, &["c"]), ["a=1 b=x", "a=2 b=y", "a=2 b=z"]);
    assert_eq!(good(both, &["c", "b"]), ["a=1", "a=2"], "nothing twice");
    assert_eq!(good(both, &["a", "b"]), ["c=7", "c=8"]);
    assert_eq!(good(both, &["a", "b", "c"]), [""]);
}

#[test]
fn values_are_short_and_told_apart() {
    let of = |list: &str| {
        let points = good(&format!("sweep s = grid {{ a = [{list}] }}"), &[]);
        let label = |p: &String| p.trim_start_matches("a=").to_owned();
        points.iter().map(label).collect::<Vec<_>>()
    };
    assert_eq!(of("lora { rank = 4 }, full"), ["lora", "full"]);
    assert_eq!(
        of("lora { rank = 4, alpha = 8 }, siva {}, lora { rank = 8, alpha = 8 }"),
        ["lora-rank4", "siva", "lora-rank8"]
    );
    assert_eq!(of("12%, 5 epochs, -3"), ["12pct", "5epochs", "-3"]);
    assert_eq!(of("\"a/b ../c\", \"\""), ["a-b-..-c", "value"]);
    assert_eq!(of("\"a b\", \"a-b\""), ["a-b-1", "a-b-2"]);
    assert_eq!(of("[x, y], [], { x: \"1\" }"), ["x+y", "none", "1"]);
    assert_eq!(
        of("x, X"),
        ["x-1", "X-2"],
        "not all file systems tell them apart"
    );
    let long = "z".repeat(99);
    let labels = of(&format!("\"{long}1\", \"{long}2\""));
    assert!(labels.iter().all(|l| l.len() < 50), "{labels:?}");
    assert_ne!(labels.first(), labels.last());
}

#[test]
fn mistakes_leave_nothing_swept() {
    assert_eq!(
        bad("sweep s = grid { a = [4, 4.0] }"),
        ["resolve::repeated_point"]
    );
    assert_eq!(
        bad("sweep s = grid { a = [b, 2] }"),
        ["resolve::repeated_point"],
        "a name counts as its value"
    );
    let (points, codes) = points("let a = 1\nsweep s = grid { a = [1, 2], z = [1] }", &[]);
    assert_eq!(points, [""]);
    assert_eq!(codes, ["resolve::unknown_axis"]);
}
