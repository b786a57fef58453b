//! Multitask prompt tuning: one prompt of all tasks, times a low-rank factor of each.

use serde_json::{Map, Value as Json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Reading, START, Taken};
use super::super::schema::{Checked, Given, kind};
use super::prompt_tuning::{
    self, INIT, ON, PLACE, PROMPT, SIZES, TEXT, TOKEN_IDS, TOKENS, is_words, marking, peft_keys,
};
use super::tasks::{self, MIXED, TASK, TASKS};
use super::{
    At, Complaint, Facts, Marking, Method, Net, PeftForm, PeftKeys, Schema, Site, Stacking, Value,
    Values,
};
use crate::library::counts::to_u32;
use crate::program::op::{BinaryKind, BlockProduct, Blocks, Broadcast};

/// A prompt that tasks share.
#[derive(Debug)]
pub struct MultitaskPrompt;

const RANK: Given<u64> =
    Given::<u64>::new("rank", kind::WIDTH, (1, "1"), "rank of a task's factor");
static SCHEMA: Schema = Schema {
    name: "multitask_prompt",
    summary: "multitask prompt tuning: a prompt that tasks share, times a low-rank factor of the task at hand",
    doc: "As `prompt_tuning` with P = S ⊙ (u v), where S [tokens, hidden] is shared by all tasks, and u [tokens, rank] and \
          v [rank, hidden] are those of `task`, which start normal of deviation 0.02 and do not decay. A stage trains S and the factor of one task; \
          with `mixed = true` those of all tasks, each by its own examples. In peft it is PROMPT_TUNING of the P of one `task`; adapters of peft's \
          MULTITASK_PROMPT_TUNING are read whole, and `adapter = peft \"DIR\" { task = 1 }` says which task is meant. \
          Backward goes through the whole model; 16 bytes a trained number. It cannot be merged.",
    paper: "Wang et al. 2023 (arXiv 2303.02861)",
    keys: &[
        TOKENS.key(),
        RANK.key(),
        TASKS.key(),
        TASK.key(),
        MIXED.key(),
        INIT.key(),
        prompt_tuning::DEVIATION.key(),
        TEXT.key(),
        TOKEN_IDS.key(),
        PLACE.key(),
        ON.key(),
    ],
};

const KEYS: Keys = &[
    ("num_attention_heads", SIZES),
    ("num_layers", SIZES),
    ("num_ranks", Used),
    ("num_tasks", Used),
    ("num_transformer_submodules", Only(&["1"])),
    ("num_virtual_tokens", Used),
    ("prompt_tuning_init", WithoutEffect(START)),
    ("prompt_tuning_init_state_dict_path", WithoutEffect(START)),
    ("prompt_tuning_init_task", WithoutEffect(START)),
    ("prompt_tuning_init_text", WithoutEffect(START)),
    ("token_dim", SIZES),
    ("tokenizer_kwargs", WithoutEffect(START)),
    ("tokenizer_name_or_path", WithoutEffect(START)),
];

/// Names of the factors of all tasks, as peft has them.
const FACTORS: [&str; 2] = ["prefix_task_cols", "prefix_task_rows"];

/// Rows and columns of a task's factors.
fn sizes(values: &Values, site: &Site) -> [[u64; 2]; 2] {
    let (count, rank) = (TOKENS.get(values), RANK.get(values));
    [[count, rank], [rank, site.output()]]
}

/// The factors of all tasks, one row a task, with the sizes of one.
fn factors(values: &Values, site: &Site, net: &mut Net<'_>) -> [(Value, [u64; 2]); 2] {
    let tasks = TASKS.get(values);
    let [columns, rows] = sizes(values, site);
    let mut all = |name, [high, wide]: [u64; 2]| {
        // Those of tasks without examples have no gradient and stay as they are.
        let all = Param::at(site, name).shape(&[tasks, high * wide]);
        let all = net.tensor(all.undecayed().start(Init::Normal(0.02)));
        (all, [high, wide])
    };
    let [first, second] = FACTORS;
    [all(first, columns), all(second, rows)]
}

/// The rows of all tasks, those of one behind those of the one before.
fn prompts(values: &Values, site: &Site, net: &mut Net<'_>) -> Value {
    let shared = prompt_tuning::prompt(values, site, net);
    let (count, tasks) = (TOKENS.get(values), TASKS.get(values));
    let [columns, rows] = factors(values, site, net);
    let mut stacked =
        |(all, [high, wide]): (Value, [u64; 2])| net.reshaped(all, tasks * high, wide);
    let (columns, rows) = (stacked(columns), stacked(rows));
    let op = BlockProduct::new(to_u32(tasks), Blocks::STACKED, Blocks::STACKED);
    let own = net.b.push1(op, &[columns, rows]);
    let order = (0..tasks * count).map(|i| to_u32(i % count));
    let shared = net.listed(shared, order.collect());
    net.binary(BinaryKind::Mul, Broadcast::Full, shared, own)
}

/// The rows that stand for the virtual tokens.
fn prompt(values: &Values, site: &Site, net: &mut Net<'_>) -> Value {
    let shared = prompt_tuning::prompt(values, site, net);
    let task = to_u32(TASK.get(values));
    let [columns, rows] = factors(values, site, net).map(|(all, [high, wide])| {
        let own = net.rows(all, vec![task]);
        net.reshaped(own, high, wide)
    });
    let task = net.times((columns, false), (rows, false));
    net.binary(BinaryKind::Mul, Broadcast::Full, shared, task)
}

impl Method for MultitaskPrompt {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn folds(&self) -> bool {
        false
    }

    fn fits(&self, site: &Site) -> bool {
        is_words(site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn text<'a>(&self, values: &'a Values) -> Option<&'a str> {
        TEXT.get(values)
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        tasks::check(values).or_else(|| prompt_tuning::check_ids(values, site))
    }

    fn marking(&self, values: &Values) -> Marking {
        marking(values)
    }

    fn embedded(&self, at: &At<'_>, net: &mut Net<'_>, rows: Value) -> Value {
        if MIXED.get(at.values) {
            let table = prompts(at.values, at.site, net);
            return net.replaced_by_task(rows, table, TOKENS.get(at.values));
        }
        let prompt = prompt(at.values, at.site, net);
        net.replaced(rows, prompt)
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "MULTITASK_PROMPT_TUNING").then_some(KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let count = prompt_tuning::count(file)?;
        let tasks = file.config().positive("num_tasks", 1)?;
        let rank = file.config().positive("num_ranks", 1)?;
        let site = file.parts().others.iter().find(|s| is_words(s));
        let site = site.ok_or_else(|| Misfit::not_built("a prompt before such a model"))?;
        let width = site.output();
        file.take(PROMPT, format!("{}.prompt", site.path), &[count, width])?;
        for (name, [rows, columns]) in FACTORS.iter().zip([[count, rank], [rank, width]]) {
            file.check_shape(name, &[tasks, rows, columns])?;
            file.make(Taken {
                own: format!("{}.{name}", site.path),
                shape: vec![tasks, rows * columns],
                from: vec![(*name).to_owned()],
                make: Make::by(|from| {
                    let (_, all) = from.first().ok_or("there is no tensor")?;
                    Ok(all.clone())
                }),
            })?;
        }
        let values = vec![
            (TOKENS.name(), Checked::Int(count)),
            (RANK.name(), Checked::Int(rank)),
            (TASKS.name(), Checked::Int(tasks)),
        ];
        file.put(&Self, site, values);
        Ok(())
    }

    fn tasks(&self, values: &Values) -> Option<(&'static str, u64)> {
        Some((TASK.name(), TASKS.get(values)))
    }

    fn tasks_of_examples(&self, values: &Values) -> Option<u64> {
        tasks::named_by_examples(values)
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let plain = PLACE.get(values) == "first" && !MIXED.get(values);
        plain.then(prompt_tuning::form)
    }

    fn prompt_keys(&self, values: &Values, facts: &Facts, _: &[&Site]) -> PeftKeys {
        peft_keys(TOKENS.get(values), facts)
    }

    fn prompt_rows(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Vec<Value> {
        let sites = sites.iter();
        sites.map(|site| prompt(values, site, net)).collect()
    }
}
