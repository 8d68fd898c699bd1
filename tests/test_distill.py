"""The distillation loop: bad steps are caught, a killed run resumes to the same end."""

import pytest
import torch

from stages import distill
from stages.distill import learn
from stages.shared.errors import UserError
from stages.shared.method import Method, Variable


def quadratic(bad=(), iterations=30, lr=0.1, loss=None):
    """Minimise (x - 3)^2 by the loop's own SGD; `bad` iterations have a gradient that is not a number."""
    x = Variable(torch.zeros(2, 2), lr, momentum=0.5)
    rate = Variable(torch.tensor(1.0), 0.01, positive=True)

    def steps(iteration):
        gradient = 2 * (x.value - 3)
        gradient = torch.full_like(gradient, torch.nan) if iteration in bad else gradient
        yield (x.value - 3).square().sum() if loss is None else loss(iteration), {"images": gradient, "step_size": torch.tensor(0.1)}

    return Method(lambda: x.value, torch.arange(2), iterations, {"images": x, "step_size": rate}, steps)


def test_it_descends_and_keeps_the_curve():
    method = quadratic()
    curve, skipped = learn(method, None, "row")
    assert list(curve) == ["iteration", "loss", "step_size"]
    assert curve["loss"][-1] < 1e-3 < curve["loss"][0] and skipped == 0
    assert torch.allclose(method.images(), torch.full((2, 2), 3.0), atol=0.05)
    assert curve["step_size"][-1] == pytest.approx(1 - 30 * 0.001, rel=1e-4)


def test_the_update_is_pytorchs_sgd():
    method, x = quadratic(iterations=5), torch.zeros(2, 2, requires_grad=True)
    learn(method, None, "row")
    optimiser = torch.optim.SGD([x], lr=0.1, momentum=0.5)
    for _ in range(5):
        optimiser.zero_grad()
        (x - 3).square().sum().backward()
        optimiser.step()
    assert torch.allclose(method.images(), x.detach())


def test_a_bad_step_is_skipped_and_counted():
    method = quadratic(bad={3, 4, 20})
    _, skipped = learn(method, None, "row")
    assert skipped == 3 and method.images().isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_that_stays_bad_stops_with_a_reason(value):
    with pytest.raises(UserError, match=r"row: iteration 16: the loss is (nan|inf), 10 times in a row. Lower .*images 0.1"):
        learn(quadratic(loss=lambda i: torch.tensor(1.0 if i < 7 else value)), None, "row")


def test_a_step_size_that_would_leave_its_range_stops_the_run():
    method = quadratic()
    method.variables["step_size"].lr = 100.0
    with pytest.raises(UserError, match=r"step_size would leave \(0, inf\)"):
        learn(method, None, "row")
    assert float(method.variables["step_size"].value) == 1.0, "no such value was ever kept"


def test_a_killed_run_resumes_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setattr(distill, "CHECKPOINT_SECONDS", -1)
    whole = quadratic()
    curve, _ = learn(whole, None, "row")
    killed = quadratic(loss=lambda i: (_ for _ in ()).throw(KeyboardInterrupt) if i == 11 else torch.tensor(1.0))
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        learn(killed, state, "row")
    resumed = quadratic()
    again, _ = learn(resumed, state, "row")
    assert torch.equal(resumed.images(), whole.images())
    assert again["step_size"] == curve["step_size"] and again["iteration"] == curve["iteration"]
