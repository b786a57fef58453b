//! Diagnostic codes of rules that library entries state.

crate::codes! {
    /// A rank larger than the smaller side of a matrix makes no sense: the product would have more parameters than the
    /// matrix and no more freedom. Write a rank of at most the width that the message names, or place the method on
    /// larger matrices.
    RANK_TOO_LARGE = "method::rank_too_large";
    /// SiVA trains the top `rank` singular vectors out of the `decomposition` triplets that are kept, so `rank` cannot be
    /// larger than `decomposition`. Lower the one or raise the other; without `decomposition` all triplets are kept.
    RANK_ABOVE_DECOMPOSITION = "method::rank_above_decomposition";
    /// The key counts blocks of the model, and the model has fewer. `peftc plan` prints how many blocks a model has.
    LAYERS_OUT_OF_RANGE = "method::layers_out_of_range";
}
