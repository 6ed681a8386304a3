"""RQ-VAE (Lee et al. 2022; for semantic ids Rajput et al. 2023, section 3.1): an autoencoder whose middle is a sum of codes.

It is trained as a plain autoencoder for a few epochs, gets its codes by k-means on what the encoder then gives, and is trained
with them to the end; codes that fall out of use are moved after each epoch to where vectors are.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from genrec.modules import VQVAELoss
from genrec.modules._checks import check_sizes
from genrec.modules.quantisation import GradientPath, ResidualQuantiser
from genrec_models.tokenizer import Follow, Tokenizer

SETTLING = 0.2  # of the epochs, at the end: codes are no longer moved
CODE_PACE = (
    10  # learning rate of the codes over the network's: slower, they fall behind the encoder, and "rotation" collapses
)


@dataclass(frozen=True)
class RQVAEConfig:
    """Settings of ``RQVAE``.

    Args:
        input_dim: width W of the item vectors.
        hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
        code_dim: width D of the codes.
        levels: codes an item gets.
        num_codes: codes K of a level.
        gradient_path: how the decoder's gradient passes the codes, "straight_through" or "rotation".
        commitment_cost: weight of the loss that draws the encoder to the codes; that which draws the codes weighs 1.
        plain_epochs: passes over the items as an autoencoder, before there are codes.
        epochs: passes with codes.
        batch_size: items a step.
        learning_rate: AdamW's at the start; it falls to 0 in a straight line; the codes' is 10 times as high.
        weight_decay: AdamW's, decoupled; the codes have none.
    """

    input_dim: int
    hidden_dims: tuple[int, ...] = (512, 256, 128)
    code_dim: int = 32
    levels: int = 3
    num_codes: int = 256
    gradient_path: GradientPath = "straight_through"
    commitment_cost: float = 0.25
    plain_epochs: int = 5
    epochs: int = 60
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


class RQVAE(Tokenizer):
    """Learns semantic ids that keep what is needed to rebuild the item vectors.

    Args:
        input_dim: width W of the item vectors.
        hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
        code_dim: width D of the codes.
        levels: codes an item gets.
        num_codes: codes K of a level.
        gradient_path: how the decoder's gradient passes the codes, "straight_through" or "rotation".
        commitment_cost: weight of the loss that draws the encoder to the codes; that which draws the codes weighs 1.
        plain_epochs: passes over the items as an autoencoder, before there are codes.
        epochs: passes with codes.
        batch_size: items a step.
        learning_rate: AdamW's at the start; it falls to 0 in a straight line; the codes' is 10 times as high.
        weight_decay: AdamW's, decoupled; the codes have none.

    Raises:
        ValueError: if a size is below 1, or ``gradient_path`` unknown.

    >>> RQVAE(6, hidden_dims=[5], code_dim=4, levels=2, num_codes=3)(torch.zeros(7, 6)).shape
    torch.Size([7, 2])
    """

    def __init__(
        self,
        input_dim: int,
        *,
        hidden_dims: Sequence[int] = (512, 256, 128),
        code_dim: int = 32,
        levels: int = 3,
        num_codes: int = 256,
        gradient_path: GradientPath = "straight_through",
        commitment_cost: float = 0.25,
        plain_epochs: int = 5,
        epochs: int = 60,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        quantiser = ResidualQuantiser(code_dim, levels=levels, num_codes=num_codes, gradient_path=gradient_path)
        super().__init__(input_dim, quantiser)
        widths = {f"hidden_dims[{i}]": width for i, width in enumerate(hidden_dims)}
        check_sizes(batch_size=batch_size, epochs=epochs, **widths)
        self.config = RQVAEConfig(
            input_dim,
            tuple(hidden_dims),
            code_dim,
            levels,
            num_codes,
            gradient_path,
            commitment_cost,
            plain_epochs,
            epochs,
            batch_size,
            learning_rate,
            weight_decay,
        )
        self.arguments = asdict(self.config) | {"hidden_dims": list(hidden_dims)}  # JSON has no tuples
        self.encoder = _perceptron([input_dim, *hidden_dims, code_dim])
        self.decoder = _perceptron([code_dim, *reversed(hidden_dims), input_dim])
        self.criterion = VQVAELoss(commitment_cost)

    def encode(self, vectors: Tensor) -> Tensor:
        """(B, W) item vectors -> (B, D)."""
        encoded: Tensor = self.encoder(self.standardise(vectors))
        return encoded

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is minimised: the error of the rebuilt, standardised vectors, and the codes' two losses summed over the levels.

        Args:
            batch: ``vectors`` (B, W).

        Returns:
            ``loss`` and its parts ``reconstruction_loss``, ``commitment_loss`` and ``embedding_loss``, scalars. As long as
            the codebooks are not initialised, the vectors pass without codes and the last two are 0.
        """
        wanted = self.standardise(batch["vectors"])  # (B, W)
        encoded = self.encoder(wanted)  # (B, D)
        if self.quantiser.is_initialised:
            values, _, commitment, embedding = self.quantiser(encoded)
        else:
            values, commitment, embedding = encoded, encoded.new_zeros(1), encoded.new_zeros(1)
        losses: dict[str, Tensor] = self.criterion(wanted, self.decoder(values), commitment.sum(), embedding.sum())
        return {"loss": losses.pop("total_loss"), **losses}

    def fit_vectors(self, vectors: Tensor, seed: int = 0, follow: Follow | None = None) -> None:
        """Trains; see ``Tokenizer.fit_vectors``. Where there are codebooks already, it goes on with them and with the scale."""
        config, quantiser = self.config, self.quantiser
        self.check(vectors)
        plain = 0 if quantiser.is_initialised else config.plain_epochs
        if not quantiser.is_initialised:
            self.fit_scale(vectors)
        epochs = plain + config.epochs
        optimizer = self._optimizer()
        steps = epochs * math.ceil(len(vectors) / config.batch_size)
        schedule = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
        generator = torch.Generator().manual_seed(seed)
        self.train()
        for epoch in range(epochs):
            if epoch == plain and not quantiser.is_initialised:
                with torch.no_grad():
                    quantiser.initialise(self.encode(vectors), generator)
            parts = torch.split(torch.randperm(len(vectors), generator=generator), config.batch_size)
            for index in parts:
                optimizer.zero_grad()
                self.loss({"vectors": vectors[index]})["loss"].backward()  # type: ignore[no-untyped-call]  # torch's
                optimizer.step()
                schedule.step()
                if follow is not None:
                    follow(schedule.last_epoch, steps)
            if plain <= epoch < epochs - SETTLING * config.epochs:
                with torch.no_grad():
                    quantiser.revive(self.encode(vectors[parts[0]]), generator)
        self.eval()

    def _optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        network = [*self.encoder.parameters(), *self.decoder.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": network},
            {"params": [self.quantiser.codebooks], "lr": CODE_PACE * config.learning_rate, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers from each width to the next, a ReLU between two."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
