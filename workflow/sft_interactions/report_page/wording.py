"""The parts of the findings in words, beside the symbols of their statistics."""

WORDS = {
    "1.1 few": "What is new at the end of the denoising stage, as a share of what was there before "
    "SFT.",
    "1.2 low order": "How many players fewer a new interaction has than one that was there before SFT.",
    "1.3 high γ": "How much more often what is new is shared with the other LLM than what is removed.",
    "1.4 high ρ": "How much less what is new cancels than what is removed.",
    "2.1 many": "How many more are new at the last checkpoint than at the end of the denoising stage.",
    "2.2 high order": "How many players more a new interaction has at the last checkpoint than at the end "
    "of the denoising stage.",
    "2.3 low γ": "How much less often what is new at the last checkpoint is shared with the other LLM.",
    "2.4 low ρ": "How much more what is new at the last checkpoint cancels.",
    "3.1 beyond noise": "How many more are removed by the end of the denoising stage than noise would "
    "remove.",
    "3.2 most": "Of what was there before SFT and goes, the share that goes in the denoising stage.",
    "3.3 short": "The denoising stage as a share of the training.",
    "4.1 high order": "How many players more a removed interaction has than a preserved one.",
    "4.2 γ ≈ 0": "How much more often than by chance removed interactions are shared with the other LLM.",
    "4.3 ρ ≈ 0": "How much less than by chance removed interactions cancel.",
    "5.1 stable": "What is lost of the preserved ones after the denoising stage, as a share of what was "
    "there before SFT.",
    "5.2 low order": "How many players fewer a preserved interaction has than those before SFT.",
    "5.3 γ > 1/2": "The share of preserved interactions that the other LLM has too.",
    "5.4 highest γ": "How much more often preserved ones are shared with the other LLM than new or "
    "removed ones.",
    "5.5 highest ρ": "How much less preserved ones cancel than new or removed ones.",
    "5.6 carry": "How much worse the answer is predicted by new or removed ones alone than by preserved "
    "ones and those that were new early.",
    "5.7 beat chance": "How much better preserved interactions alone predict the answer than a coin.",
}
"""Part to what its statistic measures."""
