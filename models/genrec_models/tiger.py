"""TIGER (Rajput et al. 2023): an encoder-decoder that reads the codes of a history's items and writes those of the next one.

Codes ("semantic ids") are given to the model: a few small numbers an item, alike for items that are alike, the last one telling
apart those that would share the others. The stacks are T5's. Two things differ from the paper: the user's token stands after the
newest item instead of before the oldest, so that padding moves no distance; and each level has its own softmax over its codes.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.histories import PAD, Ragged
from genrec.modules._checks import check_length, check_sizes
from genrec.modules.t5 import T5Decoder, T5Encoder
from genrec.modules.t5_attention import KeysValues
from genrec.modules.trie import Trie
from genrec_models.pairs import of_like_length, pairs_of

if TYPE_CHECKING:
    from genrec_models.beam import BeamSearch

INIT_STD = 0.02
NO_CODE = -1


@dataclass(frozen=True)
class TIGERConfig:
    """Settings of ``TIGER``.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of tokens.
        num_heads: attention heads H.
        head_dim: width of a head; H times it need not be D.
        num_layers: layers of the encoder, and as many of the decoder.
        ff_dim: width of the feed-forward networks' middle.
        dropout: rate on tokens, attention weights and all parts of each layer, and at which training hides the user.
        max_seq_length: how many of the newest events are looked at, in items; each is ``levels`` tokens.
        levels: codes of an item.
        codebook_size: codes of a level.
        num_users: users' tokens, which users share by a hash of their id.
        beam: prefixes kept by the search; 10, 20 and 50 are usual. More miss fewer of the best items.
        max_targets: of a batch's targets, how many each training step draws: each costs a pass of the encoder.
    """

    num_items: int
    embedding_dim: int = 128
    num_heads: int = 6
    head_dim: int = 64
    num_layers: int = 4
    ff_dim: int = 1024
    dropout: float = 0.1
    max_seq_length: int = 20
    levels: int = 4
    codebook_size: int = 256
    num_users: int = 2000
    beam: int = 20
    max_targets: int = 256


class TIGER(nn.Module):
    """Predicts the next item by writing its codes, one level after the other.

    It needs codes before anything else, by ``set_codes`` or ``prepare``; they are saved with the weights.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of tokens.
        num_heads: attention heads H.
        head_dim: width of a head; H times it need not be D.
        num_layers: layers of the encoder, and as many of the decoder.
        ff_dim: width of the feed-forward networks' middle.
        dropout: rate on tokens, attention weights and all parts of each layer, and at which training hides the user.
        max_seq_length: how many of the newest events are looked at, in items; each is ``levels`` tokens.
        levels: codes of an item.
        codebook_size: codes of a level.
        num_users: users' tokens, which users share by a hash of their id.
        beam: prefixes kept by the search; 10, 20 and 50 are usual. More miss fewer of the best items.
        max_targets: of a batch's targets, how many each training step draws: each costs a pass of the encoder.

    Raises:
        ValueError: if a size is below 1, or ``dropout`` lies outside [0, 1).

    >>> model = TIGER(num_items=3, embedding_dim=8, num_heads=2, head_dim=4, num_layers=1, ff_dim=8, levels=2, codebook_size=5)
    >>> model.set_codes(torch.tensor([[0, 0], [4, 0], [4, 1], [2, 0]]))
    >>> model.eval().score(torch.tensor([[0, 3, 1]]), torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3])
    """

    zoo_name: ClassVar[str] = "tiger"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "5m": {"embedding_dim": 128},  # 4,978,048 parameters: the sizes that the paper states
        "13m": {"embedding_dim": 384},  # 14,933,376, of which 13,378,176 in the stacks: the size that it claims
    }
    reads: ClassVar[tuple[str, ...]] = ("users", "exclude")
    codes: Tensor  # int64 (V + 1, levels); NO_CODE until they are set

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 128,
        num_heads: int = 6,
        head_dim: int = 64,
        num_layers: int = 4,
        ff_dim: int = 1024,
        dropout: float = 0.1,
        max_seq_length: int = 20,
        levels: int = 4,
        codebook_size: int = 256,
        num_users: int = 2000,
        beam: int = 20,
        max_targets: int = 256,
    ) -> None:
        super().__init__()
        self.config = TIGERConfig(
            num_items,
            embedding_dim,
            num_heads,
            head_dim,
            num_layers,
            ff_dim,
            dropout,
            max_seq_length,
            levels,
            codebook_size,
            num_users,
            beam,
            max_targets,
        )
        self.arguments = asdict(self.config)
        check_sizes(**{name: size for name, size in self.arguments.items() if name != "dropout"})
        self.num_items = num_items
        self.max_seq_length = max_seq_length
        self.num_users = num_users
        self.register_buffer("codes", torch.full((num_items + 1, levels), NO_CODE))
        self.embedding = nn.Embedding(levels * codebook_size + 1 + num_users, embedding_dim)  # codes, nobody, users
        self.first_token = nn.Parameter(torch.empty(embedding_dim))
        self.encoder = T5Encoder(embedding_dim, num_heads, head_dim, num_layers, ff_dim, dropout)
        self.decoder = T5Decoder(embedding_dim, num_heads, head_dim, num_layers, ff_dim, dropout)
        self.head = nn.Linear(embedding_dim, levels * codebook_size, bias=False)
        for weight in (self.embedding.weight, self.first_token, self.head.weight):
            nn.init.normal_(weight, std=INIT_STD)

    def set_codes(self, codes: Tensor) -> None:
        """Gives every item its codes.

        Args:
            codes: int64 (V + 1, levels), each in 0..``codebook_size`` - 1, no two items' alike; row 0 is padding's and is not
                looked at.

        Raises:
            ValueError: if the shape, the range or the type is wrong, or two items have the same codes.
        """
        if codes.shape != self.codes.shape or codes.dtype != torch.int64:
            wanted = tuple(self.codes.shape)
            raise ValueError(
                f"codes must be int64 (num_items + 1, levels) = {wanted}, got {codes.dtype} {tuple(codes.shape)}"
            )
        low, high = int(codes[1:].min()), int(codes[1:].max())
        if low < 0 or high >= self.config.codebook_size:
            raise ValueError(f"codes must lie in 0..{self.config.codebook_size - 1}, got {low} to {high}")
        Trie(codes)  # refuses items that cannot be told apart
        self.codes = codes.to(self.codes.device, copy=True)
        self.codes[PAD] = 0

    def prepare(self, histories: Ragged) -> None:
        """Makes the codes by ``RQVAE`` of ``cooccurrence_vectors``, unless there are some.

        Args:
            histories: the users' training events, item numbers in 1..``num_items``.

        Raises:
            ValueError: if no history has two events, there are fewer items than codes of a level, or an item has one level only.
        """
        if self.has_codes:
            return
        from genrec_models.semantic_ids import history_codes

        codes = history_codes(histories, self.num_items, self.config.levels, self.config.codebook_size)
        self.set_codes(F.pad(torch.from_numpy(codes), (0, 0, 1, 0)))

    @property
    def has_codes(self) -> bool:
        """Whether every item was given its codes."""
        return int(self.codes[-1, -1]) != NO_CODE

    def facts(self) -> dict[str, Any]:
        """How good the codes are, by ``report_codes``."""
        from genrec_models.codebooks import report_codes

        codes = self.codes[1:, :-1].cpu().numpy()
        return {"semantic_ids": report_codes(codes, self.config.codebook_size).to_json()}

    def check_codes(self) -> None:
        """Raises ValueError if there are no codes."""
        if not torch.compiler.is_exporting() and not self.has_codes:
            raise ValueError("the model has no codes: give every item its own with set_codes")

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean cross entropy of the codes of next items, each level weighing the same.

        A target is predicted from the slots of its row up to the event before it. In training at most ``max_targets`` of the
        batch's are drawn, all alike likely, by torch's generator: with 256 windows of six targets a sixth of them count each
        epoch, another one each time; smaller batches use more. In evaluation mode all count.

        Args:
            batch: ``item_ids`` int64 (B, L), left-padded with 0; ``targets`` int64 (B, L), the event after each slot, 0 where
                there is none; where users are known, ``users`` int64 (B,) from ``genrec.histories.user_index``.

        Returns:
            ``loss``, a scalar; 0 where there is no target.
        """
        histories, targets, users = pairs_of(batch, self.config.max_targets if self.training else None)  # (N, L), (N,)
        if self.training:
            users = users * (torch.rand(users.shape, device=users.device) >= self.config.dropout)
        sums = [
            self._code_log_probs(histories[part, -length:], targets[part].unsqueeze(1), users[part]).sum()
            for part, length in of_like_length(histories)
        ]
        return {"loss": -torch.stack(sums).sum() / max(len(targets) * self.config.levels, 1)}

    def score(self, item_ids: Tensor, candidates: Tensor, users: Tensor | None = None) -> Tensor:
        """The log probability of given items, as the search scores them, without a search.

        Args:
            item_ids: int64 (B, L), left-padded with 0, L at most ``max_seq_length``.
            candidates: int64 (B, C), items; what stands at padding means nothing.
            users: int64 (B,) from ``genrec.histories.user_index``, 0 where a user is not known; None for nobody known.

        Returns:
            (B, C).
        """
        return self._code_log_probs(item_ids, candidates, users).sum(dim=2)

    def scores(self, item_ids: Tensor, exclude: Tensor | None = None, users: Tensor | None = None) -> Tensor:
        """Scores of the whole catalogue, of which the search found ``beam`` items.

        Args:
            item_ids: int64 (B, L), left-padded with 0, L at most ``max_seq_length``.
            exclude: int64 (B, E), items that are not searched for, 0 where a row has fewer; without it seen items take the place
                of others.
            users: int64 (B,) from ``genrec.histories.user_index``, 0 where a user is not known; None for nobody known.

        Returns:
            (B, V + 1), -inf for all other items.
        """
        search = self.serving_module(self.config.beam)
        nothing = item_ids.new_zeros(item_ids.shape[0], 0)
        everything = torch.ones(self.num_items + 1, dtype=torch.bool, device=item_ids.device)
        items, found = search(item_ids, nothing if exclude is None else exclude, everything, users)  # (B, K)
        rest: Tensor = found.new_full((len(item_ids), self.num_items + 1), float("-inf"))
        return rest.scatter(1, items, found)

    def serving_module(self, k_max: int, beam: int | None = None) -> "BeamSearch":
        """The search as a module, for serving and for export.

        Args:
            k_max: length of its lists, cut to the catalogue's size.
            beam: prefixes kept; ``config.beam`` when None, never fewer than a list is long.

        Raises:
            ValueError: if ``k_max`` is below 1, or the model has no codes.
        """
        from genrec_models.beam import BeamSearch

        k = min(k_max, self.num_items)
        return BeamSearch(self, k, max(k, self.config.beam if beam is None else beam))

    def memory(self, item_ids: Tensor, users: Tensor | None = None) -> tuple[list[KeysValues], Tensor]:
        """What the decoder looks at: the encoded history, as ``T5Decoder.memory`` gives it.

        Args:
            item_ids: int64 (B, L), left-padded with 0, L at most ``max_seq_length``.
            users: int64 (B,) from ``genrec.histories.user_index``, 0 where a user is not known; None for nobody known.

        Raises:
            ValueError: if L exceeds ``max_seq_length``, or the model has no codes.
        """
        check_length(item_ids, self.max_seq_length)
        self.check_codes()
        levels, size = self.config.levels, self.config.codebook_size
        codes = F.embedding(item_ids, self.codes)  # (B, L, levels)
        tokens = (codes + torch.arange(levels, device=codes.device) * size).flatten(1)  # (B, L * levels)
        user = torch.zeros_like(item_ids[:, :1]) if users is None else users.unsqueeze(1)  # (B, 1)
        x = self.embedding(torch.cat([tokens, levels * size + user], dim=1))  # (B, S, D), S = L * levels + 1
        real = (item_ids != PAD).unsqueeze(2).expand(-1, -1, levels).flatten(1)
        real = torch.cat([real, torch.ones_like(user, dtype=torch.bool)], dim=1)  # (B, S)
        return self.decoder.memory(self.encoder(x, real), real)

    def start(self, like: Tensor) -> Tensor:
        """The decoder's first token: (B, G) of anything -> (B, G, 1, D)."""
        return self.first_token.expand(*like.shape, 1, -1)

    def tokens(self, codes: Tensor, level: int) -> Tensor:
        """Codes of one level as the stacks read them: int64 of any shape -> one axis more, D."""
        embedded: Tensor = self.embedding(codes + level * self.config.codebook_size)
        return embedded

    def log_probs(self, states: Tensor, level: int) -> Tensor:
        """The log probability of each code of a level, over all of the level's codes: (..., D) -> (..., C)."""
        size = self.config.codebook_size
        logits = F.linear(states, self.head.weight[level * size : (level + 1) * size])  # (..., C)
        return F.log_softmax(logits, dim=-1)

    def _code_log_probs(self, item_ids: Tensor, items: Tensor, users: Tensor | None) -> Tensor:
        """The log probability of each code of given items, those before it given: (B, L), (B, C) -> (B, C, levels)."""
        memory = self.memory(item_ids, users)
        codes = F.embedding(items, self.codes)  # (B, C, levels)
        written = [self.tokens(codes[..., level], level).unsqueeze(2) for level in range(self.config.levels - 1)]
        states, _ = self.decoder(torch.cat([self.start(items), *written], dim=2), memory)  # (B, C, levels, D)
        found = [
            self.log_probs(states[:, :, level], level).gather(2, codes[..., level : level + 1])
            for level in range(self.config.levels)
        ]
        return torch.cat(found, dim=2)
