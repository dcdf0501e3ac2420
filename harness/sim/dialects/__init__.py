"""How each engine writes its answers: one module a flavour, and one each for the APIs that engines took from elsewhere."""
