#!/usr/bin/env bash
# Version   MPICH 5.0.2 as the wheel `mpich` brings it, mpi4py 4.1.2, CPython 3.11, Linux.
# Input     Three processes under `mpiexec -n 3`. All call MPI_Init. One then ends by _exit(0), without MPI_Finalize; the
#           two others are in MPI_Recv.
# Expected  mpiexec ends the two that are left, which it does, and says so by its exit code, each time the same.
# Seen      The exit code is 9 in some runs and 0 in others, about half of each, though no process of the job has ended
#           its work: it is the code of whichever process mpiexec hears of last. With 0 nothing is printed either, so a
#           script that looks at the exit code takes the killed job for a finished one.
#
# Exits 0 while that is so; 1 when 80 runs have one exit code.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mpich==5.0.2 mpi4py==4.1.2
cat > "$folder/job.py" <<'PROGRAM'
import os
from mpi4py import MPI

world = MPI.COMM_WORLD
if world.Get_rank() == 1:
    os._exit(0)
world.Recv(bytearray(1), 1)
print("finished")
PROGRAM
finished=0 zeros=0 others=0
for run in $(seq 80); do
    code=0
    timeout 60 "$folder/venv/bin/mpiexec" -n 3 "$folder/venv/bin/python" "$folder/job.py" > "$folder/out" 2>&1 || code=$?
    if grep -q finished "$folder/out"; then finished=$((finished + 1)); fi
    if [ "$code" -eq 0 ]; then zeros=$((zeros + 1)); else others=$((others + 1)); fi
    if [ "$zeros" -gt 0 ] && [ "$others" -gt 0 ]; then break; fi
done
echo "of $run runs $zeros ended with 0, $others with another code; processes that finished their work: $finished"
[ "$zeros" -gt 0 ] && [ "$others" -gt 0 ] && [ "$finished" -eq 0 ]
