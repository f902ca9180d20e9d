"""What is compared: mergekit documents for every shared method, and where we differ on purpose.

`{base}`, `{a}`, `{b}` and `{c}` are the folders of the tiny models.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Case:
    """One document, and the reason if the results must differ."""

    method: str
    what: str
    document: str
    models: str = "llama"
    """Which set of models; see `run.MODELS`."""
    why: str | None = None


ALL = """
models:
  - {model: '{base}'}
  - {model: '{a}', parameters: {weight: 0.7}}
  - {model: '{b}', parameters: {weight: -0.4}}
  - {model: '{c}', parameters: {weight: 0.5}}
base_model: '{base}'
"""
VARIED = """
models:
  - model: '{a}'
    parameters:
      weight: [0.1, 0.9, 0.3, 1.0]
  - model: '{b}'
    parameters:
      weight:
        - {filter: mlp, value: [1, 0.2]}
        - {filter: q_proj, value: 0.25}
        - value: 0.5
  - {model: '{c}', parameters: {weight: 0.5}}
base_model: '{base}'
"""
OWN = """
models:
  - {model: '{a}', parameters: {weight: 0.7, density: 0.4, gamma: 0.1, epsilon: 0.1}}
  - model: '{b}'
    parameters:
      weight: [-0.4, 0.3]
      density: [{filter: mlp, value: [0.9, 0.3]}, {filter: q_proj, value: 0.7}, {value: 0.5}]
      gamma: [0.05, 0.2]
      epsilon: 0.05
  - {model: '{c}', parameters: {weight: 0.5, density: [0.6, 0.8]}}
base_model: '{base}'
"""
WHOLE = """
models:
  - {model: '{a}', parameters: {weight: 0.7, epsilon: 0.1}}
  - {model: '{b}', parameters: {weight: -0.4, epsilon: [0.1, 0.3]}}
base_model: '{base}'
"""
PLAIN = """
models: [{model: '{a}'}, {model: '{b}'}, {model: '{c}'}]
base_model: '{base}'
"""
FLOAT64 = "\ndtype: float64\n"
T = """
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.4
"""
SLICE = """
slices:
  - sources:
      - {model: '{base}', layer_range: [0, 3]}
      - {model: '{a}', layer_range: [0, 3]}
base_model: '{base}'
"""
MASKS = "masks come from other random numbers: the same in distribution only"
L1 = "the same but for mergekit's float32 sums of magnitudes"
CLAMP = "mergekit bounds ‖τ_a‖ ‖τ_b‖ below by 1e-6 and so takes small cosines for 0"
UNIFORM = "mergekit weighs all alike where the mean squares sum to less than 1e-6"
HALF = "mergekit computes in bfloat16; here float32, rounded once at the end"
SINGLE = "without dtype: float64 we compute in float32, mergekit as the models are stored"
EMPTY = "of tensors with int(density n) = 0 mergekit keeps nothing, we keep the largest entry"


def _parameters(**values: object) -> str:
    lines = [f"  {name.rstrip('_')}: {str(value).lower()}" for name, value in values.items()]
    return "\nparameters:\n" + "\n".join(lines) + "\n"


def _case(method: str, what: str, document: str, **more: str) -> Case:
    return Case(
        method=method, what=what, document=f"merge_method: {method}\n{document.strip()}\n", **more
    )


CASES = [
    _case(
        "linear",
        "weights, no base",
        ALL.replace("- {model: '{base}'}", "").replace("base_model: '{base}'", ""),
    ),
    _case("linear", "gradients and filters", VARIED.replace("base_model: '{base}'", "")),
    _case("linear", "base among the models", PLAIN + _parameters(weight=0.3)),
    _case("linear", "normalize: false", VARIED + _parameters(normalize=False, weight=0.1)),
    _case(
        "linear",
        "tied embeddings",
        VARIED + _parameters(weight=0.2),
        models="qwen2",
    ),
    _case(
        "linear",
        "encoder",
        VARIED.replace("mlp", "ffn").replace("q_proj", "q_lin") + _parameters(weight=0.2),
        models="distilbert",
    ),
    _case("slerp", "t 0.3, near models", SLICE + _parameters(t=0.3)),
    _case("slerp", "t 0.3, far models", SLICE + _parameters(t=0.3), models="far"),
    _case("slerp", "gradients and filters", SLICE + T, models="far"),
    _case("nuslerp", "with a base", ALL.replace("- {model: '{c}', parameters: {weight: 0.5}}", "")),
    _case(
        "nuslerp",
        "no base, far models",
        """
models:
  - {model: '{a}', parameters: {weight: [0.2, 0.8]}}
  - {model: '{b}', parameters: {weight: 0.5}}
""",
        models="far",
    ),
    _case(
        "nuslerp",
        "by rows",
        "models: [{model: '{a}'}, {model: '{b}'}]\nbase_model: '{base}'"
        + _parameters(weight=1, nuslerp_flatten=False),
    ),
    _case(
        "nuslerp",
        "by columns",
        "models: [{model: '{a}'}, {model: '{b}'}]\nbase_model: '{base}'"
        + _parameters(weight=1, nuslerp_flatten=False, nuslerp_row_wise=True),
    ),
    _case("karcher", "near models", PLAIN),
    _case("karcher", "far models", PLAIN + _parameters(max_iter=50, tol=1e-7), models="far"),
    _case("task_arithmetic", "negative weight, λ", ALL + _parameters(lambda_=0.6)),
    _case("task_arithmetic", "gradients, normalize", VARIED + _parameters(normalize=True)),
    _case(
        "task_arithmetic",
        "λ by filter",
        ALL
        + """
parameters:
  lambda: [{filter: norm, value: 0}, {filter: lm_head, value: 2}, {value: [0.5, 1.5]}]
""",
    ),
    _case("ties", "defaults", ALL),
    _case("ties", "density 0.3", VARIED + _parameters(density=0.3)),
    _case(
        "ties",
        "density gradient, sum",
        ALL + _parameters(density=[0.2, 0.9], normalize=False, lambda_=0.5),
    ),
    _case("ties", "GPT-2, density 0.5", ALL + _parameters(density=0.5), models="gpt2"),
    _case("ties", "a density each", OWN),
    _case("ties", "a density each, sum", OWN + _parameters(normalize=False, lambda_=0.6)),
    _case("dare_linear", "density 1", VARIED),
    _case("dare_linear", "a density each", OWN, why=MASKS),
    _case("dare_linear", "density 0.5", VARIED + _parameters(density=0.5), why=MASKS),
    _case("dare_ties", "density 1", VARIED + _parameters(normalize=True)),
    _case("dare_ties", "density 0.5", VARIED + _parameters(density=0.5), why=MASKS),
    _case("dare_ties", "a density each", OWN, why=MASKS),
    _case("breadcrumbs", "density and γ each", OWN),
    _case("breadcrumbs_ties", "density and γ each", OWN),
    _case("breadcrumbs", "density 0.6, γ 0.1", VARIED + _parameters(density=0.6, gamma=0.1)),
    _case("breadcrumbs", "density 0.95, γ 0.1", VARIED + _parameters(density=0.95, gamma=0.1)),
    _case("breadcrumbs", "density 0.05", ALL + _parameters(density=0.05), why=EMPTY),
    _case("breadcrumbs_ties", "density 0.6", VARIED + _parameters(density=0.6, gamma=0.05)),
    _case("della", "density 0.5", VARIED + _parameters(density=0.5), why=MASKS),
    _case("della", "density and ε each", OWN, why=MASKS),
    _case("della", "ε each, density 1", WHOLE),
    _case("della_linear", "density 0.5", VARIED + _parameters(density=0.5), why=MASKS),
    _case("model_stock", "by tensors", PLAIN),
    _case("model_stock", "by filters", PLAIN + _parameters(filter_wise=True)),
    _case("model_stock", "small updates", PLAIN + FLOAT64, models="small", why=CLAMP),
    _case("sce", "defaults", PLAIN),
    _case("sce", "select_topk 0.3", PLAIN + _parameters(select_topk=0.3)),
    _case("sce", "small updates", PLAIN + FLOAT64, models="small", why=UNIFORM),
    _case("task_arithmetic", "dtype float64", ALL + FLOAT64),
    _case("task_arithmetic", "out_dtype bfloat16", ALL + "out_dtype: bfloat16\n"),
    _case("task_arithmetic", "dtype bfloat16", ALL + "dtype: bfloat16\n", why=HALF),
    _case("ties", "small updates", ALL + _parameters(density=0.5) + FLOAT64, models="small"),
    _case("task_arithmetic", "float64 models", ALL, models="small", why=SINGLE),
]
