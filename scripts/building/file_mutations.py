"""Changes to a sealed clipq file, for `fuzz_files.py`: of its configuration, its tensors' table, and its bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from clipq.files.header import CONFIG_KEY, DATA_HASH_KEY, HEADER_HASH_KEY, NO_HASH, seal

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 64, 1000, 30_000, 65_536, 10**6, 10**9, 2**31, 2**63, 10**30, -(10**9))
FLOATS = (0.0, -0.0, 0.5, 1e-9, 1e9, 1e300, float("inf"), float("-inf"), float("nan"))
WORDS = (
    "",
    "x" * 5000,
    "\0",
    "int8",
    "os.system",
    "gelu",
    "eager",
    "../../escaped",
    "/etc/passwd",
    "someone/repository",
    "hf-hub:someone/repository",
    "local-dir:/",
    "http://127.0.0.1:9/x",
    "CLIPModel",
    "CLIPVisionModel",
    "SiglipModel",
    "Dinov2Model",
    "SwinModel",
    "BertModel",
    "vit_giant_patch14_clip_224",
    "swin_base_patch4_window7_224",
    "resnet50",
    "linear",
    "embedding",
    "multihead_attention",
)
KEYS = (
    "layers",
    "width",
    "heads",
    "context_length",
    "vocab_size",
    "mlp_ratio",
    "ls_init_value",
    "patch_dropout",
    "attentional_pool",
    "attn_pooler_heads",
    "n_queries",
    "pos_embed_type",
    "block_type",
    "qk_norm",
    "act_kwargs",
    "norm_kwargs",
    "timm_model_name",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "hf_model_name",
    "hf_model_pretrained",
    "hf_tokenizer_name",
    "hf_text_config",
    "custom_text",
    "multimodal_cfg",
    "quick_gelu",
    "num_labels",
    "id2label",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "image_size",
    "patch_size",
    "max_position_embeddings",
    "hidden_act",
    "auto_map",
    "_attn_implementation",
    "quantization_config",
    "backbone",
    "use_timm_backbone",
    "layer_types",
    "rope_scaling",
    "torch_dtype",
    "kind",
    "image_processor_type",
    "group_size",
    "granularity",
)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "x")


@dataclass
class Seed:
    """A file in parts: the tensors' table, clipq's own configuration, other metadata, and the bytes."""

    tensors: dict[str, Any]
    config: Any
    metadata: dict[str, str]
    data: bytearray


def load_seed(path: Path) -> Seed:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + length])
    metadata = entries.pop("__metadata__")
    return Seed(entries, json.loads(metadata.pop(CONFIG_KEY)), metadata, bytearray(raw[8 + length :]))


def mutated(seed: Seed, rng: Random, path: Path) -> list[str]:
    """Write `seed` with one to three changes to `path`, sealed; returns the changes in words."""
    seed = deepcopy(seed)
    kinds = rng.choices(list(_CHANGES), [weight for _, weight in _CHANGES.values()], k=rng.choice((1, 1, 1, 2, 3)))
    said = [f"{kind}: {_CHANGES[kind][0](seed, rng)}" for kind in kinds]
    metadata = {**seed.metadata, DATA_HASH_KEY: NO_HASH, HEADER_HASH_KEY: NO_HASH, CONFIG_KEY: json.dumps(seed.config)}
    text = json.dumps({"__metadata__": metadata, **seed.tensors}, separators=(",", ":")).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + seed.data)
    seal(path)
    return said


def value(rng: Random, depth: int = 0) -> Any:
    """Any JSON value, most likely a number that is too large, or a name that leads elsewhere."""
    kind = rng.randrange(10 if depth < 3 else 7)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 4:
        return rng.choice(FLOATS)
    if kind < 6:
        return rng.choice(WORDS)
    if kind < 7:
        return rng.choice((None, True, False))
    if kind < 9:
        return [value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3, 4, 50)))]
    return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def _places(tree: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        found.append((tree, key))
        _places(tree[key], found)
    return found


def _place(seed: Seed, rng: Random) -> tuple[Any, Any]:
    """A container in the configuration and a key in it; the long list of modules does not drown the rest."""
    places = _places(seed.config, [])
    modules = seed.config.get("recipe", {}).get("modules") if isinstance(seed.config.get("recipe"), dict) else None
    few = [(tree, key) for tree, key in places if tree is not modules]
    return rng.choice(few if few and rng.random() < 0.9 else places or [({"x": 0}, "x")])


def _set(seed: Seed, rng: Random) -> str:
    tree, key = _place(seed, rng)
    tree[key] = value(rng)
    return f"{key} = {str(tree[key])[:80]}"


def _scale(seed: Seed, rng: Random) -> str:
    numbers = [(tree, key) for tree, key in _places(seed.config, []) if type(tree[key]) in (int, float)]
    if not numbers:
        return "nothing"
    tree, key = rng.choice(numbers)
    tree[key] = rng.choice((tree[key] + 1, tree[key] - 1, tree[key] * 2, tree[key] * 1000, tree[key] / 2, -tree[key]))
    return f"{key} = {tree[key]}"


def _delete(seed: Seed, rng: Random) -> str:
    tree, key = _place(seed, rng)
    del tree[key]
    return str(key)


def _insert(seed: Seed, rng: Random) -> str:
    trees = [tree for tree, _ in _places(seed.config, []) if isinstance(tree, dict)] or [seed.config]
    tree, key = rng.choice(trees), rng.choice(KEYS)
    tree[key] = value(rng)
    return f"{key} = {str(tree[key])[:80]}"


def _move(seed: Seed, rng: Random) -> str:
    (tree, key), (other, place) = _place(seed, rng), _place(seed, rng)
    tree[key] = deepcopy(other[place])
    return f"{key} = that of {place}"


def _entry(seed: Seed, rng: Random) -> str:
    if not seed.tensors:
        return "nothing"
    name = rng.choice(list(seed.tensors))
    entry = seed.tensors[name]
    if not isinstance(entry, dict) or not isinstance(entry.get("shape"), list):
        return "nothing"
    kind = rng.randrange(6)
    if kind == 0:
        entry["dtype"] = rng.choice(DTYPES)
    elif kind == 1:
        entry["shape"] = rng.choice((list(reversed(entry["shape"])), [*entry["shape"], 1], [value(rng)], []))
    elif kind == 2:
        entry["data_offsets"] = rng.choice(([value(rng), value(rng)], [0, 0], value(rng)))
    elif kind == 3:
        seed.tensors[rng.choice(("x", "clipq.tokenizer", name + ".x", ""))] = seed.tensors.pop(name)
    elif kind == 4:
        other = rng.choice(list(seed.tensors))
        seed.tensors[name], seed.tensors[other] = seed.tensors[other], seed.tensors[name]
    else:
        seed.tensors[name] = value(rng)
    return f"{name} ({kind})"


def _append(seed: Seed, rng: Random) -> str:
    """A large tensor, so that the file is allowed to ask for more."""
    count = rng.choice((1, 1000, 1 << 20))
    shape = rng.choice(([count], [count, 1], [1, count], [count, 0]))
    size = 0 if 0 in shape else count
    seed.tensors["extra"] = {"dtype": "I8", "shape": shape, "data_offsets": [len(seed.data), len(seed.data) + size]}
    seed.data += bytes(size)
    return str(shape)


def _bytes(seed: Seed, rng: Random) -> str:
    if not seed.data:
        return "nothing"
    start = rng.randrange(len(seed.data))
    junk = rng.choice((rng.randbytes(rng.choice((1, 4, 64, 4096))), b"\xff" * 64, b"\0\0\xc0\x7f" * 16, bytes(64)))
    seed.data[start : start + len(junk)] = junk[: len(seed.data) - start]
    return f"{len(junk)} at {start}"


def _tokenizer(seed: Seed, rng: Random) -> str:
    entry = seed.tensors.get("clipq.tokenizer")
    begin, end = (entry.get("data_offsets") or (0, 0)) if isinstance(entry, dict) else (0, 0)
    if end != len(seed.data) or begin >= end:
        return "nothing"
    try:
        files = json.loads(zlib.decompress(bytes(seed.data[begin:end])))
        name = rng.choice(list(files))
        holder = Seed({}, json.loads(files[name]), {}, bytearray())
        said = _set(holder, rng)
        files[name] = json.dumps(holder.config)
    except (ValueError, TypeError, IndexError, AttributeError, zlib.error):
        return "nothing"
    packed = zlib.compress(json.dumps(files).encode() + (b" " * 10**8 if rng.random() < 0.02 else b""), 9)
    seed.data[begin:] = packed
    entry |= {"shape": [len(packed)], "data_offsets": [begin, begin + len(packed)]}
    return f"{name}: {said}"


_CHANGES: dict[str, tuple[Callable[[Seed, Random], str], int]] = {
    "set": (_set, 30),
    "scale": (_scale, 20),
    "delete": (_delete, 10),
    "insert": (_insert, 20),
    "move": (_move, 10),
    "entry": (_entry, 8),
    "append": (_append, 5),
    "bytes": (_bytes, 5),
    "tokenizer": (_tokenizer, 8),
}
"""Each kind of change and how often it is made."""
