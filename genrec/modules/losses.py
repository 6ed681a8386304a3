"""Losses: of an RQ-VAE, of sequences, of contrasts."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.modules._checks import check_sizes


class VQVAELoss(nn.Module):
    """Reconstruction error plus the weighted losses of a quantiser (van den Oord et al. 2017, equation 3).

    Args:
        commitment_cost: weight of the commitment loss, which draws the encoder to the codebook.
        beta: weight of the embedding loss, which draws the codebook to the encoder.
    """

    def __init__(self, commitment_cost: float = 0.25, beta: float = 1.0) -> None:
        super().__init__()
        self.commitment_cost = commitment_cost
        self.beta = beta

    def forward(self, x: Tensor, x_recon: Tensor, commitment_loss: Tensor, embedding_loss: Tensor) -> dict[str, Tensor]:
        """The losses, each a scalar.

        Args:
            x: the input, of any shape.
            x_recon: its reconstruction, of the same shape.
            commitment_loss: a scalar, or losses of any shape whose mean counts.
            embedding_loss: likewise.

        Returns:
            ``total_loss``, ``reconstruction_loss`` (mean squared error), ``commitment_loss`` and ``embedding_loss``.

        Raises:
            ValueError: if ``x`` and ``x_recon`` differ in shape.
        """
        if x.shape != x_recon.shape:
            raise ValueError(f"x and x_recon must have one shape, got {tuple(x.shape)} and {tuple(x_recon.shape)}")
        reconstruction = F.mse_loss(x_recon, x)
        commitment, embedding = commitment_loss.mean(), embedding_loss.mean()
        return {
            "total_loss": reconstruction + self.commitment_cost * commitment + self.beta * embedding,
            "reconstruction_loss": reconstruction,
            "commitment_loss": commitment,
            "embedding_loss": embedding,
        }


class SequenceLoss(nn.Module):
    """Cross entropy and accuracy over the labels that count, each label weighing the same.

    Args:
        vocab_size: number of classes V.
        ignore_index: a label that does not count.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].

    Raises:
        ValueError: if ``vocab_size`` is below 1, or ``label_smoothing`` lies outside [0, 1].
    """

    def __init__(self, vocab_size: int, ignore_index: int = -100, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing ({label_smoothing}) must lie in [0, 1]")
        self.vocab_size = vocab_size
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.criterion = nn.CrossEntropyLoss(
            ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="sum"
        )

    def forward(self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """The loss and the accuracy, both 0 (the loss with a gradient of 0) where no label counts.

        Args:
            logits: (B, L, V), of any stride.
            labels: int64 (B, L).
            attention_mask: (B, L), not zero where a label counts, 0 where it does not; None if all do. Labels equal to
                ``ignore_index`` never count.

        Returns:
            ``loss`` and ``accuracy``, scalars.

        Raises:
            ValueError: if the last axis of ``logits`` is not ``vocab_size``, or the shapes do not fit.
        """
        self._check(logits, labels, attention_mask)
        if attention_mask is not None:
            labels = labels.masked_fill(attention_mask == 0, self.ignore_index)
        counts = labels != self.ignore_index
        total = counts.sum().clamp(min=1)
        loss = self.criterion(logits.reshape(-1, self.vocab_size), labels.reshape(-1)) / total
        with torch.no_grad():
            hits = (logits.argmax(dim=-1) == labels) & counts
        return {"loss": loss, "accuracy": hits.sum() / total}

    def _check(self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> None:
        if logits.shape[-1] != self.vocab_size:
            raise ValueError(f"the last axis of logits ({logits.shape[-1]}) must be vocab_size ({self.vocab_size})")
        for name, tensor in (("labels", labels), ("attention_mask", attention_mask)):
            if tensor is not None and tensor.shape != logits.shape[:-1]:
                raise ValueError(f"{name} must be {tuple(logits.shape[:-1])} as logits say, got {tuple(tensor.shape)}")


class ContrastiveLoss(nn.Module):
    """Cross entropy of telling the positive from negatives by cosine similarity (InfoNCE, van den Oord et al. 2018).

    Args:
        temperature: divides the similarities; above 0.
        margin: see ``margin_mode``.
        margin_mode: "none" leaves ``margin`` unused (the default, so that the default is the plain loss); "additive"
            subtracts it from the positive's similarity before the temperature (Wang et al. 2018).

    Raises:
        ValueError: if ``temperature`` is not above 0, or ``margin_mode`` is unknown.
    """

    def __init__(
        self, temperature: float = 0.1, margin: float = 0.2, *, margin_mode: Literal["none", "additive"] = "none"
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature ({temperature}) must be above 0")
        if margin_mode not in ("none", "additive"):
            raise ValueError(f"margin_mode ({margin_mode!r}) must be 'none' or 'additive'")
        self.temperature = temperature
        self.margin = margin
        self.margin_mode = margin_mode

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The mean loss over the batch, a scalar.

        Args:
            anchor: (B, D).
            positive: (B, D).
            negative: (B, N, D), or (N, D) where all anchors share them.

        Raises:
            ValueError: if the shapes do not fit.
        """
        _check_contrast(anchor, positive, negative)
        anchor, positive, negative = (F.normalize(x, dim=-1) for x in (anchor, positive, negative))
        near = (anchor * positive).sum(dim=-1, keepdim=True)  # (B, 1)
        far = anchor @ negative.T if negative.dim() == 2 else (negative @ anchor.unsqueeze(-1)).squeeze(-1)  # (B, N)
        if self.margin_mode == "additive":
            near = near - self.margin
        logits = torch.cat([near, far], dim=1) / self.temperature  # (B, 1 + N)
        return -logits.log_softmax(dim=1)[:, 0].mean()


def _check_contrast(anchor: Tensor, positive: Tensor, negative: Tensor) -> None:
    shapes = f"anchor {tuple(anchor.shape)}, positive {tuple(positive.shape)}, negative {tuple(negative.shape)}"
    if anchor.dim() != 2 or anchor.shape != positive.shape:
        raise ValueError(f"anchor and positive must both be (batch, width), got {shapes}")
    batch = negative.shape[:1] if negative.dim() == 3 else anchor.shape[:1]
    if negative.dim() not in (2, 3) or batch != anchor.shape[:1] or negative.shape[-1] != anchor.shape[1]:
        raise ValueError(f"negative must be (batch, negatives, width) or (negatives, width), got {shapes}")
