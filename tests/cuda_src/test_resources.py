"""NVRTC compiles the sources for every architecture, and cuda_src/RESOURCES.md has what ptxas reports."""

import re

import pytest

from tests.cuda_src import nvrtc, resources
from tests.cuda_src.resources import ARCHITECTURES, OPERATIONS

TABLE = resources.written()
EVERY_OPERATION = pytest.mark.parametrize("operation", OPERATIONS)


def one_of_each_row(operations):
    """A member of every row of the table, for one architecture; another one than in the rows beside it."""
    members = {}
    for instance in resources.instances(operations, ARCHITECTURES):
        members.setdefault((instance[0], resources.row_of(instance[1])), []).append(instance)
    return [found[5 * i % len(found)] for i, found in enumerate(members.values())]


def assert_as_written(measured):
    for (operation, name, architecture), found in measured.items():
        cell = TABLE.cells[f"{operation} | `{resources.row_of(name)}`"][f"sm_{architecture}"]
        registers, shared, spilled = re.fullmatch(r"([\d–]+)(?: · (\d+) B)?(?:, (\d+) B spilled)?", cell).groups()
        low, _, high = registers.partition("–")
        assert int(low) <= found.registers <= int(high or low), (name, architecture, cell)
        assert found.shared <= int(shared or 0), (name, architecture, cell)
        assert found.spills <= int(spilled or 0), (name, architecture, cell)


@EVERY_OPERATION
def test_table_was_made_of_the_sources_as_they_are(operation):
    assert TABLE.digests.get(operation) == resources.digest(operation), "run python -m tests.cuda_src resources"


def test_the_file_is_the_table_and_what_is_said_of_it():
    assert resources.FILE.read_text(encoding="utf-8") == TABLE.text()


@EVERY_OPERATION
def test_table_has_every_kernel_on_every_architecture_that_it_exists_for(operation):
    expected = {}
    for _, name, architecture in resources.instances([operation], ARCHITECTURES):
        expected.setdefault(f"{operation} | `{resources.row_of(name)}`", set()).add(f"sm_{architecture}")
    written = {row: set(cells) for row, cells in TABLE.cells.items() if row.startswith(f"{operation} | ")}
    assert written == expected


@EVERY_OPERATION
def test_nothing_is_spilled_on_any_architecture(operation):
    rows = {row: cells for row, cells in TABLE.cells.items() if row.startswith(f"{operation} | ")}
    assert rows
    assert not {(row, on): cell for row, cells in rows.items() for on, cell in cells.items() if "spilled" in cell}


def test_one_member_of_each_small_kernels_row_compiles_to_what_the_table_says():
    small = [operation for operation in OPERATIONS if not operation.startswith("softmax")]
    assert_as_written(resources.measure(one_of_each_row(small)))


@pytest.mark.slow
def test_one_member_of_each_row_compiles_to_what_the_table_says():
    assert_as_written(resources.measure(one_of_each_row(OPERATIONS)))


@pytest.mark.parametrize(
    ("operation", "name", "loads", "stores"),
    [  # how many accesses of 16 bytes the code has
        ("activation", "bias_activation<float, relu_activation>", 2, 4),
        ("activation", "bias_activation_backward<__half, relu_activation>", 4, 2),
        ("linear", "chunk_sums<double>", 2, 0),
        ("optimizer", "sgd<float, true>", 3, 2),
        ("optimizer", "adam<double>", 4, 3),
        ("gather", "gather<float, float>", 1, 1),
        ("dropout", "dropout<__nv_bfloat16>", 1, 1),
        ("dropout", "dropout_backward<float>", 1, 1),
        ("noise", "noise<float>", 2, 2),
        ("batch_norm", "batch_moments<float>", 2, 0),
        ("batch_norm", "batch_norm<float, relu_activation>", 2, 2),
        ("batch_norm", "batch_norm_sums<double, tanh_activation>", 4, 0),
        ("batch_norm", "batch_norm_backward<float, gelu_activation>", 4, 2),
        ("layer_norm", "layer_norm<float, relu_activation, 32>", 5, 1),
        ("layer_norm", "layer_norm_backward<float, relu_activation, 256>", 8, 1),
        ("layer_norm", "layer_norm<__half, relu_activation, 32>", 35, 5),
        ("layer_norm", "layer_norm_backward<__nv_bfloat16, relu_activation, 256>", 12, 1),
    ],
)
def test_vectors_are_moved_whole(operation, name, loads, stores):
    code = nvrtc.ptx(resources.source(f"{operation}.cu"), name, 80, resources.OPTIONS)
    wide = r"global(?:\.wb)?\.(?:v4\.[uf]32|v2\.[uf]64)"
    assert len(re.findall(rf"ld\.{wide}", code)) >= loads
    assert len(re.findall(rf"st\.{wide}", code)) >= stores


@pytest.mark.parametrize(
    ("name", "loads", "stores"),
    [  # four numbers of a half type: a thread keeps the float32 parameters of as many columns
        ("batch_moments<__half>", 4, 0),
        ("batch_norm<__nv_bfloat16, relu_activation>", 4, 4),
        ("batch_norm_sums<__half, tanh_activation>", 8, 0),
        ("batch_norm_backward<__half, gelu_activation>", 8, 4),
    ],
)
def test_batch_normalisation_moves_a_half_type_in_accesses_of_8_bytes(name, loads, stores):
    code = nvrtc.ptx(resources.source("batch_norm.cu"), name, 80, resources.OPTIONS)
    assert len(re.findall(r"ld\.global\.v2\.u32", code)) >= loads
    assert len(re.findall(r"st\.global\.wb\.v2\.u32", code)) >= stores


def test_a_spill_and_shared_memory_are_seen():
    code = """
    __global__ void __launch_bounds__(1024) greedy(float* x) {
        __shared__ float s[100];
        float kept[100];
        for (int i = 0; i < 100; ++i) kept[i] = x[i * 1024 + threadIdx.x];
        if (threadIdx.x < 100) s[threadIdx.x] = kept[0];
        __syncthreads();
        for (int i = 0; i < 100; ++i) x[i * 1024 + threadIdx.x] = kept[99 - i] * s[i];
    }
    """
    found = nvrtc.compile_kernels(code.replace("for", "\n#pragma unroll\nfor"), ["greedy"], 80)["greedy"]
    assert found.registers == 64  # all that 1024 threads leave to each
    assert found.shared == 400
    assert found.spills > 0


def test_the_log_of_a_source_that_does_not_compile_is_the_error():
    with pytest.raises(nvrtc.CompilationError, match='identifier "INFINITY" is undefined'):
        nvrtc.compile_kernels("__global__ void f(float* x) { x[0] = INFINITY; }", ["f"], 90)


@EVERY_OPERATION
def test_digest_sees_code_but_not_comments(operation, monkeypatch):
    before, code = resources.digest(operation), resources.source(f"{operation}.cu")
    monkeypatch.setattr(resources, "source", lambda file: "// why\n" + code)
    assert resources.digest(operation) == before
    monkeypatch.setattr(resources, "source", lambda file: code + "\n__device__ int more;")
    assert resources.digest(operation) != before
