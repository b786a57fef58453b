//! What is printed to be read again is read again as the same value: artifacts hold methods as text.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use proptest::test_runner::TestRunner;

use super::methods_from_text;
use super::registry;
use super::scope::Scope;
use super::values;
use crate::base::{Diags, SourceId, Span};
use crate::library::method::METHODS;
use crate::library::net::ROLES;
use crate::library::placement::{Pattern, Placement};
use crate::library::schema::{
    Bound, Checked, ClassWeights, Default, Fallback, Filled, Key, Kind, Length, Portion, RefKind,
    Registry, Schema, Values,
};
use crate::syntax::parse_value;

const REGISTRIES: [Registry; 6] = [
    Registry::Method,
    Registry::Schedule,
    Registry::Optimizer,
    Registry::Metric,
    Registry::Objective,
    Registry::Start,
];

/// A value's text, read by a key.
fn read(key: &Key, text: &str) -> Result<Checked, String> {
    let parsed = parse_value(text, SourceId(0));
    let mut diags: Diags = parsed.diags;
    let checked = parsed
        .value
        .and_then(|value| values::check(&Scope::default(), key, &value, &mut diags));
    let said: Vec<String> = diags.iter().map(|d| d.message.clone()).collect();
    checked
        .filter(|_| said.is_empty())
        .ok_or_else(|| format!("{text:?}: {said:?}"))
}

fn key(kind: Kind) -> Key {
    Key {
        name: "key",
        kind,
        default: Default::Required,
        doc: "",
        fallback: None,
    }
}

/// Whether two values are one, wherever they were written. A placement is a set.
fn same(a: &Checked, b: &Checked) -> bool {
    let set = |p: &Placement| {
        let mut list: Vec<String> = p.any.iter().map(|p| format!("{p:?}")).collect();
        list.sort();
        list.dedup();
        list
    };
    match (a, b) {
        (Checked::Placement(a), Checked::Placement(b)) => set(a) == set(b),
        (Checked::Entry(a), Checked::Entry(b)) => same_entry(a, b),
        (Checked::Entries(a), Checked::Entries(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_entry(a, b))
        }
        (Checked::Float(a), Checked::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

fn same_entry(a: &Filled, b: &Filled) -> bool {
    let all = |a: &Filled, b: &Filled| {
        let mut values = a.values.iter();
        values.all(|(key, value)| b.values.get(key).is_some_and(|other| same(value, other)))
    };
    a.name == b.name && all(a, b) && all(b, a)
}

fn float(lo: Bound, hi: Bound) -> BoxedStrategy<f64> {
    let fits = move |x: &f64| {
        let above = match lo {
            Bound::Incl(b) => *x >= b,
            Bound::Excl(b) => *x > b,
            Bound::None => true,
        };
        above
            && match hi {
                Bound::Incl(b) => *x <= b,
                Bound::Excl(b) => *x < b,
                Bound::None => true,
            }
    };
    let plain = (0u64..1000, 0i32..6).prop_map(|(n, places)| n as f64 / 10f64.powi(places));
    let wild = any::<f64>().prop_filter("finite", |x| x.is_finite());
    prop_oneof![3 => plain, 1 => wild, 1 => 0.0..1.0f64]
        .prop_filter("within its bounds", fits)
        .boxed()
}

fn role() -> BoxedStrategy<String> {
    let parts = (select(ROLES), any::<bool>(), any::<bool>());
    parts
        .prop_map(|((_, path), first, second)| {
            let star = |any: bool, part: &str| if any { "*".to_owned() } else { part.to_owned() };
            match path.split_once('.') {
                Some((a, b)) => format!("{}.{}", star(first, a), star(second, b)),
                None => star(first, path),
            }
        })
        .boxed()
}

fn placement() -> BoxedStrategy<Checked> {
    let end = || option::of(any::<i64>());
    let known = (option::of((end(), end())), role()).prop_map(|(layers, path)| Pattern {
        layers,
        path,
        raw: false,
    });
    let raw = prop_oneof![any::<String>(), "[a-z.*]{0,20}"].prop_map(|path| Pattern {
        layers: None,
        path,
        raw: true,
    });
    vec(prop_oneof![known, raw], 0..5)
        .prop_map(|any| Checked::Placement(Placement { any }))
        .boxed()
}

/// A placement as the key of a map.
fn pattern() -> BoxedStrategy<Pattern> {
    let end = || option::of(any::<i64>());
    let known = (option::of((end(), end())), role()).prop_map(|(layers, path)| Pattern {
        layers,
        path,
        raw: false,
    });
    let raw = "m\\.[a-z*]{0,8}\\.[a-z_]{1,6}".prop_map(|path| Pattern {
        layers: None,
        path,
        raw: true,
    });
    prop_oneof![known, raw].boxed()
}

fn value(kind: Kind) -> BoxedStrategy<Checked> {
    let name = "[a-zA-Z_][a-zA-Z0-9_]{0,8}";
    let names = || vec(any::<String>(), 0..4).prop_map(Checked::Names);
    match kind {
        Kind::Int(lo, hi) => (lo..=hi).prop_map(Checked::Int).boxed(),
        Kind::Batch(lo, hi) => prop_oneof![
            (lo..=hi).prop_map(Checked::Int),
            (1..=1_u64 << 40).prop_map(Checked::Tokens)
        ]
        .boxed(),
        Kind::Float(lo, hi) => float(lo, hi).prop_map(Checked::Float).boxed(),
        Kind::Bool => any::<bool>().prop_map(Checked::Bool).boxed(),
        Kind::Str | Kind::Column | Kind::Class => any::<String>().prop_map(Checked::Str).boxed(),
        Kind::Choice(list) => select(list)
            .prop_map(|c| Checked::Str(c.to_owned()))
            .boxed(),
        Kind::Size => (0..1u64 << 63).prop_map(Checked::Int).boxed(),
        Kind::Length => (1..=u64::MAX, any::<bool>())
            .prop_map(|(n, steps)| {
                Checked::Length(if steps {
                    Length::Steps(n)
                } else {
                    Length::Epochs(n)
                })
            })
            .boxed(),
        Kind::Portion => {
            let share = (0u32..=8).prop_flat_map(|places| {
                let whole = 10u64.pow(places);
                (0..=whole).prop_map(move |n| Portion::Share(n, whole))
            });
            prop_oneof![share, any::<u64>().prop_map(Portion::Steps)]
                .prop_map(Checked::Portion)
                .boxed()
        }
        Kind::Ref(RefKind::Split) => (name, option::of(name))
            .prop_map(|(name, split)| Checked::Ref(name, split))
            .boxed(),
        Kind::Ref(_) => name.prop_map(|name| Checked::Ref(name, None)).boxed(),
        Kind::Placement => placement(),
        Kind::Entry(which) => entry(which)
            .prop_map(|filled| Checked::Entry(Box::new(filled)))
            .boxed(),
        Kind::Entries(which) => vec(entry(which), 0..3).prop_map(Checked::Entries).boxed(),
        Kind::Texts | Kind::Names | Kind::Columns => names().boxed(),
        Kind::Numbers => vec(0u64..100, 0..4)
            .prop_map(|list| Checked::Names(list.iter().map(u64::to_string).collect()))
            .boxed(),
        Kind::Labels => {
            let one = (
                any::<String>(),
                any::<String>().prop_map(|class| vec![class]),
            );
            let map = vec(one, 1..4).prop_map(Checked::Map);
            prop_oneof![names(), map].boxed()
        }
        Kind::Share => (1u32..=8)
            .prop_flat_map(|places| {
                let whole = 10u64.pow(places);
                (1..whole).prop_map(move |n| Checked::Portion(Portion::Share(n, whole)))
            })
            .boxed(),
        Kind::Block(schema) => block(schema)
            .prop_map(|filled| Checked::Entry(Box::new(filled)))
            .boxed(),
        Kind::ByPlace(of) => vec((pattern(), value(*of)), 1..4)
            .prop_map(Checked::ByPlace)
            .boxed(),
        Kind::ClassWeights => {
            let (least, most) = ClassWeights::BOUNDS;
            let weight = float(Bound::Incl(least), Bound::Incl(most));
            let each = vec((any::<String>(), weight), 1..4).prop_map(ClassWeights::Each);
            prop_oneof![Just(ClassWeights::Balanced), each]
                .prop_map(Checked::ClassWeights)
                .boxed()
        }
        Kind::Verbalizer => vec((any::<String>(), vec(any::<String>(), 0..3)), 0..3)
            .prop_map(Checked::Map)
            .boxed(),
    }
}

/// A block of a schema: each key with any value, or as it is when not written.
fn block(schema: &'static Schema) -> BoxedStrategy<Filled> {
    let keys: Vec<BoxedStrategy<Option<Checked>>> = schema
        .keys
        .iter()
        .map(|key| {
            let any = value(key.kind).prop_map(Some);
            let default = |text: &str| read(key, text).expect("a default is valid");
            match key.default {
                Default::Required => any.boxed(),
                Default::Absent => option::of(value(key.kind)).boxed(),
                Default::Text(text) => prop_oneof![any, Just(Some(default(text)))].boxed(),
                // Written or not, it is left away.
                Default::Tacit(text) => {
                    let tacit = default(text);
                    option::of(value(key.kind))
                        .prop_map(move |v| v.filter(|v| !same(v, &tacit)))
                        .boxed()
                }
            }
        })
        .collect();
    keys.prop_map(move |list| {
        let mut values = Values::default();
        for (key, value) in schema.keys.iter().zip(list) {
            if let Some(value) = value {
                values.insert(key.name, value, Span::default(), true);
            }
        }
        Filled {
            name: schema.name.to_owned(),
            values,
            span: Span::default(),
        }
    })
    .boxed()
}

fn entry(which: Registry) -> BoxedStrategy<Filled> {
    let schemas = registry::names(which).filter_map(|name| registry::schema(which, name));
    Union::new(schemas.map(block)).boxed()
}

/// Every kind that a key of the language has, but for blocks without a name: a key is all that tells what they are, and none is
/// written to be read again.
fn kinds() -> Vec<Kind> {
    let mut kinds = vec![
        Kind::Int(0, u64::MAX),
        Kind::Batch(1, 1 << 20),
        Kind::Float(Bound::None, Bound::None),
        Kind::Bool,
        Kind::Str,
        Kind::Choice(&["f32", "bf16"]),
        Kind::Size,
        Kind::Length,
        Kind::Portion,
        Kind::Ref(RefKind::Split),
        Kind::Ref(RefKind::Stage),
        Kind::Placement,
        Kind::Texts,
        Kind::Names,
        Kind::Numbers,
        Kind::Columns,
        Kind::Column,
        Kind::Class,
        Kind::Labels,
        Kind::Share,
        Kind::ClassWeights,
        Kind::ByPlace(&Kind::Int(1, u64::MAX)),
        Kind::ByPlace(&Kind::Float(Bound::Excl(0.0), Bound::None)),
        Kind::Verbalizer,
    ];
    for which in REGISTRIES {
        kinds.extend([Kind::Entry(which), Kind::Entries(which)]);
    }
    kinds
}

#[test]
fn every_value_is_read_again_as_it_was_printed() {
    for kind in kinds() {
        let mut runner = TestRunner::new(ProptestConfig::with_cases(96));
        let outcome = runner.run(&(value(kind), value(kind)), |(one, other)| {
            let text = format!("{one:#}");
            let again = read(&key(kind), &text).map_err(TestCaseError::fail)?;
            prop_assert!(same(&one, &again), "{text}: {one:?} became {again:?}");
            // Fingerprints are made of the canonical form: it tells values apart.
            prop_assert_eq!(same(&one, &other), one.to_string() == other.to_string());
            prop_assert_eq!(one.to_string(), again.to_string());
            Ok(())
        });
        outcome.unwrap_or_else(|why| panic!("{kind:?}: {why}"));
    }
}

/// A method. An artifact never holds `peft`, but the methods that the folder was read as.
fn own_method() -> impl Strategy<Value = Filled> {
    entry(Registry::Method).prop_filter("a folder of peft's", |one| {
        one.name != crate::library::method::import::NAME
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn methods_are_read_again_as_an_artifact_holds_them(list in vec(own_method(), 1..4)) {
        let texts: Vec<String> = list.iter().map(|f| format!("{f:#}")).collect();
        let tuning = methods_from_text(&texts).map_err(TestCaseError::fail)?;
        prop_assert_eq!(tuning.methods.len(), list.len());
        for ((method, read), written) in tuning.methods.iter().zip(&list) {
            prop_assert_eq!(method.schema().name, &written.name);
            prop_assert!(same_entry(read, written), "{texts:?}");
        }
    }
}

#[test]
fn a_default_in_code_is_the_one_that_a_recipe_would_write() {
    let mut seen = 0;
    for key in registry::all().iter().flat_map(|schema| schema.keys) {
        let (Some(fallback), Default::Text(text) | Default::Tacit(text)) =
            (key.fallback, key.default)
        else {
            continue;
        };
        let wanted = match fallback {
            Fallback::Int(n) => Checked::Int(n),
            Fallback::Float(x) => Checked::Float(x),
            Fallback::Bool(truth) => Checked::Bool(truth),
            Fallback::Str(name) => Checked::Str(name.to_owned()),
        };
        assert_eq!(read(key, text), Ok(wanted), "{}", key.name);
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn what_a_recipe_writes_is_printed_as_the_same_value() {
    let both = |kind: Kind, written: &str| {
        let key = key(kind);
        let value = read(&key, written).unwrap_or_else(|why| panic!("{why}"));
        let again = read(&key, &format!("{value:#}")).unwrap_or_else(|why| panic!("{why}"));
        assert!(
            same(&value, &again),
            "{written}: {value:?} became {again:?}"
        );
    };
    for text in [
        "12%",
        "0.5%",
        "100%",
        "0",
        "1",
        "0.25",
        "12.5%",
        "300 steps",
    ] {
        both(Kind::Portion, text);
    }
    for text in ["12%", "1e-30", "-0.0", "48_000", "2.5e300"] {
        both(Kind::Float(Bound::None, Bound::None), text);
    }
    for text in ["8GiB", "1.5MB", "9007199254740993B", "0"] {
        both(Kind::Size, text);
    }
    for text in [
        "\"*.output.dense\"",
        "[\"a\\\"b\", attention.query]",
        "layers[-4..].{attention.*, ffn.up}",
        "layers[3]",
        "layers[-1]",
        "[]",
        "*",
        "{ attention.query, layers[..2].ffn.* }",
    ] {
        both(Kind::Placement, text);
    }
    both(
        Kind::Verbalizer,
        "{ 0: \"terrible\", good: [\"great\", \"fine\"] }",
    );
    both(Kind::Str, "\"\\u{0}\\u{1b}\\u{d}\\n'{mask}\\u{301}\"");
}

#[test]
fn what_cannot_be_read_is_never_a_default_instead() {
    for method in METHODS {
        let name = method.schema().name;
        for broken in [
            format!("{name} {{ zebra = 1 }}"),
            format!("{name} {{ on = {{\"x\"}} }}"),
            format!("{name} {{ rank = }}"),
            format!("{name} {{ on = [attention.zebra] }}"),
            format!("{name} }}"),
        ] {
            assert!(
                methods_from_text(std::slice::from_ref(&broken)).is_err(),
                "{broken}"
            );
        }
    }
    assert!(methods_from_text(&["zebra".to_owned()]).is_err());
}
