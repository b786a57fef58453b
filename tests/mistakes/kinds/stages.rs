//! Mistakes in stages, in their methods and metrics, and between stages.

use super::*;

#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
pub(super) fn stages(found: &mut Found<'_>, i: usize, decl: &Decl) {
    let kind = decl.ctor.as_str();
    let (keys, conflict, idle) = (Phase::Keys, "stage::conflicting_keys", "stage::no_effect");
    let trains = matches!(kind, "train" | "mezo");
    if kind != "merge" {
        let own = if decl.get("from").is_some() {
            "from"
        } else {
            "model"
        };
        found.add(
            i,
            keys,
            conflict,
            vec![Edit::Remove(i, own.to_owned())],
            &["from", "model"],
        );
        found.set(
            i,
            Phase::Value2,
            "plan::length_too_large",
            "max_length",
            "60",
            &[],
        );
    }
    if trains {
        let both = ["steps", "epochs"];
        let other = if decl.get("steps").is_some() {
            "epochs"
        } else {
            "steps"
        };
        found.set(i, keys, conflict, other, "3", &both);
        let own = if decl.get("steps").is_some() {
            "steps"
        } else {
            "epochs"
        };
        found.add(
            i,
            keys,
            conflict,
            vec![Edit::Remove(i, own.to_owned())],
            &both,
        );
        if decl.get("lr").is_some() {
            let edit = vec![Edit::Remove(i, "lr".to_owned())];
            found.add(i, keys, conflict, edit, &["schedule"]);
            found.set(
                i,
                keys,
                conflict,
                "schedule",
                "constant { peak = 1e-3 }",
                &["lr"],
            );
        }
        if decl.get("best").is_none() {
            found.set(i, keys, idle, "patience", "2", &["best"]);
        }
        if decl.get("dev").is_none() {
            found.set(i, keys, idle, "metrics", "[accuracy]", &["dev", "best"]);
            found.also(&["stage::metric_mismatch"]);
            found.set(i, keys, idle, "evaluate", "2 steps", &["dev"]);
        }
        found.set(i, keys, idle, "micro_batch", "1000", &["batch"]);
        if kind == "train" && decl.get("recompute").is_none() {
            found.set(i, keys, idle, "recompute_blocks", "1", &["recompute"]);
        }
        methods(found, i, decl);
    }
    metrics(found, i, decl);
    ports(found, i, decl);
    if kind == "choose_prompt" {
        let (words, bad) = (Phase::Words, "plan::bad_candidates");
        found.set(
            i,
            Phase::Prompt,
            bad,
            "templates",
            "[\"{sentence} {mask} .\", \"{sentence} {mask} .\"]",
            &[],
        );
        found.set(
            i,
            Phase::Prompt,
            "plan::bad_prompt",
            "templates",
            "[\"{sentence} {mask} .\", \"{sentence} .\"]",
            &[],
        );
        found.set(
            i,
            words,
            "plan::bad_prompt",
            "templates",
            "[\"{nope} {mask} .\", \"{sentence} {mask} .\"]",
            &[],
        );
        found.set(
            i,
            words,
            "plan::bad_label_word",
            "label_words",
            "{ 0: [\"bad\", \"goods\"], 1: \"good\" }",
            &[],
        );
        found.set(
            i,
            words,
            "plan::bad_label_word",
            "label_words",
            "{ 0: [\"bad\", \"dull\"], 1: [] }",
            &[],
        );
        found.set(
            i,
            words,
            bad,
            "label_words",
            "{ 0: \"bad\", 1: \"bad\" }",
            &["templates"],
        );
    }
    if kind == "eval" && decl.get("draws").is_none() {
        let shown = found
            .recipe
            .decls
            .iter()
            .any(|d| d.get("demonstrations").is_some());
        if !shown {
            found.set(i, Phase::Words, idle, "draws", "4", &[]);
        }
    }
    if kind == "merge" {
        // Nothing to merge where the stage before trains another way.
        let parent = decl.get("from").and_then(|name| found.recipe.place(name));
        if let Some(parent) = parent {
            for adapter in ["full", "bitfit", "lst { r = 2 }"] {
                let edit = Edit::Set(parent, "adapter".to_owned(), adapter.to_owned());
                found.add(
                    i,
                    Phase::Lowered,
                    "stage::nothing_to_merge",
                    vec![edit],
                    &[],
                );
                found.also(&["plan::unmerged_adapter"]);
            }
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn methods(found: &mut Found<'_>, i: usize, decl: &Decl) {
    let adapted = decl.get("from").is_some_and(|parent| {
        let parent = found.recipe.place(parent).map(|p| &found.recipe.decls[p]);
        parent.is_some_and(|p| {
            p.get("adapter")
                .is_some_and(|a| a != "full" && a != "bitfit")
        })
    });
    let many = decl.get("adapters").is_some();
    if adapted {
        found.set(
            i,
            Phase::Method,
            "plan::unmerged_adapter",
            "adapter",
            "bitfit",
            &["from", "adapters"],
        );
        return;
    }
    let on_head = matches!(
        decl.get("objective").unwrap_or("classify"),
        "classify" | "regress"
    );
    let both = ["adapter", "adapters", "from"];
    let mut wrong = |code: &str, value: &str| {
        let mut edits = vec![Edit::Set(i, "adapters".to_owned(), format!("[{value}]"))];
        if !many {
            edits.push(Edit::Remove(i, "adapter".to_owned()));
        }
        found.add(i, Phase::Method, code, edits, &both);
        if !many && !value.contains("}, ") {
            found.set(i, Phase::Method, code, "adapter", value, &both);
        }
    };
    wrong("method::rank_too_large", "lora { rank = 400 }");
    wrong("method::rank_too_large", "side_lora { rank = 17 }");
    wrong("method::rank_too_large", "siva { rank = 1048576 }");
    wrong(
        "method::rank_above_decomposition",
        "siva { rank = 5, decomposition = 4 }",
    );
    wrong("method::bad_ladder", "lst { r = 5 }");
    wrong("method::bad_ladder", "lst { r = 1048576 }");
    wrong("method::bad_ladder", "k_lst { k = 4, r = 2 }");
    wrong("method::bad_ladder", "k_lst { k = 9, r = 2 }");
    wrong(
        "method::bad_ladder",
        "k_lst { k = 1, r = 2, share = true, init = magnitude }",
    );
    wrong("method::layers_out_of_range", "last_n { n = 9 }");
    wrong(
        "method::layers_out_of_range",
        "lst { r = 2, layers = [2, 1] }",
    );
    wrong("plan::empty_placement", "lora { on = layers[7..9].ffn.up }");
    if on_head {
        wrong(
            "plan::method_without_effect",
            "lora { rank = 2, on = \"*\" }",
        );
        wrong(
            "plan::method_without_effect",
            "siva { rank = 2, on = head.output }",
        );
    } else {
        wrong(
            "plan::empty_placement",
            "siva { rank = 2, on = head.output }",
        );
    }
    wrong(
        "plan::overlapping_adapters",
        "lora { rank = 2 }, side_lora { rank = 2 }",
    );
    wrong(
        "plan::overlapping_adapters",
        "lst { r = 2 }, k_lst { k = 3, r = 2 }",
    );
    wrong("plan::method_without_effect", "full {}, lora { rank = 2 }");
    wrong(
        "plan::method_without_effect",
        "head_only {}, lora { rank = 2 }",
    );
    wrong("plan::method_without_effect", "bitfit {}, bitfit {}");
    wrong("plan::bad_adapter", "lora { start = \"nowhere\" }");
    wrong(
        "resolve::conflict",
        "lora { start = \"nowhere\", rank = 4 }",
    );
    if !many {
        let edit = vec![Edit::Remove(i, "adapter".to_owned())];
        if decl.ctor == "train" {
            found.add(i, Phase::Method, "resolve::missing_key", edit, &both);
        }
        if decl.get("adapter").is_some() {
            found.set(
                i,
                Phase::Keys,
                "stage::conflicting_keys",
                "adapters",
                "[bitfit]",
                &both,
            );
        }
    }
}

fn metrics(found: &mut Found<'_>, i: usize, decl: &Decl) {
    let code = "stage::metric_mismatch";
    let objective = decl.get("objective").unwrap_or("classify");
    let wrong = match objective {
        "regress" => "accuracy",
        "classify" | "label_words" => "pearson",
        _ => "f1",
    };
    // What an evaluation scores is what the stage before learned.
    let regresses = found
        .recipe
        .decls
        .iter()
        .any(|d| d.get("objective") == Some("regress"));
    let wrong = if regresses { "accuracy" } else { wrong };
    if decl.get("metrics").is_some() || decl.ctor == "eval" {
        found.set(
            i,
            Phase::Value2,
            code,
            "metrics",
            &format!("[{wrong}]"),
            &["objective", "dev"],
        );
        found.set(i, Phase::Value2, code, "metrics", "[xyzzy]", &["dev"]);
    }
    if decl.get("best").is_some() {
        found.set(i, Phase::Value2, code, "best", wrong, &["objective", "dev"]);
    }
    if decl.ctor == "choose_prompt" {
        found.set(i, Phase::Value2, code, "metric", wrong, &[]);
    }
}

/// Stages that come from what leaves no model, or from themselves.
fn ports(found: &mut Found<'_>, i: usize, decl: &Decl) {
    if decl.get("from").is_none() {
        return;
    }
    let earlier = found.recipe.decls.iter().take(i);
    let report = earlier
        .filter(|d| d.ctor == "eval")
        .map(|d| d.name.clone())
        .next();
    if let Some(report) = report {
        found.set(
            i,
            Phase::Start,
            "plan::wrong_port",
            "from",
            &report,
            &["model"],
        );
    }
    found.set(
        i,
        Phase::Start,
        "plan::cycle",
        "from",
        &decl.name,
        &["model"],
    );
}
