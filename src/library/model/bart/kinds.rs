//! What the model types of BART's kin differ in, as their classes in transformers have it.

/// A model type.
#[derive(Debug)]
pub(super) struct Kind {
    pub model_type: &'static str,
    /// Its class with the head.
    pub class: &'static str,
    /// Whether norms stand before sub-layers and one behind each stack; behind sub-layers otherwise.
    pub pre_norm: bool,
    pub embedding_norms: Norms,
    pub places: Places,
    /// Whether a target is learned behind its own last token.
    pub wraps: bool,
    /// Whether something is added to the logits.
    pub adds_to_logits: bool,
    /// What counts where a key is missing.
    pub missing: Missing,
}

/// Norms of embeddings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Norms {
    None,
    /// Of tokens with their places.
    OfSums,
    /// The same in the encoder; in the decoder of tokens before their places are added.
    OfTargetsAlone,
}

/// What stands for the places of tokens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Places {
    /// A table, from this row on.
    Learned { offset: u32 },
    /// Sines and cosines.
    Waves,
    /// Sines and cosines, counted from behind the padding token's number; padding in a text is not counted.
    BehindPadding,
}

/// Values of keys that a config does not write.
#[derive(Debug)]
pub(super) struct Missing {
    pub activation: &'static str,
    pub attention_dropout: f64,
    pub layerdrop: bool,
    pub scales: bool,
    pub padding: u64,
    pub begin: Option<u64>,
    pub start: Option<u64>,
    /// What the last token is where as many are made as may be.
    pub forced_end: Option<u64>,
}

const BART: Missing = Missing {
    activation: "gelu",
    attention_dropout: 0.0,
    layerdrop: false,
    scales: false,
    padding: 1,
    begin: Some(0),
    start: Some(2),
    forced_end: Some(2),
};

/// All of them.
pub(super) static KINDS: &[Kind] = &[
    Kind {
        model_type: "bart",
        class: "BartForConditionalGeneration",
        pre_norm: false,
        embedding_norms: Norms::OfSums,
        places: Places::Learned { offset: 2 },
        wraps: false,
        adds_to_logits: true,
        missing: BART,
    },
    Kind {
        model_type: "mbart",
        class: "MBartForConditionalGeneration",
        pre_norm: true,
        embedding_norms: Norms::OfSums,
        places: Places::Learned { offset: 2 },
        wraps: true,
        adds_to_logits: true,
        missing: Missing {
            start: None,
            ..BART
        },
    },
    Kind {
        model_type: "marian",
        class: "MarianMTModel",
        pre_norm: false,
        embedding_norms: Norms::None,
        places: Places::Waves,
        wraps: false,
        adds_to_logits: true,
        missing: Missing {
            padding: 58_100,
            begin: None,
            start: Some(58_100),
            forced_end: Some(0),
            ..BART
        },
    },
    Kind {
        model_type: "pegasus",
        class: "PegasusForConditionalGeneration",
        pre_norm: true,
        embedding_norms: Norms::None,
        places: Places::Waves,
        wraps: false,
        adds_to_logits: true,
        missing: Missing {
            padding: 0,
            begin: None,
            start: Some(0),
            forced_end: Some(1),
            ..BART
        },
    },
    Kind {
        model_type: "plbart",
        class: "PLBartForConditionalGeneration",
        pre_norm: false,
        embedding_norms: Norms::OfSums,
        places: Places::Learned { offset: 2 },
        wraps: true,
        adds_to_logits: true,
        missing: Missing {
            attention_dropout: 0.1,
            scales: true,
            start: None,
            ..BART
        },
    },
    Kind {
        model_type: "blenderbot-small",
        class: "BlenderbotSmallForConditionalGeneration",
        pre_norm: false,
        embedding_norms: Norms::OfTargetsAlone,
        places: Places::Learned { offset: 0 },
        wraps: false,
        adds_to_logits: true,
        missing: Missing {
            padding: 0,
            begin: Some(1),
            start: Some(1),
            ..BART
        },
    },
    Kind {
        model_type: "m2m_100",
        class: "M2M100ForConditionalGeneration",
        pre_norm: true,
        embedding_norms: Norms::None,
        places: Places::BehindPadding,
        wraps: false,
        adds_to_logits: false,
        missing: Missing {
            activation: "relu",
            attention_dropout: 0.1,
            layerdrop: true,
            scales: true,
            forced_end: None,
            ..BART
        },
    },
];
