//! What a finished stage leaves for others: the config of an exported model. Adapters: [`crate::files::peft`].
//!
//! **Invariant:** an exported config says what the exported weights are; keys that it does not need
//! to change stay as the base model had them.

use serde_json::{Map, Value as Json, json};

use crate::library::task::{ORDINAL_LABELS, Task};
use crate::program::types::DType;

/// The `config.json` of an exported sequence classifier, from the base model's.
///
/// `class` is its class in `transformers`; the task says what the head gives, and of which classes; `dtype` is the type
/// of the exported weights.
#[must_use]
pub fn model_config(
    original: &Json,
    class: &str,
    (task, classes): (&dyn Task, &[String]),
    dtype: DType,
) -> Json {
    let mut config: Map<String, Json> = original.as_object().cloned().unwrap_or_default();
    config.insert("architectures".into(), json!([class]));

    // Only the task that reads it says it again.
    config.shift_remove(ORDINAL_LABELS);
    task.export(&mut config, classes);

    let dtype = json!(torch_dtype(dtype));
    // Newer files call it `dtype`; both may be there, and then they must agree.
    if config.contains_key("dtype") {
        config.insert("dtype".into(), dtype.clone());
    }
    config.insert("torch_dtype".into(), dtype);
    Json::Object(config)
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
    use crate::library::task::task;

    fn config(original: &Json, class: &str, of: &str, names: &[&str], dtype: DType) -> Json {
        let task = task(of).expect("registered");
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        model_config(original, class, (task.as_ref(), &names), dtype)
    }

    #[test]
    fn labels_and_dtype_are_set_and_the_rest_stays() {
        let original = json!({ "model_type": "bert", "num_labels": 5, "architectures": ["BertForMaskedLM"], "hidden_size": 64,
            "id2label": { "0": "x" }, "problem_type": "regression", "dtype": "float32" });
        let class = "BertForSequenceClassification";
        let config = config(&original, class, "classify", &["bad", "good"], DType::BF16);
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
        let bert = json!({ "model_type": "bert" });
        let own = config(&bert, "C", "regress", &[], DType::F32);
        assert_eq!(own["problem_type"], "regression");
        assert_eq!(own["id2label"], json!({ "0": "LABEL_0" }));
        assert_eq!(own["torch_dtype"], "float32");
        assert!(own.get("dtype").is_none());
        assert!(config(&json!([1]), "C", "classify", &[], DType::F32).is_object());
    }
}
