"""What the gateways with routes are configured with. Each test has models of its own: they are remembered for what they did."""


def _model(
    name: str, does: str = "speaks", *, price: tuple[float, float] = (0, 0), more: str = "", **facts: float
) -> str:
    """A model in Lua, with `{url}` for its provider's; what it does is the beginning of the provider's name for it."""
    known = {"input_per_million": price[0], "output_per_million": price[1], **facts}
    fields = ", ".join(f"{field} = {value:g}" for field, value in known.items())
    return (
        f'{{{{ name = "{name}", engine = presets.engines.openai, connect = "{{url}}", retries = 0, '
        f'upstream_model = "{does}-{name}", {fields}, {more.replace("{", "{{").replace("}", "}}")} }}}}'
    )


CENTS = (100, 1000)
"""Prices by which an answer of the provider costs 20 cents, half of it for the prompt."""

MODELS = [
    # For choices: one that is better, one that is cheaper.
    _model(
        "master", quality=0.95, price=(100, 300), more='capabilities = { "chat", "code" }, tags = { "big" }'
    ),
    _model("clerk", quality=0.5, price=(0.1, 0.4), more='capabilities = { "chat" }, context = 2048'),
    # For failures.
    _model("broken-whole", "fails", quality=0.95),
    _model("broken-stream", "fails", quality=0.95),
    _model("broken-alone", "fails", quality=0.95),
    _model("broken-wish", "fails", quality=0.95),
    _model("spare", quality=0.6),
    _model("other-spare", quality=0.5),
    # For estimators.
    _model("sizer", "sizes"),
    _model("mumbler", "mumbles"),
    _model("sleeper", "silent"),
    _model("outage", "fails"),
    # For what is learnt.
    _model("rough", quality=0.8),
    _model("smooth", quality=0.65),
    _model("pretender", quality=0.8),
    _model("honest", quality=0.65),
    _model("judge", "judges"),
    _model("formal", quality=0.7),
    _model("casual", quality=0.7),
    # For transforms.
    _model(
        "shaped",
        more="""transform = {
            system_prefix = "Be brief.", defaults = { temperature = 0.25, top_p = 0.5 }, overrides = { max_tokens = 5 },
            removals = { "logit_bias" }, stop = { "<END>" }, reasoning = "off",
        }""",
    ),
    _model(
        "gemma",
        more='provider = "vllm", features = { "streaming" }, '
        'transform = { merge_system = true, json_instructions = true, reasoning = "high", system_prefix = "Think." }',
    ),
    _model("schemaless", more='features = { "streaming" }'),
    # For money.
    _model("gold", price=CENTS),
    _model("silver", price=CENTS, quality=0.9),
    _model("tin", quality=0.5),
    _model("streamed", price=CENTS),
    _model("uncounted", "hoards", price=CENTS),
    _model("endless", "drip", price=CENTS),
    _model("mute", "silent", price=CENTS),
    _model("warned", price=CENTS),
    _model("keyed", price=CENTS),
]

_QUALITY = "weights = { quality = 1 }"

MORE = f"""
routes = {{
  auto = {{ candidates = {{ "master", "clerk" }} }},
  best = {{ candidates = {{ "master", "clerk" }}, prefer = "quality" }},
  whole = {{ candidates = {{ "broken-whole", "spare" }}, {_QUALITY} }},
  streamed_route = {{ candidates = {{ "broken-stream", "spare" }}, {_QUALITY} }},
  alone = {{ candidates = {{ "broken-alone", "spare" }}, {_QUALITY}, fallback = false }},
  wished = {{ candidates = {{ "broken-wish", "spare", "other-spare" }}, {_QUALITY} }},
  strict = {{ candidates = {{ "master", "clerk" }}, criteria = {{ capabilities = {{ "embedding" }} }} }},
  lenient = {{ candidates = {{ "clerk" }}, criteria = {{ min_quality = 0.9 }}, relax = {{ "quality" }} }},
  asked = {{ candidates = {{ "master", "clerk" }}, estimator = {{ kind = "model", model = "sizer" }} }},
  mumbled = {{ candidates = {{ "master", "clerk" }}, estimator = {{ kind = "model", model = "mumbler" }} }},
  broken = {{ candidates = {{ "master", "clerk" }}, estimator = {{ kind = "model", model = "outage" }} }},
  slow = {{ candidates = {{ "master", "clerk" }}, estimator = {{ kind = "model", model = "sleeper", timeout = 0.3 }} }},
  learning = {{ candidates = {{ "rough", "smooth" }}, {_QUALITY} }},
  judged = {{ candidates = {{ "pretender", "honest" }}, {_QUALITY}, judge = {{ model = "judge", sample = 1 }} }},
  trial = {{
    experiment = {{
      name = "tone", sticky = "user",
      arms = {{
        {{ name = "formal", candidates = {{ "formal" }} }},
        {{ name = "casual", candidates = {{ "casual" }}, transform = {{ system_prefix = "Hey!" }} }},
      }},
    }},
  }},
  polite = {{ candidates = {{ "shaped" }}, transform = {{ system_prefix = "Be polite.", stop = {{ "<STOP>" }}, overrides = {{ max_tokens = 7 }} }} }},
  json = {{ candidates = {{ "gemma", "schemaless" }} }},
  fresh = {{ tags = {{ "fresh" }} }},
  thrifty = {{ candidates = {{ "silver", "tin" }}, {_QUALITY} }},
}}
budgets = {{
  {{ name = "gold", limit = 0.3, per = "model", of = "gold" }},
  {{ name = "silver", limit = 0.3, window = {{ rolling = "day" }}, per = "model", of = "silver" }},
  {{ name = "streamed", limit = 100, per = "model", of = "streamed" }},
  {{ name = "uncounted", limit = 100, per = "model", of = "uncounted" }},
  {{ name = "endless", limit = 100, per = "model", of = "endless" }},
  {{ name = "mute", limit = 100, per = "model", of = "mute" }},
  {{ name = "warned", limit = 0.3, per = "model", of = "warned", action = "warn" }},
}}
"""
