//! The method registry: parameter-efficient ways to adapt a model.
//!
//! A method is one file and one row here. It never names a model: it sees sites and parameters.

use super::data::tokens::Marking;
use super::model::Facts;
use super::net::{Net, Param, Site};
use super::schema::{Schema, Values};
use crate::program::Value;

mod at;
mod form;
mod hooks;
pub mod import;
mod tuning;

// The model's own parameters, trained: whole, in part or by a mask.
mod bitfit;
mod child_tuning;
mod diff_pruning;
mod fish;
mod full;
mod head_only;
mod krona;
mod last_n;
mod lt_sft;
mod magnitude_mask;
mod mask;
mod movement_mask;
mod pruning;
mod shira;
mod smt;
mod sparse;
mod spiel;
mod supertuning;
mod unfreeze;

// Scalings, rotations and spectra.
mod beft;
mod boft;
mod c3a;
mod deft;
mod fourierft;
mod frod;
mod glora;
mod hra;
mod ia3;
mod ln_tuning;
mod oft;
mod osf;
mod peanut;
mod psoft;
mod road;
mod rotation;
mod spectral_adapter;
mod svfit;
mod svft;
mod waveft;
mod wavelets;

// Other forms of a linear map's weight: products, scalings, rotations, spectra.
mod adalora;
mod adalora_import;
mod adamss;
mod after;
mod bdlora;
mod delora;
mod dora;
mod dylora;
mod gralora;
mod hira;
mod kasa;
mod lily;
mod loha;
mod lokr;
mod lora;
mod lora_import;
mod miss;
mod pair;
mod poly;
mod pvera;
mod randlora;
mod rows_import;
mod side_lora;
mod siva;
mod sora;
mod table;
mod tasks;
mod tinylora;
mod trainable_tokens;
mod unilora;
mod vblora;
mod vera;
mod weight_drop;

// Further layers: bottlenecks, prompts and prefixes, networks beside the model.
mod adamix;
mod adamix_lora;
mod begun;
mod bottleneck;
mod cartridge;
mod cpt;
mod encoder;
mod eva;
mod experts;
mod houlsby;
mod k_lst;
mod llama_adapter;
mod lst;
mod multitask_prompt;
mod p_tuning;
mod parallel;
mod pasta;
mod pfeiffer;
mod prefix_tuning;
mod prompt_tuning;
mod series;
mod unipelt;

pub use after::After;
pub use at::{
    At, Stack, Stacking, attention, bias, embedded, entered, linear, output, tabled, weight,
};
use at::{columns, first_rows};
pub use form::{
    Complaint, Lookup, Masking, PeftForm, PeftKeys, PeftTensor, PeftTogether, Product, Selecting,
    number,
};
pub use hooks::Method;
pub use tuning::Tuning;

/// What ends the names of a sparse update's numbers and places.
pub const SPARSE: [&str; 2] = [sparse::VALUES, sparse::PLACES];

/// Keys that several methods have.
pub(crate) mod keys {
    pub(crate) use super::lora::{ALPHA, ALPHAS, DROPOUT, MODULES_TO_SAVE, ON, RANK, RANKS, START};
    pub(crate) use super::prompt_tuning::{TEXT, TOKEN_IDS};
}

/// Keys of methods that are for tokens of the vocabulary.
pub(crate) mod keys_of_tokens {
    pub(crate) use super::trainable_tokens::{TOKEN_IDS, TOKENS};
}

/// Every method.
pub const METHODS: &[&dyn Method] = &[
    // The model's own parameters.
    &full::Full,
    &head_only::HeadOnly,
    &last_n::LastN,
    &bitfit::BitFit,
    &child_tuning::ChildTuning,
    &shira::Shira,
    &fish::METHOD,
    &magnitude_mask::METHOD,
    &movement_mask::METHOD,
    &pruning::BY_MAGNITUDE,
    &pruning::BY_MOVEMENT,
    &lt_sft::METHOD,
    &diff_pruning::DiffPruning,
    &smt::Smt,
    &spiel::Spiel,
    &supertuning::SuperTuning,
    &unfreeze::Unfreeze,
    // Other forms of a linear map's weight.
    &lora::Lora,
    &trainable_tokens::TrainableTokens,
    &bdlora::BdLora,
    &siva::Siva,
    &side_lora::SideLora,
    &dora::Dora,
    &kasa::Kasa,
    &vera::Vera,
    &loha::Loha,
    &hira::Hira,
    &adalora::AdaLora,
    &sora::Sora,
    &dylora::DyLora,
    &delora::Delora,
    &randlora::RandLora,
    &lokr::Lokr,
    &krona::KronA,
    &miss::Miss,
    &gralora::Gralora,
    &vblora::VbLora,
    &tinylora::TinyLora,
    &unilora::UniLora,
    &pvera::Pvera,
    &adamss::AdaMss,
    &lily::Lily,
    &poly::Poly,
    // Scalings, rotations and spectra.
    &ia3::Ia3,
    &ln_tuning::LnTuning,
    &beft::Beft,
    &oft::Oft,
    &boft::Boft,
    &hra::Hra,
    &road::Road,
    &c3a::C3a,
    &fourierft::FourierFt,
    &waveft::WaveFt,
    &osf::Osf,
    &psoft::Psoft,
    &deft::Deft,
    &glora::Glora,
    &peanut::Peanut,
    &frod::Frod,
    &svfit::Svfit,
    &svft::Svft,
    &spectral_adapter::SpectralAdapter,
    // Further layers.
    &houlsby::Houlsby,
    &pfeiffer::Pfeiffer,
    &series::Series,
    &parallel::Parallel,
    &adamix::AdaMix,
    &adamix_lora::AdaMixLora,
    &prefix_tuning::PrefixTuning,
    &prompt_tuning::PromptTuning,
    &p_tuning::PTuning,
    &cpt::Cpt,
    &multitask_prompt::MultitaskPrompt,
    &cartridge::Cartridge,
    &pasta::Pasta,
    &llama_adapter::LlamaAdapter,
    &unipelt::Unipelt,
    &lst::Lst,
    &k_lst::KLst,
];
/// Looks a method up by name.
#[must_use]
pub fn method(name: &str) -> Option<&'static dyn Method> {
    METHODS.iter().copied().find(|m| m.schema().name == name)
}
