"""Models of the zoo by name, in int8: what ships with clipq, is on the hub, or was built on this machine before."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, MissingPackageError
from ..resources import has_resource
from ..zoo import registry

_PRECISION = "int8"


def named_file(name: str) -> Path:
    """The file of the zoo's int8 model called `name`; downloaded, with huggingface_hub, where it is on the hub.

    Raises `UnknownNameError` for a name that is none, `CheckpointError` for a model that only the whole package builds.
    """
    entry = registry.find(name)
    artefact = registry.artefact(entry, _PRECISION)
    if artefact is not None and artefact.embedded and not has_resource(*artefact.path.split("/")):
        raise CheckpointError(
            f"{name} ships with the whole package alone (pip install clipq), not with clipq-runtime; give the path of "
            "a file that clipq.save wrote."
        )
    if artefact is not None and (artefact.embedded or artefact.published):
        try:
            return registry.fetch(artefact)
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f"{name} is on the hub, and {error.name} is not installed: pip install {error.name}. Or download "
                f"{artefact.filename} of {artefact.repo} and give its path."
            ) from error
    built = registry.built_path(entry, _PRECISION)
    if not built.is_file():
        raise CheckpointError(
            f"{name} has to be built once by the whole package (pip install clipq): clipq.load({name!r}, "
            f"precision={_PRECISION!r}); then it is found here, or clipq.save it and give its path."
        )
    return built
