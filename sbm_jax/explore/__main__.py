"""`python -m sbm_jax.explore`."""

import sys

from sbm_jax.arguments import run
from sbm_jax.explore import main

run(lambda: main("python -m sbm_jax.explore", sys.argv[1:]))
