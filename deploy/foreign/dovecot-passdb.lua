-- Passdb for a Dovecot proxy: asks a frontend's `routes` listener where an account is, and has Dovecot bring the session there.
-- The password is not judged here; the server that the session is brought to does that.
--
--   passdb {
--     driver = lua
--     args = file=/etc/dovecot/dovecot-passdb.lua blocking=yes
--   }
--
-- Set the address of the listener:
local routes = "http://127.0.0.1:8090"

local protocols = { sieve = "managesieve", smtp = "submission" }
local client

function script_init()
  client = dovecot.http.client({ timeout = 5000, max_attempts = 2 })
  return 0
end

local function escaped(text)
  return (text:gsub("[^%w%.%-_]", function(character) return string.format("%%%02X", character:byte()) end))
end

function auth_passdb_lookup(request)
  local protocol = protocols[request.service] or request.service
  local asked = client:request({
    url = routes .. "/account?protocol=" .. escaped(protocol) .. "&name=" .. escaped(request.user),
    method = "GET",
  })
  local answer = asked:submit()
  local status = answer:status()
  if status == 404 then
    return dovecot.auth.PASSDB_RESULT_USER_UNKNOWN, "no such account"
  end
  local body = answer:payload() or ""
  local host, port = body:match('"host":"([%w%.:%-]+)"'), body:match('"port":(%d+)')
  if status ~= 200 or host == nil or port == nil then
    return dovecot.auth.PASSDB_RESULT_INTERNAL_FAILURE, "no answer from " .. routes .. ": " .. status
  end
  return dovecot.auth.PASSDB_RESULT_OK, { nopassword = "y", proxy = "y", host = host, port = port }
end
