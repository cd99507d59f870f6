"""Finds OpenMMLab packages that are installed twice under one import name.

The forks keep the import names of the originals, so `pip install` of something that needs `mmcv` puts its files over
those of `onedl-mmcv` without a word, and `pip check` is content with the mixture.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from importlib import metadata

from internvl_dense.errors import problems

# Import name -> distributions on the package index that install it, the preferred one first.
PROVIDERS = {
    'mmengine': ('onedl-mmengine', 'mmengine', 'mmengine-lite', 'mmengine-open'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full', 'mmcv-open'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmdet': ('onedl-mmdetection', 'mmdet', 'mmdet-open'),
}
SHOWN = 3  # file names in the message


class DoubleInstallWarning(UserWarning):
    """Two distributions own the same files."""


@dataclasses.dataclass(frozen=True)
class Clash:
    """An import name whose files belong to several distributions.

    Args:
        module: The import name.
        owners: (name, version) of the distributions, the preferred one first.
        files: Files that several of them own with different content, as paths below site-packages.
    """

    module: str
    owners: tuple[tuple[str, str], ...]
    files: tuple[str, ...]

    def __str__(self) -> str:
        names = ' and '.join(f'{name} {version}' for name, version in self.owners)
        rest = ', ...' if len(self.files) > SHOWN else ''
        return (f'{self.module}: {names} are both installed and {len(self.files)} of their files differ '
                f'({", ".join(self.files[:SHOWN])}{rest})')


def find_clashes() -> list[Clash]:
    """Import names that several installed distributions own with different files.

    Only the distributions of `PROVIDERS` are looked up, and their lists of files are read only where there is more than
    one, so that a sound environment costs a few milliseconds.
    """
    return list(_clashes())


def report() -> None:
    """Warns of all clashes in one message with the way out; silent in a sound environment."""
    clashes = find_clashes()
    if clashes:
        text = problems('OpenMMLab packages are installed over each other; what runs is a mixture', map(str, clashes))
        warnings.warn(f'{text}\nWay out: {way_out(clashes)}', DoubleInstallWarning, stacklevel=2)


def way_out(clashes: list[Clash]) -> str:
    """The command that leaves the preferred distribution of each name."""
    remove = [name for clash in clashes for name, _ in clash.owners]
    keep = ['=='.join(clash.owners[0]) for clash in clashes]
    return f'pip uninstall -y {" ".join(remove)} && pip install {" ".join(keep)}'


def _clashes() -> Iterator[Clash]:
    for module, names in PROVIDERS.items():
        found = [distribution for name in names for distribution in _installed(name)]
        if len(found) < 2:
            continue
        hashes: dict[str, set[str]] = {}
        owners: dict[str, str] = {}
        for distribution in found:
            own = _files(distribution, module)
            if own:
                owners[distribution.metadata['Name']] = distribution.version
            for path, digest in own.items():
                hashes.setdefault(path, set()).add(digest)
        differ = tuple(sorted(path for path, digests in hashes.items() if len(digests) > 1))
        if differ:
            yield Clash(module, tuple(owners.items()), differ)


def _installed(name: str) -> list[metadata.Distribution]:
    """The distribution of that name, if it is installed."""
    return list(metadata.distributions(name=name))[:1]  # the first on sys.path is the one that Python imports


def _files(distribution: metadata.Distribution, module: str) -> dict[str, str]:
    """Path and hash of each file of a module, as the installer recorded them."""
    return {str(path): path.hash.value for path in distribution.files or ()
            if path.parts[0] == module and path.hash is not None}
