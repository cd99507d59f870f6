"""Two named numerics: what a published figure rests on, and what is right.

A model config names one of them, `model=dict(numerics='published')`. A setting that the config spells out by itself
(such as `avg_non_ignore` of a loss) wins over both.
"""

from __future__ import annotations

import dataclasses

from internvl_dense.errors import UserError
from internvl_dense.registry import unknown


@dataclasses.dataclass(frozen=True)
class Numerics:
    """One row: every choice that changes a result.

    The published values are those of the configs and the training code of OpenGVLab/InternVL-MMDetSeg.

    Args:
        name: 'published' or 'fast'.
        decay_tokens: Weight decay on position embedding and class token. The published optimizer meant to spare them
            and looked for names without the prefix `backbone.`, which never match.
        avg_non_ignore: The cross entropy is the mean over labelled pixels; published, ignored ones are counted in.
        frozen_auxiliary_index: Map that the auxiliary head reads beside a frozen trunk (0-based). It is 2 beside a
            trained trunk in both; the published head-tuning config has 1.
        fp32_heads: Heads compute in fp32 also where the rest runs under bf16 autocast.
        published_adapter: ViT-Adapter as published: no class token, and positions that are not resampled where the
            number of tokens is that of the square they were made for.
        whole_batch: A training step must see the batch of the recipe (16), because SyncBN normalises over it.
    """

    name: str
    decay_tokens: bool
    avg_non_ignore: bool
    frozen_auxiliary_index: int
    fp32_heads: bool
    published_adapter: bool
    whole_batch: bool


AUXILIARY_INDEX = 2  # beside a trained trunk; third of the four maps, as in the published full-tuning config
PUBLISHED = Numerics(
    'published', decay_tokens=True, avg_non_ignore=False, frozen_auxiliary_index=1, fp32_heads=True,
    published_adapter=True, whole_batch=True,
)
FAST = Numerics(
    'fast', decay_tokens=False, avg_non_ignore=True, frozen_auxiliary_index=AUXILIARY_INDEX, fp32_heads=False,
    published_adapter=False, whole_batch=False,
)
NUMERICS = {row.name: row for row in (PUBLISHED, FAST)}


def get_numerics(name: str) -> Numerics:
    """The row of that name.

    Raises:
        UserError: There is none.
    """
    if name not in NUMERICS:
        raise UserError(unknown('numerics', name, NUMERICS))
    return NUMERICS[name]
