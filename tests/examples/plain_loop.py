import torch

from internvl_dense import create_backbone

backbone = create_backbone('internvit_debug', frozen=True)
info = backbone.feature_info  # indices, channels and strides of the maps
images, labels = torch.randn(2, 3, 140, 140), torch.randint(0, 6, (2, 140, 140))

decoder = torch.nn.Conv2d(sum(info.channels), 6, kernel_size=1)
optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
losses = []
for _ in range(10):
    scores = decoder(torch.cat(backbone(images), dim=1))
    scores = torch.nn.functional.interpolate(scores, size=labels.shape[-2:], mode='bilinear')
    losses.append(torch.nn.functional.cross_entropy(scores, labels))
    optimizer.zero_grad()
    losses[-1].backward()
    optimizer.step()
