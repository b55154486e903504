"""cuda_src/LAUNCHES.md lists the launches that a step really makes."""

from tests.cuda_emulator import require
from tests.cuda_src import launches
from tests.cuda_src.launches import Launch, launches_of


def test_the_file_lists_the_launches_that_the_launch_code_makes():
    require()
    assert launches.FILE.read_text(encoding="utf-8") == launches.text(), "run python -m tests.cuda_src launches"


def test_bytes_and_flops_of_a_small_step_by_hand():
    require()
    found = launches_of([3, 4, 2], 5)
    assert [(launch.name, launch.bytes, launch.flops) for launch in found] == [
        ("gather", 2 * 5 * 3 * 4 + 5 * 8 + 8, 0),
        ("gather", 2 * 5 * 8 + 5 * 8 + 8, 0),
        ("gemm, relu_aux_bias", (5 * 3 + 3 * 4 + 5 * 4 + 4) * 4 + 5 * 16, 2 * 5 * 3 * 4),
        ("gemm, bias", (5 * 4 + 4 * 2 + 5 * 2 + 2) * 4, 2 * 5 * 4 * 2),
        ("softmax_cross_entropy_thread_per_row", (5 * 2 + 5 * 2 + 5) * 4 + 5 * 8, 0),
        ("gemm, bgrada", (5 * 4 + 5 * 2 + 4 * 2 + 2) * 4, 2 * 5 * 4 * 2),
        ("gemm, drelu_bgrad", (5 * 2 + 4 * 2 + 5 * 4 + 4) * 4 + 5 * 16, 2 * 5 * 4 * 2),
        ("gemm", (5 * 3 + 5 * 4 + 3 * 4) * 4, 2 * 5 * 3 * 4),
        ("record_loss", 5 * 4 + 4 + 2 * 16, 0),
        ("increment", 16, 0),
        ("adam", 7 * (16 + 16 + 16 + 16) * 4 + 8 + 8, 0),
    ]
    assert all(launch.grid for launch in found if not launch.flops)
    assert isinstance(found[0], Launch)
