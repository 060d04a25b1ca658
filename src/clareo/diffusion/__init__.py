"""Processes, denoisers, guidance, samplers, tiling and losses: no paper is named here."""
