//! The table of keys against the config classes.

use super::*;

/// The keys of the config classes, as transformers has them.
#[test]
fn every_key_of_the_config_classes_has_a_row() {
    let text = std::fs::read("tests/reference/keys.json").expect("the reference");
    let json: Json = serde_json::from_slice(&text).expect("JSON");
    let classes = json["config.json"].as_object().expect("classes");
    assert_eq!(classes.len(), 33);
    for (model_type, keys) in classes {
        for key in keys.as_array().expect("keys") {
            let key = key.as_str().expect("a name");
            assert!(
                rule(model_type, key).is_some(),
                "{model_type}: `{key}` has no row"
            );
        }
    }
}

#[test]
fn a_key_has_one_row_and_each_row_a_reason() {
    for (i, (key, on, rule)) in rows().enumerate() {
        let again = rows()
            .take(i)
            .any(|(k, o, _)| k == key && (o == on || *o == All || *on == All));
        assert!(!again, "`{key}` is there twice");
        if let Only(_, why) | Idle(why) = rule {
            assert!(why.len() > 10, "`{key}` has no reason");
        }
    }
}
