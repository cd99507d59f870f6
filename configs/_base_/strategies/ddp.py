# One process for each device; NCCL with GPUs, gloo without.
strategy = dict(type='DenseDDP')
