"""The settings of a tower that decide what it computes, of the configurations of all hosts.

A setting counts unless it is known to decide nothing, or to be what its library takes where it is left out: a setting
that nobody here knows makes another space rather than pass for none. Whatever changes here changes ids: raise
`space.FORMAT` with it once there are files that say theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .space import plain

_PARTS = {"image": "vision", "text": "text"}
_OPEN_CLIP = {
    "image": {
        "layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224,
        "ls_init_value": None, "attentional_pool": False, "attn_pooler_queries": 256, "attn_pooler_heads": 8,
        "no_ln_pre": False, "pos_embed_type": "learnable", "final_ln_after_pool": False, "pool_type": "tok",
        "output_tokens": False, "timm_model_name": None, "timm_pool": "avg", "timm_proj": "linear",
        "timm_proj_bias": False,
    },
    "text": {
        "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0,
        "ls_init_value": None, "embed_cls": False, "pad_id": 0, "eos_id": 2, "no_causal_mask": False,
        "final_ln_after_pool": False, "pool_type": "argmax", "proj_bias": False, "proj_type": "linear",
        "output_tokens": False, "tokenizer_mode": None, "hf_model_name": None, "hf_proj_type": "mlp",
        "hf_pooler_type": "mean_pooler",
    },
    "both": {
        "quick_gelu": False, "act_kwargs": None, "norm_kwargs": None, "block_type": None, "qk_norm": False,
        "scaled_cosine_attn": False, "scale_heads": False, "scale_attn_inner": False, "scale_attn": False,
        "scale_fc": False,
    },
}  # fmt: skip
"""What open_clip's `CLIPVisionCfg` and `CLIPTextCfg` (3.3) take where a configuration says nothing."""
_NOT_OPEN_CLIP = (
    ("timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout")
    + ("hf_model_pretrained", "hf_tokenizer_name", "tokenizer_kwargs", "text_mask")
)  # fmt: skip
"""Settings of open_clip's towers for training, and for finding weights, configurations and tokenizers."""

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id")
_TRANSFORMERS = {
    **dict.fromkeys(_IDS),
    "is_decoder": False,
    "is_encoder_decoder": False,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
}
"""What transformers takes where a configuration says nothing; its version 4 writes more of it than version 5."""
_NOT_TRANSFORMERS = re.compile(
    "_.*|class|name_or_path|transformers_version|architectures|auto_map|.*implementation|(torch_)?dtype|torchscript"
    "|use_bfloat16|tf_legacy_loss|tokenizer_class|prefix|hf_model_name"  # where it is from, how it is stored
    "|.*drop.*|initializer_.*|init_std|logit_scale_init_value|gradient_.*|use_cache|chunk_size_.*|tie_.*|use_mask_token"
    "|problem_type|num_labels|id2label|label2id|finetuning_task|task_specific_params|classifier_.*"  # training
    "|output_.*|return_dict.*|out_features|out_indices|stage_names|pooler_act|pooler_output_size"  # not the embedding
    "|(max|min)_length|do_sample|early_stopping|num_beams|num_beam_groups|num_return_sequences|temperature|top_[kp]"
    "|typical_p|.*_penalty|.*ngram_size|bad_words_ids|forced_.*|.*suppress_tokens|remove_invalid_values"
    "|decoder_start_token_id|cross_attention_.*|add_cross_attention"  # generation
    "|projection_dim"  # the weights say it, and a model of one tower has it in another place
)
"""Settings of transformers that no embedding depends on. They change with its versions."""


def architecture(host: str, config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """The settings of a tower, of the host's configuration. The same for a model of this tower alone."""
    return {"host": host, **_ARCHITECTURES[host](plain(config), tower)}


def without(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """`values` but for those that are as in `known`: a setting that is not there says the same."""
    return {key: one for key, one in values.items() if key not in known or plain(known[key]) != one}


def _open_clip(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    own = {key: one for key, one in (config.get(f"{_PARTS[tower]}_cfg") or {}).items() if key not in _NOT_OPEN_CLIP}
    shared = {key: config[key] for key in ("embed_dim", "quick_gelu") if key in config}
    text = config.get("hf_text_config") if tower == "text" else None
    found = without({**own, **shared}, {**_OPEN_CLIP[tower], **_OPEN_CLIP["both"]})
    if text is None:
        return found
    found.pop("hf_model_name", None)  # where the configuration is from
    return {**found, "hf_text_config": _of_transformers(text)}


def _timm(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    return without(config, dict.fromkeys(config))


def _transformers(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    own = config.get(f"{_PARTS[tower]}_config")
    return _of_transformers(own if isinstance(own, Mapping) else config)


def _of_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    return without({k: v for k, v in config.items() if not _NOT_TRANSFORMERS.fullmatch(k)}, _TRANSFORMERS)


_ARCHITECTURES: Mapping[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "transformers": _transformers,
}
