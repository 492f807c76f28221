"""AND-OR interactions of tables of log-odds: exact, canonical and certified.

The logical model is that of arXiv 2605.17967, Eq. 2-3,

    φ(S) = b + Σ_{∅≠T⊆S} I(T) + Σ_{T∩S≠∅} J(T),

fitted by min Σ w_and(T)|I(T)| + w_or(T)|J(T)| subject to |φ(S) − v(S)| ≤ ζ·|v(N) − v(∅)| for all S.
J({i}) is the same function of S as I({i}) and is fixed to 0; b is not penalised. That it is solved
as a linear program, with a tie-break and a dual certificate, is ours.

Modules, each of which imports only from those above it:

    transforms    sums over subsets and supersets, Möbius transform
    tie_break     weights w that make the optimum unique
    certificate   the program and its dual; a solution and its proof of optimality
    vertex        the exact solution of a support and a set of active rows
    pivots        the way from a vertex to the optimal one
    factors       factors and preconditioners of the normal matrix
    newton        the linear system of a Newton step
    state         the iterate of the interior point and its working rows
    step          one predictor-corrector step
    basis         the vertex that an iterate points to
    iteration     the interior point
    highs         the same program by HiGHS
    program       `extract`: checks, scaling, choice of the solver, retries
    optima        the set of all optima of a table
    ranges        how far an effect can move among them
    joint         the optima of several checkpoints that change least
    interactions  tables of interactions

Of a subset of n players bit k of its mask says whether player k is in it. Arrays of effects have
the shape (2, 2^n): I, then J, by mask.
"""

from sft_interactions.extraction.program import Extraction, extract, noise_bounds, reconstruct

__all__ = ["Extraction", "extract", "noise_bounds", "reconstruct"]
