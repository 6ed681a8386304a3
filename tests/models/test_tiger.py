"""TIGER: what it may see, what its scores are, what its loss counts, and that it learns."""

import hashlib
import itertools
import math

import pytest
import torch

from genrec.histories import user_index
from genrec_models.tiger import TIGER, TIGERConfig
from tests.models.tiny_tiger import CLOSE, SETTINGS, USERS, C, L, V, best, colliding_codes, histories, real, slow, tiger


@pytest.fixture(scope="module")
def model() -> TIGER:
    return tiger()


def test_the_presets_have_the_stated_numbers_of_parameters() -> None:
    for name, width in (("5m", 128), ("13m", 384)):
        attention, network = 4 * width * 6 * 64, 2 * width * 1024
        norms = 4 * 2 * width + 4 * 3 * width + 2 * width  # two and three a layer, one at each end
        stacks = 4 * (attention + network) + 4 * (2 * attention + network) + norms + 2 * 32 * 6
        tokens = (4 * 256 + 2000 + 1) * width + width + 4 * 256 * width  # codes, users, nobody; the first; the head
        model = TIGER(10, **TIGER.presets[name])
        assert sum(p.numel() for p in model.parameters()) == stacks + tokens
        assert stacks + tokens == {"5m": 4_978_048, "13m": 14_933_376}[name]
        assert name == "5m" or stacks == 13_378_176


def test_scores_are_those_of_the_slow_reference(model: TIGER) -> None:
    reference = slow(model)
    users = torch.tensor([0, 2, 3, 1])
    item_ids, candidates = histories(4), torch.tensor([[1, 60, 7], [2, 3, 4], [59, 8, 9], [5, 5, 6]])
    found = model.score(item_ids, candidates, users)
    for row, items, user, scores in zip(item_ids, candidates.tolist(), users.tolist(), found, strict=True):
        expected = torch.tensor([reference.score(real(row), item, user) for item in items], dtype=torch.float32)
        torch.testing.assert_close(scores, expected, **CLOSE)


def test_a_level_s_codes_share_all_chances_also_those_that_lead_nowhere(model: TIGER) -> None:
    codes = torch.tensor(list(itertools.product(range(C), repeat=2)))
    complete = TIGER(C * C, num_layers=1, **SETTINGS, levels=2).eval()
    complete.set_codes(torch.cat([codes[:1], codes]))
    total = complete.score(torch.tensor([[3, 1]]), torch.arange(1, C * C + 1).unsqueeze(0)).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0))
    assert model.score(histories(1), torch.arange(1, V + 1).unsqueeze(0)).exp().sum() < 0.9


def test_extra_padding_changes_nothing(model: TIGER) -> None:
    short = torch.tensor([[3, 7], [0, 5]])
    padded = torch.nn.functional.pad(short, (L - 2, 0))
    candidates = torch.arange(1, V + 1).expand(2, -1)
    torch.testing.assert_close(model.score(padded, candidates), model.score(short, candidates), **CLOSE)
    search = model.serving_module(10)
    assert best(search, padded) == best(search, short)


def test_the_order_of_a_history_counts(model: TIGER) -> None:
    candidates = torch.arange(1, V + 1).unsqueeze(0)
    forth, back = (model.score(torch.tensor([row]), candidates) for row in ([3, 7, 2], [2, 7, 3]))
    assert (forth - back).abs().max() > 1e-2


def test_every_item_of_the_window_and_the_user_count(model: TIGER) -> None:
    candidates, history = torch.arange(1, V + 1).unsqueeze(0), torch.tensor([[1, 2, 3, 4, 5]])
    scores = model.score(history, candidates)
    for slot in range(L):
        changed = history.clone()
        changed[0, slot] = 10
        assert (model.score(changed, candidates) - scores).abs().max() > 1e-3
    assert (model.score(history, candidates, torch.tensor([2])) - scores).abs().max() > 1e-3
    torch.testing.assert_close(model.score(history, candidates, torch.tensor([0])), scores, atol=0, rtol=0)


def test_the_loss_is_the_mean_over_the_codes_of_all_targets(model: TIGER) -> None:
    item_ids, targets = torch.tensor([[0, 4, 9], [7, 2, 5]]), torch.tensor([[0, 9, 6], [2, 5, 1]])
    pairs = [([4], 9), ([4, 9], 6), ([7], 2), ([7, 2], 5), ([7, 2, 5], 1)]
    scores = [model.score(torch.tensor([history]), torch.tensor([[item]])).item() for history, item in pairs]
    expected = torch.tensor(-sum(scores) / (5 * 4))  # five targets of four codes
    torch.testing.assert_close(model.loss({"item_ids": item_ids, "targets": targets})["loss"], expected)


def test_long_windows_cost_what_their_targets_cost_one_by_one() -> None:
    model, events = tiger(num_layers=1, max_seq_length=11), histories(3, seed=2).repeat(1, 3)[:, 1:13]
    events = events.where(events != 0, 9)
    events[1, :4] = 0
    item_ids, targets = events[:, :-1], events[:, 1:] * (events[:, :-1] != 0)
    pairs = [(row[: slot + 1], goal[slot]) for row, goal in zip(item_ids, targets, strict=True) for slot in range(11)]
    scores = [model.score(row.unsqueeze(0), goal.view(1, 1)).item() for row, goal in pairs if goal]
    assert len(scores) == 11 + 7 + 11
    expected = torch.tensor(-sum(scores) / (len(scores) * 4))
    torch.testing.assert_close(model.loss({"item_ids": item_ids, "targets": targets})["loss"], expected)


def test_users_of_a_batch_are_read(model: TIGER) -> None:
    batch = {"item_ids": torch.tensor([[4, 9]]), "targets": torch.tensor([[0, 6]])}
    known = model.loss(batch | {"users": torch.tensor([2])})["loss"]
    expected = -model.score(torch.tensor([[4, 9]]), torch.tensor([[6]]), torch.tensor([2])).sum() / 4
    torch.testing.assert_close(known, expected)
    assert not torch.allclose(known, model.loss(batch)["loss"])


def test_a_batch_without_a_target_costs_nothing(model: TIGER) -> None:
    empty = torch.zeros(2, 3, dtype=torch.int64)
    assert model.loss({"item_ids": empty, "targets": empty})["loss"].item() == 0


def test_training_draws_so_many_targets_and_each_alike_often(monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn = tiger(num_layers=1, max_targets=2).train(), []
    memory = model.memory
    monkeypatch.setattr(model, "memory", lambda item_ids, users: (drawn.append(item_ids), memory(item_ids, users))[1])
    for _ in range(300):
        model.loss({"item_ids": torch.tensor([[0, 4, 9], [0, 0, 7]]), "targets": torch.tensor([[0, 9, 6], [0, 0, 2]])})
    assert {len(histories) for histories in drawn} == {2}
    rows = [real(row) for histories in drawn for row in histories]
    times = [sum(row == history for row in rows) for history in ([4], [4, 9], [7])]
    assert sum(times) == 600
    assert all(abs(count - 300 * 2 / 3) < 4 * math.sqrt(300 * 2 / 3 * 1 / 3) for count in times)  # four deviations


def test_it_learns_a_rule() -> None:
    torch.manual_seed(0)
    model = TIGER(V, num_layers=1, **(SETTINGS | {"embedding_dim": 16, "head_dim": 8, "ff_dim": 32, "dropout": 0.0}))
    model.set_codes(colliding_codes())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=150)
    losses = []
    for _ in range(150):
        walk = (torch.randint(1, V + 1, (64, 1)) + torch.arange(3) * 7 - 1) % V + 1  # the next item is seven further on
        loss = model.loss({"item_ids": walk[:, :-1], "targets": walk[:, 1:]})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(C), abs=0.1)  # small weights know nothing
    assert sum(losses[-5:]) / 5 < 0.3
    found = best(model.eval().serving_module(1, 10), torch.arange(1, V + 1).unsqueeze(1))
    right = sum(items == [(item + 6) % V + 1] for item, items in enumerate(found, start=1))
    assert right >= 0.8 * V


def test_codes_are_saved_with_the_weights(model: TIGER) -> None:
    again = TIGER(V, num_layers=2, **SETTINGS).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.codes, model.codes)
    assert best(again.serving_module(7), histories(3)) == best(model.serving_module(7), histories(3))


def test_without_codes_nothing_is_done() -> None:
    bare = TIGER(V, **SETTINGS)
    batch = {"item_ids": torch.tensor([[1]]), "targets": torch.tensor([[2]])}
    for call in (lambda: bare.loss(batch), lambda: bare.serving_module(5), lambda: bare.scores(torch.tensor([[1]]))):
        with pytest.raises(ValueError, match="no codes: give every item its own with set_codes"):
            call()


def test_codes_that_do_not_fit_are_refused(model: TIGER) -> None:
    good = colliding_codes()
    with pytest.raises(ValueError, match=rf"= \({V + 1}, 4\), got torch.int64 \({V}, 4\)"):
        model.set_codes(good[1:])
    with pytest.raises(ValueError, match=r"got torch.float32"):
        model.set_codes(good.float())
    with pytest.raises(ValueError, match=rf"codes must lie in 0..{C - 1}, got 0 to {C}"):
        model.set_codes(good.where(good != good.max(), C))
    with pytest.raises(ValueError, match="have the codes of another"):
        model.set_codes(torch.zeros_like(good))


def test_a_history_longer_than_the_window_is_refused(model: TIGER) -> None:
    with pytest.raises(ValueError, match=str(L)):
        model.score(torch.ones(1, L + 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64))


def test_a_user_s_token_is_a_hash_of_the_id_s_text() -> None:
    for user in ("A1YJEY40YUW4SE", 42):
        digest = hashlib.blake2b(str(user).encode(), digest_size=8).hexdigest()
        assert user_index(user) == 1 + int(digest, 16) % 2000
    assert {user_index(user, num_users=USERS) for user in range(50)} == {1, 2, 3}


def test_the_settings_rebuild_the_model() -> None:
    config = TIGERConfig(V, num_layers=1, beam=9, max_targets=4, levels=3, **(SETTINGS | {"dropout": 0.2}))
    model = TIGER(**vars(config))
    assert model.config == config
    assert (model.num_items, model.max_seq_length) == (V, L)
    with pytest.raises(ValueError, match=r"codebook_size \(0\) must be at least 1"):
        TIGER(V, codebook_size=0)
