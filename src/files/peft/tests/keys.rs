//! Keys of a config: each is used, refused or known to have no effect.

use super::*;

/// The reference adapter with one key changed.
pub(super) fn with(key: &str, value: Json) -> Result<PeftAdapter, RunError> {
    let dir = tempfile::tempdir().unwrap();
    let from = reference("bert-tiny-lora");
    let mut config: Json = serde_json::from_slice(&fs::read(from.join(CONFIG)).unwrap()).unwrap();
    config[key] = value;
    fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    fs::copy(from.join(TENSORS), dir.path().join(TENSORS)).unwrap();
    read(dir.path())
}

#[test]
fn what_is_not_built_is_refused_by_its_key() {
    for (key, value) in [
        ("rank_pattern", json!({ "query": 0 })),
        ("rank_pattern", json!({ "(": 4 })),
        ("alpha_pattern", json!({ "query": "x" })),
        ("bias", json!("zebra")),
        ("peft_type", json!("ZEBRA")),
        ("peft_type", Json::Null),
        ("layers_to_transform", json!([0, "x"])),
        ("layers_to_transform", json!(-1)),
        ("lora_alpha", json!(0)),
        ("init_lora_weights", json!("corda")),
        ("r", json!(0)),
        ("r", json!("x")),
        ("lora_alpha", json!([])),
        ("lora_dropout", json!(1.0)),
        ("target_modules", json!(3)),
        ("target_modules", json!(")(")),
    ] {
        let read = with(key, value.clone()).map_err(|e| e.to_string());
        let fitted = read.and_then(|a| fit_to(&a, "bert-tiny").map_err(|m| m.message));
        let error = fitted.unwrap_err();
        assert!(
            error.contains(&format!("`{key}`")),
            "{key} {value}: {error}"
        );
    }
    assert!(with("init_lora_weights", json!("gaussian")).is_ok());
    let config = with("r", Json::Null).unwrap().config;
    assert_eq!(config.whole("r", 8), Ok(8));
}

/// The fields of peft's `LoraConfig` and those it inherits, as of 0.21.2.
const FIELDS: &str = "alora_invocation_tokens alpha_pattern arrow_config auto_mapping base_model_name_or_path bias \
    corda_config ensure_weight_tying eva_config exclude_modules fan_in_fan_out inference_mode init_lora_weights \
    kasa_config layer_replication layers_pattern layers_to_transform loftq_config lora_alpha lora_bias lora_dropout \
    lora_ga_config megatron_config megatron_core modules_to_save monteclora_config peft_type peft_version \
    qalora_group_size r rank_pattern revision runtime_config target_modules target_parameters task_type \
    trainable_token_indices use_bdlora use_dora use_qalora use_rslora velora_config";

#[test]
fn every_key_of_peft_is_used_refused_or_known_to_have_no_effect() {
    let lora = json!({});
    let own = crate::library::method::METHODS
        .iter()
        .find_map(|m| m.peft_keys("LORA", lora.as_object()?))
        .unwrap();
    let keys = || peft::COMMON.iter().chain(own);
    for field in FIELDS.split_whitespace() {
        let known = keys().filter(|(key, _)| *key == field).count();
        assert_eq!(known, 1, "{field}");
    }
    for (key, fate) in keys() {
        let nothing = [Json::Null, json!(false), json!([]), json!({}), json!("")];
        match fate {
            Fate::Refused => {
                for value in [
                    json!(true),
                    json!([1]),
                    json!({ "a": 1 }),
                    json!("x"),
                    json!(1),
                ] {
                    let error = with(key, value).unwrap_err().to_string();
                    assert!(
                        error.contains(&format!("`{key}`")) && error.contains("merge_and_unload"),
                        "{error}"
                    );
                }
                nothing
                    .into_iter()
                    .for_each(|value| assert!(with(key, value).is_ok(), "{key}"));
            }
            Fate::WithoutEffect(why) => {
                assert!(!why.is_empty());
                let plain = with("peft_version", Json::Null).unwrap();
                let set = with(key, json!({ "a": 1 })).unwrap();
                let said = |adapter: &PeftAdapter| format!("{:?}", adapter.config);
                assert_eq!(said(&set), said(&plain), "{key}");
            }
            Fate::Only(list) => {
                for value in *list {
                    assert!(with(key, serde_json::from_str(value).unwrap()).is_ok());
                }
                assert!(with(key, json!("zebra")).is_err(), "{key}");
            }
            Fate::Used => {}
        }
    }
    let error = with("use_zebra", json!(3)).unwrap_err().to_string();
    assert!(error.contains("`use_zebra` = 3"), "{error}");
    assert!(with("use_zebra", json!(false)).is_ok());
}
