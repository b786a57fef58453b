//! LoRA that begins with principal components of what enters its maps: ranks, exports, merges, label masks, refusals.

use std::collections::BTreeMap;

use super::decoders::run;
use super::lora_family::{EVAL, TRAIN, assert_counted, decoders, loss, refused};
use super::support::json as read;

const HEAD: &str = "peftc 1\ndata d = local \".\" { text = text }\nmodel m = local \"llama\"\n";

fn method(more: &str) -> String {
    format!(
        "lora {{ rank = 4, alpha = 8, init = eva, eva_tau = 0.8{more}, on = {{attention.{{query, value}}, ffn.down}} }}"
    )
}

#[test]
fn ranks_are_shared_out_and_merges_and_exports_are_of_them() {
    let dir = decoders(&["llama"]);
    let dir = dir.path();
    let text = |name: &str, more: &str| {
        format!(
            "stage {name} = train {{ model = m, {TRAIN}, adapter = {} }}\n\
             stage {name}e = eval {{ from = {name}, {EVAL} }}\n\
             stage {name}f = merge {{ from = {name} }}\nstage {name}fe = eval {{ from = {name}f, {EVAL} }}\n",
            method(more)
        )
    };
    let names = ["plain", "roots", "kept", "even"];
    let more = [
        "",
        ", rs_lora = true",
        ", eva_adjust_scaling = false",
        ", eva_rho = 1",
    ];
    let all: Vec<String> = names.iter().zip(more).map(|(n, m)| text(n, m)).collect();
    let text = format!("{HEAD}{}", all.concat());
    let path = dir.join("e.peft");
    std::fs::write(&path, &text).expect("written");
    let result = run(&path, &[]);
    let mut again = text;
    let made = |name: &str| dir.join(format!(".peftc/runs/e/{name}/adapter"));
    for name in names {
        assert_counted(&result, name);
        again.push_str(&format!(
            "stage {name}p = eval {{ model = m, adapter = peft \"{}\", {EVAL} }}\n",
            made(name).display()
        ));
    }
    let path = dir.join("again.peft");
    std::fs::write(&path, again).expect("written");
    let read_again = run(&path, &[]);
    let mut losses = BTreeMap::new();
    for name in names {
        let [own, merged] = ["e", "fe"].map(|end| loss(&result, &format!("{name}{end}")));
        let peft = loss(&read_again, &format!("{name}p"));
        assert!(
            (own - merged).abs() < 1e-5 && (own - peft).abs() < 1e-5,
            "{name}: {own} {merged} {peft}"
        );
        losses.insert(own.to_bits(), name);
        let config = read(made(name).join("adapter_config.json"));
        let patterns = config["rank_pattern"].as_object().expect("patterns");
        let others: u64 = patterns.values().map(|r| r.as_u64().expect("a rank")).sum();
        // Three blocks of three maps; what is not in a pattern has the first one's.
        let first = config["r"].as_u64().expect("a rank");
        let total = others + first * (9 - patterns.len() as u64);
        assert_eq!(
            total, 36,
            "{name}: the ranks that were written are shared out: {config}"
        );
        assert_eq!(patterns.is_empty(), name == "even", "{name}: {config}");
    }
    assert_eq!(losses.len(), names.len(), "the keys change what is trained");
}

#[test]
fn only_learned_tokens_count_where_that_is_asked_for() {
    let dir = decoders(&["llama"]);
    let dir = dir.path();
    let row = |i: usize| {
        let words = |from: usize, n: usize| -> String {
            let each = (0..n).map(|k| format!(" w{}", 5 + (from + 7 * k) % 40));
            each.collect()
        };
        format!(
            "{{\"q\": \"{}\", \"a\": \"{}\"}}\n",
            words(3 * i, 4 + i % 5).trim(),
            words(11 * i, 7 + i * i % 13)
        )
    };
    let pairs = dir.join("pairs");
    std::fs::create_dir(&pairs).expect("made");
    std::fs::write(
        pairs.join("train.jsonl"),
        (0..12).map(row).collect::<String>(),
    )
    .expect("written");
    let text = |more: &str| {
        format!(
            "peftc 1\ndata p = local \"pairs\" {{ prompt = q, completion = a }}\nmodel m = local \"llama\"\n\
             stage t = train {{ model = m, data = p.train, objective = causal_lm, lr = 1e-2, steps = 2, batch = 6, micro_batch = 3, adapter = {} }}\n",
            method(more)
        )
    };
    let of = |more: &str| {
        let path = dir.join("l.peft");
        std::fs::write(&path, text(more)).expect("written");
        let result = run(&path, &["--fresh"]);
        assert_counted(&result, "t");
        let file = dir.join(".peftc/runs/l/t/adapter/adapter_model.safetensors");
        std::fs::read(file).expect("an adapter")
    };
    let (learned, every) = (of(""), of(", eva_learned = false"));
    assert_ne!(learned, every);
    assert_eq!(learned, of(", eva_learned = true"));
}

#[test]
fn what_cannot_begin_so_is_refused() {
    let dir = decoders(&["llama"]);
    let dir = dir.path();
    let with = |kind: &str, method: &str| {
        format!(
            "{HEAD}stage t = {kind} {{ model = m, data = d.train, objective = causal_lm, lr = 1e-2, steps = 2, batch = 4, adapter = {method} }}\n"
        )
    };
    let beside = |other: &str| {
        let both = format!("adapters = [{}, {other}]", method(""));
        with("train", "@").replace("adapter = @", &both)
    };
    for (text, why) in [
        (
            beside("prompt_tuning { tokens = 2 }"),
            "puts virtual tokens into the texts",
        ),
        (
            beside("lst { r = 4, init = fisher }"),
            "both begin with what is measured of the backbone",
        ),
        (
            with("train", "lora { rank = 4, eva_tau = 0.5 }"),
            "has no effect without `init = eva`",
        ),
        (
            with("train", "lora { rank = 8, init = eva, eva_rho = 40 }"),
            "components",
        ),
        (with("mezo", &method("")), "gives its map a smaller rank"),
        (
            with(
                "train",
                "lora { rank = 2, init = eva, on = lm_head.decoder }",
            ),
            "takes a linear map of the blocks apart",
        ),
    ] {
        let said = refused(dir, &text);
        assert!(said.contains(why), "{said}");
    }
}
