"""How perturbations are crafted: objective, descent, rounds over checkpoints of surrogates, work shared by processes."""
