//! The page against reports made by hand.

use super::*;
use crate::report::rows::tests::result;

#[test]
fn nothing_from_a_result_is_markup() {
    let bad = "<script>alert('x')</script>\"&\u{7}";
    let mut one = result("o/1", &format!("{bad}.peft"), bad, 1, 0.8, 10 << 20);
    for stage in &mut one.stages {
        let value = stage.metrics.shift_remove("accuracy");
        stage.metrics.insert(bad.to_owned(), value.flatten());
        stage.memory.peak_op = bad.to_owned();
        for point in &mut stage.memory_profile {
            point.op.push_str(bad);
        }
    }
    let two = result("o/2", "plain.peft", "full", 1, 0.7, 20 << 20);
    let page = html(&Report::new(&[one, two], Some(bad)));
    assert!(!page.contains("<script"), "a name became markup");
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
    assert!(!page.contains('\u{7}'));
    assert_eq!(escape("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
}

#[test]
fn the_page_loads_nothing_and_has_every_chart() {
    let results = [
        result("o/1", "lora.peft", "lora", 1, 0.8, 10 << 20),
        result("o/2", "lora.peft", "lora", 2, 0.9, 12 << 20),
        result("o/3", "full.peft", "full", 1, 0.7, 40 << 20),
    ];
    let page = html(&Report::new(&results, None));
    assert!(
        ["src=", "href=", "url(", "@import", "http"]
            .iter()
            .all(|p| !page.contains(p))
    );
    // The scatter, losses, the dev metric and a profile a row; swatches in table, cards and tiles.
    assert_eq!(page.matches("<svg viewBox").count(), 3 + 2);
    assert_eq!(page.matches("<svg class='swatch'").count(), 2 + 2 + 1);
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.contains("prefers-color-scheme"));
    assert!(page.contains("0.8500 ± 0.0707"));
    assert!(html(&Report::default()).contains("is finished yet"));
}

#[test]
fn rows_of_one_recipe_are_called_without_it() {
    let mut report = Report::new(
        &[
            result("o/1", "lora.peft", "lora", 1, 0.8, 10 << 20),
            result("o/2", "full.peft", "full", 1, 0.9, 40 << 20),
        ],
        None,
    );
    let names =
        |report: &Report| -> Vec<String> { report.rows().map(|row| row.name.clone()).collect() };
    let plain = names(&report);
    assert_eq!(of_one_recipe(&mut report), None);
    assert_eq!(names(&report), plain);
    for row in report.groups.iter_mut().flat_map(|group| &mut group.rows) {
        row.name.insert_str(0, "both/");
    }
    assert_eq!(of_one_recipe(&mut report.clone()).as_deref(), Some("both"));
    assert!(html(&report).contains(" of both, "));
    of_one_recipe(&mut report);
    assert_eq!(names(&report), plain);
}

#[test]
fn unlike_data_have_tables_and_fronts_of_their_own() {
    let mut results = [
        result("o/1", "lora.peft", "lora", 1, 0.8, 10 << 20),
        result("o/2", "full.peft", "full", 1, 0.9, 40 << 20),
    ];
    let text = crate::report::read::Text {
        name: "full.peft".to_owned(),
        text: "model m = local \"<m>\"".to_owned(),
    };
    results[1].sources = vec![text.clone(), text];
    for stage in &mut results[1].stages {
        stage.date = Some("2026-01-02T03:04:05Z".to_owned());
        stage.kept_step = Some(40);
        for data in stage.data.values_mut() {
            data.hash = Some("other".to_owned());
            data.name = "e.test".to_owned();
        }
    }
    let page = html(&Report::new(&results, None));
    for part in [
        "Results on d.test, 400 rows",
        "Results on e.test, 400 rows",
        "accuracy against memory on e.test",
        "2026-01-02T03:04:05Z",
        "local &quot;&lt;m&gt;&quot;",
        "class='kept'",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<pre>").count(), 1, "a text is there once");
    assert_eq!(page.matches("class='badge'").count(), 2);
}
