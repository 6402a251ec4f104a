"""Every flag of the embedded engine, in one table.

Spellings, environment variables and meanings are llama-server's (llama.cpp b11549: ``common/arg.cpp`` and
``tools/server/README.md``; ``--mmap`` and ``--mlock`` are older spellings of ``--load-mode``). What llama-server has
beyond that is refused by name.
"""

from gatewright_host.embedded.flags import ACTION, LOG_DISABLE, Flag, flag
from gatewright_host.embedded.kinds import always, decimal, integer, on_off, to
from gatewright_host.embedded.table_model import COMPUTE, MODEL
from gatewright_host.embedded.table_sampling import SAMPLING
from gatewright_host.embedded.table_server import CHAT, SERVER

# Where llama-server's defaults differ from those of xllamacpp's CommonParams (n_parallel 1, port 0).
DEFAULTS: dict[str, object] = {"n_parallel": -1, "port": 8080}

_GENERAL = (
    flag("-h, --help, --usage", "show this help", always({ACTION: "help"})),
    flag("--version", "show the versions of this engine and of llama.cpp", always({ACTION: "version"})),
    flag("--list-devices", "show the devices a model can be offloaded to", always({ACTION: "list-devices"})),
    flag("-v, --verbose, --log-verbose", "log everything", always({"verbosity": 2**31 - 1})),
    flag(
        "-lv, --verbosity, --log-verbosity N",
        "0 output, 1 error, 2 warning, 3 info (default), 4 trace, 5 debug",
        "verbosity",
        integer(),
        env="LOG_VERBOSITY",
    ),
    flag("--log-disable", "log nothing but this program's own errors", always({LOG_DISABLE: True})),
    flag("--log-colors on|off|auto", "accepted, without effect", to(), on_off(on=1, off=0, auto=-1)),
    flag("--log-prefix / --no-log-prefix", "accepted, without effect", to()),
    flag("--log-timestamps / --no-log-timestamps", "accepted, without effect", to()),
    flag("-dt, --defrag-thold N", "accepted, without effect", to(), decimal),
)

SECTIONS: dict[str, tuple[Flag, ...]] = {
    "General": _GENERAL,
    "Model and devices": MODEL,
    "Context, batches and threads": COMPUTE,
    "Server": SERVER,
    "Chat": CHAT,
    "Defaults of sampling": SAMPLING,
}

# llama-server's flags that xllamacpp offers no parameter for, and those that download models, route between models,
# run tools or draft: this engine serves one file, and nothing else.
_ELSEWHERE = (
    "-C --cpu-mask -Cr --cpu-range --cpu-strict -Cb --cpu-mask-batch -Crb --cpu-range-batch --cpu-strict-batch"
    " -e --escape --no-escape --rpc -dev --device --moe-cache-mib -ncffn --n-cpu-ffn --override-kv"
    " --control-vector --control-vector-scaled --control-vector-layer-range --top-nsigma --top-n-sigma -l --logit-bias"
    " --dry-sequence-breaker --spm-infill -lcs --lookup-cache-static -lcd --lookup-cache-dynamic"
    " -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file -hft --hf-token --offline -mmu --mmproj-url"
    " -mmdev --mmproj-device --mtmd-batch-max-tokens --video-fps --video-timestamp-interval --video-ffmpeg-dir"
    " --log-file --log-jsonl --no-log-jsonl -cl --cache-list --completion-bash --ui-config --webui-config"
    " --ui-config-file --webui-config-file --ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy"
    " --tools --tools-runtime --mcp-servers-config --mcp-servers-json -ag --agent -no-ag --no-agent"
    " --models-dir --models-preset --models-max --models-autoload --no-models-autoload"
    " --reasoning-effort --reasoning-preserve --no-reasoning-preserve --spec-type --spec-default"
    " -md --model-draft --spec-draft-model -ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-ngl"
    " --draft --draft-n --draft-max --draft-min --draft-n-min --spec-draft-n-max --spec-draft-n-min"
    " --draft-p-min --spec-draft-p-min --draft-p-split --spec-draft-p-split -td --threads-draft -tbd"
    " --threads-batch-draft -ctkd --cache-type-k-draft -ctvd --cache-type-v-draft -devd --device-draft"
)
_REFUSAL = "is a flag of llama-server that the embedded engine does not have"

FLAGS: tuple[Flag, ...] = (
    *(row for section in SECTIONS.values() for row in section),
    *(Flag((name,), "", "", to(), refusal=_REFUSAL) for name in _ELSEWHERE.split()),
)
