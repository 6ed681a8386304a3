"""What turns an item's vector into its semantic id: the part that RQ-VAE and residual k-means share, and the latter."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from genrec.modules._checks import check_sizes
from genrec.modules.quantisation import ResidualQuantiser

Follow = Callable[[int, int], None]  # told of each step: its number, from 1, and how many there are
ROWS_AT_ONCE = 8192  # vectors that are encoded in one go; bounds the memory


class Tokenizer(nn.Module, ABC):
    """Standardises vectors, encodes them, and takes the codes nearest to what comes out.

    Called as a module it gives the codes; this is what is exported, in float32, since coarser numbers choose other codes.

    Args:
        input_dim: width W of the item vectors.
        quantiser: of the encoded vectors.

    Raises:
        ValueError: if ``input_dim`` is below 1.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, input_dim: int, quantiser: ResidualQuantiser) -> None:
        super().__init__()
        check_sizes(input_dim=input_dim)
        self.input_dim = input_dim
        self.quantiser = quantiser
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("scale", torch.ones(()))

    @abstractmethod
    def encode(self, vectors: Tensor) -> Tensor:
        """(B, W) item vectors -> (B, D), what is quantised."""

    @abstractmethod
    def fit_vectors(self, vectors: Tensor, seed: int = 0, follow: Follow | None = None) -> None:
        """Learns from the item vectors, on their device, and ends in eval mode.

        Args:
            vectors: float32 (V, W), V at least ``num_codes``.
            seed: of everything random from here on.
            follow: told of each step, where there are steps.

        Raises:
            ValueError: if the vectors have another shape.
        """

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, W) item vectors -> int64 (B, levels)."""
        return self.quantiser.codes(self.encode(vectors))

    @torch.no_grad()
    def codes(self, vectors: Tensor) -> Tensor:
        """The codes of any number of items, some thousands at a time.

        Args:
            vectors: float32 (V, W).

        Returns:
            int64 (V, levels).

        Raises:
            ValueError: if the vectors have another width.
        """
        self.check(vectors)
        return torch.cat([self(part) for part in torch.split(vectors, ROWS_AT_ONCE)])

    def standardise(self, vectors: Tensor) -> Tensor:
        """Vectors less their mean, over one scale for all widths, so that distances keep their proportions."""
        return (vectors - self.mean) * self.scale

    def fit_scale(self, vectors: Tensor) -> None:
        """Sets mean and scale so that the standardised vectors have mean 0 and, over all widths together, variance 1."""
        self.check(vectors)
        self.mean.copy_(vectors.mean(dim=0))
        variance = (vectors - self.mean).square().mean()
        self.scale.copy_(variance.clamp(min=1e-12).rsqrt())

    def check(self, vectors: Tensor) -> None:
        """Raises ValueError unless the vectors are (V, W), V at least 1."""
        if vectors.dim() != 2 or vectors.shape[1] != self.input_dim or not len(vectors):
            raise ValueError(f"vectors must be (items, input_dim = {self.input_dim}), got {tuple(vectors.shape)}")


@dataclass(frozen=True)
class ResidualKMeansConfig:
    """Settings of ``ResidualKMeans``.

    Args:
        input_dim: width W of the item vectors.
        levels: codes an item gets.
        num_codes: codes K of a level.
        iterations: of k-means on each level.
    """

    input_dim: int
    levels: int = 3
    num_codes: int = 256
    iterations: int = 20


class ResidualKMeans(Tokenizer):
    """K-means of the vectors, then of what is left of them, and so on: no network, a matter of seconds.

    Args:
        input_dim: width W of the item vectors.
        levels: codes an item gets.
        num_codes: codes K of a level.
        iterations: of k-means on each level.

    Raises:
        ValueError: if a size is below 1.

    >>> ResidualKMeans(6, levels=2, num_codes=3)(torch.zeros(7, 6)).shape
    torch.Size([7, 2])
    """

    def __init__(self, input_dim: int, *, levels: int = 3, num_codes: int = 256, iterations: int = 20) -> None:
        super().__init__(input_dim, ResidualQuantiser(input_dim, levels=levels, num_codes=num_codes))
        check_sizes(iterations=iterations)
        self.config = ResidualKMeansConfig(input_dim, levels, num_codes, iterations)
        self.arguments = asdict(self.config)

    def encode(self, vectors: Tensor) -> Tensor:
        """(B, W) item vectors -> (B, W), standardised."""
        return self.standardise(vectors)

    def fit_vectors(self, vectors: Tensor, seed: int = 0, follow: Follow | None = None) -> None:
        """Sets the codebooks; see ``Tokenizer.fit_vectors``."""
        self.fit_scale(vectors)
        generator = torch.Generator().manual_seed(seed)
        self.quantiser.initialise(self.encode(vectors), generator, self.config.iterations)
        self.eval()
