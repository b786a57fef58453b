//! Rotary position embeddings as `config.json` describes them: the inverse frequencies of each scaling.

use std::f64::consts::PI;

use serde_json::{Map, Value as Json};

/// Inverse frequencies, one for each pair of columns that is rotated, and the factor of cosine and sine.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Angle of a pair from one position to the next.
    pub inverse: Vec<f64>,
    /// Those of long texts, where they differ.
    pub beyond: Option<Beyond>,
    /// Factor of cosines and sines (`attention_factor`).
    pub factor: f64,
}

/// Inverse frequencies of long texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Beyond {
    /// Texts of more positions have them.
    pub positions: u32,
    /// Angle of a pair from one position to the next.
    pub inverse: Vec<f64>,
}

impl Rope {
    /// The usual frequencies, and those of texts with more positions than a border.
    pub(super) fn frequencies(&self) -> (&[f64], Option<(u32, &[f64])>) {
        let beyond = self.beyond.as_ref();
        let beyond = beyond.map(|own| (own.positions, own.inverse.as_slice()));
        (&self.inverse, beyond)
    }

    /// That of heads so many times narrower, which reach as far: of so many pairs the first stays.
    pub(super) fn narrower(&self, times: u64) -> Self {
        let first = |of: &[f64]| of.iter().step_by(times.max(1) as usize).copied().collect();
        Self {
            inverse: first(&self.inverse),
            beyond: self.beyond.as_ref().map(|own| Beyond {
                inverse: first(&own.inverse),
                ..*own
            }),
            factor: self.factor,
        }
    }
}

/// Where texts begin to be long ones for some rotary positions, in order.
pub(super) fn borders<'a>(ropes: impl Iterator<Item = &'a Rope>) -> Vec<u32> {
    let borders = ropes.filter_map(|rope| rope.beyond.as_ref());
    let mut borders: Vec<u32> = borders.map(|own| own.positions).collect();
    borders.sort_unstable();
    borders.dedup();
    borders
}

/// What the frequencies are made of beside the scaling's own keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// Columns of a head.
    pub head: u64,
    /// `rope_theta` where none is written.
    pub theta: f64,
    /// `partial_rotary_factor` where none is written.
    pub partial: f64,
    /// `max_position_embeddings`.
    pub positions: u64,
}

/// The keys of one scaling.
struct Keys<'a>(&'a Map<String, Json>);

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => match v.as_f64().filter(|x| x.is_finite()) {
                Some(x) => Ok(Some(x)),
                None => Err(format!(
                    "the rotary `{key}` = {v} in config.json is no number"
                )),
            },
        }
    }

    /// A number that must be there and be above 0.
    fn positive(&self, key: &str, kind: &str) -> Result<f64, String> {
        match self.number(key)? {
            Some(x) if x > 0.0 => Ok(x),
            Some(x) => Err(format!(
                "the rotary `{key}` = {x} in config.json must be above 0"
            )),
            None => Err(format!(
                "config.json has no `{key}` for the rotary positions of type `{kind}`"
            )),
        }
    }

    fn numbers(&self, key: &str, count: usize) -> Result<Vec<f64>, String> {
        let list = self.get(key).and_then(Json::as_array);
        let list: Option<Vec<f64>> = list.and_then(|list| {
            list.iter()
                .map(|x| x.as_f64().filter(|x| *x > 0.0))
                .collect()
        });
        list.filter(|list| list.len() == count).ok_or_else(|| {
            format!("the rotary `{key}` in config.json must be a list of {count} numbers above 0")
        })
    }
}

/// Scalings of one type, by layer type where there are several, in the spelling of old and new files.
///
/// Version 5 of transformers writes `rope_parameters`; before, `rope_theta` stood beside `rope_scaling`.
pub(super) fn parameters(config: &Json, layers: Option<&str>) -> Result<Map<String, Json>, String> {
    let object = |key: &str| match config.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(map)) => Ok(Some(map)),
        Some(v) => Err(format!(
            "config.json has `{key}` = {v}; an object is wanted"
        )),
    };
    let new = object("rope_parameters")?;
    let new = match (new, layers) {
        (Some(map), Some(kind)) if map.values().any(Json::is_object) => match map.get(kind) {
            Some(Json::Object(own)) => Some(own),
            _ => None,
        },
        (new, _) => new,
    };
    let mut made = new.or(object("rope_scaling")?).cloned().unwrap_or_default();
    // What stands beside is a default of what stands inside.
    for key in [
        "rope_theta",
        "partial_rotary_factor",
        "original_max_position_embeddings",
    ] {
        if let Some(v) = config.get(key).filter(|v| !v.is_null())
            && !made.contains_key(key)
        {
            made.insert(key.to_owned(), v.clone());
        }
    }
    Ok(made)
}

/// The frequencies of a scaling.
///
/// # Errors
/// A key that is missing or no number, or a scaling that is not built.
pub(super) fn rope(parameters: &Map<String, Json>, base: Base) -> Result<Rope, String> {
    let keys = Keys(parameters);
    let kind = keys.get("rope_type").or_else(|| keys.get("type"));
    let kind = match kind {
        None => "default",
        Some(Json::String(kind)) => kind,
        Some(v) => {
            return Err(format!(
                "config.json has the rotary type {v}; a name is wanted"
            ));
        }
    };
    let theta = keys.number("rope_theta")?.unwrap_or(base.theta);
    let partial = keys
        .number("partial_rotary_factor")?
        .unwrap_or(base.partial);
    if theta <= 0.0 || !(0.0..=1.0).contains(&partial) {
        return Err(format!(
            "config.json has `rope_theta` = {theta} and `partial_rotary_factor` = {partial}; a number above 0 and a \
             share from 0 to 1 are wanted"
        ));
    }
    let rotated = (base.head as f64 * partial) as u64;
    if !rotated.is_multiple_of(2) {
        return Err(format!(
            "config.json: rotary positions turn pairs of columns, and {rotated} columns of a head make no pairs"
        ));
    }
    // As transformers has it: exponents and powers in f32.
    let power = |i: u64| theta.powf(f64::from((2 * i) as f32 / rotated as f32));
    let plain: Vec<f64> = (0..rotated / 2).map(|i| 1.0 / power(i)).collect();
    let all = |inverse: Vec<f64>, factor: f64| {
        Ok(Rope {
            inverse,
            beyond: None,
            factor,
        })
    };
    match kind {
        // Within `max_position_embeddings`, beyond which no text goes, dynamic scaling does nothing.
        "default" | "dynamic" => all(plain, 1.0),
        "linear" => {
            let factor = keys.positive("factor", kind)?;
            all(plain.into_iter().map(|x| x / factor).collect(), 1.0)
        }
        "llama3" => all(llama3(&keys, plain)?, 1.0),
        "yarn" => {
            let (inverse, factor) = yarn(&keys, plain, (theta, rotated), base.positions)?;
            all(inverse, factor)
        }
        "longrope" | "su" => longrope(&keys, &plain, base.positions),
        other => Err(format!(
            "config.json asks for rotary positions of type `{other}`, which is not built yet; built are default, linear, \
             dynamic, llama3, yarn and longrope"
        )),
    }
}

/// Llama 3.1's: long waves stretched, short ones left, those between blended.
fn llama3(keys: &Keys<'_>, plain: Vec<f64>) -> Result<Vec<f64>, String> {
    let of = |key| keys.positive(key, "llama3");
    let (factor, low, high) = (
        of("factor")?,
        of("low_freq_factor")?,
        of("high_freq_factor")?,
    );
    let old = of("original_max_position_embeddings")?;
    if high <= low {
        return Err(format!(
            "config.json has the rotary `high_freq_factor` = {high}, which must be above `low_freq_factor` = {low}"
        ));
    }
    let stretched = |x: f64| {
        let wave = 2.0 * PI / x;
        if wave > old / low {
            x / factor
        } else if wave < old / high {
            x
        } else {
            let smooth = (old / wave - low) / (high - low);
            (1.0 - smooth) * x / factor + smooth * x
        }
    };
    Ok(plain.into_iter().map(stretched).collect())
}

/// YaRN (Peng et al. 2023, arXiv 2309.00071).
fn yarn(
    keys: &Keys<'_>,
    plain: Vec<f64>,
    (theta, rotated): (f64, u64),
    positions: u64,
) -> Result<(Vec<f64>, f64), String> {
    let old = match keys.number("original_max_position_embeddings")? {
        Some(old) if old > 0.0 => old,
        _ => positions as f64,
    };
    let factor = match keys.number("factor")? {
        Some(x) if x > 0.0 => x,
        Some(x) => {
            return Err(format!(
                "the rotary `factor` = {x} in config.json must be above 0"
            ));
        }
        None => positions as f64 / old,
    };
    let scale = |scale: f64, m: f64| {
        if scale <= 1.0 {
            1.0
        } else {
            0.1 * m * scale.ln() + 1.0
        }
    };
    let nonzero = |key| keys.number(key).map(|x| x.filter(|x| *x != 0.0));
    let attention = match (
        keys.number("attention_factor")?,
        nonzero("mscale")?,
        nonzero("mscale_all_dim")?,
    ) {
        (Some(given), ..) => given,
        (None, Some(m), Some(all)) => scale(factor, m) / scale(factor, all),
        _ => scale(factor, 1.0),
    };
    let fast = nonzero("beta_fast")?.unwrap_or(32.0);
    let slow = nonzero("beta_slow")?.unwrap_or(1.0);
    let dim = rotated as f64;
    let turns = |n: f64| dim * (old / (n * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (turns(fast), turns(slow));
    if keys
        .get("truncate")
        .is_none_or(|v| v.as_bool() != Some(false))
    {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let blend = |(i, x): (usize, f64)| {
        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        x / factor * ramp + x * (1.0 - ramp)
    };
    Ok((
        plain.into_iter().enumerate().map(blend).collect(),
        attention,
    ))
}

/// LongRoPE (Ding et al. 2024, arXiv 2402.13753): texts longer than those that the model was trained on at first have
/// factors of their own.
fn longrope(keys: &Keys<'_>, plain: &[f64], positions: u64) -> Result<Rope, String> {
    let key = "original_max_position_embeddings";
    let old = match keys.number(key)? {
        Some(_) => keys.positive(key, "longrope")?,
        None => positions as f64,
    };
    let factor = keys.number("factor")?.unwrap_or(positions as f64 / old);
    let attention = match keys.number("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / old.ln()).sqrt(),
    };
    let [short, long] = ["short_factor", "long_factor"].map(|key| {
        let factors = keys.numbers(key, plain.len())?;
        let each = plain.iter().zip(factors);
        Ok::<Vec<f64>, String>(each.map(|(x, s)| x / s).collect())
    });
    let (inverse, long) = (short?, long?);
    // No text is longer than `max_position_embeddings`, and so than any number of positions.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is above 0, and larger numbers become the largest"
    )]
    let border = old.floor() as u32;
    let reached = u64::from(border) < positions && long != inverse;
    Ok(Rope {
        inverse,
        beyond: reached.then_some(Beyond {
            positions: border,
            inverse: long,
        }),
        factor: attention,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(config: &Json, kind: Option<&str>) -> Result<Rope, String> {
        let base = Base {
            head: 8,
            theta: 10_000.0,
            partial: 1.0,
            positions: 256,
        };
        rope(&parameters(config, kind)?, base)
    }

    fn close(rope: &Rope, inverse: &[f64], factor: f64) {
        assert_eq!(rope.inverse.len(), inverse.len());
        for (got, want) in rope.inverse.iter().zip(inverse) {
            assert!((got - want).abs() <= 1e-6 * want, "{got} {want}");
        }
        assert!((rope.factor - factor).abs() < 1e-6, "{}", rope.factor);
    }

    /// Values of transformers' `ROPE_INIT_FUNCTIONS`.
    #[test]
    fn scalings_equal_those_of_transformers() {
        let made = of(&json!({"rope_theta": 10000.0}), None).expect("built");
        close(
            &made,
            &[1.0, 0.100000001, 0.00999999978, 0.00100000005],
            1.0,
        );
        let made = of(
            &json!({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
            None,
        )
        .expect("built");
        close(&made, &[0.25, 0.05286856, 0.0111803403, 0.00236435398], 1.0);
        let made = of(&json!({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}), None).expect("built");
        close(
            &made,
            &[1.0, 0.00470075384, 0.000176776681, 6.64786967e-06],
            1.0,
        );
        let made = of(&json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 30.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}), None).expect("built");
        close(&made, &[1.0, 0.427287012, 0.0848826319, 0.019502895], 1.0);
        let made = of(&json!({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}), None).expect("built");
        close(
            &made,
            &[1.0, 0.0625, 0.00249999994, 0.000250000012],
            1.138629436111989,
        );
        let made = of(&json!({"rope_theta": 1000.0, "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "mscale": 0.7, "mscale_all_dim": 1.0, "beta_fast": 8, "beta_slow": 2, "truncate": false}}), None).expect("built");
        close(
            &made,
            &[1.0, 0.0222284924, 0.00395284733, 0.000702926656],
            0.9483558523503399,
        );
        let made = of(&json!({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 2.0], "long_factor": [2.0, 3.0, 4.0, 5.0], "original_max_position_embeddings": 64}}), None).expect("built");
        close(
            &made,
            &[1.0, 0.0909090936, 0.0076923077, 0.000500000024],
            1.1547005383792517,
        );
        let beyond = made.beyond.clone().expect("others for long texts");
        assert_eq!(beyond.positions, 64);
        let long = Rope {
            inverse: beyond.inverse,
            ..made
        };
        let want = [0.5, 0.0333333351, 0.00249999994, 0.000200000009];
        close(&long, &want, 1.1547005383792517);
        // What no text reaches, and what differs in nothing, is left out.
        for (old, long) in [(256, [2.0; 4]), (64, [1.0, 1.1, 1.3, 2.0])] {
            let made = of(&json!({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 2.0], "long_factor": long, "original_max_position_embeddings": old}}), None).expect("built");
            assert_eq!(made.beyond, None);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (config, said) in [
            (json!({ "rope_scaling": { "type": "linear" } }), "`factor`"),
            (
                json!({ "rope_scaling": { "type": "other", "factor": 2 } }),
                "`other`",
            ),
            (json!({ "rope_scaling": 3 }), "an object is wanted"),
            (json!({ "rope_theta": "a" }), "no number"),
            (json!({ "partial_rotary_factor": 0.4 }), "no pairs"),
            (
                json!({ "rope_scaling": { "type": "longrope", "original_max_position_embeddings": 64, "short_factor": [1] } }),
                "a list of 4",
            ),
            (
                json!({ "rope_scaling": { "type": "longrope", "original_max_position_embeddings": 64, "short_factor": [1, 1, 1, 1] } }),
                "`long_factor`",
            ),
        ] {
            let why = of(&config, None).expect_err("refused");
            assert!(why.contains(said), "{why}");
        }
    }
}
