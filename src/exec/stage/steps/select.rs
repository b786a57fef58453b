//! Places of sparse updates dropped and grown between two steps (methods S6, S7).

use crate::exec::interpreter::Runner;
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::net::watched;
use crate::library::stage::select::{Selected, Selection};
use crate::program::op::Element;

/// Changes the places of all maps after so many steps of so many.
pub(super) fn change(
    runner: &mut Runner,
    selection: &Selection,
    (steps, all): (u64, u64),
) -> Result<(), RunError> {
    runner.fetch()?;
    runner.meter.scratch(selection.scratch_bytes());
    for own in &selection.of {
        let values = list::<f32>(runner, &own.values())?;
        let places = list::<u32>(runner, &own.places())?;
        let count = selection.share(values.len(), steps, all);
        let out = smallest(&values, count);
        if selection.rule.sm3 {
            let grown = by_moments(runner, own, &places, out.len())?;
            replace(runner, own, &out, &grown, &[])?;
        } else {
            let (out, grown, states) =
                by_gradients(runner, (selection, own), (&places, out), steps)?;
            replace(runner, own, &out, &grown, &states)?;
        }
    }
    Ok(())
}

fn missing(name: &str) -> RunError {
    RunError::bug(format!("`{name}` is not in memory"))
}

/// The numbers of a resident.
fn list<T: Element>(runner: &Runner, name: &str) -> Result<Vec<T>, RunError> {
    let found = runner.residents.get(name).and_then(|t| t.slice::<T>());
    Ok(found.ok_or_else(|| missing(name))?.to_vec())
}

fn list_mut<'a, T: Element>(runner: &'a mut Runner, name: &str) -> Result<&'a mut [T], RunError> {
    let found = runner
        .residents
        .get_mut(name)
        .and_then(|t| t.slice_mut::<T>());
    found.ok_or_else(|| missing(name))
}

/// Where the smallest numbers are, without their sign, in order; the first of equal ones.
fn smallest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let size = |i: usize| values.get(i).map_or(0.0, |x| x.abs());
    order.sort_by(|&a, &b| size(a).total_cmp(&size(b)).then(a.cmp(&b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The free places with the largest products of moments.
fn by_moments(
    runner: &Runner,
    own: &Selected,
    places: &[u32],
    count: usize,
) -> Result<Vec<u32>, RunError> {
    let (rows, columns) = (
        list::<f32>(runner, &own.state("rows"))?,
        list::<f32>(runner, &own.state("columns"))?,
    );
    let mut taken = vec![false; rows.len() * columns.len()];
    for &place in places {
        if let Some(slot) = taken.get_mut(place as usize) {
            *slot = true;
        }
    }
    let each = rows.iter().flat_map(|r| columns.iter().map(move |c| r * c));
    let free = each
        .zip(&taken)
        .enumerate()
        .filter(|(_, (_, taken))| !**taken);
    let mut scored: Vec<(f32, u32)> = free.map(|(i, (score, _))| (score, to_u32(i))).collect();
    Ok(largest(&mut scored, count)
        .into_iter()
        .map(|(_, place)| place)
        .collect())
}

/// The entries with the largest scores, by place; the first of equal ones.
fn largest(scored: &mut Vec<(f32, u32)>, count: usize) -> Vec<(f32, u32)> {
    let count = count.min(scored.len());
    let before = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if count > 0 && count < scored.len() {
        scored.select_nth_unstable_by(count - 1, before);
    }
    scored.truncate(count);
    scored.sort_unstable_by_key(|(_, place)| *place);
    std::mem::take(scored)
}

/// A new place's first and second moment, and its age.
type State = [f32; 3];

/// The candidates with the largest accumulated gradients, in the place of what is dropped, with their states. What would
/// be dropped and grown again stays.
fn by_gradients(
    runner: &Runner,
    (selection, own): (&Selection, &Selected),
    (places, out): (&[u32], Vec<usize>),
    steps: u64,
) -> Result<(Vec<usize>, Vec<u32>, Vec<State>), RunError> {
    let [candidates, sums, squares] = watched(&own.path);
    let candidates = list::<u32>(runner, &candidates)?;
    let (sums, squares) = (list::<f32>(runner, &sums)?, list::<f32>(runner, &squares)?);
    let mut is_out = vec![false; places.len()];
    for &at in &out {
        if let Some(slot) = is_out.get_mut(at) {
            *slot = true;
        }
    }
    let pairs = || places.iter().zip(&is_out);
    let mut remaining: Vec<u32> = pairs().filter(|(_, out)| !**out).map(|(p, _)| *p).collect();
    remaining.sort_unstable();
    // Scores carry the candidate's number: candidates are in the order of their places.
    let fits = |(i, place): (usize, &u32)| {
        let free = remaining.binary_search(place).is_err();
        free.then(|| (sums.get(i).map_or(0.0, |s| s.abs()), to_u32(i)))
    };
    let mut scored: Vec<(f32, u32)> = candidates.iter().enumerate().filter_map(fits).collect();
    let mut grown = Vec::new();
    for (_, at) in largest(&mut scored, out.len()) {
        let at = at as usize;
        let all = (candidates.get(at), sums.get(at), squares.get(at));
        if let (Some(&place), Some(&sum), Some(&square)) = all {
            grown.push((place, sum, square));
        }
    }
    // What would be dropped and grown again; both lists are in order.
    let mut kept: Vec<u32> = out
        .iter()
        .filter_map(|&at| places.get(at).copied())
        .collect();
    kept.sort_unstable();
    kept.retain(|place| grown.binary_search_by_key(place, |g| g.0).is_ok());
    let stays = |place: u32| kept.binary_search(&place).is_ok();
    let age = selection.phase(steps) as f32;
    let [beta1, beta2] = selection.betas;
    let rise = |beta: f64| 1.0 - beta.powf(f64::from(age));
    let state = |sum: f32, square: f32| {
        let mean = |x: f32, beta: f64| (f64::from(x / age) * rise(beta)) as f32;
        [mean(sum, beta1), mean(square, beta2), age]
    };
    grown.retain(|g| !stays(g.0));
    let free = out
        .into_iter()
        .filter(|&at| places.get(at).is_some_and(|&p| !stays(p)));
    let out: Vec<usize> = free.take(grown.len()).collect();
    let states = grown
        .iter()
        .map(|&(_, sum, square)| state(sum, square))
        .collect();
    Ok((out, grown.into_iter().map(|g| g.0).collect(), states))
}

/// Puts new places where old ones are dropped: numbers begin at 0.
fn replace(
    runner: &mut Runner,
    own: &Selected,
    out: &[usize],
    grown: &[u32],
    states: &[State],
) -> Result<(), RunError> {
    let places = list_mut::<u32>(runner, &own.places())?;
    for (&at, &new) in out.iter().zip(grown) {
        if let Some(place) = places.get_mut(at) {
            *place = new;
        }
    }
    let values = list_mut::<f32>(runner, &own.values())?;
    for &at in out.iter().take(grown.len()) {
        if let Some(value) = values.get_mut(at) {
            *value = 0.0;
        }
    }
    for (i, suffix) in ["m", "v", "age"].into_iter().enumerate() {
        if states.is_empty() {
            break;
        }
        let state = list_mut::<f32>(runner, &own.state(suffix))?;
        for (&at, new) in out.iter().zip(states) {
            if let (Some(slot), Some(&new)) = (state.get_mut(at), new.get(i)) {
                *slot = new;
            }
        }
    }
    Ok(())
}
