"""Trees and weights as safetensors files: written whole or not at all, checked when read, unable to run code.

A checkpoint is a tree (dicts, lists, tuples, numbers, strings, None, tensors). Its tensors are numbered and stored as
they are; its structure stands as JSON in the file's metadata, beside a sha256 over everything else in the file.
"""

import hashlib
import json
import math
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as render_safetensors
from torch import Tensor, nn

from birthplace_lm.replacing import replace_file

_DIGEST = "sha256"
_DTYPES = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool}
    | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8}
)


class DamagedCheckpointError(RuntimeError):
    """The file is truncated, altered or of another kind; nothing of it was used."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(
            f"{path}: damaged or not a file of ours ({reason}). Delete it and run the same command again: "
            "the run goes on from the checkpoint before it, or repeats the stage when there is none."
        )


class ArchitectureMismatchError(RuntimeError):
    """The weights belong to a model of another shape; nothing was loaded."""


# ---------------------------------------------------------------------------------------------------------------- trees


def save_tree(path: str | Path, tree: Any) -> None:
    """Writes a tree as one safetensors file; until the new file is complete on disk the old one stays.

    Tensors are stored as copies, so views, transposes and shared memory are all fine; they come back on the CPU.
    Raises TypeError that names the place in the tree for anything that is not plain data, e.g. an omegaconf container.
    """
    tensors: dict[str, Tensor] = {}
    structure = _encode(tree, "", tensors)
    _write_file(Path(path), tensors, {"tree": json.dumps(structure)})


def load_tree(path: str | Path) -> Any:
    """Reads what `save_tree` wrote, equal to the last bit, or raises DamagedCheckpointError."""
    path = Path(path)
    tensors, metadata = _read_file(path)
    if "tree" not in metadata:
        raise DamagedCheckpointError(path, "it holds no tree; files with weights alone are read by load_weights")
    return _decode(json.loads(metadata["tree"]), tensors)


def _encode(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """The tree as JSON, e.g. {1: (2.5, inf)} -> {"dict": [[1, {"tuple": [2.5, {"float": "7ff0000000000000"}]}]]}."""
    # Exact types: a subclass (an enum, a named tuple, a numpy float) would come back as something else.
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is float:  # JSON has no inf and nan; the eight bytes keep even the payload of a nan
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, Tensor):
        return {"tensor": _number(value, where, tensors)}
    if kind is list:
        return [_encode(item, f"{where}/{i}", tensors) for i, item in enumerate(value)]
    if kind is tuple:
        return {"tuple": [_encode(item, f"{where}/{i}", tensors) for i, item in enumerate(value)]}
    if kind in (dict, OrderedDict):
        return {"dict": [[_encode_key(k, where), _encode(v, f"{where}/{k}", tensors)] for k, v in value.items()]}
    raise _unknown(where, value)


def _encode_key(key: Any, where: str) -> Any:
    if key is not None and type(key) not in (bool, int, str, float):
        raise _unknown(f"{where}/{key!r} (a key)", key)
    return _encode(key, where, {})


def _number(tensor: Tensor, where: str, tensors: dict[str, Tensor]) -> str:
    if tensor.layout is not torch.strided or tensor.dtype not in _DTYPES:
        place = where.lstrip("/") or "the tree"
        raise TypeError(f"{place}: got a tensor of {tensor.dtype}, {tensor.layout}, which no file can hold; convert it")
    name = str(len(tensors))
    tensors[name] = tensor
    return name


def _unknown(where: str, value: Any) -> TypeError:
    return TypeError(
        f"{where.lstrip('/') or 'the tree'}: got {type(value)}; a checkpoint holds only numbers, strings, None, "
        "tensors, lists, tuples and dicts, so convert this to one of them"
    )


def _decode(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "dict":
        return {_decode(key, tensors): _decode(value, tensors) for key, value in content}
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    return tensors[content]


# ---------------------------------------------------------------------------------------------------------------- files


def _write_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    copies = {name: _plain_copy(tensor) for name, tensor in tensors.items()}
    digest = _digest_of(copies, metadata)
    replace_file(path, _metadata_sorted(render_safetensors(copies, {**metadata, _DIGEST: digest})))


def _metadata_sorted(data: bytes) -> bytes:
    """The same file, but the same bytes for the same content: safetensors writes its metadata in random order."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = _header_text(header)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _header_text(header: Mapping[str, Any]) -> bytes:
    """A header as it is written, without blanks but those behind it, where the tensors' bytes begin aligned."""
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    data = path.read_bytes()  # read once, so that what was checked is what is used
    try:
        tensors = parse_safetensors(data)
        (header_length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + header_length])
        metadata = dict(header.get("__metadata__", {}))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DamagedCheckpointError(path, f"{len(data)} bytes that are not safetensors: {error}") from error
    if _header_text(header) != data[8 : 8 + header_length]:  # the digest is over what is read, so blanks are not in it
        raise DamagedCheckpointError(path, "its header is not as it was written")
    expected = metadata.pop(_DIGEST, "none")
    if (found := _digest_of(tensors, metadata)) != expected:
        raise DamagedCheckpointError(path, f"sha256 of the content {found[:12]}…, stored {expected[:12]}…")
    return tensors, metadata


def _plain_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().resolve_neg().to("cpu", copy=True).contiguous()


def _digest_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------------- weights


def save_weights(path: str | Path, model: nn.Module, metadata: dict[str, str]) -> None:
    """Writes the state dict under its own names, for any safetensors reader, with free text beside it."""
    if _DIGEST in metadata:
        raise ValueError(f"metadata: the key {_DIGEST!r} is taken by the checksum")
    _write_file(Path(path), model.state_dict(), metadata)


def load_weights(path: str | Path, model: nn.Module) -> dict[str, str]:
    """Fills the model from a file of `save_weights` and returns the file's metadata; names and shapes must agree.

    Raises ArchitectureMismatchError with a table of what differs, before anything is changed.
    """
    tensors, metadata = _read_file(Path(path))
    in_file = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    in_model = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if in_file != in_model:
        raise ArchitectureMismatchError(f"{path} does not fit the model:\n{_difference(in_file, in_model)}")
    model.load_state_dict(tensors)
    return metadata


def _difference(in_file: Mapping[str, tuple[int, ...]], in_model: Mapping[str, tuple[int, ...]], most: int = 12) -> str:
    names = [
        name for name in [*in_model, *sorted(set(in_file) - set(in_model))] if in_file.get(name) != in_model.get(name)
    ]
    rows = [("name", "in file", "in model")]
    rows += [(name, str(in_file.get(name, "–")), str(in_model.get(name, "–"))) for name in names[:most]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    lines = ["  " + "  ".join(row).rstrip() for row in padded]
    if len(names) > most:
        lines.append(f"  … and {len(names) - most} more")
    return "\n".join(lines)
