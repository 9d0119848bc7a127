"""The main program: `python -m sbm_jax.main --config=configs/quickstart.py`, which is the same as `sbm-jax train`."""

import sys

from sbm_jax.command_line import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
