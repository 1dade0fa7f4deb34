"""The part of the network that is trained: blocks, mean pooling, standardised features, dropout, a linear head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

Floats32 = npt.NDArray[np.float32]

# Inverse regularisation strength per image of the head's starting point, as scikit-learn counts it.
HEAD_C = 0.003


class Classifier(nn.Module):
    """`body` (features or images in, [N, channels, H, W] out) and a linear head over its pooled, standardised channels."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, body: nn.Module, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.dropout = dropout
        self.head = nn.Linear(channels, classes)

    def pooled(self, inputs: Tensor) -> Tensor:
        """Mean of each channel over the image: [N, channels]."""
        output: Tensor = self.body(inputs)
        return output.mean((2, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Class scores [N, classes]."""
        standardised = (self.pooled(inputs) - self.mean) / self.deviation
        scores: Tensor = self.head(functional.dropout(standardised, self.dropout, self.training))
        return scores

    def start_head(self, pooled: Tensor, targets: Tensor) -> None:
        """Set standardisation and head from pooled training features [N, channels] and class indices [N] (both on the CPU): a logistic regression, so that
        fine-tuning starts from a classifier and not from noise."""
        mean, deviation = pooled.mean(0), pooled.std(0).clamp_min(1e-4)
        weight, bias = logistic_regression((pooled - mean) / deviation, targets, self.head.out_features, HEAD_C)
        with torch.no_grad():
            self.mean.copy_(mean)
            self.deviation.copy_(deviation)
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def folded_head(self) -> tuple[Floats32, Floats32]:
        """Weight [classes, channels] and bias [classes] of one linear layer that equals standardisation and head."""
        weight = self.head.weight.detach().double() / self.deviation.double()
        bias = self.head.bias.detach().double() - weight @ self.mean.double()
        return weight.float().cpu().numpy(), bias.float().cpu().numpy()


def logistic_regression(features: Tensor, targets: Tensor, classes: int, c: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression of features [N, channels]: the weight [classes, channels] and bias [classes] that minimise
    c * (summed cross-entropy) + |weight|^2 / 2, by L-BFGS from zero."""
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = c * functional.cross_entropy(features @ weight.T + bias, targets, reduction="sum") + 0.5 * (weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
