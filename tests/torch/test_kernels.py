"""The kernels on PyTorch's tensors: CUDA kernels on the emulated device, on the memory of CPU tensors; devices, streams
and arrays on a stand-in for CuPy that records its calls."""

import sys
from contextlib import contextmanager
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import torch

from gpu_nn import device as devices
from gpu_nn.torch import _kernels, linear_softmax_cross_entropy, softmax_cross_entropy
from tests.cuda_emulator import cupy_proxy
from tests.cuda_emulator.device import emulated_device

LABELS = torch.tensor([0, 3, 4, -100, 1, 2])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0])


def logits(dtype, rows=6):
    return (torch.randn(rows, 5, generator=torch.Generator().manual_seed(0)) * 10).to(dtype).requires_grad_()


def shared(tensor, device):
    """What CuPy's from_dlpack would give: an array on the memory of the tensor."""
    assert device.kind == "cuda"
    tensor = tensor.detach()
    assert tensor.is_contiguous()
    if tensor.dtype == torch.bfloat16:
        return cupy_proxy.ndarray._of(tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return cupy_proxy.ndarray._of(tensor.numpy())


@pytest.fixture
def emulated(monkeypatch):
    """Tensors of the CPU are taken for those of a GPU."""
    with emulated_device() as device:

        @contextmanager
        def active_device(_):
            yield device

        monkeypatch.setattr(_kernels, "active_device", active_device)
        monkeypatch.setattr(_kernels, "as_array", shared)
        yield device


def results(cost, *arguments, **options):
    loss = cost(*arguments, **options)
    needed = [t for t in arguments if t.requires_grad]
    return [loss, *torch.autograd.grad(loss.sum(), needed)]


class TestKernels:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("target", ["indices", "int32", "probabilities"])
    def test_every_type_has_the_result_of_the_cpu(self, emulated, monkeypatch, dtype, target):
        y = {"indices": LABELS, "int32": LABELS.int()}.get(target)
        if y is None:
            y = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
        for options in ({}, {"weight": WEIGHT, "label_smoothing": 0.1, "reduction": "none"}):
            found = results(softmax_cross_entropy, logits(dtype), y, **options)
            with monkeypatch.context() as patch:
                patch.setattr(_kernels, "active_device", cpu)
                patch.setattr(_kernels, "as_array", lambda tensor, device: tensor.detach().numpy())
                expected = results(softmax_cross_entropy, logits(dtype), y, **options)
            assert found[1].dtype == dtype
            rtol = 1e-12 if dtype == torch.float64 else 1e-5
            torch.testing.assert_close(found[0], expected[0], rtol=rtol, atol=0)
            torch.testing.assert_close(found[1], expected[1], rtol=max(rtol, 2 * torch.finfo(dtype).eps), atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_the_linear_cost(self, emulated, dtype):
        generator = torch.Generator().manual_seed(0)
        a, w = ((torch.randn(n, 4, generator=generator)).to(dtype).requires_grad_() for n in (6, 5))
        bias = torch.zeros(5, dtype=dtype, requires_grad=True)
        found = results(linear_softmax_cross_entropy, a, w, bias, LABELS, chunk_rows=4)

        def of_logits(a, w, bias, y):
            return softmax_cross_entropy(a @ w.T + bias, y)

        exact = [t.detach().double().requires_grad_() for t in (a, w, bias)]
        for one, other in zip(found, results(of_logits, *exact, LABELS), strict=True):
            error = (one.double() - other).abs().max() / other.abs().max()
            assert error < 4 * torch.finfo(dtype).eps

    def test_a_label_out_of_range_is_nan_in_its_row_and_no_error(self, emulated):
        z = logits(torch.float32)
        loss = softmax_cross_entropy(z, torch.tensor([0, 5, 1, -1, 2, 2]), weight=WEIGHT, reduction="none")
        assert loss.isnan().tolist() == [False, True, False, True, False, False]
        mean = softmax_cross_entropy(z, torch.tensor([0, 5, 1, -1, 2, 2]), weight=WEIGHT)
        assert mean.isnan()

    def test_the_host_neither_waits_nor_copies(self, emulated):
        z, y = logits(torch.float32), LABELS
        softmax_cross_entropy(z, y)
        with cupy_proxy.synchronisations.record() as waits, cupy_proxy.uploads.record() as copies:
            softmax_cross_entropy(z, y, weight=WEIGHT, label_smoothing=0.1).backward()
        assert waits == []
        assert copies == []


@contextmanager
def cpu(_):
    yield devices.CPU


class TestActiveDevice:
    @pytest.fixture
    def cupy(self, monkeypatch):
        """Stands for CuPy; `asked` are the devices, streams and tensors that it was given, in order."""
        asked = []

        @contextmanager
        def noted(what, value):
            asked.append((f"enter {what}", value))
            yield
            asked.append((f"leave {what}", value))

        module = SimpleNamespace(
            asked=asked,
            from_dlpack=lambda tensor: asked.append(("array", tensor)) or "an array",
            cuda=SimpleNamespace(
                Device=lambda index: noted("device", index),
                Stream=SimpleNamespace(from_external=lambda stream: noted("stream", stream.__cuda_stream__())),
            ),
        )
        monkeypatch.setattr(devices, "cupy_override", module)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1234))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        return module

    def test_arrays_are_made_on_the_device_and_stream_of_pytorch(self, cupy):
        tensor = torch.zeros(3, requires_grad=True)
        with _kernels.active_device(torch.device("cuda:1")) as device:
            assert _kernels.as_array(tensor, device) == "an array"
        assert (device.name, device.xp) == ("cuda:1", cupy)
        steps = [step for step, _ in cupy.asked]
        assert steps == ["enter device", "enter stream", "array", "leave stream", "leave device"]
        assert [cupy.asked[0][1], cupy.asked[1][1]] == [1, (0, 1234)]
        handed = cupy.asked[2][1]
        assert handed.data_ptr() == tensor.data_ptr()
        assert not handed.requires_grad  # DLPack refuses a tensor that does

    def test_a_device_without_a_number_is_the_current_one(self, cupy):
        with _kernels.active_device(torch.device("cuda")) as device:
            assert device.name == "cuda:0"

    def test_what_pytorch_s_capsule_holds_is_the_tensor_s_memory(self):
        """NumPy's from_dlpack, which can run here, on the tensor that as_array passes."""
        tensor = torch.arange(6.0).reshape(2, 3)
        array = np.from_dlpack(tensor.detach())
        tensor[0, 0] = 7  # written from this side: arrays of older versions' capsules are read-only
        assert array[0, 0] == 7

    def test_cupy_is_asked_for_by_name_where_it_is_missing(self, monkeypatch):
        monkeypatch.setattr(devices, "cupy_override", None)
        monkeypatch.setitem(sys.modules, "cupy", None)
        with pytest.raises(devices.DeviceError, match=r"gpu_nn\[cuda12x\]"):
            _kernels.active_device(torch.device("cuda:0")).__enter__()


@pytest.mark.gpu
class TestOnAGPU:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("other_stream", [False, True])
    def test_results_are_those_of_the_cpu_on_any_stream(self, dtype, other_stream):
        if not torch.cuda.is_available():
            pytest.skip("PyTorch finds no GPU")
        z = logits(dtype)
        expected = results(softmax_cross_entropy, z, LABELS)
        on_gpu = z.detach().cuda().requires_grad_()
        stream = torch.cuda.Stream() if other_stream else torch.cuda.current_stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = results(softmax_cross_entropy, on_gpu, LABELS.cuda())
        torch.cuda.synchronize()
        eps = torch.finfo(dtype).eps
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=max(8 * eps, 1e-12), atol=8 * eps)
