#!/usr/bin/env bash
# Version   torchrun of PyTorch 2.13.0 for the CPU, CPython 3.11, Linux.
# Input     One job of two nodes with one process each, `--max-restarts 1`, rendezvous by c10d. The process of rank 1 ends
#           with an error the first time; torchrun starts the processes of both nodes again.
# Expected  TORCHELASTIC_RESTART_COUNT, "The number of worker group restarts so far" by torchrun's own help, is 1 in both
#           processes: they are one worker group.
# Seen      It is 1 where the process had failed and 0 on the other node, in the same round and with the same MASTER_PORT.
#           What programs name with it, so that a restarted group does not meet what the former one left, differs between
#           the ranks of one group.
#
# Exits 0 while that is so; 1 when both processes have the same count.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy
cat > "$folder/worker.py" <<'PROGRAM'
import os
import sys
import time

rank, count, folder = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"], sys.argv[1]
started = os.path.join(folder, f"started_{rank}")
if not os.path.exists(started):
    open(started, "w").close()
    while len([name for name in os.listdir(folder) if name.startswith("started_")]) < 2:
        time.sleep(0.1)
    if rank == "1":
        sys.exit(1)
    time.sleep(120)  # torchrun ends it when it starts all again
with open(os.path.join(folder, f"again_{rank}"), "w") as file:
    file.write(f"{count} {os.environ['MASTER_PORT']}")
while len([name for name in os.listdir(folder) if name.startswith("again_")]) < 2:
    time.sleep(0.1)
PROGRAM
mkdir "$folder/told"
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
for node in 0 1; do
    timeout 200 "$folder/venv/bin/torchrun" --nnodes 2 --nproc-per-node 1 --max-restarts 1 --rdzv-backend c10d \
        --rdzv-endpoint "127.0.0.1:$port" --rdzv-id job "$folder/worker.py" "$folder/told" 2> "$folder/err$node" &
done
wait
read -r first first_port < <(cat "$folder/told/again_0"; echo)
read -r second second_port < <(cat "$folder/told/again_1"; echo)
echo "restarts so far: $first on rank 0, $second on rank 1; MASTER_PORT $first_port and $second_port"
[ "$first_port" = "$second_port" ] && [ "$(printf '%s\n' "$first" "$second" | sort | tr -d '\n')" = 01 ]
