"""Files of models and of training runs: tensors and JSON, written atomically, never a pickle.

A file is one `torch.save` of plain containers and tensors that `weights_only=True` reads back. A
model's file holds its state dict and a JSON spec: the class and the arguments it was built with.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgm.model import Model
from pgm.schema import Schema

FORMAT = 1


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Writes a model: how to build it, its parameters, its schema and its note.

    The file appears whole or not at all: it is written beside `path` and then renamed.

    Arguments of the constructor that have no JSON form (a module, a function) are left out; such a
    file is read with `load(path, into=model)`.

    Example:
        >>> import tempfile
        >>> from pgm.families.factor import PPCA
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(PPCA(3, 1), f"{folder}/ppca.pt")
        ...     print(type(load(f"{folder}/ppca.pt")).__name__)
        PPCA
    """
    write(path, {"format": FORMAT, "spec": json.dumps(spec(model)), "state": model.state_dict()})


def load(path: str | os.PathLike[str], *, into: Model | None = None) -> Model:
    """Reads a model that `save` wrote.

    Args:
        path: the file.
        into: a model to read the parameters into; by default the model is built anew from the
            spec, for which its class must have been imported.

    Raises:
        ValueError: the file is no model's, its class is not known here, or it does not fit `into`.
    """
    content = read(path)
    if "spec" not in content:
        raise ValueError(f"{path} is no model written by pgm.save (it has {', '.join(content)}).")
    described = json.loads(content["spec"])
    model = build(described) if into is None else into
    try:
        model.load_state_dict(content["state"])
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit a {type(model).__name__}: {error}") from error
    model.note = described["note"]
    if described["schema"] is not None:
        model.schema = Schema.from_dict(described["schema"])
    return model


def spec(model: Model) -> dict[str, Any]:
    """The JSON-able description a model is built from."""
    args, kwargs = model._arguments
    return {
        "class": f"{type(model).__module__}:{type(model).__qualname__}",
        "args": [_plain(value) for value in args],
        "kwargs": {name: _plain(value) for name, value in kwargs.items()},
        "schema": model.schema.to_dict() if model.schema is not None else None,
        "note": model.note,
    }


def build(described: dict[str, Any]) -> Model:
    """The untrained model that a spec describes.

    Raises:
        ValueError: no imported Model class has the name in the spec, or an argument has no JSON
            form.
    """
    known = {f"{cls.__module__}:{cls.__qualname__}": cls for cls in _subclasses(Model)}
    if described["class"] not in known:
        module, _, name = described["class"].partition(":")
        raise ValueError(
            f"The file holds a {name}, whose class is not imported here. Import {module} first, or "
            "build the model yourself and pass it as `load(path, into=model)`. (A file never names "
            "code to run.)"
        )
    args = [_revive(value) for value in described["args"]]
    kwargs = {name: _revive(value) for name, value in described["kwargs"].items()}
    return known[described["class"]](*args, **kwargs)


def write(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Writes plain containers and tensors to `path`, atomically."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `write` wrote; tensors land on the CPU."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def _subclasses(cls: type[Model]) -> list[type[Model]]:
    below = [cls] + [deeper for sub in cls.__subclasses__() for deeper in _subclasses(sub)]
    return list(dict.fromkeys(below))


def _plain(value: Any) -> Any:
    """The JSON form of a constructor's argument."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return {"list": [_plain(v) for v in value], "tuple": isinstance(value, tuple)}
    if isinstance(value, dict):
        return {"dict": [[_plain(k), _plain(v)] for k, v in value.items()]}
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return {"tensor": value.detach().cpu().tolist(), "dtype": dtype}
    if isinstance(value, Model):
        return {"model": spec(value)}
    return {"opaque": type(value).__name__}


def _revive(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "list" in value:
        revived = [_revive(v) for v in value["list"]]
        return tuple(revived) if value["tuple"] else revived
    if "dict" in value:
        return {_revive(k): _revive(v) for k, v in value["dict"]}
    if "tensor" in value:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    if "model" in value:
        return build(value["model"])
    raise ValueError(
        f"The model was built with a {value['opaque']}, which a file cannot hold. Build the model "
        "the same way and pass it as `load(path, into=model)`."
    )
