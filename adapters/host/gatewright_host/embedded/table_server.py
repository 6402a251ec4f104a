"""Flags of the HTTP server and of chat; see ``table``."""

from gatewright_host.embedded.flags import flag
from gatewright_host.embedded.kinds import (
    always,
    appended_to,
    choice,
    contents,
    decimal,
    folder,
    integer,
    items,
    lines,
    members,
    merged_into,
    on_off,
    reasoning,
    template_arguments,
    to,
    verbatim,
)

_POOLING = members("llama_pooling_type", "LLAMA_POOLING_TYPE_", "none mean cls last rank")
_RANK = {"embedding": True, "pooling_type": _POOLING["rank"]}
_REASONING_FORMATS = members(
    "common_reasoning_format", "COMMON_REASONING_FORMAT_", "none auto deepseek deepseek-legacy"
)

SERVER = (
    flag(
        "--host HOST,...",
        "addresses to listen on, or the path of a socket ending in .sock (default 127.0.0.1)",
        "hostnames",
        items,
        env="HOST",
    ),
    flag(
        "--port PORT",
        "port to listen on (default 8080); 0 picks a free one",
        "port",
        integer(0, 65535),
        env="PORT",
    ),
    flag("--reuse-port", "let other sockets bind to the port, too", "reuse_port", env="REUSE_PORT"),
    flag("--api-prefix PREFIX", "path before every route", "api_prefix", verbatim, env="API_PREFIX"),
    flag("--api-key KEY,...", "keys that callers must have one of", "api_keys", items, env="LLAMA_API_KEY"),
    flag("--api-key-file FNAME", "file with one key per line", "api_keys", lines, env="API_KEY_FILE"),
    flag("--ssl-key-file FNAME", "private key, PEM", "ssl_file_key", verbatim, env="SSL_KEY_FILE"),
    flag("--ssl-cert-file FNAME", "certificate, PEM", "ssl_file_cert", verbatim, env="SSL_CERT_FILE"),
    flag(
        "--cors-origins ORIGINS", "origins allowed (default *)", "cors_origins", verbatim, env="CORS_ORIGINS"
    ),
    flag("--cors-methods METHODS", "methods allowed", "cors_methods", verbatim, env="CORS_METHODS"),
    flag(
        "--cors-headers HEADERS", "headers allowed (default *)", "cors_headers", verbatim, env="CORS_HEADERS"
    ),
    flag(
        "--cors-credentials / --no-cors-credentials",
        "credentials allowed (default)",
        "cors_credentials",
        env="CORS_CREDENTIALS",
    ),
    flag(
        "-to, --timeout N",
        "seconds a read or write may take (default 3600)",
        to("timeout_read", "timeout_write"),
        integer(1),
        env="TIMEOUT",
    ),
    flag(
        "--threads-http N",
        "threads for requests (default -1: by the cores)",
        "n_threads_http",
        integer(-1),
        env="THREADS_HTTP",
    ),
    flag(
        "--sse-ping-interval N",
        "seconds between pings in a stream (default 30, -1 none)",
        "sse_ping_interval",
        integer(-1),
        env="SSE_PING_INTERVAL",
    ),
    flag("-a, --alias NAME,...", "names of the model in the API", "model_alias", items, env="ALIAS"),
    flag("--tags TAG,...", "tags of the model, for information", "model_tags", items, env="TAGS"),
    flag("--embedding, --embeddings", "serve embeddings only", "embedding", env="EMBEDDINGS"),
    flag("--rerank, --reranking", "serve reranking", always(_RANK), env="RERANKING"),
    flag(
        "--pooling TYPE",
        "how embeddings are pooled (default: the model's way)",
        "pooling_type",
        choice(_POOLING),
        env="POOLING",
    ),
    flag(
        "--embd-normalize N",
        "norm of embeddings: -1 none, 0 int16, 1 taxicab, 2 euclidean (default)",
        "embd_normalize",
        integer(-1),
    ),
    flag("--slot-save-path PATH", "folder for saved slots", "slot_save_path", folder, env="SLOT_SAVE_PATH"),
    flag(
        "-sps, --slot-prompt-similarity N",
        "likeness of prompts that shares a slot (default 0.1)",
        "slot_prompt_similarity",
        decimal,
    ),
    flag("--slots / --no-slots", "serve /slots (default)", "endpoint_slots", env="ENDPOINT_SLOTS"),
    flag("--metrics", "serve /metrics", "endpoint_metrics", env="ENDPOINT_METRICS"),
    flag("--props", "allow POST /props", "endpoint_props", env="ENDPOINT_PROPS"),
    flag("--ui, --webui / --no-ui, --no-webui", "serve the web page (default)", "ui", env="UI"),
    flag("--path PATH", "serve files of a folder", "public_path", verbatim, env="STATIC_PATH"),
    flag("--media-path PATH", "folder that file:// addresses in requests refer to", "media_path", folder),
    flag("--log-prompts-dir PATH", "folder to log prompts to", "path_prompts_log_dir", verbatim),
)

CHAT = (
    flag("--jinja / --no-jinja", "render chat templates with jinja (default)", "use_jinja", env="JINJA"),
    flag(
        "--chat-template TEMPLATE",
        "chat template, or the name of a built-in one (default: the model's)",
        "chat_template",
        verbatim,
        env="CHAT_TEMPLATE",
    ),
    flag(
        "--chat-template-file FNAME",
        "file with the chat template",
        "chat_template",
        contents,
        env="CHAT_TEMPLATE_FILE",
    ),
    flag(
        "--chat-template-kwargs JSON",
        "JSON object of arguments for the template",
        merged_into("default_template_kwargs"),
        template_arguments,
        env="CHAT_TEMPLATE_KWARGS",
    ),
    flag(
        "--skip-chat-parsing / --no-skip-chat-parsing",
        "take whole answers as content",
        "force_pure_content_parser",
        env="SKIP_CHAT_PARSING",
    ),
    flag(
        "--prefill-assistant / --no-prefill-assistant",
        "continue a last message of the assistant (default)",
        "prefill_assistant",
        env="PREFILL_ASSISTANT",
    ),
    flag(
        "--reasoning-format FORMAT",
        "where thoughts go (default deepseek: reasoning_content)",
        "reasoning_format",
        choice(_REASONING_FORMATS),
        env="THINK",
    ),
    flag(
        "-rea, --reasoning on|off|auto",
        "whether to think (default auto: by the template)",
        reasoning,
        on_off(on=1, off=0, auto=-1),
        env="REASONING",
    ),
    flag(
        "--reasoning-budget N",
        "tokens of thought (default -1: unlimited)",
        "sampling.reasoning_budget_tokens",
        integer(-1),
        env="THINK_BUDGET",
    ),
    flag(
        "--reasoning-budget-message TEXT",
        "what to think when the budget is spent",
        "sampling.reasoning_budget_message",
        verbatim,
        env="THINK_BUDGET_MESSAGE",
    ),
    flag(
        "-r, --reverse-prompt TEXT", "stop at this text; may be repeated", appended_to("antiprompt"), verbatim
    ),
    flag("-sp, --special", "show special tokens", "special"),
)
