"""Settings of every test: eight virtual devices, no silent broadcasting."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
