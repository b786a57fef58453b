//! The order in which peft meets a model's modules, which some types number tensors by.

use crate::library::net::Site;

/// Modules in the order in which `transformers` declares them. It is that of their use, but for the maps of Phi-3's
/// attention: the output's is declared first there.
#[must_use]
pub fn as_declared<'s>(mut sites: Vec<&'s Site>) -> Vec<&'s Site> {
    let parent = |site: &'s Site, name: &str| site.path.strip_suffix(name);
    for at in 1..sites.len() {
        let [Some(&one), Some(&other)] = [sites.get(at - 1), sites.get(at)] else {
            continue;
        };
        let (fused, output) = (parent(one, ".qkv_proj"), parent(other, ".o_proj"));
        if fused.is_some() && fused == output {
            sites.swap(at - 1, at);
        }
    }
    sites
}
