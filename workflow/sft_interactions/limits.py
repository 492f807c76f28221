"""Numbers of players that are possible, for the extraction and for the checks of a config.

This module imports nothing, since a config is checked where no solver is installed.
"""

MIN_PLAYERS, MAX_PLAYERS = 2, 16
# Above this, φ = v exactly (ζ = 0) is not solved for.
MAX_PLAYERS_EXACT_FIT = 14
