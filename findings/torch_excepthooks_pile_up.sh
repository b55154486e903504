#!/usr/bin/env bash
# Version   PyTorch 2.13.0 for the CPU, CPython 3.11, Linux.
# Input     One process makes a process group and destroys it, three times, as a worker of a cluster does that trains one
#           job after the other. Behind the last destroy_process_group it raises an exception.
# Expected  Without a group the traceback is Python's own: destroy_process_group takes back what init_process_group set.
# Seen      Each init_process_group wraps sys.excepthook once more, and nothing takes that back. The traceback of a process
#           that is no rank of anything comes with "[rank0]: [rank0]: [rank0]: " before each line.
#
# Exits 0 while that is so; 1 when the traceback has another number of prefixes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy
cat > "$folder/worker.py" <<'PROGRAM'
import torch.distributed as dist

for _ in range(3):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    dist.destroy_process_group()
assert not dist.is_initialized()
raise ValueError("no group is left")
PROGRAM
"$folder/venv/bin/python" "$folder/worker.py" 2> "$folder/err" || true
line=$(grep 'ValueError: no group is left' "$folder/err")
echo "$line"
[ "$line" = "[rank0]: [rank0]: [rank0]: ValueError: no group is left" ]
