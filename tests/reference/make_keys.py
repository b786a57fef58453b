"""The keys of config.json and tokenizer_config.json that transformers knows, for the tests of the tables in
src/library/model/keys.rs and src/library/tokenizer/keys.rs.

    python tests/reference/make_keys.py        (transformers 5.24.0)

Config keys are the fields of each config class, its aliases and what it writes. Tokenizer keys are the arguments
of each class, and every name that the base classes take out of their keyword arguments.
"""

import dataclasses
import inspect
import json
import pathlib
import re

import transformers
from transformers import (
    AlbertConfig,
    AlbertTokenizer,
    BartConfig,
    BertConfig,
    BertTokenizer,
    BlenderbotSmallConfig,
    CamembertConfig,
    CamembertTokenizer,
    DebertaV2Config,
    DebertaV2Tokenizer,
    DistilBertConfig,
    ElectraConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    M2M100Config,
    MBartConfig,
    MPNetConfig,
    MPNetTokenizer,
    MarianConfig,
    MistralConfig,
    MT5Config,
    ModernBertConfig,
    Olmo2Config,
    PegasusConfig,
    Phi3Config,
    PLBartConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    RobertaTokenizer,
    SmolLM3Config,
    T5Config,
    XLMRobertaConfig,
    XLMRobertaXLConfig,
    XLMRobertaTokenizer,
    tokenization_utils_base,
    tokenization_utils_tokenizers,
)
from transformers.models.distilbert.tokenization_distilbert import DistilBertTokenizer

CONFIGS = (
    BertConfig, RobertaConfig, XLMRobertaConfig, CamembertConfig, DistilBertConfig, ElectraConfig, AlbertConfig,
    ModernBertConfig, XLMRobertaXLConfig, MPNetConfig, DebertaV2Config,
    LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, GemmaConfig, Gemma2Config, Gemma3TextConfig, Phi3Config,
    SmolLM3Config, Olmo2Config, GraniteConfig, GPTNeoXConfig, GPT2Config,
    T5Config, MT5Config, BartConfig, MBartConfig, MarianConfig, PegasusConfig, PLBartConfig, BlenderbotSmallConfig, M2M100Config,
)
TOKENIZERS = (
    BertTokenizer, DistilBertTokenizer, RobertaTokenizer, XLMRobertaTokenizer, CamembertTokenizer, AlbertTokenizer,
    MPNetTokenizer, DebertaV2Tokenizer,
)
TAKEN = re.compile(r'kwargs\.(?:pop|get|setdefault)\(\s*"(\w+)"|"(\w+)" in (?:init_)?kwargs|init_kwargs\["(\w+)"\]')
# Arguments of `from_pretrained`, which no file can give, and names of the files themselves.
CALLS = {
    "proxies", "subfolder", "token", "revision", "cache_dir", "force_download", "trust_remote_code", "gguf_path",
    "kwargs", "args", "self", "add_special_tokens", "tokenizer", "init_kwargs", "_from_auto", "_from_pipeline",
    "sanitize_control_tokens",
}


def config_keys(kind):
    own = kind()
    keys = {f.name for f in dataclasses.fields(kind)} | set(own.to_dict()) | set(kind.attribute_map)
    return sorted(keys | {"num_labels"})


def tokenizer_keys():
    keys = {"tokenizer_class"}
    for kind in TOKENIZERS:
        keys |= set(inspect.signature(kind.__init__).parameters)
    keys |= set(tokenization_utils_base.PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES)
    base = tokenization_utils_base.PreTrainedTokenizerBase
    fast = tokenization_utils_tokenizers.TokenizersBackend
    for function in (base.__init__, base._from_pretrained, fast.__init__, fast.convert_to_native_format):
        for names in TAKEN.findall(inspect.getsource(function)):
            keys |= {name for name in names if name}
    return sorted(keys - CALLS)


def main():
    here = pathlib.Path(__file__).parent
    document = {
        "versions": {"transformers": transformers.__version__},
        "config.json": {kind.model_type: config_keys(kind) for kind in CONFIGS},
        "tokenizer_config.json": tokenizer_keys(),
    }
    (here / "keys.json").write_text(json.dumps(document, indent=1) + "\n")


main()
