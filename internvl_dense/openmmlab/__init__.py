"""The door to OpenMMLab: importing this module registers everything for semantic segmentation.

A config says `custom_imports = dict(imports=['internvl_dense.openmmlab'], allow_failed_imports=False)`; the types are
then found with and without a default scope. Detection registers through `internvl_dense.openmmlab.det`.
"""

from internvl_dense.openmmlab import ops_fallback, owners, quiet_imports

owners.report()  # what is imported next may be a mixture of two packages

with quiet_imports.hidden():
    ops_fallback.install()  # before anything looks operators up
    from internvl_dense.openmmlab import registration

    registration.register()
