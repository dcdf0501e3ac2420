"""What a simulated engine says: text that names itself simulated, the same for the same seed and prompt.

Two prompts are special, so that tests can ask for exact answers: one that begins with `echo:` is answered with what follows,
and a tool that the prompt names is called.
"""

from __future__ import annotations

import random

from harness.sim import tokens

ECHO = "echo:"
VOCABULARY = (
    "the a of to and in that it is for as with on by this from at or an be are was not have which you one all were when we "
    "there can more if out so up said what its about into than them only other time new some could these two may first then "
    "any like now such our over even most after also many must through years where much your way down should because long "
    "each just state people those good very make world still see own work men day get here between both life being under "
    "three never know same last another while us off might great go come since against right came take used himself few"
)
WORDS = tuple(VOCABULARY.split())


def opening(flavour: str) -> str:
    """Return the sentence that every free answer begins with."""
    return f"This is a simulated answer of a simulated {flavour} engine:"


def compose(flavour: str, rng: random.Random, length_tokens: int) -> list[str]:
    """Return an answer of exactly `length_tokens` pieces, sentences of common words after the opening."""
    result = tokens.pieces(opening(flavour))
    left = 0
    while len(result) < length_tokens:
        if left == 0:
            if len(result) > 1 and result[-1] != ":":
                result.append(".")
            left = rng.randint(6, 14)
        result.extend(tokens.pieces(" " + rng.choice(WORDS)))
        left -= 1
    return result[:length_tokens]


def natural_length_tokens(rng: random.Random, mean_tokens: int) -> int:
    """Draw how long an answer is that nothing cuts short: log-normal (sigma 0.5) with the given mean, at least 16."""
    return max(16, round(rng.lognormvariate(0.0, 0.5) * mean_tokens * 0.8825))


def echoed(prompt: str) -> str | None:
    """Return what an `echo:` prompt asks to hear, or None for any other prompt."""
    return prompt[len(ECHO) :].lstrip(" ") if prompt.startswith(ECHO) else None
