//! Adapters of peft's type `ADALORA`, as `adalora` reads them.

use serde_json::Value as Json;

use super::super::peft::Fate::{Only, Refused, Used, WithoutEffect};
use super::super::peft::{Floats, Keys, Make, Misfit, Place, Reading, START as BEGAN, Taken};
use super::adalora::E;

const SCHEDULE: &str = "of the schedule of a training, which begins anew";
/// The keys of peft's `AdaLoraConfig`.
pub(super) const KEYS: Keys = &[
    ("alora_invocation_tokens", Refused),
    (
        "alpha_pattern",
        WithoutEffect("peft's layers do not read it"),
    ),
    ("arrow_config", Refused),
    ("beta1", Used),
    ("beta2", Used),
    ("bias", Only(&["\"none\""])),
    ("corda_config", WithoutEffect(BEGAN)),
    ("deltaT", Used),
    (
        "ensure_weight_tying",
        WithoutEffect("of tied embeddings, which are refused as targets"),
    ),
    ("eva_config", WithoutEffect(BEGAN)),
    ("init_lora_weights", WithoutEffect(BEGAN)),
    ("init_r", Used),
    ("kasa_config", Refused),
    ("layer_replication", Refused),
    ("loftq_config", WithoutEffect(BEGAN)),
    ("lora_alpha", Used),
    ("lora_bias", Refused),
    ("lora_dropout", Used),
    ("lora_ga_config", WithoutEffect(BEGAN)),
    ("megatron_config", Refused),
    (
        "megatron_core",
        WithoutEffect("read beside `megatron_config` only"),
    ),
    ("monteclora_config", Refused),
    ("orth_reg_weight", Used),
    (
        "qalora_group_size",
        WithoutEffect("read beside `use_qalora` only"),
    ),
    ("r", WithoutEffect("AdaLoRA reads `init_r`")),
    ("rank_pattern", Used),
    ("runtime_config", WithoutEffect("how peft runs")),
    ("target_parameters", Refused),
    ("target_r", Used),
    ("tfinal", WithoutEffect(SCHEDULE)),
    ("tinit", WithoutEffect(SCHEDULE)),
    ("total_step", WithoutEffect(SCHEDULE)),
    ("trainable_token_indices", Refused),
    ("use_bdlora", Refused),
    ("use_dora", Refused),
    ("use_qalora", Refused),
    ("use_rslora", Refused),
    (
        "velora_config",
        WithoutEffect("changes the backward pass of a training only"),
    ),
];

/// Which of a module's triplets the file holds, by what the config says of it; all if it says nothing.
pub(super) fn kept(config: &Json, module: &str, init: u64) -> Result<Vec<bool>, Misfit> {
    let all = config.as_object().into_iter().flatten();
    let own = all
        .filter_map(|(key, value)| Some((key.strip_suffix(".lora_E")?, value)))
        .find(|(path, _)| *path == module || path.ends_with(&format!(".{module}")));
    let Some((path, list)) = own else {
        return Ok(vec![true; init as usize]);
    };
    let flags = list.as_array().into_iter().flatten().map(Json::as_bool);
    let flags: Option<Vec<bool>> = flags.collect();
    flags
        .filter(|flags| flags.len() as u64 == init)
        .ok_or_else(|| {
            let what = format!("`rank_pattern` of `{path}` is no list of {init} truth values");
            Misfit::of_config(what)
        })
}

/// Takes a tensor that holds the kept triplets alone, `[kept, width]` or `[width, kept]`; the others are zero.
pub(super) fn take_kept(
    file: &mut Reading<'_>,
    place: &Place<'_>,
    (suffix, kept): (&str, &[bool]),
    (width, across): (u64, bool),
) -> Result<(), Misfit> {
    let name = place.name(suffix);
    let (init, own) = (
        kept.len() as u64,
        kept.iter().filter(|k| **k).count() as u64,
    );
    let shape = |rank: u64| match across {
        true => vec![width, rank],
        false => vec![rank, width],
    };
    file.check_shape(&name, &shape(own))?;
    let kept = kept.to_vec();
    let spread = move |from: &[Floats]| {
        let data = from.first().map(|(_, data)| data.as_slice());
        let mut next = data.unwrap_or_default().iter().copied();
        let mut made = Vec::new();
        let rows = if across { width } else { 1 };
        let run = if across { 1 } else { width };
        for _ in 0..rows {
            for &kept in &kept {
                for _ in 0..run {
                    made.push(if kept {
                        next.next().unwrap_or_default()
                    } else {
                        0.0
                    });
                }
            }
        }
        Ok(made)
    };
    let whole = if suffix == E { vec![init] } else { shape(init) };
    file.make(Taken {
        own: place.own(suffix),
        shape: whole,
        from: vec![name],
        make: Make::by(spread),
    })
}
