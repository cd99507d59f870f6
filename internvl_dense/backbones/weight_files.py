"""Weight files and folders: what they hold, known before any value is read, and a stream of their tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from internvl_dense.errors import UserError, problems
from internvl_dense.safe_format import FileKind, sniff
from internvl_dense.safe_load import CheckpointNotFoundError, CorruptCheckpointError, load_file

# Top-level keys under which training tools keep the parameters; the first one present is opened.
WRAPPER_KEYS = ('state_dict', 'module', 'model')
INDEX_FILES = ('model.safetensors.index.json', 'pytorch_model.bin.index.json')
SINGLE_FILES = ('model.safetensors', 'pytorch_model.bin')
SUFFIXES = ('.safetensors', '.bin', '.pth', '.pt')
# DeepSpeed's files, deepspeed/runtime/engine.py: `_get_ckpt_name`, `_get_rank_zero_ckpt_name`, `save_checkpoint`. One
# with the whole model for each rank of model parallelism; under ZeRO-3 one with a piece of every tensor for each rank.
DEEPSPEED_WHOLE, DEEPSPEED_PIECE = 'mp_rank_*_model_states.pt', '*zero_pp_rank_*_model_states.pt'
DEEPSPEED_TAG, DEEPSPEED_STEPS = 'latest', 'global_step*'  # file that names the newest step; folders of steps

# Files are read through a memory map, whose pages stay in memory until it is closed. Reopening the file after every
# 1/32 of it keeps them from adding up to a second copy of the weights; smaller steps only cost time.
STEPS, MIN_STEP_BYTES = 32, 2**24

_SAFETENSORS_DTYPES = {
    'F64': torch.float64, 'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16,
    'F8_E4M3': torch.float8_e4m3fn, 'F8_E5M2': torch.float8_e5m2,
    'I64': torch.int64, 'I32': torch.int32, 'I16': torch.int16, 'I8': torch.int8, 'U8': torch.uint8,
    'BOOL': torch.bool,
}
Getter = Callable[[str], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class WeightFiles:
    """The tensors of one file, or of all shards of a folder.

    Args:
        path: What the user named.
        tensors: Shape and dtype for each key.
        shards: The file that holds each key.
        config: Content of the folder's config.json; empty for a single file or a folder without one.
    """

    path: pathlib.Path
    tensors: Mapping[str, TensorInfo]
    shards: Mapping[str, pathlib.Path]
    config: Mapping[str, Any]

    def read(self, keys: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields (key, tensor on the CPU) for `keys`, shard by shard.

        A tensor is valid until the next one is asked for; copy what should stay.
        """
        step = max(MIN_STEP_BYTES, sum(info.size_bytes for info in self.tensors.values()) // STEPS)
        wanted: dict[pathlib.Path, list[str]] = {}
        for key in keys:
            wanted.setdefault(self.shards[key], []).append(key)
        for shard, members in wanted.items():
            # The torch format before 1.6 cannot be mapped: each opening would read the whole file.
            whole = sniff(shard) is FileKind.TORCH_LEGACY
            for group in [members] if whole else self._groups(members, step):
                with _opened(shard) as get:
                    for key in group:
                        yield key, get(key)

    def _groups(self, keys: list[str], step: int) -> Iterator[list[str]]:
        group: list[str] = []
        size = 0
        for key in keys:
            group.append(key)
            size += self.tensors[key].size_bytes
            if size >= step:
                yield group
                group, size = [], 0
        if group:
            yield group

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that most bytes of the floating-point tensors have; fp32 if there are none."""
        sizes: Counter[torch.dtype] = Counter()
        for info in self.tensors.values():
            if info.dtype.is_floating_point:
                sizes[info.dtype] += info.size_bytes
        return sizes.most_common(1)[0][0] if sizes else torch.float32


def open_weights(path: str | pathlib.Path) -> WeightFiles:
    """Lists what a weight file or folder holds, without reading values.

    Args:
        path: A .safetensors or torch file; or a folder with one of them, with shards and their index, or with the
            model states of a DeepSpeed checkpoint, which may also be its parent.

    Raises:
        CheckpointNotFoundError: Nothing there.
        UserError: No weights in the folder, missing shards, or a file without tensors, damaged or unsafe to open.
    """
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise CheckpointNotFoundError(
            f'{path} does not exist (looked in {path.parent.resolve()}); weights are a file or a folder of shards'
        )
    index = _index(path) if path.is_dir() else {}
    tensors: dict[str, TensorInfo] = {}
    shards: dict[str, pathlib.Path] = {}
    for shard in shard_paths(path):
        for key, info in _infos(shard).items():
            if key in tensors:
                raise UserError(f'{path}: {key!r} is both in {shards[key].name} and in {shard.name}')
            tensors[key], shards[key] = info, shard
    absent = [f'{key} is in the index but not in {shard}' for key, shard in index.items() if key not in tensors]
    if absent:
        raise UserError(problems(f'shards of {path}', absent[:10]))
    return WeightFiles(path, tensors, shards, _config(path))


def shard_paths(path: str | pathlib.Path) -> list[pathlib.Path]:
    """The files that hold the weights of `path`, a file or a folder, sorted by name.

    Raises:
        UserError: The folder has no weights, more than one candidate, or lacks shards that its index names.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return [path]
    index = _index(path)
    if index:
        return _indexed_shards(path, sorted(set(index.values())))
    for name in SINGLE_FILES:
        if (path / name).is_file():
            return [path / name]
    deepspeed = _deepspeed_states(_deepspeed_step(path))
    if deepspeed:
        return [deepspeed]
    found = sorted(child for child in path.iterdir() if child.suffix in SUFFIXES and child.is_file())
    if len(found) == 1:
        return found
    names = ', '.join(child.name for child in found) or 'none'
    raise UserError(
        f'{path} is no folder of weights: it needs one of {", ".join((*INDEX_FILES, *SINGLE_FILES))}, '
        f'or exactly one file {", ".join(SUFFIXES)} (found: {names}). Name the file itself.'
    )


def _deepspeed_step(folder: pathlib.Path) -> pathlib.Path:
    """The folder of the newest step, if `folder` is a DeepSpeed checkpoint; otherwise `folder`."""
    latest = folder / DEEPSPEED_TAG
    if latest.is_dir():  # the publisher's training code links the newest checkpoint so
        folder, latest = latest, latest / DEEPSPEED_TAG
    if latest.is_file():
        tag = latest.read_text(encoding='utf-8', errors='replace').strip()
        if tag in ('', '..') or pathlib.PurePath(tag).name != tag or not (folder / tag).is_dir():
            raise UserError(f'{latest} names {tag[:100]!r}, no folder in {folder}. Name the folder of the step itself.')
        return folder / tag
    steps = sorted(child for child in folder.glob(DEEPSPEED_STEPS) if child.is_dir())
    if len(steps) > 1:
        names = ', '.join(step.name for step in steps)
        raise UserError(f'{folder} holds several steps and no file {DEEPSPEED_TAG}: {names}. Name the folder of one.')
    return steps[0] if steps else folder


def _deepspeed_states(folder: pathlib.Path) -> pathlib.Path | None:
    """The file with the whole model in the folder of a DeepSpeed step; None if it is no such folder.

    Raises:
        UserError: The model lies in pieces.
    """
    pieces, whole = sorted(folder.glob(DEEPSPEED_PIECE)), sorted(folder.glob(DEEPSPEED_WHOLE))
    if pieces:
        raise UserError(
            f'{folder} holds ZeRO-3 partitions ({pieces[0].name} and {len(pieces) - 1} more): each has a piece of '
            'every tensor, which cannot be read as one file yet. Join them with the script zero_to_fp32.py that '
            'DeepSpeed left beside the folder, and name its result.'
        )
    if len(whole) > 1:
        raise UserError(f'{folder} holds a model split over {len(whole)} ranks of model parallelism '
                        f'({whole[0].name}, ...), which cannot be read as one file. Save it from one rank.')
    return whole[0] if whole else None


def _index(folder: pathlib.Path) -> dict[str, str]:
    for name in INDEX_FILES:
        if (folder / name).is_file():
            weight_map = _json(folder / name).get('weight_map')
            if not isinstance(weight_map, dict) or not weight_map:
                raise CorruptCheckpointError(f'{folder / name} has no "weight_map"')
            return weight_map
    return {}


def _indexed_shards(folder: pathlib.Path, names: list[str]) -> list[pathlib.Path]:
    # A shard outside the folder would let an index point at any file of the machine.
    outside = [f'{name!r} is not a plain file name' for name in names if pathlib.PurePath(name).name != name]
    absent = [f'{name} is missing' for name in names if not (folder / name).is_file()]
    if outside or absent:
        raise UserError(problems(f'shards of {folder}', outside or absent))
    return [folder / name for name in names]


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptCheckpointError(f'{path} is not readable JSON: {error}') from error
    return content if isinstance(content, dict) else {}


def _config(path: pathlib.Path) -> dict[str, Any]:
    config = path / 'config.json'
    return _json(config) if path.is_dir() and config.is_file() else {}


def _infos(shard: pathlib.Path) -> dict[str, TensorInfo]:
    if sniff(shard) is not FileKind.SAFETENSORS:
        return {key: TensorInfo(tuple(value.shape), value.dtype) for key, value in _torch_state(shard).items()}
    infos = {}
    with _safetensors(shard) as file:
        for key in file.keys():  # noqa: SIM118 - the handle is no mapping
            part = file.get_slice(key)
            dtype = _SAFETENSORS_DTYPES.get(part.get_dtype())
            if dtype is None:
                raise UserError(f'{shard}: {key} has dtype {part.get_dtype()}; known: {", ".join(_SAFETENSORS_DTYPES)}')
            infos[key] = TensorInfo(tuple(part.get_shape()), dtype)
    if not infos:
        raise UserError(f'{shard} holds no tensors')
    return infos


@contextlib.contextmanager
def _opened(shard: pathlib.Path) -> Iterator[Getter]:
    if sniff(shard) is FileKind.SAFETENSORS:
        with _safetensors(shard) as file:
            yield file.get_tensor
    else:
        yield _torch_state(shard).__getitem__


@contextlib.contextmanager
def _safetensors(shard: pathlib.Path) -> Iterator[Any]:
    try:
        file = safe_open(shard, framework='pt')
    except SafetensorError as error:
        raise CorruptCheckpointError(f'{shard} is no complete safetensors file: {error}') from error
    with file as handle:
        yield handle


def _torch_state(shard: pathlib.Path) -> dict[str, torch.Tensor]:
    content, _ = unwrap(load_file(shard))
    if not isinstance(content, Mapping):
        raise UserError(f'{shard} holds {type(content).__name__}; expected a state dict (key -> tensor)')
    state = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise UserError(f'{shard} holds no tensors; top-level keys: {", ".join(map(str, list(content)[:10]))}')
    return state


def unwrap(content: Any) -> tuple[Any, list[str]]:
    """Opens the keys that training tools put around the parameters.

    Returns:
        What lies under them, and the names of what lies beside them.
    """
    beside: list[str] = []
    while isinstance(content, Mapping):
        wrapper = next((key for key in WRAPPER_KEYS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        beside += [str(key) for key in content if key != wrapper]
        content = content[wrapper]
    return content, beside
