//! Nearest valid names.

/// Up to three names close to `wrong`, best first.
#[must_use]
pub fn nearest<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wrong = wrong.to_lowercase();
    // Of more names than anybody reads, the nearest of the first are near enough.
    const MOST: usize = 1000;
    let mut scored: Vec<(f64, &str)> = valid
        .into_iter()
        .take(MOST)
        .map(|name| {
            let prefix = !wrong.is_empty() && (name.starts_with(&wrong) || wrong.starts_with(name));
            (
                strsim::jaro_winkler(&wrong, &name.to_lowercase()) + if prefix { 0.2 } else { 0.0 },
                name,
            )
        })
        .filter(|(score, _)| *score > 0.78)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Help text for a wrong name: the nearest ones, or all valid ones when none is near.
#[must_use]
pub fn did_you_mean<'a>(
    wrong: &str,
    valid: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    let near = nearest(wrong, valid.clone());
    if near.is_empty() {
        const MOST: usize = 24;
        let all = valid.into_iter().take(MOST + 1);
        let all: Vec<String> = all.map(|n| format!("`{n}`")).collect();
        return (!all.is_empty() && all.len() <= MOST)
            .then(|| format!("valid here: {}", all.join(", ")));
    }
    let near: Vec<String> = near.into_iter().map(|n| format!("`{n}`")).collect();
    Some(format!("did you mean {}?", near.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_comes_first() {
        assert_eq!(
            nearest("loraa", ["siva", "lora", "full"]).first(),
            Some(&"lora")
        );
        assert_eq!(
            nearest("warmpu", ["warmup", "peak", "end"]).first(),
            Some(&"warmup")
        );
        assert!(nearest("zzz", ["warmup", "peak"]).is_empty());
    }
}
