"""Rewrites InternViT weights in another layout, or any checkpoint as plain data."""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from internvl_dense.commands._trust import TIMEOUT
from internvl_dense.errors import UserError, problems

if TYPE_CHECKING:
    import torch

    from internvl_dense.backbones.fitting import NativeView
    from internvl_dense.backbones.internvit import InternViT
    from internvl_dense.backbones.spec import BackboneSpec

DESCRIPTION = """\
Rewrites InternViT weights in another layout, or any checkpoint as plain data.

--to official, --to hf: SRC is a file or folder in any known layout: an official .pth, a folder of the Hugging Face
InternVisionModel, a whole InternVL-Chat or 14B model (only its vision part is kept), a native transformers
InternVLVisionModel, a timm checkpoint, a whole segmentor, or DeepSpeed model states. Values are copied; nothing is
resampled. Blocks that the variant does not use are left out and reported.

--to plain: the same content as tensors, numbers, strings, lists and dicts; other objects are left out and listed. A
.safetensors file holds the state dict alone.

A file that asks for more than plain data is refused. --trust-pickle is the way out: it lists what the file would run,
asks, and opens it once in a process of its own; only plain data comes back."""
DTYPES = {'fp32': 'float32', 'bf16': 'bfloat16', 'fp16': 'float16'}
FILE_SUFFIXES = ('.pth', '.pt', '.safetensors')
HF_NORMS = {'rms': 'rms_norm', 'layer': 'layer_norm'}
PIXEL_MAX = 255  # specs state mean and std for 0..255, preprocessor_config.json for 0..1


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog='convert_checkpoint.py', description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', metavar='SRC', help='weights to read: a file or a folder')
    parser.add_argument('dst', metavar='DST', help=f'hf: a folder; otherwise a file ({", ".join(FILE_SUFFIXES)})')
    parser.add_argument('--to', required=True, choices=('official', 'hf', 'plain'), help='layout to write')
    parser.add_argument('--variant', metavar='NAME', help='what SRC is; found from its names and shapes by default')
    parser.add_argument('--dtype', choices=tuple(DTYPES), help='dtype to write; that of SRC by default')
    parser.add_argument('--force', action='store_true', help='replace DST')
    parser.add_argument('--trust-pickle', action='store_true', help='open SRC even if that runs code from it')
    parser.add_argument('--yes', action='store_true', help='answer the question of --trust-pickle')
    parser.add_argument('--timeout', type=float, default=TIMEOUT, metavar='SECONDS',
                        help=f'how long opening a trusted SRC may take (default: {TIMEOUT:g})')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
        UserError: SRC does not fit the variant or is refused, or DST exists or has the wrong form.
    """
    args = build_parser().parse_args(argv)
    dst = pathlib.Path(args.dst).expanduser()
    _check_options(args)
    _check_destination(dst, args.to, args.force)
    # A run that fails half-way leaves no file that looks complete, and no folder.
    anchor = next(parent for parent in dst.absolute().parents if parent.is_dir())
    with tempfile.TemporaryDirectory(dir=anchor, prefix=f'.{dst.name}.') as folder:
        written = pathlib.Path(folder) / dst.name
        left_out = _convert(args, written, pathlib.Path(folder))
        dst.parent.mkdir(parents=True, exist_ok=True)
        if dst.is_dir():
            shutil.rmtree(dst)
        written.replace(dst)
    if left_out:
        print('\n'.join([f'left out ({len(left_out)}):', *(f'  - {text}' for text in left_out)]))
    print(f'wrote {dst}')
    return 0


def _check_options(args: argparse.Namespace) -> None:
    faults = [f'--to plain takes no --{name}: nothing is looked up or cast'
              for name in ('variant', 'dtype') if args.to == 'plain' and getattr(args, name)]
    if args.yes and not args.trust_pickle:
        faults.append('--yes answers the question of --trust-pickle, which is not given')
    if faults:
        raise UserError(problems('options', faults))


def _check_destination(dst: pathlib.Path, layout: str, force: bool) -> None:
    if layout != 'hf' and dst.suffix not in FILE_SUFFIXES:
        raise UserError(f'{dst}: the {layout} layout is one file; end its name in {", ".join(FILE_SUFFIXES)}')
    if layout == 'hf' and dst.suffix in FILE_SUFFIXES:
        raise UserError(f'{dst}: the hf layout is a folder; give a name without {dst.suffix}')
    if not dst.exists():
        return
    if not force:
        raise UserError(f'{dst} exists; choose another name, or replace it with --force')
    if dst.is_dir() and not (layout == 'hf' and (dst / 'config.json').is_file()):
        raise UserError(f'{dst} is a folder without config.json, so it holds no converted model; --force spares it')


def _convert(args: argparse.Namespace, written: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Writes the result as `written`, with `folder` for other files; returns what was left out of it."""
    source: str | pathlib.Path = args.src
    left_out: list[str] = []
    if args.trust_pickle:
        from internvl_dense.commands._trust import readable

        source, left_out = readable(args.src, folder, args.yes, args.timeout)
    if args.to == 'plain':
        return left_out + _write_plain(source, written)
    module = _read(source, args)
    (_write_hf if args.to == 'hf' else _write_official)(module, written)
    return []


def _read(source: str | pathlib.Path, args: argparse.Namespace) -> InternViT:
    """The backbone in memory, built for the grid and the patch of the file so that nothing is resampled."""
    import torch

    from internvl_dense.backbones.checkpoint import load_backbone_weights
    from internvl_dense.backbones.fitting import native_view
    from internvl_dense.backbones.internvit import InternViT
    from internvl_dense.backbones.weight_files import open_weights

    view = native_view(open_weights(source))
    spec = _as_stored(view, _variant(view, args.variant))
    with torch.device('meta'):
        module = InternViT(spec, attention='eager')
    module.to(getattr(torch, DTYPES[args.dtype]) if args.dtype else view.files.dtype)
    report = load_backbone_weights(module, source)
    report.path = args.src
    print(report)
    return module


def _variant(view: NativeView, name: str | None) -> BackboneSpec:
    from internvl_dense.backbones.fitting import find_fitting
    from internvl_dense.backbones.variants import VARIANTS

    if name:
        return VARIANTS.get(name)
    specs = [VARIANTS.get(row) for row in VARIANTS.list()]
    fitting = find_fitting(view, specs, ())
    if not fitting:
        raise UserError(f'{view.files.path} fits no registered variant; with --variant NAME the differences are listed')
    return VARIANTS.get(fitting[0])


def _as_stored(view: NativeView, spec: BackboneSpec) -> BackboneSpec:
    import math

    kernel, position = view.shapes.get('patch_embed.proj.weight', ()), view.shapes.get('pos_embed', ())
    patch = kernel[-1] if len(kernel) == 4 else spec.patch_size
    side = math.isqrt(max(0, position[1] - int(spec.cls_token))) if len(position) == 3 else spec.grid_size
    return spec.replace(patch_size=patch, image_size=side * patch)


def _write_plain(source: str | pathlib.Path, path: pathlib.Path) -> list[str]:
    """Writes the content of one file as plain data; returns what was left out."""
    from internvl_dense.backbones.weight_files import shard_paths
    from internvl_dense.safe_load import keep_plain, load_file, printable, save_file

    shards = shard_paths(pathlib.Path(source).expanduser())
    if len(shards) > 1:
        raise UserError(f'{source} is {len(shards)} files; --to plain rewrites one, such as {shards[0]}')
    plain, left_out = keep_plain(load_file(shards[0]))
    if path.suffix == '.safetensors':
        state, others = _flat_state(plain)
        _save_safetensors(state, path)
        left_out += others
    else:
        save_file(plain, path)
    return printable(left_out)


def _flat_state(plain: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of the state dict in `plain`, each with memory of its own, and what is not among them."""
    import torch

    from internvl_dense.backbones.weight_files import unwrap

    content, beside = unwrap(plain)
    items = content if isinstance(content, dict) else {}
    state = {str(key): value for key, value in items.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise UserError('there is no state dict in it, which is all that .safetensors can hold; name DST .pth')
    left_out = [f'{name!r} is beside the state dict' for name in beside]
    left_out += [f'{key!r} in the state dict is no tensor' for key in items if str(key) not in state]
    seen: set[int] = set()
    for key, value in state.items():
        memory = value.untyped_storage().data_ptr()
        state[key] = value.clone() if memory in seen else value
        seen.add(memory)
    return state, left_out


def _write_official(module: InternViT, path: pathlib.Path) -> None:
    from internvl_dense.safe_load import save_file

    state = {key: value.detach() for key, value in module.state_dict().items()}
    if path.suffix == '.safetensors':
        _save_safetensors(state, path)
    else:
        save_file(state, path)


def _write_hf(module: InternViT, folder: pathlib.Path) -> None:
    from internvl_dense.backbones.dialects import HF, to_foreign

    config = hf_config(module.spec, str(module.pos_embed.dtype).removeprefix('torch.'))
    state = to_foreign({key: value.detach() for key, value in module.state_dict().items()}, HF)
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')
    (folder / 'preprocessor_config.json').write_text(
        json.dumps(_preprocessor(module.spec), indent=2) + '\n', encoding='utf-8'
    )
    _save_safetensors(state, folder / 'model.safetensors')


def _save_safetensors(state: Mapping[str, torch.Tensor], path: pathlib.Path) -> None:
    from safetensors.torch import save_file

    # Readers of the Hugging Face kind refuse a file that does not say who wrote it.
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata={'format': 'pt'})


def hf_config(spec: BackboneSpec, dtype: str) -> dict[str, Any]:
    """config.json of an InternVisionModel.

    Field names are those of configuration_intern_vit.py in the published folders.

    Raises:
        UserError: The variant has parts that InternVisionModel does not.
    """
    foreign = [
        name for name, used in (
            ('mlp=swiglu', spec.mlp != 'gelu'), ('register tokens', spec.num_register_tokens > 0),
            ('final_norm', spec.final_norm), ('no class token', not spec.cls_token),
        ) if used
    ]
    if foreign:
        raise UserError(f'{spec.name} cannot be an InternVisionModel: {", ".join(foreign)}; use --to official')
    return {
        'architectures': ['InternVisionModel'], 'model_type': 'intern_vit_6b',
        'hidden_size': spec.embed_dim, 'num_hidden_layers': spec.depth, 'num_attention_heads': spec.num_heads,
        'intermediate_size': spec.mlp_dim, 'image_size': spec.image_size, 'patch_size': spec.patch_size,
        'num_channels': 3, 'qkv_bias': spec.qkv_bias, 'qk_normalization': spec.qk_norm,
        'norm_type': HF_NORMS[spec.norm], 'layer_norm_eps': spec.norm_eps, 'hidden_act': 'gelu',
        'initializer_factor': spec.layer_scale_init, 'drop_path_rate': 0.0, 'dropout': 0.0,
        'attention_dropout': 0.0, 'use_flash_attn': False, 'torch_dtype': dtype,
    }


def _preprocessor(spec: BackboneSpec) -> dict[str, Any]:
    return {
        'crop_size': spec.image_size, 'size': spec.image_size, 'do_center_crop': True, 'do_resize': True,
        'do_normalize': True, 'do_convert_rgb': True, 'feature_extractor_type': 'CLIPFeatureExtractor', 'resample': 3,
        'image_mean': [round(value / PIXEL_MAX, 6) for value in spec.pixel_mean],
        'image_std': [round(value / PIXEL_MAX, 6) for value in spec.pixel_std],
    }
