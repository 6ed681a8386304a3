"""The transformer encoder (Vaswani et al. 2017) over ids."""

from typing import Any

import torch
from torch import Tensor, nn

from genrec.modules._checks import check_dropout, check_heads, check_length, check_sizes
from genrec.modules._recipes import recipe
from genrec.modules.layers import ACTIVATIONS, Activation, EncoderLayer, EncoderStack, visible_slots
from genrec.modules.positions import PositionalEncoding


class TransformerEncoder(nn.Module):
    """Turns sequences of ids into sequences of vectors that know their context.

    Embeds the ids, adds positions, applies dropout and ``num_layers`` encoder layers. Padded slots come out as zeros,
    and a row that is all padding as all zeros, in training, evaluation and in an exported graph alike. Weights of the
    same encoder built on ``torch.nn.TransformerEncoder`` load by their names.

    Args:
        vocab_size: number of ids V; ids are 0..V-1.
        embedding_dim: width D; ``num_heads`` must divide it.
        num_heads: attention heads H.
        num_layers: encoder layers.
        attn_dim: width of the feed-forward networks' middle.
        dropout: rate in [0, 1) on embeddings, attention weights and both parts of each layer.
        max_seq_length: longest sequence accepted, in slots.
        causal: a slot sees itself and earlier slots only; False lets it see all (an encoder).
        padding_idx: an id whose embedding is zero and stays zero; it does not mask, ``attention_mask`` does.
        activation: of the feed-forward networks, "relu" or "gelu".
        norm_first: normalise before each part instead of after it.
        final_norm: one more norm after the last layer; usual with ``norm_first``.
        pos_encoding: a module (B, L, D) -> (B, L, D) that adds positions; None for ``PositionalEncoding``.

    Raises:
        ValueError: if the heads do not divide the width, a size is below 1, ``dropout`` lies outside [0, 1),
            ``padding_idx`` is no id, or ``activation`` is unknown.

    >>> encoder = TransformerEncoder(vocab_size=10, embedding_dim=6, num_heads=2, num_layers=1, attn_dim=8)
    >>> encoder(torch.tensor([[1, 2, 3, 0]]), torch.tensor([[1, 1, 1, 0]])).shape
    torch.Size([1, 4, 6])
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        num_heads: int,
        num_layers: int,
        attn_dim: int,
        dropout: float = 0.1,
        max_seq_length: int = 1024,
        *,
        causal: bool = False,
        padding_idx: int | None = None,
        activation: Activation = "relu",
        norm_first: bool = False,
        final_norm: bool = False,
        pos_encoding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_heads(embedding_dim, num_heads)
        check_sizes(vocab_size=vocab_size, num_layers=num_layers, attn_dim=attn_dim, max_seq_length=max_seq_length)
        check_dropout(dropout)
        if padding_idx is not None and not 0 <= padding_idx < vocab_size:
            raise ValueError(f"padding_idx ({padding_idx}) must be an id, 0..{vocab_size - 1}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation ({activation!r}) must be one of {sorted(ACTIVATIONS)}")

        if pos_encoding is None or isinstance(getattr(pos_encoding, "arguments", None), dict):
            self.arguments: dict[str, Any] = {
                "vocab_size": vocab_size,
                "embedding_dim": embedding_dim,
                "num_heads": num_heads,
                "num_layers": num_layers,
                "attn_dim": attn_dim,
                "dropout": dropout,
                "max_seq_length": max_seq_length,
                "causal": causal,
                "padding_idx": padding_idx,
                "activation": activation,
                "norm_first": norm_first,
                "final_norm": final_norm,
                "pos_encoding": None if pos_encoding is None else recipe(pos_encoding),
            }

        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx)
        if pos_encoding is None:
            pos_encoding = PositionalEncoding(embedding_dim, max_seq_length)
        self.pos_encoding = pos_encoding
        layers = [
            EncoderLayer(embedding_dim, num_heads, attn_dim, dropout, activation=activation, norm_first=norm_first)
            for _ in range(num_layers)
        ]
        self.transformer = EncoderStack(layers, nn.LayerNorm(embedding_dim) if final_norm else None)
        self.dropout = nn.Dropout(dropout)
        self.causal = causal
        self.max_seq_length = max_seq_length

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Encodes every slot.

        Args:
            input_ids: ids (B, L), int64 or int32.
            attention_mask: (B, L) of any dtype, not zero where a token is real, 0 where it is padding; None: all are
                real.

        Returns:
            (B, L, D), zero at padding.

        Raises:
            ValueError: if L exceeds ``max_seq_length``, or a shape is wrong.
        """
        x, visible = self._embed(input_ids, attention_mask)
        encoded: Tensor = self.transformer(x, visible)
        return encoded if attention_mask is None else encoded.masked_fill(~attention_mask.bool().unsqueeze(-1), 0.0)

    def newest(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Encodes the last slot: ``forward(...)[:, -1]`` for less work, as the last layer computes that slot only.

        Args:
            input_ids: ids (B, L), left-padded.
            attention_mask: as in ``forward``.

        Returns:
            (B, D), zero where the last slot is padding.

        Raises:
            ValueError: as ``forward``.
        """
        x, visible = self._embed(input_ids, attention_mask)
        encoded: Tensor = self.transformer(x, visible, newest=True)[:, 0]
        return encoded if attention_mask is None else encoded.masked_fill(~attention_mask[:, -1:].bool(), 0.0)

    def attention_maps(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> list[Tensor]:
        """What each layer's slots pay attention to, for pictures; meant for evaluation mode.

        Args:
            input_ids: ids (B, L).
            attention_mask: as in ``forward``.

        Returns:
            A (B, H, L, L) a layer: row i holds the weights of what slot i sees, summing to 1; zeros where i is padding.

        Raises:
            ValueError: as ``forward``.
        """
        x, visible = self._embed(input_ids, attention_mask)
        maps = [
            layer.self_attn.weights(layer.attention_input(slots), visible)
            for layer, slots in self.transformer.inputs(x, visible)
        ]
        if attention_mask is None:
            return maps
        padded = ~attention_mask.bool()[:, None, :, None]  # (B, 1, L, 1)
        return [weights.masked_fill(padded, 0.0) for weights in maps]

    def _embed(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The first layer's input (B, L, D), and which slots may be seen: bool (B, 1, L, L), None for all."""
        self._check(input_ids, attention_mask)
        x = self.dropout(self.pos_encoding(self.embedding(input_ids)))
        if attention_mask is None and not self.causal:
            return x, None
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        return x, visible_slots(real, causal=self.causal)

    def _check(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        if torch.compiler.is_exporting():
            return
        if input_ids.dim() != 2:
            raise ValueError(f"input_ids must be (batch, length), got shape {tuple(input_ids.shape)}")
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            shapes = f"{tuple(attention_mask.shape)} and {tuple(input_ids.shape)}"
            raise ValueError(f"attention_mask and input_ids must have one shape, got {shapes}")
        check_length(input_ids, self.max_seq_length)
