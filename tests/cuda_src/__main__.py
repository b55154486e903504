"""python -m tests.cuda_src resources|launches: write the generated tables of cuda_src anew. Neither needs a GPU."""

import argparse

from tests.cuda_src import launches, resources

VERBS = {"resources": resources.main, "launches": launches.main}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.cuda_src", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    VERBS[parser.parse_args().verb]()
