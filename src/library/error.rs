//! Diagnostic codes of rules that library entries state.

crate::codes! {
    /// A rank larger than the smaller side of a matrix makes no sense: the product would have more parameters than the
    /// matrix and no more freedom. Write a rank of at most the width that the message names, or place the method on
    /// larger matrices.
    RANK_TOO_LARGE = "method::rank_too_large";
    /// Blocks or groups of columns that a method rotates, scales or repeats must fill a matrix' side without a rest. Write a
    /// size that divides the width that the message names.
    BLOCKS_DO_NOT_FIT = "method::blocks_do_not_fit";
    /// SiVA trains the top `rank` singular vectors out of the `decomposition` triplets that are kept, so `rank` cannot be
    /// larger than `decomposition`. Lower the one or raise the other; without `decomposition` all triplets are kept.
    RANK_ABOVE_DECOMPOSITION = "method::rank_above_decomposition";
    /// Values of a method do not go together, or do not fit the stage: a target above what it is reached from, a schedule longer
    /// than the training, sizes that do not divide. The message names both sides.
    BAD_METHOD_VALUES = "method::bad_values";
    /// The method works with the gradients of each step, or with a learning rate of its own for some tensors, and a stage of
    /// zeroth order has neither. Write `train`, or another method.
    NEEDS_GRADIENTS = "method::needs_gradients";
    /// A ladder network cannot be built like this: its width, the model's divided by `r`, must be a multiple of the
    /// number of attention heads, and a window must have a middle and lie around the model's blocks.
    BAD_LADDER = "method::bad_ladder";
    /// The key counts blocks of the model, and the model has fewer. `peftc plan` prints how many blocks a model has.
    LAYERS_OUT_OF_RANGE = "method::layers_out_of_range";
    /// Virtual tokens cannot start like this: a token's id is outside the table of embeddings, or there is none. `peftc explain
    /// prompt_tuning` says what they can start at.
    BAD_VIRTUAL_TOKENS = "method::bad_virtual_tokens";
    /// The tokens whose rows are to be trained are not there: a text is no single token of the tokenizer's, a number is outside the
    /// table of embeddings, one is named twice, or none is named.
    BAD_TOKENS = "method::bad_tokens";
    /// Two keys say different things about one quantity, or none of several alternatives is written.
    CONFLICTING_KEYS = "stage::conflicting_keys";
    /// The key is valid, but with the other values of this block it changes nothing. Remove it, or write what it needs: a
    /// recipe should say what happens.
    IDLE_KEY = "stage::no_effect";
    /// A metric is unknown or cannot be computed from what the stage predicts: accuracy needs classes, Pearson needs
    /// numbers, F1 needs exactly two classes (`f1_macro` takes any number).
    METRIC_MISMATCH = "stage::metric_mismatch";
    /// Weights of classes do not fit the data: one names no class or a class twice, a class has none, or `balanced` has nothing
    /// to divide by. Write a weight for each class by its name.
    BAD_CLASS_WEIGHTS = "stage::bad_class_weights";
    /// Scores of pairs of texts are learned as cosines, and one lies outside of what a cosine can be: between −1 and 1 once it is divided
    /// by `top_score`. Write the highest score that there is as `top_score`.
    BAD_SCORES = "stage::bad_scores";
    /// Text is to be generated where that cannot be: the data have no prompts, the model labels texts, its methods read whole
    /// texts at once, or a prompt with the new tokens is longer than the model can read.
    NO_PROMPTS = "stage::no_prompts";
    /// A tensor that is to be trained would never receive a gradient, so it would silently stay as it is. The placement
    /// or the choice of methods must change.
    NO_GRADIENT = "stage::no_gradient";
    /// A merge stage folds adapters into weights, and the stage it comes from leaves none that can be folded.
    NOTHING_TO_MERGE = "stage::nothing_to_merge";
    /// Every prediction of an evaluation is of one class, though the labels are of several. The model tells nothing then,
    /// however good an accuracy looks. Train longer or with another learning rate, and look at how many rows each class has
    /// (`peftc check` shows that).
    ONE_PREDICTION = "exec::one_prediction";
    /// Entities are counted among classes that are no tags of entities (`B-PER`, `I-PER`, `O`, …), such as parts of speech: each
    /// word is taken as seqeval takes it. `token_accuracy` is the measure of such classes: `metrics = [token_accuracy]`.
    STRANGE_TAGS = "exec::strange_tags";
}
