//! Diagnostic codes of the planner: what is wrong once models and data are looked at.

crate::codes! {
    /// Stages form a circle: each waits for the result of another. Follow the names in the message and cut one `from`.
    CYCLE = "plan::cycle";
    /// The stage named in `from` leaves no model: an `eval` stage leaves metrics and predictions only. Name the stage that
    /// trained or merged the model.
    WRONG_PORT = "plan::wrong_port";
    /// A model's files cannot be had or make no sense: a missing config.json, an architecture that is not built yet, no
    /// safetensors. The message names the file and what to do.
    BAD_MODEL = "plan::bad_model";
    /// The data cannot be read: a missing file or split, a ragged row, a column that is not there, a label that is not a
    /// number where one is wanted. File and line are in the message.
    BAD_DATA = "plan::bad_data";
    /// The tokenizer cannot be had or read, or knows more tokens than the model has embeddings for.
    BAD_TOKENIZER = "plan::bad_tokenizer";
    /// A chat template cannot be read or rendered: it is no valid Jinja, uses what is not built, or refuses a conversation.
    /// The message names the line of the template, or the row of the data and the turn.
    BAD_TEMPLATE = "plan::bad_template";
    /// A key of config.json or tokenizer_config.json is not followed: it is not known here, or the tokenizer's class passes
    /// it over. Where it changes what the model computes elsewhere, results differ.
    UNREAD_KEY = "plan::unread_key";
    /// A folder of sentence-transformers has modules behind its model, such as Pooling, Dense and Normalize. The model is read,
    /// and they are not: what is trained or scored reads its states by a head of its own.
    UNUSED_MODULE = "plan::unused_module";
    /// The tokenizer's files say different things. What counts is what transformers takes: a class such as BertTokenizer makes
    /// its normalizer, pre-tokenizer and post-processor by tokenizer_config.json, and only the vocabulary and the added tokens
    /// come from tokenizer.json; PreTrainedTokenizerFast takes tokenizer.json as it is.
    TOKENIZER_DIFFERS = "plan::tokenizer_differs";
    /// The tokenizer lowers the case, and its vocabulary has entries with capitals, which no text can hold then: the model is
    /// probably a cased one. Write "do_lower_case": false into tokenizer_config.json if it is.
    CASED_VOCABULARY = "plan::cased_vocabulary";
    /// A model is to be scored with a head that its files do not hold, or that has another number of scores: the numbers would
    /// be random. Train a head, name a model with one, or write `head = random` in the `eval` stage.
    NO_HEAD = "plan::no_head";
    /// A tokenizer puts the second text of a pair into a segment for which the model has no embedding (`type_vocab_size`). Take
    /// the model's own tokenizer, or put both texts into a prompt.
    NO_SEGMENT = "plan::no_segment";
    /// A model or an adapter is to be exported as something that has no name for a part of it: a kind of block, a way to
    /// split texts, a tensor that was trained. Name another format, or merge into a folder.
    NO_NAME = "plan::no_name";
    /// The placement is valid, but no linear map of this model matches it: the method would change nothing.
    EMPTY_PLACEMENT = "plan::empty_placement";
    /// Two adapters would wrap the same linear map. Narrow one of the placements.
    OVERLAPPING_ADAPTERS = "plan::overlapping_adapters";
    /// A method is named that has no effect beside the others: `full` trains everything already, for example. Or it is
    /// placed on the task head, which is always trained as a whole.
    METHOD_WITHOUT_EFFECT = "plan::method_without_effect";
    /// Text is cut after `max_length` tokens, and the model cannot read that many.
    LENGTH_TOO_LARGE = "plan::length_too_large";
    /// The stage this one comes from leaves an adapter, and this stage names other methods. Fold the adapter in first: put
    /// a `merge` stage between, or leave the key away to go on with the same adapter.
    UNMERGED_ADAPTER = "plan::unmerged_adapter";
    /// The objective is learned on a head that the model does not have: an encoder has none for the next token, a decoder
    /// none for masked tokens. Name another objective or another model.
    UNFIT_MODEL = "plan::unfit_model";
    /// No token of any text of a split is learned: each is one token long. Check `text` and the files.
    NOTHING_LEARNED = "plan::nothing_learned";
    /// A classification needs at least two classes, and the split has fewer. Check `label`, or write
    /// `objective = regress` to learn a number.
    BAD_LABELS = "plan::bad_labels";
    /// The hub is out of reach, so the model is planned from the config.json that the recipe names. Sizes and memory are
    /// right if it is the model's own; whether its weights are there is not checked.
    ASSUMED_MODEL = "plan::assumed_model";
    /// The data are not at hand, so the estimate takes every text as `max_length` tokens long and the labels are not checked.
    ASSUMED_LENGTHS = "plan::assumed_lengths";
    /// The tokens of a large split cannot be kept for later runs, so they are held in memory.
    UNKEPT_TOKENS = "plan::unkept_tokens";
    /// All rows of a split are of one class, though its data have several. A model that knows nothing is then always right,
    /// and one that learns from it knows only that. Check `label`, the files, and what `take` keeps.
    ONE_CLASS = "plan::one_class";
    /// A class is called `nan`, `null`, `none` or the like. Programs write such a word where there is nothing, so that rows
    /// without a label have become a class. Leave them out of the file. If it is a class indeed, name all of them:
    /// `labels = […]`.
    NULL_CLASS = "plan::null_class";
    /// Splits share rows: the same texts are learned from and scored, or two splits of a data set have them. Scores are too
    /// good then, and tell nothing about new texts. Keep each text in one split.
    SHARED_ROWS = "plan::shared_rows";
    /// Rows of a class are scored, and the training has none of it to learn from. Check how the files were split.
    UNSEEN_CLASS = "plan::unseen_class";
    /// One class has more than twenty times the rows of another, and accuracy is the metric. A model that always says the
    /// frequent class is nearly always right. Look at `f1_macro` or `matthews` too, or at the `f1` of the rare class
    /// (`positive = …`).
    IMBALANCED_CLASSES = "plan::imbalanced_classes";
    /// The rows of a file stand class after class, and `take` keeps the first of them, so that classes are missing or have
    /// too few. Write `shuffle = 1` beside `take`.
    SORTED_LABELS = "plan::sorted_labels";
    /// One token in twenty, or more, is unknown to the tokenizer. The texts are in another language or encoding than it was
    /// made for, or it belongs to another model. The model reads all unknown tokens as one and the same.
    UNFIT_TOKENIZER = "plan::unfit_tokenizer";
    /// The identity of an input could not be had (offline, or a hub that does not answer), so the stage has no fingerprint
    /// and its result cannot be looked up in the store.
    UNKNOWN_IDENTITY = "plan::unknown_identity";
    /// A prompt cannot be used: its template is malformed, names a column that is not among the data's `text`, lacks the
    /// mask that its objective needs, or leaves no room for the text.
    BAD_PROMPT = "plan::bad_prompt";
    /// A prompt's demonstrations cannot be shown: they need a verbalizer, a mask and a split of labelled examples, in each
    /// class one more than are shown, and an objective that reads label words; or there is no room for them within
    /// `max_length`.
    BAD_DEMONSTRATIONS = "plan::bad_demonstrations";
    /// The verbalizer gives each class a word or several, and each word must be one token of the model that no other class has:
    /// the mask holds one token.
    BAD_LABEL_WORD = "plan::bad_label_word";
    /// What a `choose_prompt` stage lists leaves no choice: one candidate in all, a template twice, classes without different
    /// words. Or there are too many candidates, or the model of a stage that takes the choice reads the words differently.
    BAD_CANDIDATES = "plan::bad_candidates";
    /// A peft adapter that a stage starts from cannot be read, uses something that is not built yet, lacks tensors that its
    /// config promises, or was made for another model: a tensor is none of this model's, or has another shape.
    BAD_ADAPTER = "plan::bad_adapter";
    /// A peft adapter that a stage starts from holds tensors of a head that this stage does not have: those of a
    /// classification, say, where masked tokens are learned. They are left out; all others are used.
    UNREAD_TENSORS = "plan::unread_tensors";
    /// A peft adapter changes nothing: every tensor that would add something holds the numbers that it began with, and no
    /// module is saved whole. It was saved before it was trained, or by a training that went wrong.
    IDLE_ADAPTER = "plan::idle_adapter";
    /// Two stages would copy their merged models into one directory, and the last one would be left there. In a sweep these
    /// are variants of one stage. Remove `to`, or give each its own. Or the directory is one that the recipe reads a model,
    /// data or an adapter from: name another.
    SHARED_TARGET = "plan::shared_target";
    /// `precision = tf32` is asked for, and where the recipe is planned to run there is none: on the processor, or on a card
    /// older than Ampere. Products are taken in f32 there, which is more exact and no faster than `precision = f32`.
    NO_TF32 = "plan::no_tf32";
    /// A training cannot be shared among several processes (`--ranks`): it chooses by what one of them alone has seen, or it
    /// is planned for a GPU. The message says which. Run it without `--ranks`.
    NOT_SHARED = "plan::not_shared";
    /// The plan is for a GPU, and a stage uses an op as no kernel does it: heads wider than 256 columns, for example. The
    /// message names the op and what there is no kernel for, the place is the model or adapter that needs it. Run that stage
    /// with `--device cpu`; a stage that is finished in the store is not refused, so the others can run on the GPU then.
    NO_KERNEL = "plan::no_kernel";
}
