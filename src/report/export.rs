//! The comparison for other programs: CSV, JSON.

use serde_json::{Value as Json, json};

use super::read::Data;
use super::table::scored;
use super::{Report, Stat};
use crate::base::visible;

/// The table for other programs: plain numbers, bytes, deviations in columns of their own.
#[must_use]
pub fn csv(report: &Report) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut head: Vec<String> = ["name", "methods", "scored_by", "runs", "seeds"]
        .map(str::to_owned)
        .into();
    let pair = |name: &str| {
        let name = visible::line(name);
        [name.to_string(), format!("{name}_sd")]
    };
    let metrics = report.metrics();
    head.extend(metrics.iter().flat_map(|m| pair(m)));
    for name in [
        "measured_peak_bytes",
        "measured_process_bytes",
        "samples_per_s",
    ] {
        head.extend(pair(name));
    }
    head.extend(
        [
            "estimated_peak_bytes",
            "trainable_parameters",
            "pareto",
            "kind",
            "scored_on",
            "data_hash",
            "data_rows",
            "noise",
        ]
        .map(str::to_owned),
    );
    let _ = writer.write_record(&head);
    for r in report.rows() {
        let seeds: Vec<String> = r.seeds.iter().map(u64::to_string).collect();
        let mut cells = vec![
            r.name.clone(),
            visible::line(&r.method()).into_owned(),
            visible::line(&scored(r)).into_owned(),
            r.runs.to_string(),
            seeds.join(" "),
        ];
        let number = |x: Option<f64>| x.map(|x| x.to_string()).unwrap_or_default();
        let none = Stat::default();
        let stats = metrics.iter().map(|m| r.metrics.get(*m).unwrap_or(&none));
        for stat in stats.chain([&r.measured, &r.process, &r.rate]) {
            cells.extend([number(stat.mean()), number(stat.sd())]);
        }
        let trained = r.trained.map(|n| n.to_string()).unwrap_or_default();
        cells.extend([number(r.estimated.mean()), trained, r.pareto.to_string()]);
        let data = r.scored_on.clone().unwrap_or_default();
        cells.extend([
            visible::line(&r.kind).into_owned(),
            visible::line(&data.name).into_owned(),
            data.key().unwrap_or_default().to_owned(),
            data.rows.map(|n| n.to_string()).unwrap_or_default(),
            r.difference.name().to_owned(),
        ]);
        let _ = writer.write_record(&cells);
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// The report as JSON.
#[must_use]
pub fn json(report: &Report) -> String {
    let stat =
        |s: &Stat| json!({ "mean": s.mean(), "sd": s.sd(), "n": s.n(), "values": s.values() });
    let data = |d: &Option<Data>| {
        d.as_ref().map(
            |d| json!({ "name": d.name, "hash": d.hash, "rows_hash": d.rows_hash, "rows": d.rows }),
        )
    };
    let rows: Vec<Json> = report
        .rows()
        .map(|r| {
            let metrics: serde_json::Map<String, Json> =
                r.metrics.iter().map(|(k, v)| (k.clone(), stat(v))).collect();
            json!({
                "name": r.name, "methods": r.methods, "scored_by": r.scored_by, "runs": r.runs, "seeds": r.seeds,
                "metrics": metrics, "estimated_peak_bytes": stat(&r.estimated), "measured_peak_bytes": stat(&r.measured),
                "measured_process_bytes": stat(&r.process), "samples_per_s": stat(&r.rate),
                "trainable_parameters": r.trained, "pareto": r.pareto,
                "kind": r.kind, "method": r.method(), "scored_on": data(&r.scored_on), "noise": r.difference.name(),
                "results": r.details.iter().map(|d| json!({
                    "result": d.result, "stage": d.stage, "seed": d.seed, "date": d.date, "machine": d.machine,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let groups: Vec<Json> = report
        .groups
        .iter()
        .map(|g| json!({
            "scored_on": data(&g.scored_on), "metric": g.main, "rows": g.rows.len(),
            "unlike": g.unlike.as_ref().map(|u| json!({ "metric": u.metric, "classes": u.classes })),
        }))
        .collect();
    format!(
        "{:#}\n",
        json!({ "schema": 1, "metric": report.groups.first().and_then(|g| g.main.as_ref()), "rows": rows,
            "groups": groups, "sources": report.sources })
    )
}

#[cfg(test)]
mod tests {
    use super::super::table::markdown;
    use super::super::table::tests::report;
    use super::*;

    #[test]
    fn separators_in_names_do_not_break_the_formats() {
        let report = report();
        assert!(
            markdown(&report).contains("| a\\|b,c |"),
            "{}",
            markdown(&report)
        );
        let text = csv(&report);
        assert!(text.contains("\"a|b,c\",full,score,1,1,0.7,,"), "{text}");
        assert!(
            text.starts_with("name,methods,scored_by,runs,seeds,accuracy,accuracy_sd,"),
            "{text}"
        );
        let json: Json = serde_json::from_str(&json(&report)).expect("JSON");
        assert_eq!(json["rows"][0]["metrics"]["accuracy"]["n"], 2);
        assert_eq!(json["rows"][1]["pareto"], false);
    }
}
