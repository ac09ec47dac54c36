import pytest
import torch

from client.optimizer import OPTIMIZERS


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")
@pytest.mark.parametrize(("name", "reference"), [("adamw", "AdamW"), ("sgd", "SGD")])
def test_steps_are_those_of_torchs_classes(name: str, reference: str) -> None:
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = start.clone(), start.clone().requires_grad_()
    optimizer = OPTIMIZERS[name]([ours], 0.05, 0.1)
    expected = getattr(torch.optim, reference)([theirs], lr=0.05, weight_decay=0.1, fused=True)
    for step in range(4):
        gradient = torch.full((5, 3), 0.3 * (step + 1))
        optimizer.step([gradient])
        theirs.grad = gradient
        expected.step()
    assert (ours == theirs).all()
    assert (ours != start).any()
