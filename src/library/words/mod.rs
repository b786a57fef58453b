//! The field's words: how keys, methods and values of `transformers`, `peft`, TRL, Axolotl, LLaMA-Factory and
//! Ludwig are called here, or that they are known and not built, and what comes nearest.

mod keys;
mod names;

use super::method::method;
use super::schema::Schema;

pub use keys::{ACCUMULATION, KEYS, PER_PASS};
pub use names::NAMES;

/// Words that mean one thing, and what that is here.
#[derive(Debug)]
pub struct Word {
    /// As others write it; compared without case, `-` and `_` being one.
    pub names: &'static [&'static str],
    /// What it is here.
    pub means: Means,
}

/// What a word is here.
#[derive(Debug)]
pub enum Means {
    /// A key.
    Key {
        /// The entries that have it, the usual one first.
        of: &'static [&'static str],
        /// Its name.
        key: &'static str,
        /// How it is written in one of them.
        write: &'static str,
        /// How one of them is written with it, from a stage or a declaration.
        within: &'static str,
    },
    /// An entry of a registry, a value or a declaration, as it is written.
    Entry(&'static str),
    /// Something of the command line, as it is written.
    Command(&'static str),
    /// Nothing to be set: what is done anyway.
    Anyway(&'static str),
    /// Not built; what comes nearest.
    Missing(&'static str),
    /// A method, as it is written once it is built; until then, what comes nearest.
    Method(&'static str, &'static str),
}

/// A word for a key.
const fn key(
    names: &'static [&'static str],
    of: &'static [&'static str],
    key: &'static str,
    write: &'static str,
    within: &'static str,
) -> Word {
    Word {
        names,
        means: Means::Key {
            of,
            key,
            write,
            within,
        },
    }
}

const fn entry(names: &'static [&'static str], write: &'static str) -> Word {
    Word {
        names,
        means: Means::Entry(write),
    }
}

const fn command(names: &'static [&'static str], write: &'static str) -> Word {
    Word {
        names,
        means: Means::Command(write),
    }
}

const fn anyway(names: &'static [&'static str], what: &'static str) -> Word {
    Word {
        names,
        means: Means::Anyway(what),
    }
}

const fn missing(names: &'static [&'static str], nearest: &'static str) -> Word {
    Word {
        names,
        means: Means::Missing(nearest),
    }
}

const fn adapts(
    names: &'static [&'static str],
    method: &'static str,
    nearest: &'static str,
) -> Word {
    Word {
        names,
        means: Means::Method(method, nearest),
    }
}

/// A word that stands where a key belongs.
#[must_use]
pub fn for_key(name: &str) -> Option<&'static Word> {
    find(KEYS, name).or_else(|| find(NAMES, name))
}

/// A word that stands where an entry or a value belongs.
#[must_use]
pub fn for_name(name: &str) -> Option<&'static Word> {
    find(NAMES, name).or_else(|| find(KEYS, name))
}

fn find(table: &'static [Word], name: &str) -> Option<&'static Word> {
    let plain = |text: &str| text.to_lowercase().replace(['-', ' ', '.'], "_");
    let name = plain(name);
    table
        .iter()
        .find(|word| word.names.iter().any(|own| plain(own) == name))
}

/// A text with the sample value of a key replaced: `rank = 8` becomes `rank = 32`.
#[must_use]
pub fn with_value(sample: &str, key: &str, value: &str) -> String {
    let head = format!("{key} = ");
    let starts = |at: usize| {
        let before = sample.get(..at).and_then(|s| s.chars().next_back());
        before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
    };
    let found = sample.match_indices(&head).map(|(at, _)| at);
    let Some(from) = found.filter(|at| starts(*at)).last() else {
        return sample.to_owned();
    };
    let from = from + head.len();
    let rest = sample.get(from..).unwrap_or_default();
    let (mut depth, mut quoted) = (0_i32, false);
    let mut end = rest.len();
    for (at, c) in rest.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            ',' | '}' if depth == 0 => {
                end = at;
                break;
            }
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
    }
    let own = rest.get(..end).unwrap_or(rest).trim_end().len();
    let before = sample.get(..from).unwrap_or_default();
    format!("{before}{value}{}", rest.get(own..).unwrap_or_default())
}

/// How a key is written with a usual value, where the table has one: `lr = 2e-4`.
#[must_use]
pub fn sample_of(key: &str) -> Option<&'static str> {
    KEYS.iter().find_map(|word| match word.means {
        Means::Key {
            key: own, write, ..
        } if own == key && write.starts_with(key) => Some(write),
        _ => None,
    })
}

/// An entry as the table writes it with the keys it needs: `linear { peak = 2e-4, warmup = 6% }`.
#[must_use]
pub fn sample_entry(name: &str) -> Option<&'static str> {
    let head = format!("{name} {{");
    NAMES.iter().find_map(|word| match word.means {
        Means::Entry(write) if write.starts_with(&head) => Some(write),
        _ => None,
    })
}

impl Word {
    /// What is to be written instead of `name`, in the block of `block`, with the value that was meant where that
    /// is known.
    #[must_use]
    pub fn help(&self, name: &str, block: Option<&Schema>, value: Option<&str>) -> String {
        match self.means {
            Means::Key {
                of,
                key,
                write,
                within,
            } => {
                let here = block
                    .is_some_and(|b| of.contains(&b.name) && b.keys.iter().any(|k| k.name == key));
                let first = of.first().copied().unwrap_or_default();
                let own = |sample: &str| {
                    value.map_or_else(|| sample.to_owned(), |v| with_value(sample, key, v))
                };
                let (write, within) = (own(write), own(within));
                if here {
                    format!("`{name}` is called `{key}` here: write `{write}`")
                } else if within.is_empty() {
                    format!("`{name}` is the key `{key}` of `{first}` here: `{write}`")
                } else {
                    format!("`{name}` is the key `{key}` of `{first}` here: `{within}`")
                }
            }
            Means::Entry(write) => format!("`{name}` is written `{write}` here"),
            Means::Command(write) => {
                format!("`{name}` belongs to the command line: `{write}`")
            }
            Means::Anyway(what) => format!("`{name}` needs no key here: {what}"),
            Means::Method(entry, _) if method(entry).is_some() => {
                format!("`{name}` is written `{entry}` here")
            }
            Means::Missing(nearest) | Means::Method(_, nearest) => {
                format!("`{name}` is known, but not built; the nearest that is: {nearest}")
            }
        }
    }
}

/// What to say of an unknown key: the word for it with the `value` that was meant, how it is written `inside` an entry that the block takes, the blocks
/// that have a key of that name, or the nearest names; and where all keys are listed.
#[must_use]
pub fn unknown_key(
    name: &str,
    block: &Schema,
    value: Option<&str>,
    inside: Option<&str>,
    others: &[&'static Schema],
) -> String {
    if block.keys.is_empty() {
        let word = for_key(name).map(|word| format!("; {}", word.help(name, Some(block), value)));
        return format!("`{}` takes no keys{}", block.name, word.unwrap_or_default());
    }
    let own = block.keys.iter().map(|key| key.name);
    if let Some(word) = for_key(name) {
        return word.help(name, Some(block), value);
    }
    let list = format!("`peftc explain {}` lists its keys", block.name);
    if let Some(inside) = inside {
        return format!("`{name}` is written `{inside}`; {list}");
    }
    let mut with: Vec<&str> = others
        .iter()
        .filter(|schema| schema.key(name).is_some())
        .map(|schema| schema.name)
        .collect();
    with.dedup();
    if !with.is_empty() {
        with.truncate(6);
        return format!("`{name}` is a key of `{}`; {list}", with.join("`, `"));
    }
    let near = crate::base::suggest::nearest(name, own.clone());
    if near.is_empty() {
        let keys: Vec<&str> = own.collect();
        format!(
            "its keys are `{}`; `peftc explain {}` says what each is",
            keys.join("`, `"),
            block.name
        )
    } else {
        format!("did you mean `{}`? {list}", near.join("` or `"))
    }
}

/// What to say of an unknown entry or value.
#[must_use]
pub fn unknown_name<'a>(
    name: &str,
    valid: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    match for_name(name) {
        Some(word) => Some(word.help(name, None, None)),
        None => crate::base::suggest::did_you_mean(name, valid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_stands_once_and_is_no_key_of_the_blocks_it_points_to() {
        for table in [KEYS, NAMES] {
            let mut seen = std::collections::BTreeSet::new();
            for name in table.iter().flat_map(|word| word.names) {
                assert!(seen.insert(name.to_lowercase()), "{name} stands twice");
            }
        }
        assert!(KEYS.len() + NAMES.len() > 100);
    }

    #[test]
    fn the_words_of_transformers_and_peft_are_known() {
        // Fields of `TrainingArguments` (5.24), `LoraConfig` (0.21) and what TRL, Axolotl, LLaMA-Factory and Ludwig add
        // that a recipe is likely to be written with.
        let words = "output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type \
            lr_scheduler_kwargs warmup_steps optim optim_args adam_beta1 adam_beta2 adam_epsilon optim_target_modules \
            gradient_accumulation_steps max_grad_norm label_smoothing_factor bf16 fp16 tf32 gradient_checkpointing \
            activation_checkpointing torch_compile use_liger_kernel neftune_noise_alpha auto_find_batch_size logging_steps \
            report_to run_name eval_strategy eval_steps per_device_eval_batch_size save_strategy save_steps save_total_limit \
            push_to_hub hub_token hub_model_id load_best_model_at_end metric_for_best_model full_determinism data_seed use_cpu \
            dataloader_num_workers dataloader_drop_last fsdp deepspeed ddp_backend local_rank resume_from_checkpoint r \
            target_modules exclude_modules lora_alpha lora_dropout fan_in_fan_out bias use_rslora use_dora \
            init_lora_weights layers_to_transform rank_pattern alpha_pattern loftq_config task_type inference_mode \
            base_model_name_or_path max_seq_length packing dataset_text_field sequence_len cutoff_len lora_target_modules \
            lora_r val_set_size load_in_4bit load_in_8bit quantization_bit finetuning_type class_weight \
            early_stopping_patience device batch_size lora_rank lora_target base_model trust_remote_code warmup_ratio \
            train_batch_size eval_batch_size evaluation_strategy no_cuda num_labels id2label problem_type";
        for word in words.split_whitespace() {
            assert!(for_key(word).is_some(), "`{word}` is unknown");
        }
        let names = "qlora rslora pissa loftq adalora ia_3 prefix galore \
            lora_plus adam_mini adamw_torch adamw_bnb_8bit paged_adamw_8bit lion_32bit cosine_with_restarts constant_with_warmup \
            polynomial inverse_sqrt acc mcc roc_auc macro_f1 sft causal_lm finetune evaluate bfloat16 fp16 float32 nf4";
        for word in names.split_whitespace() {
            assert!(for_name(word).is_some(), "`{word}` is unknown");
        }
    }

    #[test]
    fn help_says_where_a_key_belongs() {
        let train = crate::library::stage::stage("train")
            .expect("a stage kind")
            .schema();
        let help = |name: &str| unknown_key(name, train, None, None, &[]);
        assert_eq!(
            help("learning_rate"),
            "`learning_rate` is called `lr` here: write `lr = 2e-4`"
        );
        assert_eq!(
            help("lora_alpha"),
            "`lora_alpha` is the key `alpha` of `lora` here: `adapter = lora { alpha = 16 }`"
        );
        assert!(help("epocs").starts_with("did you mean `epochs`"));
        assert!(help("epocs").ends_with("`peftc explain train` lists its keys"));
        assert!(help("zzz").contains("`patience`"));
    }

    #[test]
    fn every_sample_takes_the_value_that_was_meant() {
        for word in KEYS {
            let Means::Key {
                key, write, within, ..
            } = word.means
            else {
                continue;
            };
            for sample in [write, within].into_iter().filter(|s| !s.is_empty()) {
                let own = with_value(sample, key, "MINE");
                assert!(own.contains(&format!("{key} = MINE")), "{sample}: {own}");
                let brackets =
                    |s: &str| s.matches(['{', '[']).count() == s.matches(['}', ']']).count();
                assert!(brackets(&own), "{sample}: {own}");
            }
        }
        assert_eq!(
            with_value(
                "adapter = lora { on = attention.{query, value} }",
                "on",
                "*.*"
            ),
            "adapter = lora { on = *.* }"
        );
        assert_eq!(
            with_value("batch = 16, micro_batch = 4", "batch", "8"),
            "batch = 8, micro_batch = 4"
        );
    }
}
