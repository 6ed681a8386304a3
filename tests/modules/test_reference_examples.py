"""The usage examples of the modules' reference, with what it documents of their results."""

import pytest
import torch


def test_using_encoders() -> None:
    from genrec.modules import TransformerEncoder

    encoder = TransformerEncoder(vocab_size=1000, embedding_dim=512, num_heads=8, num_layers=6, attn_dim=2048)
    input_ids = torch.randint(0, 1000, (32, 50))
    attention_mask = torch.ones_like(input_ids)
    with torch.no_grad():
        encoded = encoder(input_ids, attention_mask)
    assert encoded.shape == (32, 50, 512)


def test_using_loss_functions() -> None:
    from genrec.modules import SequenceLoss, VQVAELoss

    x, x_recon = torch.randn(4, 16), torch.randn(4, 16)
    commitment_loss, embedding_loss = torch.rand(()), torch.rand(())
    vqvae_loss = VQVAELoss(commitment_cost=0.25)
    losses = vqvae_loss(x, x_recon, commitment_loss, embedding_loss)
    assert list(losses) == ["total_loss", "reconstruction_loss", "commitment_loss", "embedding_loss"]

    logits, labels = torch.randn(4, 7, 1000), torch.randint(0, 1000, (4, 7))
    attention_mask = torch.ones_like(labels)
    seq_loss = SequenceLoss(vocab_size=1000, label_smoothing=0.1)
    losses = seq_loss(logits, labels, attention_mask)
    assert list(losses) == ["loss", "accuracy"]


def test_computing_evaluation_metrics() -> None:
    from genrec.modules import RecommendationMetrics

    predictions = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    targets = [[1, 3, 5], [7, 9]]
    recall_5 = RecommendationMetrics.recall_at_k(predictions, targets, 5)
    ndcg_5 = RecommendationMetrics.ndcg_at_k(predictions, targets, 5)
    hit_rate = RecommendationMetrics.hit_rate_at_k(predictions, targets, 5)

    def gain(*ranks: int) -> float:
        return float(sum(1 / torch.log2(torch.tensor(rank + 1.0, dtype=torch.float64)) for rank in ranks))

    assert recall_5 == (3 / 3 + 2 / 2) / 2
    assert ndcg_5 == pytest.approx((gain(1, 3, 5) / gain(1, 2, 3) + gain(2, 4) / gain(1, 2)) / 2)
    assert hit_rate == 2 / 2


def test_model_tools() -> None:
    from genrec.modules import ModelUtils, TransformerEncoder

    model = TransformerEncoder(vocab_size=100, embedding_dim=16, num_heads=2, num_layers=2, attn_dim=32)
    param_count = ModelUtils.count_parameters(model)
    model_size = ModelUtils.get_model_size(model)
    layer = (3 * 16 * 16 + 3 * 16) + (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16) + 2 * (16 + 16)
    assert param_count == 100 * 16 + 2 * layer
    assert model_size == f"{4 * (param_count + 1024 * 16) / 1024 / 1024:.2f} MB"

    ModelUtils.freeze_layers(model, ["embedding", "pos_encoding"])
    assert ModelUtils.count_parameters(model) == 2 * layer
    ModelUtils.unfreeze_layers(model, ["transformer"])
    ModelUtils.initialize_weights(model, init_type="xavier")
    assert ModelUtils.count_parameters(model) == 2 * layer


def test_attention_weights_can_be_shown() -> None:
    from genrec.modules import MultiHeadAttention

    attention = MultiHeadAttention(embedding_dim=16, num_heads=4)
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    mask = torch.ones(2, 5, 5)
    attention_output, attention_weights = attention(query, key, value, mask)
    assert attention_output.shape == (2, 5, 16)
    assert attention_weights.shape == (2, 4, 5, 5)
