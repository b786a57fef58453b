//! What a finished stage leaves for others: the config of an exported model. Adapters: [`crate::files::peft`].
//!
//! **Invariant:** an exported config says what the exported weights are; keys that it does not need
//! to change stay as the base model had them.

use serde_json::{Map, Value as Json, json};

use crate::library::model::HeadKind;
use crate::program::types::DType;

/// The `config.json` of an exported sequence classifier, from the base model's.
///
/// `class` is its class in `transformers`; `head` says what the labels are, if there are any; `dtype` is
/// the type of the exported weights.
#[must_use]
pub fn model_config(original: &Json, class: &str, head: &HeadKind, dtype: DType) -> Json {
    let mut config: Map<String, Json> = original.as_object().cloned().unwrap_or_default();
    config.insert("architectures".into(), json!([class]));

    let regression = ["LABEL_0".to_owned()];
    match head {
        HeadKind::Classes(names) => label_keys(&mut config, names, false),
        HeadKind::Regression => label_keys(&mut config, &regression, true),
        HeadKind::Vocabulary => {}
    }

    let dtype = json!(torch_dtype(dtype));
    // Newer files call it `dtype`; both may be there, and then they must agree.
    if config.contains_key("dtype") {
        config.insert("dtype".into(), dtype.clone());
    }
    config.insert("torch_dtype".into(), dtype);
    Json::Object(config)
}

/// Writes the names of labels into a config.
fn label_keys(config: &mut Map<String, Json>, names: &[String], regression: bool) {
    // `transformers` takes the number of labels from `id2label`; a number beside it could only disagree.
    for count in ["num_labels", "_num_labels"] {
        config.shift_remove(count);
    }
    let id2label: Map<String, Json> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (i.to_string(), json!(name)))
        .collect();
    let label2id: Map<String, Json> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (name.clone(), json!(i)))
        .collect();
    config.insert("id2label".into(), Json::Object(id2label));
    config.insert("label2id".into(), Json::Object(label2id));
    if regression {
        config.insert("problem_type".into(), json!("regression"));
    } else if config
        .get("problem_type")
        .is_some_and(|kind| !kind.is_null())
    {
        config.insert("problem_type".into(), json!("single_label_classification"));
    }
}

/// PyTorch's name of a dtype.
const fn torch_dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "float64",
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::U32 => "uint32",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_dtype_are_set_and_the_rest_stays() {
        let original = json!({ "model_type": "bert", "num_labels": 5, "architectures": ["BertForMaskedLM"], "hidden_size": 64,
            "id2label": { "0": "x" }, "problem_type": "regression", "dtype": "float32" });
        let head = HeadKind::Classes(vec!["bad".to_owned(), "good".to_owned()]);
        let config = model_config(
            &original,
            "BertForSequenceClassification",
            &head,
            DType::BF16,
        );
        assert_eq!(
            config,
            json!({ "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 64,
                "id2label": { "0": "bad", "1": "good" }, "label2id": { "bad": 0, "good": 1 },
                "problem_type": "single_label_classification", "dtype": "bfloat16", "torch_dtype": "bfloat16" })
        );
        let first = config.as_object().unwrap().keys().next().unwrap();
        assert_eq!(first, "model_type", "the order of keys stays");
    }

    #[test]
    fn regression_has_one_label() {
        let config = model_config(
            &json!({ "model_type": "bert" }),
            "C",
            &HeadKind::Regression,
            DType::F32,
        );
        assert_eq!(config["problem_type"], "regression");
        assert_eq!(config["id2label"], json!({ "0": "LABEL_0" }));
        assert_eq!(config["torch_dtype"], "float32");
        assert!(config.get("dtype").is_none());
        assert!(
            model_config(&json!([1]), "C", &HeadKind::Classes(Vec::new()), DType::F32).is_object()
        );
    }
}
