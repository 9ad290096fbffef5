// SPDX-License-Identifier: Apache-2.0
#include "pipeline/spec_build.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "arrow/type.h"
#include "arrow/type_traits.h"
#include "data/json_value.h"
#include "fmt/format.h"
#include "pipeline/command_words.h"
#include "pipeline/spec_overrides.h"
#include "pipeline/spec_values.h"
#include "storage/path.h"

namespace millstream {
namespace {

// What one engine's models have and the other's do not.
void CheckEngineKeys(
    const YamlNode& entry, const std::string& path, bool is_native, SpecMistakes& mistakes
) {
  constexpr std::array<std::string_view, 6> kNativeKeys{
      "path", "memory", "threads", "compute", "isolate", "hang_seconds"
  };
  constexpr std::array<std::string_view, 15> kServerKeys{
      "base_url",
      "launch",
      "model",
      "dialect",
      "api_key",
      "headers",
      "ca_file",
      "extra_body",
      "tokenizer",
      "price",
      "max_in_flight",
      "requests_per_minute",
      "tokens_per_minute",
      "timeout",
      "row_deadline"
  };
  constexpr std::array<std::string_view, 3> kBothKeys{"engine", "context", "served_model_name"};
  bool has_unknown = false;  // a name from elsewhere may mean what is missing
  for (const YamlNode& node : entry.children) {
    const auto is_among = [&](const auto& keys) {
      return std::find(keys.begin(), keys.end(), node.key) != keys.end();
    };
    const bool is_foreign = is_native ? is_among(kServerKeys) : is_among(kNativeKeys);
    has_unknown =
        has_unknown || !(is_among(kNativeKeys) || is_among(kServerKeys) || is_among(kBothKeys));
    if (!is_foreign) continue;
    mistakes.Add(
        node,
        PathOf(path, node.key),
        is_native            ? "goes with `engine: openai`; the native engine's model is its `path`"
        : node.key == "path" ? "goes with `engine: native`; of a server, `model` says which model"
                             : "goes with `engine: native`; here the server decides"
    );
  }
  const auto require = [&](std::string_view key, std::string_view advice) {
    if (entry.Find(key) != nullptr || has_unknown) return;
    mistakes.Add(entry, PathOf(path, key), "is missing: " + std::string(advice));
  };
  if (is_native) {
    require("path", "what model to run, or `engine: openai` for one that a server runs");
  } else {
    const YamlNode* const launch = entry.Find("launch");
    if (launch == nullptr) {
      require(
          "base_url",
          "the server's address, such as http://localhost:8000/v1, or `launch`, what starts one"
      );
      require("model", "the name by which the server knows the model");
    } else if (entry.Find("base_url") != nullptr) {
      mistakes.Add(
          *launch,
          PathOf(path, "launch"),
          "starts a server, and `base_url` names one: give one of the two"
      );
    }
  }
}

void BuildHeaders(
    const YamlNode& headers, const std::string& path, ModelSpec& model, SpecMistakes& mistakes
) {
  constexpr std::array<std::string_view, 3> kSecrets{"authorization", "api-key", "x-api-key"};
  for (const YamlNode& entry : headers.children) {
    HeaderSpec header;
    header.name = entry.key;
    const bool is_name = !header.name.empty() &&
                         header.name.find_first_not_of(
                             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
                         ) == std::string::npos;
    const std::string place = PathOf(path, entry.key);
    if (!is_name) mistakes.Add(entry, place, "is no name of an HTTP header");
    std::string lower = header.name;
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (entry.IsMap()) {
      header.variable = TextAt(entry, "env").value_or("");
    } else if (std::find(kSecrets.begin(), kSecrets.end(), lower) != kSecrets.end()) {
      mistakes.Add(
          entry, place, "holds a secret: name the variable of the environment, {env: NAME}"
      );
    } else if (entry.text.find_first_of("\r\n") != std::string::npos) {
      mistakes.Add(entry, place, "must be one line");
    } else {
      header.value = entry.text;
    }
    model.headers.push_back(std::move(header));
  }
}

void BuildExtraBody(
    const YamlNode& node, const std::string& path, ModelSpec& model, SpecMistakes& mistakes
) {
  constexpr std::array<std::string_view, 6> kOurs{
      "model", "messages", "prompt", "n", "stream", "stream_options"
  };
  for (const YamlNode& entry : node.children) {
    if (std::find(kOurs.begin(), kOurs.end(), entry.key) == kOurs.end()) continue;
    mistakes.Add(entry, PathOf(path, entry.key), "is Millstream's to set");
  }
  model.extra_body = ToJson(node);
}

void BuildLaunch(
    const YamlNode& node, const std::string& path, ModelSpec& model, SpecMistakes& mistakes
) {
  auto words = CommandWords(node.text);
  if (!words.ok()) {
    mistakes.Add(node, path, words.status().message());
    return;
  }
  model.launch = *std::move(words);
  const auto has_port = [](const std::string& word) { return word.find("{port}") != word.npos; };
  if (std::any_of(model.launch.begin(), model.launch.end(), has_port)) return;
  mistakes.Add(node, path, "must say {port} where the server's port belongs: `--port {port}`");
}

void BuildServer(
    const YamlNode& entry, const std::string& path, ModelSpec& model, SpecMistakes& mistakes
) {
  model.base_urls = TextsAt(entry, "base_url");
  if (const YamlNode* node = entry.Find("base_url"); node != nullptr && model.base_urls.empty()) {
    mistakes.Add(*node, PathOf(path, "base_url"), "must name at least one server");
  }
  for (std::string& url : model.base_urls) {
    while (url.ends_with('/')) url.pop_back();
    const bool has_password = url.find_first_of("@?#") != url.npos;
    if (!has_password && (url.starts_with("http://") || url.starts_with("https://"))) continue;
    mistakes.Add(
        *entry.Find("base_url"),
        PathOf(path, "base_url"),
        has_password ? "must hold no user, password or query: a key comes from `api_key`"
                     : "must begin with http:// or https://"
    );
  }
  if (const YamlNode* launch = entry.Find("launch"); launch != nullptr && !launch->text.empty()) {
    BuildLaunch(*launch, PathOf(path, "launch"), model, mistakes);
  }
  model.served_model = TextAt(entry, "model").value_or(model.launch.empty() ? "" : "any");
  model.tokenizer = TextAt(entry, "tokenizer").value_or("");
  model.dialect = TextAt(entry, "dialect").value_or("auto");
  if (const YamlNode* key = entry.Find("api_key")) {
    model.api_key_variable = TextAt(*key, "env").value_or("");
  }
  if (const YamlNode* headers = entry.Find("headers")) {
    BuildHeaders(*headers, PathOf(path, "headers"), model, mistakes);
  }
  if (const YamlNode* extra = entry.Find("extra_body"); extra != nullptr && extra->IsMap()) {
    BuildExtraBody(*extra, PathOf(path, "extra_body"), model, mistakes);
  }
  const auto number_in = [](const YamlNode& map, std::string_view key, double otherwise) {
    const YamlNode* node = map.Find(key);
    return node == nullptr ? otherwise : NumberOf(*node).value_or(otherwise);
  };
  if (const YamlNode* price = entry.Find("price")) {
    model.price = PriceSpec{number_in(*price, "input", 0), number_in(*price, "output", 0)};
  }
  const auto number = [&](std::string_view key, double otherwise) {
    return number_in(entry, key, otherwise);
  };
  const auto count = [&](std::string_view key) {
    return static_cast<std::int64_t>(number(key, 0));
  };
  model.max_in_flight = count("max_in_flight");
  model.requests_per_minute = count("requests_per_minute");
  model.tokens_per_minute = count("tokens_per_minute");
  model.timeout_seconds = number("timeout", model.timeout_seconds);
  model.row_deadline_seconds = number("row_deadline", model.row_deadline_seconds);
}

void BuildModels(const YamlNode& models, JobSpec& spec, SpecMistakes& mistakes) {
  for (const YamlNode& entry : models.children) {
    ModelSpec& model = spec.models[entry.key];
    const std::string place = PathOf("models", entry.key);
    model.is_native = TextAt(entry, "engine").value_or("native") == "native";
    if (const auto file = TextAt(entry, "ca_file")) {
      model.ca_file = CleanPath(spec.folder, *file);
    }
    if (entry.IsMap()) CheckEngineKeys(entry, place, model.is_native, mistakes);
    if (!model.is_native) BuildServer(entry, place, model, mistakes);
    model.path = TextAt(entry, "path").value_or("");
    if (const YamlNode* node = entry.Find("context")) model.context = IntegerOf(*node);
    if (const YamlNode* node = entry.Find("memory")) model.memory_bytes = SizeOf(*node);
    if (const YamlNode* node = entry.Find("threads")) {
      model.threads = static_cast<int>(IntegerOf(*node).value_or(1));
    }
    model.served_names = TextsAt(entry, "served_model_name");
    model.compute = TextAt(entry, "compute").value_or("auto");
    if (const YamlNode* node = entry.Find("isolate")) {
      model.isolate = BoolOf(*node).value_or(false);
    }
    if (const YamlNode* node = entry.Find("hang_seconds")) {
      model.hang_seconds = IntegerOf(*node).value_or(model.hang_seconds);
    }
    model.place = PlaceOf(entry, PathOf("models", entry.key));
  }
}

/// Reports a type's name that no column can have.
void CheckType(const YamlNode& node, const std::string& path, SpecMistakes& mistakes) {
  if (!node.IsScalar()) return;
  const auto type = ParseType(node.text);
  if (!type.ok()) mistakes.Add(node, path, type.status().message());
}

void BuildInput(const YamlNode& node, JobSpec& spec, SpecMistakes& mistakes) {
  InputSpec& input = spec.input;
  input.place = PlaceOf(node, "input");
  input.paths = TextsAt(node, "path");
  input.format = TextAt(node, "format");
  input.columns = TextsAt(node, "columns");
  if (const YamlNode* schema = node.Find("schema")) {
    for (const YamlNode& entry : schema->children) {
      input.schema.emplace_back(entry.key, entry.text);
      if (entry.text != "json") CheckType(entry, PathOf("input.schema", entry.key), mistakes);
    }
    if (input.format == "openai-batch") {
      mistakes.Add(
          *schema, "input.schema", "does not go with `format: openai-batch`, which has one"
      );
    }
  }
  if (const YamlNode* keep = node.Find("keep_job_columns")) {
    input.keep_job_columns = BoolOf(*keep).value_or(false);
  }
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kFileSuffixes{
    {{".parquet", "parquet"}, {".jsonl", "jsonl"}, {".csv", "csv"}, {".arrow", "arrow"}}
};
constexpr std::array<std::string_view, 13> kOtherSuffixes{
    ".json",
    ".ndjson",
    ".tsv",
    ".txt",
    ".gz",
    ".zst",
    ".xlsx",
    ".feather",
    ".arrows",
    ".pq",
    ".orc",
    ".avro",
    ".zip"
};

void BuildErrorsFile(
    const YamlNode& node, const std::string& suffix, OutputSpec& output, SpecMistakes& mistakes
) {
  const YamlNode* const errors = node.Find("errors");
  if (errors == nullptr || !errors->IsScalar()) return;
  output.errors_path = errors->text;
  output.keep_errors = false;
  const auto wrong = [&](std::string message) {
    mistakes.Add(*errors, "output.errors", std::move(message));
  };
  if (!output.is_file) {
    wrong("goes with an output that is one file, such as out.jsonl");
  } else if (std::filesystem::path(output.errors_path).extension() != suffix) {
    wrong(fmt::format("must end in {}, as the output does", suffix));
  } else if (output.errors_path == output.path) {
    wrong("is the output itself");
  }
  if (node.Find("rows") != nullptr) wrong("stands beside `rows`: give one of them");
}

void BuildOutput(const YamlNode& node, JobSpec& spec, SpecMistakes& mistakes) {
  OutputSpec& output = spec.output;
  output.place = PlaceOf(node, "output");
  output.path = TextAt(node, "path").value_or("");
  const auto format = TextAt(node, "format");
  if (format) output.format = *format;
  const std::string suffix = std::filesystem::path(output.path).extension().string();
  for (const auto& [known, suffix_format] : kFileSuffixes) {
    if (suffix != known) continue;
    output.is_file = true;
    const bool is_batch = format == "openai-batch" && suffix == ".jsonl";
    if (!is_batch) output.format = suffix_format;
    if (!format || *format == output.format) continue;
    mistakes.Add(
        *node.Find("format"),
        "output.format",
        fmt::format("is {}, but the path ends in {}: make the two agree", *format, suffix)
    );
  }
  if (std::find(kOtherSuffixes.begin(), kOtherSuffixes.end(), suffix) != kOtherSuffixes.end()) {
    mistakes.Add(
        *node.Find("path"),
        "output.path",
        fmt::format(
            "files of suffix {} are not written: only .parquet, .jsonl, .csv and .arrow", suffix
        )
    );
  }
  BuildErrorsFile(node, suffix, output, mistakes);
  if (node.Find("rows") == nullptr) return;
  const std::vector<std::string> rows = TextsAt(node, "rows");
  const auto keeps = [&rows](std::string_view kind) {
    return std::find(rows.begin(), rows.end(), kind) != rows.end();
  };
  output.keep_ok = keeps("ok");
  output.keep_errors = keeps("error") && output.errors_path.empty();
  output.keep_skipped = keeps("skipped");
  if (rows.empty()) {
    mistakes.Add(*node.Find("rows"), "output.rows", "must name at least one kind of row");
  }
  if (output.format == "openai-batch" && output.keep_skipped) {
    mistakes.Add(
        *node.Find("rows"), "output.rows", "format openai-batch has no line for a skipped row"
    );
  }
}

/// The value as a template. A plain number or boolean keeps its type, so it becomes an expression,
/// unless text is asked for.
std::string ValueOf(const YamlNode& column) {
  const YamlNode* value = column.Find("value");
  if (value == nullptr || !value->IsScalar()) return "";
  if (!BoolOf(*value) && !NumberOf(*value)) return value->text;
  const auto type = ParseType(TextAt(column, "type").value_or("int64"));
  if (type.ok() && arrow::is_base_binary_like((*type)->id())) return value->text;
  return fmt::format("{{{{ {} }}}}", ToJson(*value).dump());
}

SetSpec BuildSet(const YamlNode& node, const std::string& path, SpecMistakes& mistakes) {
  SetSpec set;
  for (const YamlNode& entry : node.children) {
    const std::string entry_path = PathOf(path, entry.key);
    CheckNewColumn(entry, entry.key, entry_path, mistakes);
    const YamlNode* type = entry.Find("type");
    if (type != nullptr && type->text != "json") {
      CheckType(*type, PathOf(entry_path, "type"), mistakes);
    }
    set.columns.push_back(
        {entry.key, ValueOf(entry), TextAt(entry, "type"), PlaceOf(entry, entry_path)}
    );
  }
  if (node.IsMap() && set.columns.empty()) mistakes.Add(node, path, "must set at least one column");
  return set;
}

CheckSpec BuildCheck(const YamlNode& node, const std::string& path, SpecMistakes& mistakes) {
  CheckSpec check;
  check.that = TextAt(node, "that").value_or("");
  check.place = PlaceOf(node, PathOf(path, "that"));
  if (const YamlNode* that = node.Find("that")) check.place.line = that->line;
  check.message = TextAt(node, "message");
  if (check.message && check.message->find("{{") != std::string::npos) {
    mistakes.Add(
        *node.Find("message"),
        PathOf(path, "message"),
        "is the same for every row: it cannot hold an expression"
    );
  }
  const auto code = TextAt(node, "code");
  if (!code) return check;
  check.code = *code;
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz";
  constexpr std::string_view kRest = "abcdefghijklmnopqrstuvwxyz0123456789_";
  const bool ok = !code->empty() && kLetters.find((*code)[0]) != std::string_view::npos &&
                  code->find_first_not_of(kRest) == std::string::npos;
  if (!ok) {
    mistakes.Add(
        *node.Find("code"),
        PathOf(path, "code"),
        "must be a lower case word of letters, digits and _, such as empty_answer"
    );
  }
  return check;
}

/// A list of column names, as select and drop take it.
template <typename Spec>
Spec BuildColumns(const YamlNode& node, const std::string& path, SpecMistakes& mistakes) {
  Spec spec;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    const YamlNode& item = node.children[i];
    if (!item.IsScalar()) continue;
    if (!seen.insert(item.text).second) {
      mistakes.Add(item, PathOf(path, i), fmt::format("names the column `{}` twice", item.text));
    }
    spec.columns.push_back(item.text);
    spec.places.push_back(PlaceOf(item, PathOf(path, i)));
  }
  if (node.IsList() && node.children.empty()) {
    mistakes.Add(node, path, "must name at least one column");
  }
  return spec;
}

RenameSpec BuildRename(const YamlNode& node, const std::string& path, SpecMistakes& mistakes) {
  RenameSpec rename;
  std::set<std::string> targets;
  for (const YamlNode& entry : node.children) {
    const std::string entry_path = PathOf(path, entry.key);
    CheckNewColumn(entry, entry.text, entry_path, mistakes);
    if (!targets.insert(entry.text).second) {
      mistakes.Add(
          entry, entry_path, fmt::format("a second column would be called `{}`", entry.text)
      );
    }
    rename.columns.emplace_back(entry.key, entry.text);
    rename.places.push_back(PlaceOf(entry, entry_path));
  }
  if (node.IsMap() && rename.columns.empty()) {
    mistakes.Add(node, path, "must rename at least one column");
  }
  return rename;
}

void BuildBody(
    const YamlNode& body,
    const std::string& path,
    const std::string& folder,
    StepSpec& step,
    SpecMistakes& mistakes
) {
  if (body.key == "set") step.body = BuildSet(body, path, mistakes);
  if (body.key == "filter") step.body = FilterSpec{body.text, PlaceOf(body, path)};
  if (body.key == "generate") step.body = BuildGenerate(body, path, folder, mistakes);
  if (body.key == "score") step.body = BuildScore(body, path, mistakes);
  if (body.key == "check") step.body = BuildCheck(body, path, mistakes);
  if (body.key == "select") step.body = BuildColumns<SelectSpec>(body, path, mistakes);
  if (body.key == "drop") step.body = BuildColumns<DropSpec>(body, path, mistakes);
  if (body.key == "rename") step.body = BuildRename(body, path, mistakes);
}

void CheckId(
    const YamlNode& node,
    const std::string& id,
    const std::string& path,
    std::map<std::string, int>& seen,
    SpecMistakes& mistakes
) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  const YamlNode* given = node.Find("id");
  const bool bad = given != nullptr && id.find_first_not_of(kAllowed) != std::string::npos;
  if (bad) mistakes.Add(*given, PathOf(path, "id"), "must be made of letters, digits, _ and -");
  if (id == "read") {
    mistakes.Add(node, path, "a step cannot be called `read`: errors of the reader are");
  }
  if (id.empty()) return;
  const auto [first, is_new] = seen.emplace(id, node.line);
  if (is_new) return;
  mistakes.Add(
      node,
      path,
      fmt::format(
          "a second step is called `{}`, the first is on line {}: give one another `id`",
          id,
          first->second
      )
  );
}

/// Follows the columns that steps with models make, and reports one that a second step would make
/// again.
class GeneratedColumns {
 public:
  explicit GeneratedColumns(SpecMistakes& mistakes) : mistakes_(mistakes) {}

  /// Returns whether the step makes no column a second time.
  bool Pass(const YamlNode& node, const StepSpec& step) {
    if (const auto* generate = std::get_if<GenerateSpec>(&step.body)) return Add(node, *generate);
    if (const auto* drop = std::get_if<DropSpec>(&step.body)) {
      for (const std::string& column : drop->columns) columns_.erase(column);
    }
    if (const auto* select = std::get_if<SelectSpec>(&step.body)) {
      std::erase_if(columns_, [&](const auto& column) {
        return std::find(select->columns.begin(), select->columns.end(), column.first) ==
               select->columns.end();
      });
    }
    if (const auto* rename = std::get_if<RenameSpec>(&step.body)) {
      for (const auto& [old_name, new_name] : rename->columns) columns_.erase(old_name);
    }
    return true;
  }

 private:
  bool Add(const YamlNode& node, const GenerateSpec& generate) {
    const auto place = generate.places.find("as");
    if (place == generate.places.end()) return true;
    std::vector<std::string> made{generate.as};
    if (!generate.request_column) made.push_back(generate.as + "_meta");
    if (generate.split_reasoning && !generate.request_column)
      made.push_back(generate.as + "_reasoning");
    if (generate.keep_prompt) made.push_back(generate.as + "_prompt");
    if (generate.per_token) made.push_back(generate.as + "_logprobs");
    for (const std::string& column : made) {
      const auto [first, is_new] = columns_.emplace(column, place->second.line);
      if (is_new) continue;
      mistakes_.Add(
          node,
          place->second.path,
          fmt::format(
              "makes the column `{}`, which the step on line {} makes already",
              column,
              first->second
          )
      );
      return false;
    }
    return true;
  }

  SpecMistakes& mistakes_;
  std::map<std::string, int> columns_;  // with the line of the `as` that makes them
};

void BuildSteps(const YamlNode& steps, JobSpec& spec, SpecMistakes& mistakes) {
  const std::vector<std::string> ids = StepIds(steps);
  std::map<std::string, int> seen;
  GeneratedColumns generated(mistakes);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const YamlNode& node = steps.children[i];
    if (!node.IsMap()) continue;
    const std::string path = PathOf("steps", i);
    const auto body =
        std::find_if(node.children.begin(), node.children.end(), [](const YamlNode& entry) {
          return entry.key != "id";
        });
    if (body == node.children.end()) {
      CheckId(node, ids[i], path, seen, mistakes);
      continue;
    }
    StepSpec step;
    step.id = ids[i];
    step.place = PlaceOf(node, path);
    BuildBody(*body, PathOf(path, body->key), spec.folder, step, mistakes);
    const bool is_said = !generated.Pass(*body, step);  // a second `as` is a second id too
    if (!is_said || node.Find("id") != nullptr) CheckId(node, ids[i], path, seen, mistakes);
    spec.steps.push_back(std::move(step));
  }
}

BreakerSpec BreakerOf(const YamlNode& node) {
  BreakerSpec breaker;
  if (node.IsScalar()) {
    breaker.is_on = node.text == "on";
    return breaker;
  }
  if (const YamlNode* first = node.Find("first")) breaker.first = IntegerOf(*first).value_or(50);
  if (const YamlNode* window = node.Find("window")) {
    breaker.window = IntegerOf(*window).value_or(1000);
  }
  if (const YamlNode* share = node.Find("share")) breaker.share = ErrorLimitOf(*share);
  return breaker;
}

ResourcesSpec ResourcesOf(const YamlNode& node, SpecMistakes& mistakes) {
  ResourcesSpec resources;
  if (const YamlNode* cpus = node.Find("cpus")) resources.cpus = IntegerOf(*cpus);
  if (const YamlNode* gpus = node.Find("gpus")) resources.gpus = NumberOf(*gpus).value_or(0);
  if (const YamlNode* memory = node.Find("memory")) resources.memory_bytes = SizeOf(*memory);
  if (const YamlNode* min = node.Find("min_workers")) {
    resources.min_workers = IntegerOf(*min).value_or(1);
  }
  if (const YamlNode* max = node.Find("max_workers")) {
    resources.max_workers = IntegerOf(*max);
    if (resources.max_workers.value_or(resources.min_workers) < resources.min_workers) {
      mistakes.Add(*max, "resources.max_workers", "is less than `min_workers`");
    }
  }
  if (const YamlNode* labels = node.Find("labels")) {
    for (const YamlNode& label : labels->children) resources.labels[label.key] = label.text;
  }
  resources.coordinator = TextAt(node, "coordinator").value_or("head");
  return resources;
}

}  // namespace

void CheckNewColumn(
    const YamlNode& node, std::string_view name, const std::string& path, SpecMistakes& mistakes
) {
  if (!name.starts_with('_')) return;
  mistakes.Add(
      node,
      path,
      fmt::format(
          "a column cannot be called `{}`: names that begin with _ are Millstream's own", name
      )
  );
}

std::optional<std::string> TextAt(const YamlNode& map, std::string_view key) {
  const YamlNode* node = map.Find(key);
  if (node == nullptr || !node->IsScalar()) return std::nullopt;
  return node->text;
}

std::vector<std::string> TextsAt(const YamlNode& map, std::string_view key) {
  const YamlNode* node = map.Find(key);
  std::vector<std::string> texts;
  if (node == nullptr) return texts;
  if (node->IsScalar()) texts.push_back(node->text);
  for (const YamlNode& child : node->children) {
    if (node->IsList() && child.IsScalar()) texts.push_back(child.text);
  }
  return texts;
}

SpecPlace PlaceOf(const YamlNode& node, std::string path) {
  return {node.line, std::move(path)};
}

void BuildSpec(const YamlNode& root, JobSpec& spec, SpecMistakes& mistakes) {
  spec.name = TextAt(root, "name").value_or(std::filesystem::path(spec.file).stem().string());
  if (const YamlNode* models = root.Find("models")) BuildModels(*models, spec, mistakes);
  if (const YamlNode* input = root.Find("input")) BuildInput(*input, spec, mistakes);
  if (const YamlNode* output = root.Find("output")) BuildOutput(*output, spec, mistakes);
  if (const YamlNode* steps = root.Find("steps")) BuildSteps(*steps, spec, mistakes);
  for (StepSpec& step : spec.steps) {
    auto* const generate = std::get_if<GenerateSpec>(&step.body);
    if (generate != nullptr) generate->request_is_line = spec.input.format == "openai-batch";
  }
  if (const YamlNode* limit = root.Find("max_errors")) spec.max_errors = ErrorLimitOf(*limit);
  if (const YamlNode* breaker = root.Find("breaker")) spec.breaker = BreakerOf(*breaker);
  if (const YamlNode* node = root.Find("resources")) spec.resources = ResourcesOf(*node, mistakes);
  // A split without a model is computed in milliseconds: less is lost with it than its file costs.
  const bool has_model = std::any_of(spec.steps.begin(), spec.steps.end(), [](const auto& step) {
    return std::holds_alternative<GenerateSpec>(step.body);
  });
  spec.split_rows = has_model ? 4096 : 16384;
  if (const YamlNode* rows = root.Find("split_rows")) {
    spec.split_rows = IntegerOf(*rows).value_or(spec.split_rows);
  }
  if (const YamlNode* seed = root.Find("seed")) spec.seed = IntegerOf(*seed).value_or(0);
  spec.isa = TextAt(root, "isa").value_or("auto");
  spec.is_reproducible = TextAt(root, "reproducible") != "relaxed";
}

}  // namespace millstream
