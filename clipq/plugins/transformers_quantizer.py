"""clipq as a quantizer of transformers: while it loads a model, and when it saves one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import __version__
from transformers.quantizers.base import HfQuantizer

from ..errors import CheckpointError, QuantizationError
from .transformers_config import ClipqConfig

_UNEXPECTED = "_keys_to_ignore_on_load_unexpected"


class ClipqQuantizer(HfQuantizer):
    """Quantizes the float model that transformers loaded, or reads a file of clipq in its stead.

    In both cases the module is what `clipq.quantize` and `clipq.load` give: their code does the work.
    """

    requires_calibration = False
    quantization_config: ClipqConfig

    def __init__(self, quantization_config: ClipqConfig, **options: Any):
        super().__init__(quantization_config, **options)
        self._file: str | None = None
        self._device: Any = None

    # -- what transformers asks before it builds the model --

    def validate_environment(self, *args: Any, **options: Any) -> None:
        """Raises `QuantizationError` for an old transformers, or a precision that looks at inputs nobody gave."""
        if int(__version__.partition(".")[0]) < 5:
            raise QuantizationError(
                f"transformers {__version__} cannot load models of clipq, which clipq.load reads with this one too; or "
                "upgrade it: pip install -U 'transformers>=5'"
            )
        if not self.pre_quantized:
            self._check_calibration()

    def _check_calibration(self) -> None:
        from ..arithmetic.precisions import per_tower
        from ..methods.steps import is_calibrated

        config = self.quantization_config
        names = [one.name for one in per_tower(config.precision).values() if is_calibrated(one)]
        if names and config.processor is None:
            raise QuantizationError(
                f"{names[0]!r} looks at inputs, and how this model's are prepared is not known here: load the float "
                "model and use clipq.quantize(model, ..., calibration=...), or give ClipqConfig(..., "
                "processor=AutoProcessor.from_pretrained(...)) for clipq's own photos and captions."
            )

    def update_device_map(self, device_map: Any) -> Any:
        """One device: towers are run whole. Raises `QuantizationError` for a map to several."""
        import torch

        if isinstance(device_map, str):  # "auto" and the like
            device_map = {"": "cuda:0" if torch.cuda.is_available() else "cpu"}
        devices = set((device_map or {}).values())
        if len(devices) > 1 or "disk" in devices:
            raise QuantizationError(f'clipq runs a model on one device; give device_map="cuda", not {device_map!r}.')
        self._device = next(iter(devices), None)
        return device_map

    def update_attn_implementation(self, config: Any) -> Any:
        return self._pointed_at_file(config)

    def update_tp_plan(self, config: Any) -> Any:
        """The only method of transformers 5.0 to 5.19 that sees the configuration before the file is looked for."""
        return self._pointed_at_file(config)

    def _pointed_at_file(self, config: Any) -> Any:
        """The folder's model has a name that transformers finds only here: see `clipq.files.header.GUARDED_FILE`."""
        from ..files.header import GUARDED_FILE

        if self.pre_quantized:
            config.transformers_weights = GUARDED_FILE
            if getattr(config, "dtype", None) is None:  # transformers would look for it in the file
                config.dtype = "float32"
        return config

    # -- around its own loading --

    def _process_model_before_weight_loading(self, model: Any, **options: Any) -> None:
        """Where clipq reads the file, leave transformers nothing to load."""
        if not self.pre_quantized:
            return
        from ..files.header import read_header

        self._file = (options.get("checkpoint_files") or [None])[0]
        if self._file is not None:
            read_header(self._file)  # transformers opens it too, and knows no more than that it cannot be read
        for part in (model._modules, model._parameters, model._buffers):
            part.clear()
        model.all_tied_weights_keys = {}
        model._is_hf_initialized = True  # nor anything to initialise
        known = getattr(model, _UNEXPECTED)  # a set or a list, as this version of transformers has it
        setattr(model, _UNEXPECTED, [""] if isinstance(known, list) else {""})  # "" is found in every tensor's name

    def _process_model_after_weight_loading(self, model: Any, **options: Any) -> Any:
        if self.pre_quantized:
            self._read_into(model)
        else:
            self._quantize(model)
        return model

    def _read_into(self, model: Any) -> None:
        import torch

        from ..files.hosted import hosted

        delattr(model, _UNEXPECTED)
        model.config.__dict__.pop("transformers_weights", None)
        if self._file is None:
            raise CheckpointError(f"transformers {__version__} does not say which file it reads; use clipq.load.")
        made = hosted(
            self._file, type(model), model.config, torch.device("cpu" if self._device is None else self._device)
        )
        model.__class__ = type(made)
        model.__dict__.update(made.__dict__)

    def _quantize(self, model: Any) -> None:
        from ..files.saving import quantization_config
        from ..methods.quantization import quantize
        from ..models import Model

        config = self.quantization_config
        wrapped = Model(model, processor=config.processor)
        quantize(wrapped, config.precision, fallback=config.fallback)
        config.label = quantization_config(wrapped)
        config.processor = None  # it has done its part, and is nothing to copy or save

    # -- what it says of itself --

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


def save(module: Any, folder: str | os.PathLike[str]) -> None:
    """`save_pretrained` of a quantized module: see `clipq.files.saving.save_into`."""
    from ..files.saving import save_into
    from ..models import Model

    save_into(Model(module), Path(folder))
