"""What transformers' towers have in common when they run as wholes (transformers 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import output_capturing

from ...modules.convolutions import QPatchEmbed
from ...towers.calls import WholeBlock, WholeTower, is_text
from ...towers.finding import blocks_of, only_block
from ...towers.rows import Tower, knows_ids, run_text
from ...towers.transformer import Block
from ..tables import TRANSFORMERS
from .outputs import unfinished

_OUTPUTS = ("output_hidden_states", "output_attentions")


class Recorded:
    """transformers leaves its recording hooks in a module for good; they do nothing until outputs are asked for."""

    recorded_outside: frozenset[str] = frozenset()
    """What may be recorded by hooks while the module runs as a whole: they are around it, not inside."""

    @classmethod
    def is_idle(cls, hook: object) -> bool:
        if getattr(hook, "__module__", None) != output_capturing.__name__:
            return False
        return not set(output_capturing._active_collector.get() or ()) - cls.recorded_outside


class Pretrained(Recorded, WholeTower):
    """A tower that is a `PreTrainedModel`."""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if recorded := getattr(cls, "_can_record_outputs", None):  # transformers looks for it by the name of the class
            dict.__setitem__(output_capturing._CAN_RECORD_REGISTRY, str(cls), recorded)

    def blocks(self, stack: nn.Module) -> tuple[Block, ...] | None:
        return blocks_of(stack, TRANSFORMERS)

    def wanted_whole(self, options: Mapping[str, Any]) -> bool:
        """Whether a call with these options asks for nothing but the embedding and the last hidden state."""
        if not options.get("return_dict", getattr(self.config, "return_dict", True)):
            return False
        inside = any(options.get(name, getattr(self.config, name, False)) for name in _OUTPUTS)
        return not inside and not any(options[name] is not None for name in set(options) - {"return_dict", *_OUTPUTS})


class TextModel(Pretrained):
    """A text model: `forward` from ids to a pooled output, and to hidden states if these are asked for."""

    def whole_text(
        self, ids: Tensor | None, mask: Tensor | None, positions: Tensor | None, options: Mapping[str, Any]
    ) -> Tensor | None:
        """The pooled output [batch, width], or None if the host's own forward has to run."""
        plain = is_text(ids) and positions is None
        if not plain or torch.compiler.is_compiling() or not self.wanted_whole(options):
            return None
        tower = self.usable(ids)
        known = tower is not None and ids.shape[1] <= tower.context and knows_ids(tower, ids)
        fits = known and _sees_all(mask, ids, tower)
        return run_text(tower, ids) if fits else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **options: Any,
    ) -> Any:
        host = super().forward
        pooled = self.whole_text(input_ids, attention_mask, position_ids, options)
        if pooled is None:
            return host(input_ids, attention_mask=attention_mask, position_ids=position_ids, **options)

        def hidden() -> Tensor:
            return host(input_ids, attention_mask=attention_mask).last_hidden_state

        return unfinished(BaseModelOutputWithPooling, hidden, pooler_output=pooled)

    def embed_rows(self, ids: Tensor, positions: Tensor) -> Tensor:
        # As sequences of one token each: the host refuses sequences longer than its context.
        return self.embeddings(input_ids=ids[:, None], position_ids=positions[:, None])[:, 0]


def _sees_all(mask: Tensor | None, ids: Tensor, tower: Tower) -> bool:
    """Whether a padding mask hides nothing from the token that is read: in a causal tower, nothing up to that token."""
    if mask is None:
        return True
    if mask.shape != ids.shape:
        return False
    if not tower.causal:
        return bool(mask.all())
    after = torch.arange(ids.shape[1], device=ids.device) > tower.pool(ids)[:, None]
    return bool((mask.bool() | after).all())


class Layer(Recorded, WholeBlock):
    """An encoder layer."""

    recorded_outside = frozenset({"hidden_states", "_hidden_states_layers"})

    def find(self) -> Block | None:
        return only_block(self, TRANSFORMERS)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        known = attention_mask is None and not options.get("output_attentions")
        y = self.run(hidden_states, bool(options.get("is_causal"))) if known else None
        return super().forward(hidden_states, attention_mask, **options) if y is None else y


def embed_pixels(embeddings: nn.Module) -> Callable[[Tensor], Tensor]:
    """What CLIP's and SigLIP's embeddings do, which ask an int8 layer for its weight, only to read the dtype."""
    size = (embeddings.image_size, embeddings.image_size)

    def embed(pixels: Tensor) -> Tensor:
        if not isinstance(embeddings.patch_embedding, QPatchEmbed) or pixels.shape[2:] != size:
            return embeddings(pixels)
        patches = embeddings.patch_embedding(pixels.to(embeddings.patch_embedding.compute_dtype))
        x = patches.flatten(2).transpose(1, 2)
        if hasattr(embeddings, "class_embedding"):
            x = torch.cat([embeddings.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)
        return x + embeddings.position_embedding(embeddings.position_ids)

    return embed
