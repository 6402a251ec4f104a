"""Words that the heuristic estimator knows, in English. In other languages it has size, numbers and signs to go by."""

from enum import IntEnum, auto
from typing import Final


class WordKind(IntEnum):
    """What a word is a sign of."""

    REASONING = auto()
    STEP = auto()
    CODE = auto()
    MATHEMATICS = auto()
    TERM = auto()
    CONSTRAINT = auto()


_REASONING: Final = """
    analyse analyses analysing analysis analyze analyzes analyzing argue argument arguments assess assessment
    assumption assumptions because causal cause causes compare compares comparing comparison conclude conclusion
    consequence consequences consistent contradiction contrast counterexample critique critically criticize debug
    decide deduce derive derives deriving determine diagnose diagnosis disprove estimate evaluate evaluates evaluating
    evaluation explain explains explanation feasibility hypotheses hypothesis hypothetical implication implications
    imply implies infer inference interpret interpretation investigate justification justify logic logical logically
    motivate optimal optimise optimize paradox plan planning plausible premise premises proof proofs propose prove
    proves proving puzzle rationale reason reasoning reasons recommend reconcile refute rigorous rigorously solve
    solves solving strategy synthesis synthesise synthesize tradeoff tradeoffs valid validity verify weigh why
"""

_STEPS: Final = """
    afterward afterwards additionally before final finally first firstly following fourth furthermore last lastly
    multi multistep next phase phases pipeline procedure process second secondly sequence stage stages step steps
    stepwise subsequently then third thirdly until while workflow
"""

_CODE: Final = """
    algorithm algorithms api apis array arrays assertion async bash binary boolean bug bugs bytecode class classes cli
    code codebase commit compile compiler concurrency const cpp css csv database deadlock debugger dict docker
    elif endpoint enum exception exceptions function functions git golang graphql html http import int integer
    iterator java javascript json kernel kotlin kubernetes lambda linux loop malloc method mutex namespace nginx
    node nullptr numpy pandas parser php pointer printf program programming pseudocode pytest python query react
    recursion recursive refactor regex regexp repository return rust schema script segfault shell snippet sql stack
    stacktrace string struct subclass swift syntax thread threads traceback tuple typescript unittest variable
    variables void xml yaml
"""

_MATHEMATICS: Final = """
    add algebra algebraic angle angles area arithmetic average bijection calculate calculates calculus circle
    coefficient coefficients combinatorial complement compute congruent continuous converge convergence convex cosine
    cube cubic denominator derivative determinant differentiable differential digit digits divide divided divisible
    divisor double eigenvalue eigenvalues eigenvector equal equation equations exponent factor factorial factors
    fraction function geometric geometry graph group half homomorphism inequality infinite infinity integer integers
    integral integrate isomorphic isomorphism lemma less limit linear logarithm many matrices matrix mean median minus
    modulo more much multiple multiplied multiply number numbers odds parabola percent percentage permutation
    permutations perimeter plus polygon polynomial polynomials prime primes probability product quadratic quotient
    radius ratio rational real remainder remaining ring root roots sequence sine square squared standard subgroup
    subset subspace subtract sum tangent theorem times topology total triangle trigonometric triple twice variance
    vector vectors volume
"""

_TERMS: Final = """
    abelian acid acids adiabatic adjudication affidavit alkali alkane allele amortization anaphylaxis anatomical aorta
    appellate appellant arbitrage arbitration artery asymptotic autonomic autocorrelation bayesian benign bilateral
    biopsy bond bonds capacitance capacitor cardiac carcinoma catalyst chemotherapy chromatography chromosome
    chromosomes chronic clause clinical codon cointegration collateral compliance compound conductivity constitution
    constitutional contraindicated contraindication contract covalent court covariance cranial cryptographic
    cryptography cytoplasm damages deductible defendant dehydrogenase depreciation derivatives diagnostic diffraction
    diode diploid discretionary disorder dna dose dosage doctrine dynamics ecosystem edema eigenstate elasticity
    electrolyte electromagnetic electron electrons endocrine endogenous enthalpy entropy enzyme enzymes epidemiology
    epistemology equilibrium equity estoppel eukaryotic exogenous fermion fiduciary fluid fracture frequency gametes
    gauge gdp genome genotype habeas hamiltonian heteroscedasticity heterozygous homeostasis homozygous hormone
    hydrolysis hypertension hypotension immunology impedance indemnify indictment inductance inertia inflation infarction
    injunction intravenous ion ionization ions isotope isotopes jurisdiction jurisprudence kinetic kinetics lagrangian
    laplace legal lesion liability liable ligand litigation macroeconomic magnetic malignant manifold markov membrane
    metabolic metabolism metastasis metaphysics microeconomic mitochondria mitochondrial mitosis molar molecular
    molecule molecules momentum monetary monopoly morphology multicollinearity myocardial negligence nerve neural
    neuron neurons neutron nuclear nucleotide nucleus oligopoly oncology ontology optics orbital osmosis oxidation
    oxide pathogen pathology patient pathophysiology perturbation pharmacology phenotype photon physiology plaintiff
    plasma polymer polymerase precedent prognosis prosecution protein proteins proton psychosis quantum radiation
    reactant receptor regression relativistic relativity renal replication resistor resonance ribosome ribosomal rna
    sediment semantics semiconductor serum solvent spectroscopy spectrum statute statutory stoichiometry stochastic
    subpoena substrate superconductivity symptom symptoms syndrome synapse taxation tectonic tensor testator thermal
    thermodynamic thermodynamics thrombosis titration torque tort toxicity transistor trauma treaty tumor turbulence
    utilitarianism vaccine vascular velocity venue viscosity voltage warranty wavelength
"""

_CONSTRAINTS: Final = """
    bullet bullets characters citations cite columns comma concise constraint constraints exactly exclude fewer format
    formatted heading headings json least limit limited lowercase markdown maximum minimum most must never omit only
    outline paragraph paragraphs require required requirement requirements respond rhyme schema sections sentence
    sentences strictly table tone uppercase verbatim without word words xml yaml
"""

_TASK_HARD: Final = """
    analyse analyses analysis analyze analyzes analyzing architect architecture argue assess audit causal compare
    comparison complex comprehensive critical critique debug deduce deep derive design diagnose diagnosis diagnostic
    difficult evaluate evaluation expert explain forecast hard hypothesis implement infer inference interpret intricate
    investigate judge justify legal logic logical math mathematical medical migrate multi multistep negotiate nuanced
    optimise optimization optimize plan planner planning predict proof prove reason reasoning recommend refactor
    research review rigorous root scientific simulate solve solver strategic strategy synthesis synthesise synthesize
    theorem tradeoff verify
"""

_TASK_EASY: Final = """
    basic capitalize check clean cleanup convert copy count detect easy echo extract extracts extracting extraction
    fetch fill filter format formats formatter formatting get greet greeting lookup lowercase normalise normalize parse
    quick rename short simple sort spell spelling split straightforward strip tag tagging tidy tiny trim trivial
    uppercase
"""


def _by_word() -> dict[str, WordKind]:
    """One kind for each word; of several, the first of this order."""
    kinds: dict[str, WordKind] = {}
    for kind, words in (
        (WordKind.REASONING, _REASONING),
        (WordKind.CONSTRAINT, _CONSTRAINTS),
        (WordKind.TERM, _TERMS),
        (WordKind.CODE, _CODE),
        (WordKind.STEP, _STEPS),
        (WordKind.MATHEMATICS, _MATHEMATICS),
    ):
        for word in words.split():
            kinds.setdefault(word, kind)
    return kinds


KINDS_BY_WORD: Final = _by_word()
"""What each known word, in lower case, is a sign of."""
_HARD_WORK: Final = frozenset(_TASK_HARD.split())
_EASY_WORK: Final = frozenset(_TASK_EASY.split())


def task_words(words: list[str]) -> int:
    """Words that speak of hard work, less those that speak of easy work; each counts once, in lower case."""
    different = set(words)
    return len(different & _HARD_WORK) - len(different & _EASY_WORK)
