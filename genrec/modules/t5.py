"""T5's encoder and decoder stacks (Raffel et al. 2020): RMS norms first, ReLU networks, no biases, positions by distance.

Each stack shares one table of distances among its layers, cross attention has none, and both stacks end on a norm.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.modules._checks import check_sizes
from genrec.modules.t5_attention import KeysValues, RelativeBias, T5Attention, lowest_where

EPS = 1e-6


class T5FeedForward(nn.Module):
    """Two linear maps with ReLU between them: (..., D) -> (..., D).

    Args:
        embedding_dim: width D.
        ff_dim: width of the middle.
        dropout: rate in the middle.
    """

    def __init__(self, embedding_dim: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embedding_dim, ff_dim, bias=False)
        self.linear2 = nn.Linear(ff_dim, embedding_dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.linear1.weight, std=embedding_dim**-0.5)
        nn.init.normal_(self.linear2.weight, std=ff_dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.linear2(self.dropout(F.relu(self.linear1(x))))
        return out


class T5EncoderLayer(nn.Module):
    """Attention over all slots, then a feed-forward network, each added to its input.

    Args:
        embedding_dim: width D.
        num_heads: heads H.
        head_dim: width of a head.
        ff_dim: width of the feed-forward network's middle.
        dropout: rate on attention weights, and inside and after both parts.
    """

    def __init__(self, embedding_dim: int, num_heads: int, head_dim: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(embedding_dim, eps=EPS)
        self.self_attn = T5Attention(embedding_dim, num_heads, head_dim, dropout)
        self.norm2 = nn.RMSNorm(embedding_dim, eps=EPS)
        self.feed_forward = T5FeedForward(embedding_dim, ff_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Transforms every slot: (B, L, D) and the bias (B, H, L, L) -> (B, L, D)."""
        seen = self.norm1(x)
        x = x + self.dropout(self.self_attn(seen, self.self_attn.memory(seen), bias))
        out: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        return out


class T5Encoder(nn.Module):
    """The encoder's stack: every real slot sees every real slot, and how far it is.

    Args:
        embedding_dim: width D.
        num_heads: heads H.
        head_dim: width of a head.
        num_layers: layers.
        ff_dim: width of the feed-forward networks' middle.
        dropout: rate on what comes in and goes out, on attention weights, and in every layer.

    Raises:
        ValueError: if a size is below 1, or ``dropout`` lies outside [0, 1).

    >>> encoder = T5Encoder(embedding_dim=6, num_heads=2, head_dim=4, num_layers=1, ff_dim=8, dropout=0.1)
    >>> encoder(torch.rand(3, 5, 6), torch.ones(3, 5, dtype=torch.bool)).shape
    torch.Size([3, 5, 6])
    """

    def __init__(
        self, embedding_dim: int, num_heads: int, head_dim: int, num_layers: int, ff_dim: int, dropout: float
    ) -> None:
        super().__init__()
        check_sizes(num_layers=num_layers, ff_dim=ff_dim)
        self.position_bias = RelativeBias(num_heads, bidirectional=True)
        self.layers = nn.ModuleList(
            T5EncoderLayer(embedding_dim, num_heads, head_dim, ff_dim, dropout) for _ in range(num_layers)
        )
        self.norm = nn.RMSNorm(embedding_dim, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.position_bias.table.weight, std=embedding_dim**-0.5)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Encodes every slot.

        Args:
            x: (B, L, D).
            real: bool (B, L), True where a slot is real, False where it is padding; each row needs a real one.

        Returns:
            (B, L, D), meaningless at padding.
        """
        slots = torch.arange(x.shape[1], device=x.device)
        bias = self.position_bias(slots, slots) + lowest_where(~real)[:, None, None]  # (B, H, L, L)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, bias)
        encoded: Tensor = self.dropout(self.norm(x))
        return encoded


class T5DecoderLayer(nn.Module):
    """Attention over the tokens so far, attention over what was encoded, a feed-forward network, each added to its input.

    Args:
        embedding_dim: width D.
        num_heads: heads H.
        head_dim: width of a head.
        ff_dim: width of the feed-forward network's middle.
        dropout: rate on attention weights, and inside and after each part.
    """

    def __init__(self, embedding_dim: int, num_heads: int, head_dim: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(embedding_dim, eps=EPS)
        self.self_attn = T5Attention(embedding_dim, num_heads, head_dim, dropout)
        self.norm2 = nn.RMSNorm(embedding_dim, eps=EPS)
        self.cross_attn = T5Attention(embedding_dim, num_heads, head_dim, dropout)
        self.norm3 = nn.RMSNorm(embedding_dim, eps=EPS)
        self.feed_forward = T5FeedForward(embedding_dim, ff_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, bias: Tensor, past: KeysValues | None, memory: KeysValues, hidden: Tensor
    ) -> tuple[Tensor, KeysValues]:
        """Transforms the newest tokens of several sequences a row.

        Args:
            x: (B, G, T, D).
            bias: (1, H, T, P + T), of the tokens' own attention.
            past: keys and values of the P tokens before, (B * G, H, P, head_dim); None where there are none.
            memory: of what was encoded, (B, H, L, head_dim): a row's sequences share it, as so many more queries.
            hidden: (B, 1, 1, L), the bias that hides padding in it.

        Returns:
            (B, G, T, D), and ``past`` with the new tokens appended.
        """
        _, groups, length, width = x.shape
        seen = self.norm1(x).reshape(-1, length, width)  # (B * G, T, D)
        keys, values = self.self_attn.memory(seen)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        x = x + self.dropout(self.self_attn(seen, (keys, values), bias).view(-1, groups, length, width))
        asking = self.norm2(x).reshape(-1, groups * length, width)  # (B, G * T, D)
        x = x + self.dropout(self.cross_attn(asking, memory, hidden).view(-1, groups, length, width))
        return x + self.dropout(self.feed_forward(self.norm3(x))), (keys, values)


class T5Decoder(nn.Module):
    """The decoder's stack, over several sequences a row that share what was encoded; in one go or token by token.

    Args:
        embedding_dim: width D.
        num_heads: heads H.
        head_dim: width of a head.
        num_layers: layers.
        ff_dim: width of the feed-forward networks' middle.
        dropout: rate on what comes in and goes out, on attention weights, and in every layer.

    Raises:
        ValueError: if a size is below 1, or ``dropout`` lies outside [0, 1).

    >>> decoder = T5Decoder(embedding_dim=6, num_heads=2, head_dim=4, num_layers=1, ff_dim=8, dropout=0.1)
    >>> memory = decoder.memory(torch.rand(3, 5, 6), torch.ones(3, 5, dtype=torch.bool))
    >>> tokens, past = decoder(torch.rand(3, 7, 2, 6), memory)
    >>> tokens.shape, decoder(torch.rand(3, 7, 1, 6), memory, past)[0].shape
    (torch.Size([3, 7, 2, 6]), torch.Size([3, 7, 1, 6]))
    """

    def __init__(
        self, embedding_dim: int, num_heads: int, head_dim: int, num_layers: int, ff_dim: int, dropout: float
    ) -> None:
        super().__init__()
        check_sizes(num_layers=num_layers, ff_dim=ff_dim)
        self.position_bias = RelativeBias(num_heads, bidirectional=False)
        self.layers = nn.ModuleList(
            T5DecoderLayer(embedding_dim, num_heads, head_dim, ff_dim, dropout) for _ in range(num_layers)
        )
        self.norm = nn.RMSNorm(embedding_dim, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.position_bias.table.weight, std=embedding_dim**-0.5)

    def memory(self, encoded: Tensor, real: Tensor) -> tuple[list[KeysValues], Tensor]:
        """Each layer's keys and values of what was encoded, computed once for any number of tokens.

        Args:
            encoded: (B, L, D).
            real: bool (B, L), True where a slot is real, False where it is padding.

        Returns:
            Keys and values (B, H, L, head_dim) a layer, and the bias that hides padding (B, 1, 1, L).
        """
        kept = [_decoder_layer(layer).cross_attn.memory(encoded) for layer in self.layers]
        return kept, lowest_where(~real)[:, None, None]

    def forward(
        self, x: Tensor, memory: tuple[list[KeysValues], Tensor], past: list[KeysValues] | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Decodes the newest tokens; a token sees itself, those before it, and all that was encoded.

        Args:
            x: (B, G, T, D): of each row G sequences' newest T tokens.
            memory: from ``memory``.
            past: from the call that decoded the tokens before; None at the start.

        Returns:
            (B, G, T, D), and the ``past`` of the next call: (B * G, H, tokens so far, head_dim) a layer, twice.
        """
        before = 0 if past is None else past[0][0].shape[2]
        keys = torch.arange(before + x.shape[2], device=x.device)
        queries = keys[before:]
        bias = self.position_bias(queries, keys) + lowest_where(keys > queries.unsqueeze(1))  # (H, T, P + T)
        x, present = self.dropout(x), []
        for i, (layer, kept) in enumerate(zip(self.layers, memory[0], strict=True)):
            x, now = layer(x, bias.unsqueeze(0), None if past is None else past[i], kept, memory[1])
            present.append(now)
        return self.dropout(self.norm(x)), present


def _decoder_layer(layer: nn.Module) -> T5DecoderLayer:
    """Tells the type checker what a ModuleList holds."""
    assert isinstance(layer, T5DecoderLayer)
    return layer
