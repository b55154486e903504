import sys

from gpu_nn.cli import main

sys.exit(main())
