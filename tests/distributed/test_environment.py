"""The variables of launchers are read as the launchers mean them."""

import os

import pytest

from gpu_nn.distributed import environment


@pytest.fixture
def set_variables(monkeypatch):
    def set_variables(**variables):
        for name in os.environ:
            if name.startswith(("PMI", "OMPI", "MPI", "SLURM", "TORCHELASTIC", "MASTER")):
                monkeypatch.delenv(name)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


OF_OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
OF_TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29400"}


@pytest.mark.parametrize(
    ("variables", "rank_and_size", "is_started_by_mpi", "local_rank"),
    [
        ({}, (0, 1), False, 0),
        ({"PMI_RANK": "1", "PMI_SIZE": "3", "MPI_LOCALRANKID": "0"}, (1, 3), True, 0),
        (OF_OPEN_MPI, (2, 4), True, 1),
        ({"PMIX_RANK": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "2"}, (5, 8), True, 2),
        ({"SLURM_STEP_NUM_TASKS": "8"}, (0, 1), False, 0),
        (OF_TORCHRUN, (3, 4), False, 3),
        ({"WORLD_SIZE": "4"}, (0, 1), False, 0),
        ({"RANK": "x", "WORLD_SIZE": "4"}, (0, 1), False, 0),
        ({"PMI_RANK": "1", "RANK": "2", "WORLD_SIZE": "3"}, (2, 3), True, 2),
        ({"PMI_RANK": "0", "PMI_SIZE": "2", "TORCHELASTIC_RUN_ID": "none", **OF_TORCHRUN}, (3, 4), False, 3),
    ],
    ids=[
        "nothing",
        "MPICH",
        "Open MPI",
        "Slurm",
        "of a batch job",
        "torchrun",
        "a size alone",
        "no number",
        "two",
        "srun torchrun",
    ],
)
def test_who_this_process_is_among_how_many(set_variables, variables, rank_and_size, is_started_by_mpi, local_rank):
    set_variables(**variables)
    assert environment.rank_and_world_size() == rank_and_size
    assert environment.is_started_by_mpi() == is_started_by_mpi
    assert environment.local_rank_of_mpi() == local_rank


@pytest.mark.parametrize(("value", "has_store"), [("", False), ("False", False), ("True", True)])
def test_where_ranks_meet_and_who_opens_the_store(set_variables, value, has_store):
    set_variables(**OF_TORCHRUN, TORCHELASTIC_USE_AGENT_STORE=value)
    assert environment.rendezvous_address() == (3, 4, "10.0.0.1", 29400, "gpu_nn ", has_store)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("node-3", "node-3:29400"),
        ("::1", "[::1]:29400"),
        ("fe80::1%eth0", "[fe80::1%eth0]:29400"),
        ("10.0.0.1", "10.0.0.1:29400"),
        ("bücher.example", "bücher.example:29400"),
        ("head.cluster.local.", "head.cluster.local.:29400"),
    ],
)
def test_hosts_have_names_and_addresses_of_all_kinds(set_variables, host, address):
    set_variables(**OF_TORCHRUN | {"MASTER_ADDR": host})
    assert str(environment.rendezvous_address()) == address


@pytest.mark.parametrize("missing", environment.RENDEZVOUS_VARIABLES)
def test_every_variable_is_needed_to_meet(set_variables, missing):
    set_variables(**OF_TORCHRUN)
    assert environment.has_rendezvous_variables()
    set_variables(**{name: value for name, value in OF_TORCHRUN.items() if name != missing})
    assert not environment.has_rendezvous_variables()


@pytest.mark.parametrize("missing", ["", "LOCAL_RANK"])
def test_the_local_rank_is_known_where_the_environment_has_it(set_variables, missing):
    set_variables(**{name: value for name, value in OF_TORCHRUN.items() if name != missing})
    assert environment.local_rank() == (None if missing else 1)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"MASTER_ADDR": ""},
            "the environment has MASTER_ADDR=''; expected a name or an address of the host of rank 0",
        ),
        ({"MASTER_ADDR": "a..b"}, "the environment has MASTER_ADDR='a..b'; expected a name or an address"),
        ({"MASTER_ADDR": 64 * "a"}, "the environment has MASTER_ADDR='a{64}'; expected a name or an address"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000; expected a port from 1 to 65535"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0; expected a port from 1 to 65535"),
        ({"MASTER_PORT": "http"}, "the environment has MASTER_PORT='http'; expected a whole number"),
        ({"RANK": "4"}, "RANK=4 with WORLD_SIZE=4; expected a rank from 0 to 3"),
        ({"WORLD_SIZE": "-1"}, "the environment has WORLD_SIZE='-1'; expected a whole number"),
    ],
)
def test_an_environment_that_cannot_be_is_named(set_variables, variables, said):
    set_variables(**OF_TORCHRUN | variables)
    with pytest.raises(ValueError, match=said):
        environment.rendezvous_address()


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, "gpu_nn "),
        ({"TORCHELASTIC_RUN_ID": "4f1c"}, "gpu_nn 4f1c"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "PBS_JOBID": "8", "RAY_JOB_ID": "01000000"}, "gpu_nn "),
        ({"TORCHELASTIC_RESTART_COUNT": "1", "GROUP_RANK": "1"}, "gpu_nn "),
    ],
    ids=["nothing", "torchrun", "batch jobs", "what differs between ranks"],
)
def test_a_job_is_told_by_what_all_its_ranks_have_and_no_more(set_variables, variables, job):
    set_variables(**OF_TORCHRUN | variables)
    assert environment.rendezvous_address().job == job
