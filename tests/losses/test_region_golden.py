"""The second stage's losses against arrays of their authors' implementations (tests/golden/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.conftest import GOLDEN
from tests.processes import context, start_ranks
from yolox_lt.distributed.processes import free_port
from yolox_lt.losses import EQLLoss, EQLv2Loss, GroupSoftmaxLoss, SeesawLoss, SoftmaxLoss
from yolox_lt.losses.balance import CategoryCounts
from yolox_lt.models.layers import NormedLinear

C = 30
PRECISIONS = {"f32": (torch.float32, 1e-4), "f64": (torch.float64, 1e-9)}
DIVISOR_EXTRA = 1.1920929e-07
"""What the reference of Seesaw adds to the number of regions."""


def inputs(data, case, dtype):
    logits = torch.from_numpy(data[f"{case}_logits"]).to(dtype).requires_grad_()
    return logits, torch.from_numpy(data[f"{case}_labels"])


def close(got, want, rtol):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-2 * rtol * max(np.abs(want).max(), 1e-12))


# ------------------------------------------------------------------------------------------------------------ softmax


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", ["per_class", "agnostic", "all_background"])
def test_softmax(golden, case, precision):
    data, (dtype, rtol) = golden("two_stage_head.npz"), PRECISIONS[precision]
    logits, labels = inputs(data, case, dtype)
    loss_fn = SoftmaxLoss(C)
    loss = loss_fn(logits, labels)
    loss.backward()
    close(loss, data[f"{case}_{precision}_cls_loss"], rtol)
    close(logits.grad, data[f"{case}_{precision}_logits_grad"], rtol)
    close(loss_fn.scores(logits), data[f"{case}_scores_f32"], 1e-4)


# ---------------------------------------------------------------------------------------------------------------- EQL


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("threshold", ["0.0011", "0.00177"])
@pytest.mark.parametrize("case", ["random", "prior", "all_background", "no_background", "one_roi", "extreme"])
def test_eql(golden, case, threshold, precision):
    data, (dtype, rtol) = golden("two_stage_eql.npz"), PRECISIONS[precision]
    logits, labels = inputs(data, case, dtype)
    loss_fn = EQLLoss(C, torch.from_numpy(data["frequency"]), float(threshold))
    np.testing.assert_array_equal(loss_fn.tail.numpy(), data[f"t{threshold}_tail"])
    loss = loss_fn(logits, labels)
    loss.backward()
    close(loss, data[f"{case}_t{threshold}_{precision}_loss"], rtol)
    close(logits.grad, data[f"{case}_t{threshold}_{precision}_grad"], rtol)


def test_eql__scores(golden):
    data = golden("two_stage_eql.npz")
    scores = EQLLoss(C, torch.zeros(C)).scores(torch.from_numpy(data["random_logits"]))
    close(scores, data["random_f32_scores"], 1e-4)


def test_eql__lvis_categories(golden):
    """815 categories of LVIS v1 are below 0.0011 of the images that have an annotation: 337 r, 461 c, 17 f."""
    data, categories = golden("two_stage_eql.npz"), golden("lvis_v1_categories.json")
    categories = categories["categories"] if isinstance(categories, dict) else categories
    categories = sorted(categories, key=lambda c: c["id"])
    frequency = torch.tensor([c["image_count"] / 99388 for c in categories], dtype=torch.float64)
    loss_fn = EQLLoss(1203, frequency)
    np.testing.assert_array_equal(loss_fn.tail.numpy(), data["lvis_t0.0011_tail"])
    np.testing.assert_array_equal(EQLLoss(1203, frequency, 0.00177).tail.numpy(), data["lvis_t0.00177_tail"])
    groups = np.array([c["frequency"] for c in categories])[loss_fn.tail.numpy()]
    assert [int((groups == g).sum()) for g in "rcf"] == [337, 461, 17]
    logits, labels = inputs(data, "lvis", torch.float64)
    loss = loss_fn(logits, labels)
    loss.backward()
    close(loss, data["lvis_f64_loss"], 1e-9)
    close(logits.grad, data["lvis_f32_grad"], 1e-6)  # stored as float32


# -------------------------------------------------------------------------------------------------------------- EQLv2


def check_balance(balance, data, key, rtol):
    for name in ("pos_grad", "neg_grad", "ratio"):
        close(getattr(balance, name), data[f"{key}_{name}"], rtol)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_eqlv2__six_steps(golden, precision):
    data, (dtype, rtol) = golden("two_stage_eqlv2.npz"), PRECISIONS[precision]
    loss_fn = EQLv2Loss(C).to(dtype)
    for step in range(6):
        logits, labels = inputs(data, f"t{step}", dtype)
        key = f"t{step}_{precision}"
        for got, name in zip(loss_fn.weights(), ("pos_weight", "neg_weight")):
            close(got, data[f"{key}_{name}"], rtol)
        loss = loss_fn(logits, labels)
        loss.backward()
        close(loss, data[f"{key}_loss"], rtol)
        close(logits.grad, data[f"{key}_grad"], rtol)
        check_balance(loss_fn.balance, data, key, rtol)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_eqlv2__statistic_knows_no_normaliser(golden, precision):
    data, (dtype, rtol) = golden("two_stage_eqlv2.npz"), PRECISIONS[precision]
    loss_fn = EQLv2Loss(C).to(dtype)
    logits, labels = inputs(data, "t1", dtype)
    loss = loss_fn(logits, labels, len(labels) / 2)  # as a loss weight of 2
    close(loss, data[f"weight2_{precision}_loss"], rtol)
    for name in ("pos_grad", "neg_grad"):
        close(getattr(loss_fn.balance, name), data[f"weight2_{precision}_{name}"], rtol)
    close(loss_fn.scores(logits), data[f"scores_{precision}"], rtol)


def test_eqlv2__evaluation_mode_changes_nothing(golden):
    data = golden("two_stage_eqlv2.npz")
    loss_fn = EQLv2Loss(C).eval()
    loss_fn(*inputs(data, "t1", torch.float32))
    assert loss_fn.balance.pos_grad.sum() == 0


# ------------------------------------------------------------------------------------------------------------- Seesaw


@pytest.mark.parametrize("precision", PRECISIONS)
def test_seesaw__six_steps(golden, precision):
    data, (dtype, rtol) = golden("two_stage_seesaw.npz"), PRECISIONS[precision]
    loss_fn = SeesawLoss(C).to(dtype)
    for step in range(6):
        logits, labels = inputs(data, f"t{step}", dtype)
        key = f"t{step}_{precision}"
        parts = loss_fn.parts(logits, labels, len(labels) + DIVISOR_EXTRA)
        sum(parts.values()).backward()
        close(parts["class"], data[f"{key}_class_loss"], rtol)
        close(parts["objectness"], data[f"{key}_objectness_loss"], rtol)
        close(logits.grad, data[f"{key}_grad"], rtol)
        np.testing.assert_array_equal(loss_fn.counts.numpy(), data[f"{key}_counts"][:C])
        close(loss_fn.scores(logits), data[f"{key}_scores"], rtol)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("variant", "settings"), [("mitigation", {"q": 0.0}), ("compensation", {"p": 0.0})])
def test_seesaw__one_factor_alone(golden, variant, settings, precision):
    data, (dtype, rtol) = golden("two_stage_seesaw.npz"), PRECISIONS[precision]
    loss_fn = SeesawLoss(C, **settings).to(dtype)
    for step in range(6):
        logits, labels = inputs(data, f"t{step}", dtype)
        if f"t{step}_{variant}_{precision}_class_loss" not in data:
            continue
        parts = loss_fn.parts(logits, labels, len(labels) + DIVISOR_EXTRA)
        close(parts["class"], data[f"t{step}_{variant}_{precision}_class_loss"], rtol)
        if precision == "f64":
            sum(parts.values()).backward()
            close(logits.grad, data[f"t{step}_{variant}_f64_grad"], 1e-6)  # stored as float32


def test_seesaw__counts_of_nine_decades(golden):
    data = golden("two_stage_seesaw.npz")
    loss_fn = SeesawLoss(C).double()
    loss_fn.counts.copy_(torch.from_numpy(data["counts_start"][:C]))
    logits, labels = inputs(data, "counts", torch.float64)
    parts = loss_fn.parts(logits, labels, len(labels) + DIVISOR_EXTRA)
    sum(parts.values()).backward()
    close(parts["class"], data["counts_f64_class_loss"], 1e-9)
    close(parts["objectness"], data["counts_f64_objectness_loss"], 1e-9)
    close(logits.grad, data["counts_f64_grad"], 1e-9)
    np.testing.assert_array_equal(loss_fn.counts.numpy(), data["counts_f64_counts"][:C])


def test_seesaw__own_normalizer(golden):
    data = golden("two_stage_seesaw.npz")
    parts = SeesawLoss(C).double().parts(*inputs(data, "t0", torch.float64), 50 / 2)
    close(parts["class"], data["weight2_normalizer50_f64_class_loss"], 1e-6)
    close(parts["objectness"], data["weight2_normalizer50_f64_objectness_loss"], 1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_seesaw__counts_of_each_worker_alone(golden, rank):
    """What the reference does: two losses that know nothing of each other."""
    data = golden("two_stage_seesaw.npz")
    loss_fn = SeesawLoss(C).double()
    for step in range(3):
        logits, labels = inputs(data, f"rank{rank}_t{step}", torch.float64)
        key = f"rank{rank}_t{step}_local_f64"
        parts = loss_fn.parts(logits, labels, len(labels) + DIVISOR_EXTRA)
        sum(parts.values()).backward()
        close(parts["class"], data[f"{key}_class_loss"], 1e-9)
        close(logits.grad, data[f"{key}_grad"], 1e-6)  # stored as float32
        np.testing.assert_array_equal(loss_fn.counts.numpy(), data[f"{key}_counts"][:C])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_normed_linear(golden, precision):
    data, (dtype, rtol) = golden("two_stage_seesaw.npz"), PRECISIONS[precision]
    layer = NormedLinear(16, 32).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(data["normed_weight"]))
        layer.bias.copy_(torch.from_numpy(data["normed_bias"]))
    x = torch.from_numpy(data["normed_input"]).to(dtype).requires_grad_()
    output = layer(x)
    output.backward(torch.from_numpy(data["normed_grad_output"]).to(dtype))
    close(output, data[f"normed_{precision}_output"], rtol)
    for got, name in ((x.grad, "input"), (layer.weight.grad, "weight"), (layer.bias.grad, "bias")):
        close(got, data[f"normed_{precision}_grad_{name}"], rtol)


# --------------------------------------------------------------------------------------------------------------- BAGS


def test_bags__columns(golden):
    data = golden("two_stage_bags.npz")
    loss_fn = GroupSoftmaxLoss(C, data["instance_counts"].tolist())
    assert loss_fn.num_outputs == data["num_outputs"]
    assert loss_fn.sizes == data["group_sizes"].tolist()
    for name in ("category_column", "others_column", "group_of_category"):
        np.testing.assert_array_equal(getattr(loss_fn, name).numpy(), data[name])
    labels = torch.cat([torch.arange(C), torch.tensor([-1])])
    np.testing.assert_array_equal(loss_fn.targets(labels).numpy(), data["group_label_maps"])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", ["random", "zipf", "all_background", "no_background", "one_group", "extreme"])
def test_bags(golden, case, precision):
    data, (dtype, rtol) = golden("two_stage_bags.npz"), PRECISIONS[precision]
    loss_fn = GroupSoftmaxLoss(C, data["instance_counts"].tolist())
    logits, labels = inputs(data, case, dtype)
    selected = torch.from_numpy(data[f"{case}_selected"])
    loss = loss_fn(logits, labels, selected)
    loss.backward()
    close(loss, data[f"{case}_{precision}_loss"], rtol)
    close(logits.grad, data[f"{case}_{precision}_grad"], rtol)
    groups = loss_fn.group_losses(logits, labels, selected)
    close(groups, data[f"{case}_{precision}_group_losses"], max(rtol, 1e-7 if precision == "f32" else 0))
    close(loss_fn.scores(logits), data[f"{case}_{precision}_scores"], rtol)
    # Another draw: the same regions of its own, and as many others, in each group.
    own = loss_fn.select(labels, torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(own.sum(dim=1).clamp(min=1).numpy(), data[f"{case}_normalizers"])
    assert (own | (loss_fn.targets(labels) == 0)).all()


# ---------------------------------------------------------------------------------------------------------- two ranks


def two_workers(rank, port, queue):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {}
    with np.load(GOLDEN / "two_stage_eqlv2.npz") as archive:
        for precision, (dtype, _) in PRECISIONS.items():
            loss_fn = EQLv2Loss(C).to(dtype)
            for step in range(3):
                logits, labels = inputs(archive, f"rank{rank}_t{step}", dtype)
                loss = loss_fn(logits, labels)
                loss.backward()
                state = {n: getattr(loss_fn.balance, n).numpy().copy() for n in ("pos_grad", "neg_grad", "ratio")}
                found["eqlv2", precision, step] = (loss.item(), logits.grad.numpy(), state)
    with np.load(GOLDEN / "two_stage_seesaw.npz") as archive:
        loss_fn = SeesawLoss(C).double()
        for step in range(3):
            logits, labels = inputs(archive, f"rank{rank}_t{step}", torch.float64)
            parts = loss_fn.parts(logits, labels, len(labels) + DIVISOR_EXTRA)
            sum(parts.values()).backward()
            found["seesaw", step] = (parts["class"].item(), logits.grad.numpy(), loss_fn.counts.numpy().copy())
        loss_fn.statistic.auto_commit = False
        before = loss_fn.counts.clone()
        loss_fn(torch.zeros(0, C + 2), torch.zeros(0, dtype=torch.int64))  # an empty batch takes part all the same
        loss_fn.statistic.discard()
        found["kept"] = bool((loss_fn.counts == before).all())
    queue.put((rank, found))
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks__statistics_are_summed(golden):
    queue = context().SimpleQueue()
    ranks = start_ranks(two_workers, (free_port(), queue), 2, join=False)
    results = dict(queue.get() for _ in range(2))
    while not ranks.join():
        pass
    eqlv2, seesaw = golden("two_stage_eqlv2.npz"), golden("two_stage_seesaw.npz")
    for rank in range(2):
        found = results[rank]
        assert found["kept"]
        for step in range(3):
            for precision, (_, rtol) in PRECISIONS.items():
                loss, grad, state = found["eqlv2", precision, step]
                close(loss, eqlv2[f"rank{rank}_t{step}_{precision}_loss"], rtol)
                close(grad, eqlv2[f"rank{rank}_t{step}_{precision}_grad"], rtol)
                for name, value in state.items():
                    close(value, eqlv2[f"both_t{step}_{precision}_{name}"], rtol)
            loss, grad, counts = found["seesaw", step]
            close(loss, seesaw[f"rank{rank}_t{step}_summed_f64_class_loss"], 1e-9)
            close(grad, seesaw[f"rank{rank}_t{step}_summed_f64_grad"], 1e-6)  # stored as float32
            np.testing.assert_array_equal(counts, seesaw[f"both_t{step}_summed_counts"][:C])


# --------------------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize(
    "loss_fn",
    [
        SoftmaxLoss(5),
        EQLLoss(5, torch.zeros(5)),
        EQLv2Loss(5),
        SeesawLoss(5),
        GroupSoftmaxLoss(5, [1, 20, 200, 2000, 3]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_scores_and_edges(loss_fn):
    """No region: loss 0, and a gradient all the same. Half precision equals float32 of the same numbers."""
    empty = torch.zeros(0, loss_fn.num_outputs, requires_grad=True)
    loss = loss_fn(empty, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    logits, labels = torch.randn(9, loss_fn.num_outputs), torch.tensor([0, 1, 2, 3, 4, -1, -1, -1, -1])
    scores = loss_fn.scores(logits)
    assert scores.shape == (9, 6)
    assert ((scores >= 0) & (scores <= 1)).all()
    if isinstance(loss_fn, (SoftmaxLoss, SeesawLoss)):
        torch.testing.assert_close(scores.sum(dim=1), torch.ones(9))
    loss_fn.eval()
    half = logits.to(torch.bfloat16)
    generator = torch.Generator()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss_fn.sampled(half, labels, generator.manual_seed(0))
    assert got == loss_fn.sampled(half.float(), labels, generator.manual_seed(0))
    with pytest.raises(ValueError, match=r"labels must be in -1..4"):
        loss_fn(logits, labels.where(labels != 0, 5))
    with pytest.raises(ValueError, match="expected logits"):
        loss_fn(logits[:, 1:], labels)


def test_counts__of_two_passes_before_the_step_ends():
    """Accumulated gradients: the second pass sees the first one's regions, and the step keeps both; by hand."""
    counts = CategoryCounts(3)
    counts.auto_commit = False
    assert counts.including(torch.tensor([0, 2, 2, -1])).tolist() == [1, 0, 2]
    assert counts.including(torch.tensor([1, 2])).tolist() == [1, 1, 3]
    assert counts.counts.tolist() == [0, 0, 0]
    counts.commit()
    assert counts.counts.tolist() == [1, 1, 3]
