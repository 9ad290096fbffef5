// SPDX-License-Identifier: Apache-2.0
#include "pipeline/request_body.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/compact_json.h"
#include "data/json_document.h"
#include "data/json_value.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
using Problem = std::optional<RequestProblem>;

constexpr std::int64_t kMostSamples = 64;
constexpr std::size_t kShownBytes = 80;
constexpr std::int64_t kMostKeys = 1000;

RequestProblem Wrong(std::string_view key, std::string message) {
  return {400, "invalid_value", std::string(key), std::move(message)};
}

RequestProblem Unsupported(std::string_view key, std::string_view advice) {
  return {
      400,
      "unsupported_parameter",
      std::string(key),
      fmt::format("`{}` is not supported by the native engine: {}", key, advice)
  };
}

// A row's text in a message, not too much of it.
std::string Shown(std::string_view text) {
  if (text.size() <= kShownBytes) return std::string(text);
  std::size_t end = kShownBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return std::string(text.substr(0, end)) + "...";
}

// Looking a key up takes as long as an object has keys.
bool IsNarrow(const JsonNode& node) {
  if (node.kind() == JsonKind::kArray) {
    return node
        .ForEachItem([](const JsonNode& item) {
          return IsNarrow(item) ? Status::OK() : Status::Invalid("too many keys");
        })
        .ok();
  }
  if (node.kind() != JsonKind::kObject) return true;
  if (node.size() > kMostKeys) return false;
  return node
      .ForEachMember([](std::string_view, const JsonNode& value) {
        return IsNarrow(value) ? Status::OK() : Status::Invalid("too many keys");
      })
      .ok();
}

// Which values of a key that the native engine cannot honour ask for nothing. Null always does.
enum class Harmless : std::uint8_t { kNull, kFalse, kTrue, kEmpty, kOne, kNotPositive };

struct UnsupportedKey {
  std::string_view key;
  Harmless harmless;
  std::string_view advice = "it would change the answer; leave it out, or use a server";
};
constexpr std::string_view kSayLark = "`structured_outputs: {grammar: ...}` takes one in Lark";
constexpr std::array<UnsupportedKey, 55> kUnsupported{{
    {"allowed_token_ids", Harmless::kEmpty},
    {"audio", Harmless::kNull},
    {"bad_words", Harmless::kEmpty},
    {"chat_template", Harmless::kNull},
    {"custom_logit_processor", Harmless::kEmpty},
    {"documents", Harmless::kEmpty},
    {"dry_multiplier", Harmless::kEmpty},
    {"dynatemp_range", Harmless::kEmpty},
    {"ebnf", Harmless::kEmpty, kSayLark},
    {"enable_thinking", Harmless::kNull, "say it in `chat_template_kwargs`"},
    {"functions", Harmless::kEmpty},
    {"grammar", Harmless::kEmpty, kSayLark},
    {"guided_structural_tag", Harmless::kNull},
    {"guided_whitespace_pattern", Harmless::kNull},
    {"include_reasoning", Harmless::kTrue},
    {"logit_bias", Harmless::kEmpty},
    {"logits_processors", Harmless::kEmpty},
    {"logprobs", Harmless::kFalse},
    {"lora", Harmless::kEmpty},
    {"lora_path", Harmless::kEmpty},
    {"mirostat", Harmless::kEmpty},
    {"mm_processor_kwargs", Harmless::kEmpty},
    {"n_predict", Harmless::kNull, "say `max_tokens`"},
    {"n_probs", Harmless::kEmpty},
    {"no_repeat_ngram_size", Harmless::kEmpty},
    {"prompt_embeds", Harmless::kNull},
    {"prompt_logprobs", Harmless::kNull},
    {"reasoning", Harmless::kNull},
    {"reasoning_effort", Harmless::kNull},
    {"repeat_penalty", Harmless::kOne, "say `repetition_penalty`"},
    {"repetition_detection", Harmless::kEmpty},
    {"return_token_ids", Harmless::kFalse},
    {"return_tokens_as_token_ids", Harmless::kFalse},
    {"samplers", Harmless::kNull},
    {"skip_special_tokens", Harmless::kTrue},
    {"spaces_between_special_tokens", Harmless::kTrue},
    {"stop_regex", Harmless::kEmpty},
    {"structural_tag", Harmless::kNull},
    {"suffix", Harmless::kEmpty},
    {"t_max_predict_ms", Harmless::kNotPositive},
    {"thinking", Harmless::kNull},
    {"thinking_budget", Harmless::kNull},
    {"thinking_token_budget", Harmless::kNull},
    {"tools", Harmless::kEmpty},
    {"top_logprobs", Harmless::kEmpty},
    {"top_n_sigma", Harmless::kNotPositive},
    {"truncate_prompt_tokens", Harmless::kNull},
    {"typical_p", Harmless::kOne},
    {"use_beam_search", Harmless::kFalse},
    {"verbosity", Harmless::kNull},
    {"vllm_xargs", Harmless::kEmpty},
    {"watermark", Harmless::kFalse},
    {"watermarking", Harmless::kFalse},
    {"web_search_options", Harmless::kNull},
    {"xtc_probability", Harmless::kEmpty},
}};

bool IsHarmless(const Json& value, Harmless harmless) {
  if (value.is_null()) return true;
  const bool is_false = value.is_boolean() && !value.get<bool>();
  switch (harmless) {
    case Harmless::kNull:
      return false;
    case Harmless::kFalse:
      return is_false;
    case Harmless::kTrue:
      return value.is_boolean() && value.get<bool>();
    case Harmless::kOne:
      return value == 1;
    case Harmless::kNotPositive:
      return value.is_number() && value <= 0;
    case Harmless::kEmpty:
      break;
  }
  const bool has_nothing = value.is_number()   ? value.get<double>() == 0
                           : value.is_string() ? value.get_ref<const std::string&>().empty()
                                               : value.is_structured() && value.empty();
  return is_false || has_nothing;
}

class BodyReader {
 public:
  BodyReader(const RowRequest& request, RequestBody& out)
      : is_chat_(request.endpoint == Endpoint::kChat), body_(request.body), out_(out) {}

  Problem Read() {
    for (const auto& [key, value] : body_.items()) {
      if (value.is_null()) continue;  // says nothing
      if (Problem problem = ReadKey(key, value)) return problem;
    }
    if (is_chat_ && !out_.messages.is_array()) return Wrong("messages", "`messages` is missing");
    if (!is_chat_ && !has_prompt_) return Wrong("prompt", "`prompt` is missing");
    return CheckTogether();
  }

 private:
  struct Handler {
    std::string_view key;
    Problem (BodyReader::*read)(std::string_view key, const Json& value);
  };
  static const std::array<Handler, 29>& Handlers();

  Problem ReadKey(const std::string& key, const Json& value) {
    for (const SamplingKey& number : SamplingKeys()) {
      if (number.name == key && key != "seed") return ReadNumber(number, key, value);
    }
    const auto& handlers = Handlers();
    const auto handler = std::find_if(handlers.begin(), handlers.end(), [&](const Handler& known) {
      return known.key == key;
    });
    if (handler != handlers.end()) return (this->*handler->read)(key, value);
    for (const UnsupportedKey& known : kUnsupported) {
      if (known.key != key) continue;
      return IsHarmless(value, known.harmless) ? Problem() : Unsupported(key, known.advice);
    }
    out_.ignored.push_back(Shown(key));
    return std::nullopt;
  }

  Problem ReadNumber(const SamplingKey& number, std::string_view key, const Json& value) {
    if (!value.is_number()) return Wrong(key, fmt::format("`{}` must be a number", key));
    const auto given = value.get<double>();
    if (std::string problem = SamplingProblem(number, given); !problem.empty()) {
      return Wrong(key, std::move(problem));
    }
    if (number.name != "max_tokens") {
      StoreSetting(number, given, out_.settings);
    } else if (key != number.name || !has_completion_tokens_) {
      StoreSetting(number, given, out_.settings);
      has_completion_tokens_ = key != number.name;
      out_.has_max_tokens = true;
    }
    return std::nullopt;
  }

  // OpenAI's newer name of max_tokens, which holds if both stand there.
  Problem ReadMaxCompletionTokens(std::string_view key, const Json& value) {
    const auto keys = SamplingKeys();
    const auto number = std::find_if(keys.begin(), keys.end(), [](const SamplingKey& known) {
      return known.name == "max_tokens";
    });
    return ReadNumber(*number, key, value);
  }

  Problem ReadSeed(std::string_view key, const Json& value) {
    constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= kMost
                                                 : value.is_number_integer();
    if (!fits) return Wrong(key, "`seed` must be a whole number of 64 bits");
    out_.settings.seed = value.get<std::int64_t>();
    return std::nullopt;
  }

  Problem ReadN(std::string_view key, const Json& value) {
    const double n = value.is_number() ? value.get<double>() : 0;
    if (!(n >= 1 && n <= kMostSamples) || n != static_cast<double>(static_cast<std::int64_t>(n))) {
      return Wrong(key, fmt::format("`n` must be a whole number from 1 to {}", kMostSamples));
    }
    out_.n = static_cast<std::int64_t>(n);
    return std::nullopt;
  }

  Problem ReadBool(std::string_view key, const Json& value, bool& out) {
    if (!value.is_boolean()) return Wrong(key, fmt::format("`{}` must be true or false", key));
    out = value.get<bool>();
    return std::nullopt;
  }
  Problem ReadIgnoreEos(std::string_view key, const Json& value) {
    return ReadBool(key, value, out_.settings.sampling.ignore_eos);
  }
  Problem ReadIncludeStop(std::string_view key, const Json& value) {
    return ReadBool(key, value, out_.settings.sampling.include_stop_str_in_output);
  }
  Problem ReadAddGenerationPrompt(std::string_view key, const Json& value) {
    return ReadBool(key, value, out_.add_generation_prompt);
  }
  Problem ReadContinueFinalMessage(std::string_view key, const Json& value) {
    return ReadBool(key, value, out_.continue_final_message);
  }
  Problem ReadAddSpecialTokens(std::string_view key, const Json& value) {
    return ReadBool(key, value, out_.add_special_tokens.emplace());
  }
  Problem ReadEcho(std::string_view key, const Json& value) {
    if (Problem problem = ReadBool(key, value, out_.echo)) return problem;
    if (is_chat_ && out_.echo) return Unsupported(key, "it goes with /v1/completions");
    return std::nullopt;
  }

  Problem ReadStop(std::string_view key, const Json& value) {
    std::vector<std::string>& stops = out_.settings.sampling.stop;
    if (value.is_string()) stops.push_back(value.get<std::string>());
    for (const Json& stop : value.is_array() ? value : Json::array()) {
      stops.push_back(stop.is_string() ? stop.get<std::string>() : std::string());
    }
    const bool is_wrong = !(value.is_string() || value.is_array()) ||
                          std::find(stops.begin(), stops.end(), "") != stops.end();
    if (is_wrong) return Wrong(key, "`stop` must be a text or a list of texts, none of them empty");
    return std::nullopt;
  }

  Problem ReadStopTokens(std::string_view key, const Json& value) {
    const auto is_token = [](const Json& token) {
      return token.is_number_integer() && token >= 0 &&
             token <= std::numeric_limits<std::int32_t>::max();
    };
    if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_token)) {
      return Wrong(key, "`stop_token_ids` must be a list of token numbers");
    }
    for (const Json& token : value) {
      out_.settings.sampling.stop_token_ids.push_back(token.get<std::int32_t>());
    }
    return std::nullopt;
  }

  Problem ReadMessages(std::string_view key, const Json& value) {
    if (!is_chat_) return Wrong(key, "`messages` goes with /v1/chat/completions, `prompt` here");
    if (!value.is_array()) return Wrong(key, "`messages` must be a list");
    for (const Json& message : value) {
      if (!message.is_object()) continue;  // MarkedMessages says so
      for (const auto& [name, part] : message.items()) {
        const bool is_call = name == "tool_calls" || name == "function_call";
        if (is_call && !IsHarmless(part, Harmless::kEmpty)) {
          return Unsupported("messages[]." + name, "messages are texts here");
        }
        if (!is_call && name != "role" && name != "content" && !part.is_null()) {
          out_.ignored.push_back("messages[]." + Shown(name));
        }
      }
    }
    out_.messages = value;
    return std::nullopt;
  }

  Problem ReadPrompt(std::string_view key, const Json& value) {
    if (is_chat_) return Wrong(key, "`prompt` goes with /v1/completions, `messages` here");
    const Json& prompt = value.is_array() && value.size() == 1 ? value.front() : value;
    if (!prompt.is_string()) {
      return Wrong(key, "`prompt` must be one text: give each of several a line of its own");
    }
    out_.prompt = prompt.get<std::string>();
    has_prompt_ = true;
    return std::nullopt;
  }

  Problem ReadKwargs(std::string_view key, const Json& value) {
    if (!value.is_object()) return Wrong(key, "`chat_template_kwargs` must be an object");
    out_.chat_template_kwargs = value;
    return std::nullopt;
  }

  Problem ReadToolChoice(std::string_view key, const Json& value) {
    if (value == "none" || value == "auto") return std::nullopt;
    return Unsupported(key, "there are no tools here");
  }

  Problem ReadModalities(std::string_view key, const Json& value) {
    if (value == Json::array({"text"})) return std::nullopt;
    return Unsupported(key, "answers are texts here");
  }

  Problem ReadBestOf(std::string_view key, const Json& value) {
    best_of_ = value;
    (void)key;
    return std::nullopt;
  }

  Problem Constrain(std::string_view key, Grammar::Kind kind, std::string source) {
    if (out_.constraint) {
      return Wrong(key, "two constraints of the answer are given: keep one of them");
    }
    out_.constraint.emplace(kind, std::move(source));
    return std::nullopt;
  }
  Problem ReadSchema(std::string_view key, const Json& value) {
    Json schema = value;
    if (value.is_string()) {
      const std::string& text = value.get_ref<const std::string&>();
      const bool is_json = JsonDocument().Parse(text).ok();
      schema = is_json ? Json::parse(text, nullptr, /*allow_exceptions=*/false) : Json();
    }
    if (!schema.is_object()) return Wrong(key, fmt::format("`{}` must be a JSON Schema", key));
    return Constrain(key, Grammar::Kind::kJsonSchema, Dump(schema));
  }
  Problem ReadText(std::string_view key, const Json& value, Grammar::Kind kind) {
    if (!value.is_string()) return Wrong(key, fmt::format("`{}` must be a text", key));
    return Constrain(key, kind, value.get<std::string>());
  }
  Problem ReadRegex(std::string_view key, const Json& value) {
    return ReadText(key, value, Grammar::Kind::kRegex);
  }
  Problem ReadGrammar(std::string_view key, const Json& value) {
    return ReadText(key, value, Grammar::Kind::kLark);
  }
  Problem ReadChoice(std::string_view key, const Json& value) {
    const bool are_texts =
        value.is_array() && !value.empty() &&
        std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_string(); });
    if (!are_texts) return Wrong(key, fmt::format("`{}` must be a list of texts", key));
    return Constrain(key, Grammar::Kind::kChoice, Dump(value));
  }
  Problem ReadJsonObject(std::string_view key, const Json& value) {
    bool is_on = false;
    if (Problem problem = ReadBool(key, value, is_on)) return problem;
    return is_on ? Constrain(key, Grammar::Kind::kJsonSchema, R"({"type":"object"})") : Problem();
  }

  Problem ReadResponseFormat(std::string_view key, const Json& value) {
    const Json type = value.is_object() && value.contains("type") ? value["type"] : Json();
    if (type == "text") return std::nullopt;
    if (type == "json_object") return ReadJsonObject(key, true);
    const bool has_schema = type == "json_schema" && value.contains("json_schema") &&
                            value["json_schema"].is_object() &&
                            value["json_schema"].contains("schema");
    if (has_schema) return ReadSchema("response_format", value["json_schema"]["schema"]);
    return Wrong(
        key,
        "`response_format` must be {type: text}, {type: json_object} or {type: json_schema, "
        "json_schema: {schema: ...}}"
    );
  }

  Problem ReadStructured(std::string_view key, const Json& value) {
    if (!value.is_object()) return Wrong(key, fmt::format("`{}` must be an object", key));
    for (const auto& [name, part] : value.items()) {
      const std::string path = fmt::format("{}.{}", key, name);
      if (part.is_null()) continue;
      Problem problem;
      if (name == "json") {
        problem = ReadSchema(path, part);
      } else if (name == "regex") {
        problem = ReadRegex(path, part);
      } else if (name == "choice") {
        problem = ReadChoice(path, part);
      } else if (name == "grammar") {
        problem = ReadGrammar(path, part);
      } else if (name == "json_object") {
        problem = ReadJsonObject(path, part);
      } else if (name == "structural_tag" || name == "whitespace_pattern") {
        problem = Unsupported(path, "it would change the answer");
      } else {
        out_.ignored.push_back(Shown(path));
      }
      if (problem) return problem;
    }
    return std::nullopt;
  }

  // Read before, or moot without what stands in kUnsupported.
  Problem Nothing(std::string_view, const Json&) { return std::nullopt; }

  Problem CheckTogether() {
    if (out_.continue_final_message && out_.add_generation_prompt) {
      if (body_.contains("add_generation_prompt") && !body_["add_generation_prompt"].is_null()) {
        return Wrong(
            "continue_final_message", "goes with `add_generation_prompt: false`, not with true"
        );
      }
      out_.add_generation_prompt = false;
    }
    const SamplingParams& sampling = out_.settings.sampling;
    if (out_.has_max_tokens && sampling.min_tokens > sampling.max_tokens) {
      return Wrong("min_tokens", "`min_tokens` is above `max_tokens`");
    }
    if (!best_of_.is_null() && best_of_ != Json(out_.n)) {
      return Unsupported("best_of", "it would change the answer unless it equals `n`");
    }
    return std::nullopt;
  }

  static std::string Dump(const Json& json) { return CompactJson(json); }

  const bool is_chat_;
  const Json& body_;
  RequestBody& out_;
  bool has_prompt_ = false, has_completion_tokens_ = false;
  Json best_of_;
};

const std::array<BodyReader::Handler, 29>& BodyReader::Handlers() {
  static constexpr std::array<Handler, 29> kHandlers{{
      {"model", &BodyReader::Nothing},
      {"stream", &BodyReader::Nothing},
      {"messages", &BodyReader::ReadMessages},
      {"prompt", &BodyReader::ReadPrompt},
      {"max_completion_tokens", &BodyReader::ReadMaxCompletionTokens},
      {"seed", &BodyReader::ReadSeed},
      {"n", &BodyReader::ReadN},
      {"best_of", &BodyReader::ReadBestOf},
      {"stop", &BodyReader::ReadStop},
      {"stop_token_ids", &BodyReader::ReadStopTokens},
      {"ignore_eos", &BodyReader::ReadIgnoreEos},
      {"include_stop_str_in_output", &BodyReader::ReadIncludeStop},
      {"add_generation_prompt", &BodyReader::ReadAddGenerationPrompt},
      {"continue_final_message", &BodyReader::ReadContinueFinalMessage},
      {"add_special_tokens", &BodyReader::ReadAddSpecialTokens},
      {"chat_template_kwargs", &BodyReader::ReadKwargs},
      {"echo", &BodyReader::ReadEcho},
      {"tool_choice", &BodyReader::ReadToolChoice},
      {"function_call", &BodyReader::ReadToolChoice},
      {"modalities", &BodyReader::ReadModalities},
      {"response_format", &BodyReader::ReadResponseFormat},
      {"structured_outputs", &BodyReader::ReadStructured},
      {"json_schema", &BodyReader::ReadSchema},
      {"regex", &BodyReader::ReadRegex},
      {"guided_json", &BodyReader::ReadSchema},
      {"guided_regex", &BodyReader::ReadRegex},
      {"guided_choice", &BodyReader::ReadChoice},
      {"guided_grammar", &BodyReader::ReadGrammar},
      {"guided_json_object", &BodyReader::ReadJsonObject},
  }};
  return kHandlers;
}

}  // namespace

RowError ErrorOfRequest(const std::string& step, const RequestProblem& problem) {
  const Json error = {
      {"message", problem.message},
      {"type", "invalid_request_error"},
      {"param", problem.param.empty() ? Json() : Json(problem.param)},
      {"code", problem.code}
  };
  return {
      step,
      problem.status == 404 ? "model_not_found" : "invalid_request",
      problem.message,
      fmt::format("{} {}", problem.status, CompactJson(error))
  };
}

namespace {

// What every engine must know of a body with more keys than are read.
Json PartOfWide(const JsonNode& root) {
  Json body = Json::object();
  (void)root.ForEachMember([&](std::string_view key, const JsonNode& value) {
    if (key != "model" && key != "stream") return Status::OK();
    const bool is_plain = value.kind() != JsonKind::kArray && value.kind() != JsonKind::kObject;
    std::string text;
    WriteJson(value, text);
    // Neither may be a list or an object, whatever that holds.
    body[std::string(key)] =
        is_plain ? Json::parse(text, nullptr, /*allow_exceptions=*/false) : Json::array();
    return Status::OK();
  });
  return body;
}

}  // namespace

Problem ReadRowRequest(
    std::string_view body, std::string_view method, std::string_view url, RowRequest* request
) {
  constexpr std::string_view kVersion = "/v1";
  if (!method.empty() && method != "POST") {
    return RequestProblem{
        400, "invalid_method", "method", fmt::format("method {} must be POST", Shown(method))
    };
  }
  bool is_known = url.empty();
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    if (url != std::string(kVersion).append(EndpointPath(endpoint))) continue;
    request->endpoint = endpoint;
    is_known = true;
  }
  if (!is_known) {
    return RequestProblem{
        400,
        "invalid_url",
        "url",
        fmt::format(
            "url {} is not served: only /v1/chat/completions and /v1/completions are", Shown(url)
        )
    };
  }
  // It checks what the other parser does not: how deep and how wide the text is.
  JsonDocument document;
  if (!document.Parse(body).ok() || document.root().kind() != JsonKind::kObject) {
    return Wrong("body", "`body` must be a JSON object");
  }
  request->is_wide = !IsNarrow(document.root());
  request->body = request->is_wide ? PartOfWide(document.root())
                                   : Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!request->body.is_object()) return Wrong("body", "`body` must be a JSON object");
  const auto stream = request->body.find("stream");
  if (stream != request->body.end() && !IsHarmless(*stream, Harmless::kFalse)) {
    return RequestProblem{
        400, "unsupported_parameter", "stream", "`stream` must be false: a batch has no streams"
    };
  }
  return std::nullopt;
}

Problem CheckModelName(const Json& body, const std::vector<std::string>& names) {
  const auto model = body.find("model");
  if (model == body.end() || model->is_null()) return std::nullopt;
  if (!model->is_string()) return Wrong("model", "`model` must be a text");
  const std::string& name = model->get_ref<const std::string&>();
  if (std::find(names.begin(), names.end(), name) != names.end()) return std::nullopt;
  return RequestProblem{
      404,
      "model_not_found",
      "model",
      fmt::format("the model {} is not served here: {} is", Shown(name), fmt::join(names, ", "))
  };
}

Problem ReadRequestBody(const RowRequest& request, RequestBody* out) {
  if (request.is_wide) {
    return Wrong("body", fmt::format("an object in `body` has more than {} keys", kMostKeys));
  }
  return BodyReader(request, *out).Read();
}

}  // namespace millstream
