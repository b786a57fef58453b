//! Texts, folders, values of `--set` and names that lead nowhere.

use super::*;

#[test]
fn texts_that_are_no_recipe_are_answered_with_what_was_meant() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (sep, other) = ("syntax::missing_separator", "syntax::unexpected");
    for (item, code, part) in [
        (
            "data p = local \"a.csv\" { text = customer text, label = l }",
            sep,
            "`\"customer text\"`",
        ),
        (
            "data p = local \"a.csv\" { text = [first name, last], label = l }",
            sep,
            "`\"first name\"`",
        ),
        (
            "data p = local \"a.csv\" { text = t label = l }",
            sep,
            "commas or line breaks",
        ),
        (
            "prompt p = {\n  template = \"{t} {mask}\"\n}",
            other,
            "`prompt p { … }`",
        ),
        (
            "stage s = {\n  model = m\n}",
            other,
            "`stage s = train { … }`",
        ),
        ("sweep { lr = [1, 2] }", other, "`sweep NAME = grid { … }`"),
        (
            "stage = train { model = m }",
            other,
            "`stage NAME = train { … }`",
        ),
        ("model = hub \"a/b\"", other, "a declaration has a name"),
        (
            "data p = local a.csv { text = t }",
            other,
            "a path stands in quotes",
        ),
        (
            "data p = train.csv { text = t }",
            other,
            "`data p = local \"PATH\"`",
        ),
        (
            "model p = hub bert-base",
            other,
            "a repository stands in quotes",
        ),
        ("model p = bert-base", other, "`hub \"ORG/NAME\"`"),
    ] {
        holds(
            dir.path(),
            &format!("{}{item}\n", head()),
            &[],
            code,
            &[part],
        );
    }
}

#[test]
fn folders_that_are_not_there_are_named_with_the_nearest() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let here = here();
    let at = |name: &str| format!("{}/tests/reference/{name}", here.display());
    let start = format!("lora {{ start = \"{}\" }}", at("bert-tiny-lroa"));
    let text = head() + &stage(&start, "");
    holds(
        dir.path(),
        &text,
        &[],
        "plan::bad_adapter",
        &["bert-tiny-lora`?"],
    );
    let text = format!(
        "model p = local \"{}\" {{ tokenizer = \"{}\" }}\n",
        at("bert-tiny"),
        at("bert-tniy")
    );
    holds(
        dir.path(),
        &(head() + &text),
        &[],
        "plan::bad_tokenizer",
        &["bert-tiny`?"],
    );
    let text = head() + &stage("lora(rank = 8)", "");
    holds(
        dir.path(),
        &text,
        &[],
        "syntax::unexpected",
        &["`lora { rank = 8 }`"],
    );
}

#[test]
fn what_set_says_is_shown_where_it_is_used() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let text = head()
        + "let lr = 1e-3\nstage l = train { model = m, data = d.train, adapter = lora { rank = 2 }, lr = lr, steps = 2 }\n";
    holds(
        dir.path(),
        &text,
        &["--set", "lr=foo"],
        "resolve::wrong_type",
        &["lr = 2e-4", "`foo`"],
    );
    for (value, said) in [("foo", "`lr` is `foo`"), ("-1", "`lr` is `-1`")] {
        let output = program()
            .args([
                "check",
                "r.peft",
                "--no-data-report",
                "--set",
                &format!("lr={value}"),
            ])
            .current_dir(dir.path())
            .output()
            .expect("starts");
        let text = stderr_of(&output);
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn wrong_names_get_the_nearest_one_whole() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let rows = "{\"data\":{\"first\":\"a\",\"second\":\"b\"},\"label\":\"x\"}\n{\"data\":{\"first\":\"c\",\"second\":\"d\"},\"label\":\"y\"}\n";
    std::fs::write(dir.path().join("n.jsonl"), rows).expect("written");
    std::fs::write(dir.path().join("t.csv"), "text,label\na,x\nb,y\n").expect("written");
    std::fs::write(dir.path().join("other.peft"), "let a = 1\n").expect("written");
    let bad = "plan::bad_data";
    let learn = |data: &str| {
        format!(
            "stage l = train {{ model = m, data = {data}, adapter = head_only, lr = 1e-3, steps = 2 }}\n"
        )
    };
    let nested = |text: &str| {
        format!("data q = local \"n.jsonl\" {{ text = {text}, label = label }}\n")
            + &learn("q.train")
    };
    for (items, code, part) in [
        (nested("data.frist"), bad, "did you mean `data.first`?"),
        (nested("[first, second]"), bad, "did you mean `data.first`?"),
        (learn("d.trian"), bad, "did you mean `d.train`?"),
        (learn("d.tset"), bad, "did you mean `d.test`?"),
        (
            format!(
                "data q = local \"t.cvs\" {{ text = text, label = label }}\n{}",
                learn("q.train")
            ),
            bad,
            "did you mean `t.csv`?",
        ),
        (
            format!(
                "data q = local \"t.csv\" {{ text = txet, label = label }}\n{}",
                learn("q.train")
            ),
            bad,
            "did you mean `text`?; the first line of the file names its columns",
        ),
        (
            "import \"ohter.peft\"\n".to_owned(),
            "resolve::bad_import",
            "did you mean `other.peft`?",
        ),
    ] {
        holds(dir.path(), &(head() + &items), &[], code, &[part]);
    }
    let told = |args: &[&str]| {
        let output = program()
            .args(args)
            .current_dir(dir.path())
            .output()
            .expect("starts");
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}");
        stderr_of(&output)
    };
    for (args, part) in [
        (
            &["check", "othre.peft"] as &[&str],
            "did you mean `other.peft`?",
        ),
        (&["fmt", "othre.peft"], "did you mean `other.peft`?"),
        (
            &["check", "none.peft"],
            "relative to the folder that you are in",
        ),
        (&["report", "no"], "no such directory"),
    ] {
        let text = told(args);
        assert!(
            text.contains(part) && !text.contains("relative to the recipe"),
            "{text}"
        );
    }
}
