//! `/v1/embeddings`: its vectors are those of `predict`, as numbers and as bytes.

use serde_json::{Value, json};

use super::client::serve;
use super::{TEXTS, predicted, stage};
use crate::oracle::reference;
use crate::support::{done, program};

#[test]
fn vectors_are_those_of_predict() {
    let place = tempfile::tempdir().expect("a scratch directory");
    let dir = place.path();
    std::fs::create_dir_all(dir.join("data")).expect("a folder");
    let rows = TEXTS
        .map(|text| format!("{text}\t{text} indeed\tgood\n"))
        .concat();
    let rows = format!("sentence\tother\tlabel\n{rows}dull\tx\tbad\n");
    std::fs::write(dir.join("data/train.tsv"), rows).expect("written");
    let text = format!(
        "model m = local \"{}\"\n\
         data p = local \"data\" {{ anchor = sentence, positive = other }}\n\
         data d = local \"data\" {{ text = sentence, label = label }}\n\
         stage v = train {{ model = m, data = p.train, objective = embed, adapter = lora {{ rank = 2 }}, lr = 5e-2, steps = 3, batch = 3 }}\n\
         stage c = train {{ model = m, data = d.train, adapter = lora {{ rank = 2 }}, lr = 5e-2, steps = 3, batch = 3 }}\n",
        reference("bert-tiny").display(),
    );
    std::fs::write(dir.join("r.peft"), text).expect("written");
    let mut run = program();
    done(run.current_dir(dir).args(["run", "--quiet", "r.peft"]));
    let rows = TEXTS.map(|text| json!({ "sentence": text }));
    let made = predicted(dir, &stage("v"), &rows, &[]);
    let made: Vec<&Value> = made.iter().map(|row| &row["embedding"]).collect();

    let server = serve(dir, &[&stage("v"), &stage("c")], None);
    let ask = |body: Value| server.post("/v1/embeddings", &body);
    let (status, answer) = ask(json!({ "model": "v", "input": TEXTS, "user": "u" }));
    assert_eq!(
        (status, &answer["object"]),
        (200, &json!("list")),
        "{answer}"
    );
    let data = answer["data"].as_array().expect("vectors");
    let vectors: Vec<&Value> = data.iter().map(|own| &own["embedding"]).collect();
    assert_eq!(vectors, made);
    assert!(data.iter().zip(0..).all(|(own, i)| own["index"] == i));
    let tokens = &answer["usage"]["prompt_tokens"];
    assert!(tokens.as_u64() > Some(TEXTS.len() as u64), "{answer}");
    let width = made[0].as_array().expect("a vector").len();
    let (status, one) = ask(json!({ "model": "v", "input": TEXTS[1], "dimensions": width }));
    assert_eq!((status, &one["data"][0]["embedding"]), (200, made[1]));
    let (_, bytes) = ask(json!({ "model": "v", "input": TEXTS[1], "encoding_format": "base64" }));
    let length = bytes["data"][0]["embedding"].as_str().map(str::len);
    assert_eq!(length, Some((4 * width).div_ceil(3) * 4));
    for (body, why) in [
        (json!({ "model": "c", "input": "a" }), "makes no vectors"),
        (json!({ "model": "v" }), "`input` is wanted"),
        (json!({ "model": "v", "input": [[1, 2]] }), "token ids"),
        (json!({ "model": "v", "input": ["a", " "] }), "text 2"),
        (json!({ "model": "v", "input": [] }), "0 rows"),
        (
            json!({ "model": "v", "input": "a", "dimensions": 7 }),
            "not 7",
        ),
        (
            json!({ "model": "v", "input": "a", "encoding_format": "x" }),
            "base64",
        ),
        (json!({ "model": "v", "input": "a", "other": 1 }), "other"),
    ] {
        let (status, answer) = ask(body.clone());
        let said = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            status == 400 && said.contains(why),
            "{body}: {status} {said}"
        );
    }
}
