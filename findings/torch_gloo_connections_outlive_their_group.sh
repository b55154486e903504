#!/usr/bin/env bash
# Version   PyTorch 2.13.0 for the CPU (Gloo), CPython 3.11, Linux.
# Input     Two processes make a Gloo group and send each other a tensor by isend and irecv. Both wait for the send and the
#           receive, which complete. Both then call destroy_process_group, while one still holds the Work object that its
#           isend gave, as an exception's traceback may.
# Expected  destroy_process_group closes the connections of the group; a Work that has completed is a result and no more.
# Seen      Where the Work is held the process keeps the group's sockets until the last reference to it goes. The other
#           processes, which would see a closed connection, see one that is open and silent.
#
# Exits 0 while that is so; 1 when the sockets are closed with the group.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy
cat > "$folder/rank.py" <<'PROGRAM'
import os
import sys
import time

import torch
import torch.distributed as dist

rank, folder = int(sys.argv[1]), sys.argv[2]


def sockets():
    """How many this process has; the file of the store is none."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            pass
    return found


before = sockets()
dist.init_process_group("gloo", store=dist.FileStore(os.path.join(folder, "store"), 2), rank=rank, world_size=2)
send = dist.isend(torch.ones(1), 1 - rank)
receive = dist.irecv(torch.zeros(1), 1 - rank)
receive.wait()
send.wait()
dist.barrier()
del receive
if rank == 1:
    del send
within = sockets() - before
dist.destroy_process_group()
time.sleep(1)
after = sockets() - before
if rank == 0:
    del send
    time.sleep(1)
    print(f"sockets: {within} in the group, {after} after it was destroyed, {sockets() - before} without the Work", flush=True)
    sys.exit(not (within > 0 and after > 0 and sockets() == before))
print(f"sockets: {within} in the group, {after} after it was destroyed, where no Work is held", flush=True)
sys.exit(after != 0)
PROGRAM
"$folder/venv/bin/python" "$folder/rank.py" 0 "$folder" &
first=$!
"$folder/venv/bin/python" "$folder/rank.py" 1 "$folder" &
second=$!
code=0
wait "$first" || code=1
wait "$second" || code=1
exit "$code"
