"""Rewrites InternViT weights in another layout."""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from internvl_dense.errors import UserError

if TYPE_CHECKING:
    import torch

    from internvl_dense.backbones.fitting import NativeView
    from internvl_dense.backbones.internvit import InternViT
    from internvl_dense.backbones.spec import BackboneSpec

DESCRIPTION = """\
Rewrites InternViT weights in another layout.

SRC is a file or folder in any known layout: an official .pth, a folder of the Hugging Face InternVisionModel, a whole
InternVL-Chat or 14B model (only its vision part is kept), a native transformers InternVLVisionModel, a timm
checkpoint, or a whole segmentor. Values are copied; nothing is resampled. Blocks that the variant does not use are
left out and reported."""
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
    parser.add_argument('dst', metavar='DST', help=f'official: a file ({", ".join(FILE_SUFFIXES)}); hf: a folder')
    parser.add_argument('--to', required=True, choices=('official', 'hf'), help='layout to write')
    parser.add_argument('--variant', metavar='NAME', help='what SRC is; found from its names and shapes by default')
    parser.add_argument('--dtype', choices=tuple(DTYPES), help='dtype to write; that of SRC by default')
    parser.add_argument('--force', action='store_true', help='replace DST')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
        UserError: SRC does not fit the variant, or DST exists or has the wrong form.
    """
    args = build_parser().parse_args(argv)
    dst = pathlib.Path(args.dst).expanduser()
    _check_destination(dst, args.to, args.force)
    module = _read(args.src, args.variant, args.dtype)
    write = _write_hf if args.to == 'hf' else _write_official
    dst.parent.mkdir(parents=True, exist_ok=True)
    # A run that fails half-way leaves no file that looks complete.
    with tempfile.TemporaryDirectory(dir=dst.parent, prefix=f'.{dst.name}.') as folder:
        written = pathlib.Path(folder) / dst.name
        write(module, written)
        if dst.is_dir():
            shutil.rmtree(dst)
        written.replace(dst)
    print(f'wrote {dst}')
    return 0


def _check_destination(dst: pathlib.Path, layout: str, force: bool) -> None:
    if layout == 'official' and dst.suffix not in FILE_SUFFIXES:
        raise UserError(f'{dst}: the official layout is one file; end its name in {", ".join(FILE_SUFFIXES)}')
    if layout == 'hf' and dst.suffix in FILE_SUFFIXES:
        raise UserError(f'{dst}: the hf layout is a folder; give a name without {dst.suffix}')
    if not dst.exists():
        return
    if not force:
        raise UserError(f'{dst} exists; choose another name, or replace it with --force')
    if dst.is_dir() and not (layout == 'hf' and (dst / 'config.json').is_file()):
        raise UserError(f'{dst} is a folder without config.json, so it holds no converted model; --force spares it')


def _read(src: str, variant: str | None, dtype: str | None) -> InternViT:
    """The backbone in memory, built for the grid and the patch of the file so that nothing is resampled."""
    import torch

    from internvl_dense.backbones.checkpoint import load_backbone_weights
    from internvl_dense.backbones.fitting import native_view
    from internvl_dense.backbones.internvit import InternViT
    from internvl_dense.backbones.weight_files import open_weights

    view = native_view(open_weights(src))
    spec = _as_stored(view, _variant(view, variant))
    with torch.device('meta'):
        module = InternViT(spec, attention='eager')
    module.to(getattr(torch, DTYPES[dtype]) if dtype else view.files.dtype)
    print(load_backbone_weights(module, src))
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
