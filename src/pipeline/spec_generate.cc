// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "base/parse_json.h"
#include "base/utf8.h"
#include "fmt/format.h"
#include "pipeline/sampling_settings.h"
#include "pipeline/spec_build.h"
#include "pipeline/spec_values.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uintmax_t kMaxFileBytes = 1 << 20;
constexpr int kMaxSchemaDepth = 100;

/// Builds one generate or score step: keeps what all of its parts need.
class GenerateBuilder {
 public:
  GenerateBuilder(
      const YamlNode& node, std::string path, std::string folder, SpecMistakes& mistakes
  )
      : node_(node), path_(std::move(path)), folder_(std::move(folder)), mistakes_(mistakes) {}

  GenerateSpec Build() {
    BuildFrame();
    BuildPrompt();
    BuildNumbers();
    BuildSwitches();
    BuildChatTemplate();
    BuildOverflow();
    BuildStructured();
    CheckTogether();
    return std::move(spec_);
  }

  GenerateSpec BuildScore() {
    BuildFrame();
    spec_.is_score = true;
    spec_.raw_prompt = TextAt(node_, "text");
    const bool is_constant = spec_.raw_prompt && spec_.raw_prompt->find("{{") == std::string::npos;
    if (is_constant && spec_.raw_prompt->find("{%") == std::string::npos) {
      Mistake("text", "is the same for every row: a column's text is written \"{{ column }}\"");
    }
    spec_.per_token = Switch("per_token");
    BuildSwitches();
    BuildOverflow();
    return std::move(spec_);
  }

 private:
  // What all such steps have.
  void BuildFrame() {
    spec_.place = PlaceOf(node_, path_);
    for (const YamlNode& entry : node_.children) {
      spec_.places[entry.key] = PlaceOf(entry, PathOf(path_, entry.key));
    }
    spec_.model = TextAt(node_, "model").value_or("");
    spec_.as = TextAt(node_, "as").value_or("");
    if (const YamlNode* as = node_.Find("as")) {
      CheckNewColumn(*as, spec_.as, PathOf(path_, "as"), mistakes_);
    }
  }

  void Mistake(std::string_view key, std::string message) {
    const YamlNode* node = node_.Find(key);
    mistakes_.Add(node != nullptr ? *node : node_, PathOf(path_, key), std::move(message));
  }
  bool Has(std::string_view key) const { return node_.Find(key) != nullptr; }

  void BuildPrompt() {
    spec_.prompt = TextAt(node_, "prompt");
    spec_.system = TextAt(node_, "system");
    spec_.raw_prompt = TextAt(node_, "raw_prompt");
    spec_.request_column = TextAt(node_, "request");
    if (spec_.request_column) CheckRequestKeys();
    if (Has("system") && !Has("prompt")) {
      if (Has("messages")) {
        Mistake("system", "goes with `prompt` only: give a message of role system");
      }
      if (Has("raw_prompt")) {
        Mistake("system", "goes with `prompt` only: write it into the raw_prompt");
      }
    }
    BuildMessages();
  }

  // A request body says itself what the other keys would.
  void CheckRequestKeys() {
    constexpr std::array<std::string_view, 9> kAllowed{
        "model",
        "request",
        "as",
        "reasoning",
        "parse_special",
        "runaway",
        "prompt",
        "messages",
        "raw_prompt"
    };
    for (const YamlNode& entry : node_.children) {
      if (std::find(kAllowed.begin(), kAllowed.end(), entry.key) != kAllowed.end()) continue;
      Mistake(entry.key, "does not go with `request`: each row's body says it itself");
    }
  }

  void BuildMessages() {
    const YamlNode* messages = node_.Find("messages");
    if (messages == nullptr) return;
    const std::string path = PathOf(path_, "messages");
    if (messages->IsScalar()) {
      BuildMessagesColumn(*messages, path);
    }
    if (messages->IsList() && messages->children.empty()) {
      mistakes_.Add(*messages, path, "must hold at least one message");
    }
    for (std::size_t i = 0; messages->IsList() && i < messages->children.size(); ++i) {
      const YamlNode& node = messages->children[i];
      MessageSpec message;
      message.place = PlaceOf(node, PathOf(path, i));
      message.role = TextAt(node, "role").value_or("");
      const YamlNode* content = node.Find("content");
      if (content != nullptr && content->IsScalar()) message.contents.push_back(content->text);
      if (content != nullptr && content->IsList()) {
        BuildParts(*content, PathOf(PathOf(path, i), "content"), message);
      }
      spec_.messages.push_back(std::move(message));
    }
  }

  void BuildParts(const YamlNode& content, const std::string& path, MessageSpec& message) {
    if (content.children.empty()) mistakes_.Add(content, path, "must hold at least one part");
    for (std::size_t i = 0; i < content.children.size(); ++i) {
      const YamlNode& part = content.children[i];
      if (TextAt(part, "type") == "text" && part.Find("text") == nullptr) {
        mistakes_.Add(
            part, PathOf(PathOf(path, i), "text"), "is missing: a part of type text needs it"
        );
      }
      message.contents.push_back(TextAt(part, "text").value_or(""));
    }
  }

  // A column's name; {{ column }} says the same.
  void BuildMessagesColumn(const YamlNode& node, const std::string& path) {
    std::string name = node.text;
    if (IsOneExpression(name)) {
      const std::size_t begin = name.find_first_not_of("{ ");
      const std::size_t end = name.find_last_not_of("} ");
      name = begin == std::string::npos || end < begin ? "" : name.substr(begin, end - begin + 1);
    }
    const bool is_template = name.find_first_of("{}|()\n") != std::string::npos;
    if (name.empty() || is_template) {
      mistakes_.Add(
          node, path, "must be a list of messages or the name of a column that holds one"
      );
    }
    spec_.messages_column = name;
  }

  void BuildNumbers() {
    for (const SamplingKey& key : SamplingKeys()) {
      const YamlNode* node = node_.Find(key.name);
      if (node == nullptr || !node->IsScalar()) continue;
      AddNumber(key.name, *node);
    }
    if (const YamlNode* n = node_.Find("n")) spec_.n = IntegerOf(*n).value_or(1);
    spec_.stop = TextsAt(node_, "stop");
    if (const YamlNode* ids = node_.Find("stop_token_ids")) {
      for (const YamlNode& id : ids->children) {
        spec_.stop_token_ids.push_back(IntegerOf(id).value_or(0));
      }
    }
  }

  void AddNumber(std::string_view key, const YamlNode& node) {
    NumberSetting setting;
    setting.place = PlaceOf(node, PathOf(path_, key));
    if (const auto value = NumberOf(node)) {
      setting.value = *value;
    } else {
      setting.value = node.text;
    }
    spec_.numbers[std::string(key)] = std::move(setting);
  }

  bool Switch(std::string_view key) const {
    const YamlNode* node = node_.Find(key);
    return node != nullptr && BoolOf(*node).value_or(false);
  }

  void BuildSwitches() {
    spec_.include_stop_str_in_output = Switch("include_stop_str_in_output");
    spec_.ignore_eos = Switch("ignore_eos");
    spec_.ignore_runaway = TextAt(node_, "runaway") == "ignore";
    spec_.continue_final_message = Switch("continue_final_message");
    spec_.parse_special = Switch("parse_special");
    spec_.keep_prompt = Switch("keep_prompt");
    if (const YamlNode* add = node_.Find("add_special_tokens")) {
      spec_.add_special_tokens = BoolOf(*add);
    }
    spec_.length_error = TextAt(node_, "on_length") == "error";
    spec_.split_reasoning = TextAt(node_, "reasoning") == "split";
  }

  /// A file's text, named by the scalar at `node`.
  std::optional<std::string> ReadFile(const YamlNode& node, const std::string& path) {
    const std::filesystem::path file = std::filesystem::path(folder_) / node.text;
    std::error_code error;
    if (!std::filesystem::is_regular_file(file, error)) {
      mistakes_.Add(node, path, fmt::format("there is no file {}", file.string()));
      return std::nullopt;
    }
    if (std::filesystem::file_size(file, error) > kMaxFileBytes || error) {
      mistakes_.Add(node, path, fmt::format("the file is larger than 1 MiB: {}", file.string()));
      return std::nullopt;
    }
    std::ifstream stream(file, std::ios::binary);
    std::ostringstream text;
    text << stream.rdbuf();
    if (!stream || !IsValidUtf8(text.view())) {
      mistakes_.Add(node, path, fmt::format("cannot be read as UTF-8 text: {}", file.string()));
      return std::nullopt;
    }
    return std::move(text).str();
  }

  void BuildChatTemplate() {
    if (const YamlNode* file = node_.Find("chat_template"); file != nullptr && file->IsScalar()) {
      if (file->text.find("{{") != std::string::npos ||
          file->text.find("{%") != std::string::npos) {
        Mistake("chat_template", "names a file: put the template into one");
      } else {
        spec_.chat_template = ReadFile(*file, PathOf(path_, "chat_template"));
      }
    }
    if (const YamlNode* kwargs = node_.Find("chat_template_kwargs");
        kwargs != nullptr && kwargs->IsMap()) {
      spec_.chat_template_kwargs = ToJson(*kwargs);
    }
  }

  void BuildOverflow() {
    const YamlNode* overflow = node_.Find("on_overflow");
    if (overflow == nullptr || !overflow->IsMap()) return;
    spec_.overflow_error = false;
    spec_.truncate_columns = TextsAt(*overflow, "truncate");
    spec_.truncate_left = TextAt(*overflow, "side") == "left";
  }

  void BuildStructured() {
    if (Has("structured_outputs") && Has("response_format")) {
      Mistake("response_format", "stands beside `structured_outputs`: give one of them");
    }
    if (const YamlNode* node = node_.Find("structured_outputs"); node != nullptr && node->IsMap()) {
      BuildConstraint(*node, PathOf(path_, "structured_outputs"));
    } else if (const YamlNode* format = node_.Find("response_format");
               format != nullptr && format->IsMap()) {
      BuildResponseFormat(*format, PathOf(path_, "response_format"));
    }
  }

  void BuildConstraint(const YamlNode& node, const std::string& path) {
    if (node.children.empty()) return;
    const YamlNode& entry = node.children[0];
    const std::string entry_path = PathOf(path, entry.key);
    StructuredSpec structured;
    structured.place = PlaceOf(entry, entry_path);
    if (entry.key == "json") {
      structured.schema = entry.IsMap() ? ToJson(entry) : ReadSchema(entry, entry_path);
    } else if (entry.key == "choice") {
      structured.kind = StructuredSpec::Kind::kChoice;
      BuildChoices(entry, entry_path, structured);
    } else if (entry.key == "regex" || entry.key == "grammar") {
      structured.kind =
          entry.key == "regex" ? StructuredSpec::Kind::kRegex : StructuredSpec::Kind::kGrammar;
      structured.text = entry.text;
    }
    spec_.structured = std::move(structured);
  }

  void BuildChoices(const YamlNode& node, const std::string& path, StructuredSpec& structured) {
    if (node.IsScalar()) structured.choice_column = node.text;
    if (node.IsList() && node.children.empty()) {
      mistakes_.Add(node, path, "must hold at least one choice");
    }
    std::set<std::string> seen;
    for (std::size_t i = 0; node.IsList() && i < node.children.size(); ++i) {
      const YamlNode& choice = node.children[i];
      if (choice.IsScalar() && choice.text.empty()) {
        mistakes_.Add(choice, PathOf(path, i), "must not be empty");
      }
      if (!seen.insert(choice.text).second) {
        mistakes_.Add(choice, PathOf(path, i), fmt::format("stands twice: `{}`", choice.text));
      }
      structured.choices.push_back(choice.text);
    }
  }

  Json ReadSchema(const YamlNode& node, const std::string& path) {
    if (!node.IsScalar()) return nullptr;
    const auto text = ReadFile(node, path);
    if (!text) return nullptr;
    Json schema = ParseJson<Json>(*text, kMaxSchemaDepth);
    if (!schema.is_object()) {
      mistakes_.Add(node, path, fmt::format("the file is no JSON object: {}", node.text));
      return nullptr;
    }
    return schema;
  }

  void BuildResponseFormat(const YamlNode& node, const std::string& path) {
    const std::string type = TextAt(node, "type").value_or("");
    const YamlNode* wrapper = node.Find("json_schema");
    if (wrapper != nullptr && type != "json_schema" && !type.empty()) {
      mistakes_.Add(
          *wrapper,
          PathOf(path, "json_schema"),
          fmt::format("goes with `type: json_schema`, not with `type: {}`", type)
      );
    }
    if (type == "json_schema" && wrapper == nullptr) {
      mistakes_.Add(node, PathOf(path, "json_schema"), "is missing: `type: json_schema` needs it");
    }
    if (type != "json_schema" && type != "json_object") return;
    StructuredSpec structured;
    structured.place = PlaceOf(node, path);
    structured.schema = {{"type", "object"}};
    if (wrapper != nullptr) {
      const YamlNode* schema = wrapper->Find("schema");
      if (schema != nullptr && schema->IsMap()) structured.schema = ToJson(*schema);
    }
    spec_.structured = std::move(structured);
  }

  // What contradicts itself.
  void CheckTogether() {
    const auto without_template = [this](std::string_view key) {
      if (Has(key)) Mistake(key, "has no effect with `raw_prompt`, which uses no chat template");
    };
    if (Has("raw_prompt")) {
      without_template("chat_template");
      without_template("chat_template_kwargs");
      without_template("continue_final_message");
    }
    for (const std::string_view key : {"stop", "stop_token_ids", "min_tokens", "ignore_eos"}) {
      if (spec_.structured && Has(key)) {
        Mistake(key, "has no effect with a constraint, which says where the answer ends");
      }
    }
    if (spec_.ignore_eos && Has("runaway")) {
      Mistake("runaway", "has no effect with `ignore_eos`, which goes on up to `max_tokens`");
    }
    const auto constant = [this](const std::string& key) -> std::optional<double> {
      const auto found = spec_.numbers.find(key);
      if (found == spec_.numbers.end()) return std::nullopt;
      const double* value = std::get_if<double>(&found->second.value);
      return value != nullptr ? std::optional(*value) : std::nullopt;
    };
    const auto min_tokens = constant("min_tokens");
    const auto max_tokens = constant("max_tokens");
    if (min_tokens && max_tokens && *min_tokens > *max_tokens) {
      Mistake(
          "min_tokens", fmt::format("is above max_tokens: {} and {}", *min_tokens, *max_tokens)
      );
    }
    if (spec_.n > 1 && constant("temperature") == 0.0) {
      Mistake(
          "n",
          fmt::format("is {} at temperature 0, which would give {} equal answers", spec_.n, spec_.n)
      );
    }
  }

  const YamlNode& node_;
  const std::string path_;
  const std::string folder_;
  SpecMistakes& mistakes_;
  GenerateSpec spec_;
};

}  // namespace

GenerateSpec BuildGenerate(
    const YamlNode& node, const std::string& path, const std::string& folder, SpecMistakes& mistakes
) {
  return GenerateBuilder(node, path, folder, mistakes).Build();
}

GenerateSpec BuildScore(const YamlNode& node, const std::string& path, SpecMistakes& mistakes) {
  return GenerateBuilder(node, path, "", mistakes).BuildScore();
}

}  // namespace millstream
