-- A configuration as people wrote them for the prototype: globals, helper functions, tables put together.

server = {
	-- a single string or a table of strings
	listen_v4 = "127.0.0.1:7777",
	listen_v6 = "none", -- IPv4 is enough here
	health_check_timeout = 5.00,
	engine_startup_timeout = 60.0,
	engine_idle_timeout = 120.0,
	-- dumps_dir = "dumps",
	clear_dumps_on_start = false,
}

-- every model listens on the same port: one of them runs at a time
engine_host = "127.0.0.1"
engine_port = 7778
engine_url = "http://" .. engine_host .. ":" .. engine_port

server_binary = "/opt/llama.cpp/llama-server"
tokenize_binary = "/opt/llama.cpp/llama-tokenize"

default_args = {
	"--host", tostring(engine_host),
	"--port", tostring(engine_port),
	"--no-warmup", "-np", "1", "--mmap",
}

function model_args(gguf, context, ub, kv_type)
	assert(type(context) == "number", "context must be a number")
	local args = concat_arrays(default_args, { "-c", tostring(context) })
	if ub ~= nil then args = concat_arrays(args, { "-ub", tostring(ub) }) end
	if kv_type then args = concat_arrays(args, { "-ctk", kv_type, "-ctv", kv_type }) end
	return concat_arrays(args, { "-m", gguf })
end

local function variant(gguf, context, ...)
	return { binary = server_binary, args = model_args(gguf, context, ...), context = context }
end

model_defaults = {
	engine = presets.engines.llamacpp,
	connect = engine_url,
	engine_startup_timeout = 180,
}

instruct_gguf = "/models/Instruct-30B-Q4_K_M.gguf"

instruct_model = merge_tables(model_defaults, {
	name = "instruct-30b",
	tokenization = {
		binary = tokenize_binary,
		extra_args = { "-m", instruct_gguf },
		extra_tokens_per_message = 8,
		extra_tokens = 0,
	},
	-- not sorted on purpose
	variants = {
		variant(instruct_gguf, 40 * 1024, 1024),
		variant(instruct_gguf, 10 * 1024, 2048),
		variant(instruct_gguf, 100 * 1024, 512, "q8_0"),
	},
})

coder_gguf = "/models/Coder-30B-Q5_K_M.gguf"

coder_model = merge_tables(model_defaults, {
	name = "coder-30b",
	engine_startup_timeout = 240.0,
	tokenization = {
		binary = tokenize_binary,
		base_args = { "--log-disable", "--stdin", "--ids", "--no-bos" },
		extra_args = { "-m", coder_gguf },
		extra_tokens_per_message = 10,
		extra_tokens = 64,
	},
	variants = {
		merge_tables(variant(coder_gguf, 20480, 2048), { engine_idle_timeout = 30 }),
		merge_tables(variant(coder_gguf, 81920 / 2, 1024), { health_check_timeout = 2.5 }),
	},
})

embed_model = {
	name = "embed",
	engine = presets.engines.llamacpp_secondary,
	connect = "http://127.0.0.1:7779",
	variants = {
		{
			binary = server_binary,
			args = { "--port", "7779", "--embeddings", "-c", "2048", "-np", "1", "-m", "/models/embed.gguf" },
			context = 2048,
		},
	},
}

models = { instruct_model, coder_model, embed_model, --[[ others ]] }
