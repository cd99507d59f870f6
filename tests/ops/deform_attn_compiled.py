"""A program that compiles the Triton kernels for a GPU that need not be there."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from internvl_dense.ops import deform_attn_triton_kernels as kernels

COMMON = {'table': '*i32', 'queries': 'i32', 'length': 'i32', 'heads': 'i32', 'channels': 'i32'}
FORWARD = ('value', 'locations', 'weights', 'out')
BACKWARD = ('value', 'locations', 'weights', 'grad_out', 'grad_value', 'grad_locations', 'grad_weights')
WIDE = {'locations', 'weights', 'grad_value', 'grad_locations', 'grad_weights'}  # fp32 beside half-precision values
CAPABILITY = 80  # A100
THREADS = 32  # of a warp

for kind in ('bf16', 'fp32', 'fp64'):
    constants = {'levels': 3, 'points': 4, 'block': 16, 'width': 32, 'double': kind == 'fp64'}
    for kernel, names in ((kernels.forward_kernel, FORWARD), (kernels.backward_kernel, BACKWARD)):
        tensors = {name: '*fp32' if kind == 'bf16' and name in WIDE else f'*{kind}' for name in names}
        source = ASTSource(fn=kernel, signature={**tensors, **COMMON, **dict.fromkeys(constants, 'constexpr')},
                           constexprs=constants)
        assert triton.compile(source, target=GPUTarget('cuda', CAPABILITY, THREADS)).asm['cubin']
print('compiled')
