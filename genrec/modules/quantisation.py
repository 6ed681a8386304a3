"""Residual quantisation (Lee et al. 2022, section 3.1): a vector as a sum of codes, one a level, each nearest to what is left.

A level's code is chosen for the residual of the levels before it, from which codes are subtracted as constants: with the
residual's own gradient, as straight-through outputs have it, the commitment of every level but the first would pull nothing.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.modules._checks import check_sizes
from genrec.modules.kmeans import POINTS_A_CODE, kmeans, nearest_code, sample

GradientPath = Literal["straight_through", "rotation"]
USAGE_DECAY = 0.95  # of a code's share of the batches: about the last 20 count
DEAD = 0.05  # a code is dead whose share is below this part of an even one


class Quantised(NamedTuple):
    """What a residual quantiser makes of a batch.

    Attributes:
        values: (B, D), the sum of each vector's codes; its gradient goes to the vectors.
        codes: int64 (B, levels).
        commitment_loss: (levels,), mean squared distance of the residuals to their codes, which draws the residuals.
        embedding_loss: (levels,), the same, which draws the codes.
    """

    values: Tensor
    codes: Tensor
    commitment_loss: Tensor
    embedding_loss: Tensor


class ResidualQuantiser(nn.Module):
    """Codebooks of several levels, started by k-means.

    In training mode ``forward`` follows how often each code is used, so that ``revive`` can move the dead ones.

    Args:
        embedding_dim: width D of the vectors.
        levels: codes a vector gets.
        num_codes: codes K of a level.
        gradient_path: how the gradient of ``values`` gets to the vectors: "straight_through" as if they were equal (van den Oord
            et al. 2017), "rotation" through the rotation and scaling that takes one to the other (Fifty et al. 2024).

    Raises:
        ValueError: if a size is below 1, or ``gradient_path`` is unknown.
    """

    usage: Tensor
    is_initialised: Tensor

    def __init__(
        self,
        embedding_dim: int,
        *,
        levels: int = 3,
        num_codes: int = 256,
        gradient_path: GradientPath = "straight_through",
    ) -> None:
        super().__init__()
        check_sizes(embedding_dim=embedding_dim, levels=levels, num_codes=num_codes)
        if gradient_path not in ("straight_through", "rotation"):
            raise ValueError(f"gradient_path ({gradient_path!r}) must be 'straight_through' or 'rotation'")
        self.arguments = {
            "embedding_dim": embedding_dim,
            "levels": levels,
            "num_codes": num_codes,
            "gradient_path": gradient_path,
        }
        self.levels = levels
        self.num_codes = num_codes
        self.carry = rotate if gradient_path == "rotation" else straight_through
        self.codebooks = nn.Parameter(torch.randn(levels, num_codes, embedding_dim) / embedding_dim**0.5)
        self.register_buffer("usage", torch.full((levels, num_codes), 1 / num_codes))
        self.register_buffer("is_initialised", torch.tensor(False))

    def forward(self, vectors: Tensor) -> Quantised:
        """Quantises a batch.

        Args:
            vectors: (B, D).
        """
        residual, total = vectors, torch.zeros_like(vectors)
        codes, commitment, embedding = [], [], []
        for codebook in self.codebooks:
            index = nearest_code(residual, codebook)  # (B,)
            code = F.embedding(index, codebook)  # (B, D)
            commitment.append((residual - code.detach()).square().mean())
            embedding.append((residual.detach() - code).square().mean())
            residual, total = residual - code.detach(), total + code.detach()
            codes.append(index)
        found = torch.stack(codes, dim=1)  # (B, levels)
        if self.training:
            self._follow(found)
        return Quantised(self.carry(vectors, total), found, torch.stack(commitment), torch.stack(embedding))

    def codes(self, vectors: Tensor) -> Tensor:
        """The codes alone, in operators that any engine knows.

        Args:
            vectors: (B, D).

        Returns:
            int64 (B, levels), each in 0..K-1.
        """
        return self._codes_and_rest(vectors)[0]

    def residuals(self, vectors: Tensor) -> Tensor:
        """What is left of each vector after each level.

        Args:
            vectors: (B, D).

        Returns:
            (B, levels, D).
        """
        return torch.stack(self._codes_and_rest(vectors)[1], dim=1)

    @torch.no_grad()
    def initialise(self, vectors: Tensor, generator: torch.Generator, iterations: int = 20) -> None:
        """Sets the codebooks by k-means, level after level on what the levels before leave over.

        Args:
            vectors: (N, D), at least ``num_codes``; of more than 256 a code a random sample is taken.
            generator: of what is random.
            iterations: of k-means.

        Raises:
            ValueError: if there are fewer vectors than codes.
        """
        residual = sample(vectors, POINTS_A_CODE * self.num_codes, generator)
        for codebook in self.codebooks:
            codebook.copy_(kmeans(residual, self.num_codes, generator, iterations))
            residual = residual - codebook[nearest_code(residual, codebook)]
        self.usage.fill_(1 / self.num_codes)
        self.is_initialised.fill_(True)

    @torch.no_grad()
    def revive(self, vectors: Tensor, generator: torch.Generator) -> int:
        """Moves every code that is hardly used to the place of a random residual of its level.

        Args:
            vectors: (B, D), of which the residuals are taken.
            generator: of what is random.

        Returns:
            How many codes were moved.
        """
        moved, residual = 0, vectors
        for codebook, usage in zip(self.codebooks, self.usage, strict=True):
            dead = usage < DEAD / self.num_codes  # (K,)
            count = int(dead.sum())
            chosen = torch.randint(len(residual), (count,), generator=generator)
            codebook[dead] = residual[chosen]
            usage[dead] = 1 / self.num_codes
            moved += count
            residual = residual - codebook[nearest_code(residual, codebook)]
        return moved

    def _codes_and_rest(self, vectors: Tensor) -> tuple[Tensor, list[Tensor]]:
        residual, codes, rest = vectors, [], []
        for codebook in self.codebooks:
            codes.append(nearest_code(residual, codebook))
            residual = residual - F.embedding(codes[-1], codebook)  # (B, D)
            rest.append(residual)
        return torch.stack(codes, dim=1), rest

    @torch.no_grad()
    def _follow(self, codes: Tensor) -> None:
        for usage, used in zip(self.usage, codes.T, strict=True):
            usage.lerp_(torch.bincount(used, minlength=self.num_codes) / len(codes), 1 - USAGE_DECAY)


def straight_through(vectors: Tensor, quantised: Tensor) -> Tensor:
    """The value of ``quantised`` with the gradient handed to ``vectors`` unchanged; both (B, D)."""
    return vectors + (quantised - vectors).detach()


def rotate(vectors: Tensor, quantised: Tensor) -> Tensor:
    """``vectors`` rotated and scaled onto ``quantised``, the gradient turned with them (Fifty et al. 2024, equation 3).

    With e and q of length 1 in the two directions, r the direction of e + q, all held constant:
    ``(|quantised| / |vectors|) (v - 2 (v . r) r + 2 (v . e) q)``.

    Args:
        vectors: (B, D).
        quantised: (B, D), its gradient is not used.

    Returns:
        (B, D), equal to ``quantised`` up to rounding; by straight-through where one is 0 or they
        point in opposite directions.
    """
    before, after = vectors.detach(), quantised.detach()
    length, wanted = before.norm(dim=1, keepdim=True), after.norm(dim=1, keepdim=True)  # (B, 1)
    e, q = before / length.clamp(min=1e-12), after / wanted.clamp(min=1e-12)
    between = (e + q).norm(dim=1, keepdim=True)  # (B, 1)
    r = (e + q) / between.clamp(min=1e-12)
    turned = vectors - 2 * (vectors * r).sum(1, keepdim=True) * r + 2 * (vectors * e).sum(1, keepdim=True) * q
    turnable = (length > 1e-6) & (wanted > 1e-6) & (between > 1e-3)
    return torch.where(turnable, turned * (wanted / length.clamp(min=1e-12)), straight_through(vectors, after))
