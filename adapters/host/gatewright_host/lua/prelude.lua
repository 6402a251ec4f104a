-- Runs before a configuration file: what such a file may use, and what becomes of it afterwards.
-- For Lua 5.1 to 5.5; hence no integer division, no goto and no string escapes of later versions.

-- A configuration may redefine any global. What is needed after it has run is kept here.
local type, tostring, pairs, ipairs, select, error = type, tostring, pairs, ipairs, select, error
local pcall, xpcall, rawget, rawset, setmetatable, globals = pcall, xpcall, rawget, rawset, setmetatable, _G
local next = next
local format, byte, sub, gsub, find, match = string.format, string.byte, string.sub, string.gsub, string.find, string.match
local sort, concat, open, getinfo = table.sort, table.concat, io.open, debug.getinfo
local floor, huge, number_type = math.floor, math.huge, math.type
local compile, run_file = loadstring or load, dofile
local loader = loader

local MAX_DEPTH = 50
local MAX_VALUES = 200000
local MAX_PROBLEMS = 100
local MAX_WHOLE = 2 ^ 53
local MAX_OTHERS = 100
local SETTINGS = { "server", "models", "routes", "budgets", "store", "experience", "registry" }

-- What a configuration may use ------------------------------------------------------------------------------------

presets = {
  engines = {
    llamacpp = "llama.cpp",
    llamacpp_secondary = "llama.cpp.secondary",
    openai = "openai",
  },
  embedded = {
    binary = loader.extra[1],
    demo_model = loader.extra[2],
  },
}

-- A misspelt preset would be nil, and nil silently takes the default.
for _, kind in ipairs({ "engines", "embedded" }) do
  setmetatable(presets[kind], {
    __index = function(known, key)
      local names = {}
      for name in pairs(known) do names[#names + 1] = name end
      sort(names)
      error(format("presets.%s.%s does not exist; known are %s", kind, tostring(key), concat(names, ", ")), 2)
    end,
  })
end

local function expect_tables(name, ...)
  for position = 1, select("#", ...) do
    local kind = type((select(position, ...)))
    if kind ~= "table" then
      error(format("%s: argument %d is %s, expected a table", name, position, kind == "nil" and "nil" or "a " .. kind), 3)
    end
  end
end

-- A new array of the items of one array and then of another. Named fields are left out.
function concat_arrays(first, second)
  expect_tables("concat_arrays", first, second)
  local result = {}
  for _, array in ipairs({ first, second }) do
    for _, item in ipairs(array) do result[#result + 1] = item end
  end
  return result
end

-- A new table of the fields of two tables; of fields with the same name the second's wins. Indexed items are appended.
function merge_tables(first, second)
  expect_tables("merge_tables", first, second)
  local result = {}
  for key, value in pairs(first) do result[key] = value end
  local indexed = {}
  for key, value in pairs(second) do
    if type(key) == "number" and key >= 1 and key == floor(key) then
      indexed[#indexed + 1] = key
    else
      result[key] = value
    end
  end
  sort(indexed)
  for _, key in ipairs(indexed) do result[#result + 1] = second[key] end
  return result
end

-- `require "models"` finds models.lua beside the configuration file.
package.path = loader.workdir .. "?.lua;" .. package.path

-- The values as JSON -----------------------------------------------------------------------------------------------
-- The helper's own export joins keys with dots and follows tables that contain themselves until memory ends.
-- Here keys carry their type as first letter, and every byte beyond ASCII is one \u00XX.

local problems = {}
local values_seen = 0

local function problem(path, text)
  if #problems < MAX_PROBLEMS then problems[#problems + 1] = path .. ": " .. text end
  return "null"
end

local function quote(text)
  return '"' .. gsub(text, '[%c"\\\127-\255]', function(char) return format("\\u%04x", byte(char)) end) .. '"'
end

local function number(value)
  if value ~= value then return "NaN" end
  if value == huge then return "Infinity" end
  if value == -huge then return "-Infinity" end
  if number_type and number_type(value) == "integer" then return format("%d", value) end
  if not number_type and value == floor(value) and value > -MAX_WHOLE and value < MAX_WHOLE then
    return format("%d", value)
  end
  local text = format("%.17g", value)
  return find(text, "[%.e]") and text or text .. ".0"
end

local function field_path(path, key)
  if type(key) == "string" and find(key, "^[%a_][%w_]*$") then return path .. "." .. key end
  return path .. "[" .. (type(key) == "string" and '"' .. key .. '"' or tostring(key)) .. "]"
end

-- The keys in a fixed order, and the length of the list that they make; nil for a table that is no list.
local function keys_of(node)
  local keys, largest = {}, 0
  local is_list = true
  for key in pairs(node) do
    keys[#keys + 1] = key
    if type(key) == "number" and key >= 1 and key == floor(key) then
      if key > largest then largest = key end
    else
      is_list = false
    end
  end
  -- Holes come from misspelt variables. A table that is mostly holes is something else.
  if #keys == 0 or largest > 2 * #keys + 8 then is_list = false end
  sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) < type(b) end
    if type(a) == "number" then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys, is_list and largest or nil
end

local encode

local function encode_table(node, path, depth, above)
  if above[node] then return problem(path, "a table that contains itself") end
  if depth > MAX_DEPTH then return problem(path, format("tables nested more than %d deep", MAX_DEPTH)) end
  above[node] = true
  local keys, length = keys_of(node)
  local parts = {}
  if length then
    for index = 1, length do parts[index] = encode(node[index], format("%s[%d]", path, index), depth + 1, above) end
  else
    for _, key in ipairs(keys) do
      local kind = type(key)
      if kind == "string" or kind == "number" then
        local name = quote(sub(kind, 1, 1) .. (kind == "string" and key or number(key)))
        parts[#parts + 1] = name .. ":" .. encode(node[key], field_path(path, key), depth + 1, above)
      else
        problem(path, "a " .. kind .. " is used as the name of a field")
      end
    end
  end
  above[node] = nil
  return length and "[" .. concat(parts, ",") .. "]" or "{" .. concat(parts, ",") .. "}"
end

function encode(node, path, depth, above)
  local kind = type(node)
  values_seen = values_seen + 1
  if values_seen > MAX_VALUES then
    if values_seen == MAX_VALUES + 1 then problem(path, format("more than %d values", MAX_VALUES)) end
    return "null"
  end
  if kind == "nil" then return "null" end
  if kind == "boolean" then return tostring(node) end
  if kind == "number" then return number(node) end
  if kind == "string" then return quote(node) end
  if kind == "table" then return encode_table(node, path, depth, above) end
  return problem(path, "a " .. kind .. " cannot be a value")
end

local gatewright, standard = {}, {}

-- Names of the file's other global tables: helpers mostly, but one may be a misspelt setting.
local function other_tables()
  local is_setting, names = {}, {}
  for _, name in ipairs(SETTINGS) do is_setting[name] = true end
  for name, value in next, globals do
    local is_own = type(name) == "string" and type(value) == "table" and standard[name] == nil
    if is_own and not is_setting[name] and find(name, "^[%a_][%w_]*$") then names[#names + 1] = name end
  end
  sort(names)
  local quoted = {}
  for index = 1, #names < MAX_OTHERS and #names or MAX_OTHERS do quoted[index] = quote(names[index]) end
  return "[" .. concat(quoted, ",") .. "]"
end

local function encode_result(failure)
  local parts = {}
  if failure then
    parts[1] = '"serror":' .. quote(failure)
  else
    for _, name in ipairs(SETTINGS) do
      parts[#parts + 1] = quote("s" .. name) .. ":" .. encode(rawget(globals, name), name, 1, {})
    end
    local lines = {}
    for index, text in ipairs(problems) do lines[index] = quote(text) end
    parts[#parts + 1] = '"sproblems":[' .. concat(lines, ",") .. "]"
    parts[#parts + 1] = '"sothers":' .. other_tables()
  end
  return "{" .. concat(parts, ",") .. "}"
end

-- Running the configuration file -----------------------------------------------------------------------------------

-- The message with the line at fault; an error without one gets the nearest line of the file itself.
local function describe(message, name)
  local is_text, text = pcall(tostring, message)
  if not is_text or type(text) ~= "string" or message == nil or find(text, "^table: ") then
    text = "an error without a text"
  end
  if find(text, "^[^:\n]+:%d+: ") then return text end
  local level = 2
  local info = getinfo(level, "Sl")
  while info do
    if info.source == "@" .. name and info.currentline > 0 then
      return format("%s:%d: %s", name, info.currentline, text)
    end
    level = level + 1
    info = getinfo(level, "Sl")
  end
  return name .. ": " .. text
end

local function run(path)
  local name = match(path, "[^/\\]+$") or path
  local file, reason = open(path, "rb")
  if not file then return name .. ": " .. reason end
  local source, read_reason = file:read("*a")
  file:close()
  if not source then return name .. ": " .. tostring(read_reason) end
  -- As the interpreter does: no byte order mark, no first line for the shell. The lines keep their numbers.
  source = gsub(gsub(source, "^\239\187\191", ""), "^#[^\n]*", "")
  if sub(source, 1, 1) == "\27" then return name .. ": compiled Lua; expected its source" end
  -- The file's name alone: the interpreter cuts long paths, and the directory says nothing here.
  local chunk, syntax_error = compile(source, "@" .. name)
  if not chunk then return syntax_error end
  local succeeded, message = xpcall(chunk, function(message) return describe(message, name) end)
  if not succeeded then return message end
end

-- Half a configuration must not look like a whole one.
function os.exit()
  error("os.exit is not for configuration files; call error with a text", 2)
end

loader.gatewright = gatewright

-- The helper runs the configuration with `dofile` next; this is where its error can still be told from its output.
function dofile(path)
  if path ~= loader.exec then return run_file(path) end
  dofile = run_file
  for name, value in pairs(globals) do standard[name] = value end
  local failure = run(path)
  local succeeded, result = pcall(encode_result, failure)
  gatewright.result = succeeded and result or encode_result(tostring(result))
  -- The helper goes on with globals that the configuration may have redefined, and sets new ones.
  pcall(setmetatable, globals, nil)
  for name, value in pairs(standard) do rawset(globals, name, value) end
end
