// SPDX-License-Identifier: Apache-2.0
#include "job/plan.h"

#include <algorithm>
#include <filesystem>

#include "arrow/buffer.h"
#include "arrow/io/memory.h"
#include "arrow/ipc/dictionary.h"
#include "arrow/ipc/reader.h"
#include "arrow/ipc/writer.h"
#include "arrow/util/base64.h"
#include "data/json_value.h"
#include "storage/path.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

Result<std::string> SchemaToText(const arrow::Schema& schema) {
  MS_ASSIGN_OR_RETURN(
      const std::shared_ptr<arrow::Buffer> bytes, arrow::ipc::SerializeSchema(schema)
  );
  return arrow::util::base64_encode(std::string_view(*bytes));
}

Result<std::shared_ptr<arrow::Schema>> SchemaFromText(const std::string& text) {
  MS_ASSIGN_OR_RETURN(std::string bytes, arrow::util::base64_decode(text));
  arrow::io::BufferReader reader(arrow::Buffer::FromString(std::move(bytes)));
  arrow::ipc::DictionaryMemo memo;
  return arrow::ipc::ReadSchema(&reader, &memo);
}

Json FileToJson(const InputFile& file) {
  return {
      {"path", file.path},
      {"name", file.name},
      {"format", FormatName(file.format)},
      {"compression", static_cast<int>(file.compression)},
      {"size_bytes", file.size_bytes},
      {"mtime_ns", file.mtime_ns},
      {"etag", file.etag},
      {"hash", file.hash},
      {"records", file.num_records},
      {"positions", file.positions},
      {"lines", file.lines},
      {"header", file.header}
  };
}

InputFile FileFromJson(const Json& json) {
  InputFile file;
  file.path = json.at("path");
  file.name = json.at("name");
  file.format = FormatFromName(json.at("format").get<std::string>()).value_or(FileFormat::kJsonl);
  file.compression = static_cast<Compression>(json.at("compression").get<int>());
  file.size_bytes = json.at("size_bytes");
  file.mtime_ns = json.at("mtime_ns");
  file.etag = json.at("etag");
  file.hash = json.at("hash");
  file.num_records = json.at("records");
  file.positions = json.at("positions").get<std::vector<std::uint64_t>>();
  file.lines = json.at("lines").get<std::vector<std::uint64_t>>();
  file.header = json.at("header").get<std::vector<std::string>>();
  return file;
}

Json SplitToJson(const Split& split) {
  Json ranges = Json::array();
  for (const RecordRange& range : split.ranges) {
    ranges.push_back({range.file, range.first_record, range.num_records});
  }
  return ranges;
}

void AddSplit(const Json& ranges, std::vector<Split>& splits) {
  Split& split = splits.emplace_back();
  split.number = static_cast<std::int64_t>(splits.size()) - 1;
  for (const Json& range : ranges) {
    split.ranges.push_back({range.at(0), range.at(1), range.at(2)});
    split.num_rows += split.ranges.back().num_records;
  }
}

Result<Plan> FromJson(const Json& json) {
  Plan plan;
  for (const Json& file : json.at("files")) plan.snapshot.files.push_back(FileFromJson(file));
  MS_ASSIGN_OR_RETURN(plan.snapshot.schema, SchemaFromText(json.at("input_schema")));
  plan.snapshot.num_rows = json.at("rows");
  plan.snapshot.is_job_output = json.at("is_job_output");
  for (const Json& ranges : json.at("splits")) AddSplit(ranges, plan.splits);
  MS_ASSIGN_OR_RETURN(plan.output, SchemaFromText(json.at("output_schema")));
  MS_ASSIGN_OR_RETURN(plan.models, ModelsFromJson(json.at("models")));
  plan.instruction_set = json.at("instruction_set");
  plan.now_unix_seconds = json.at("now");
  for (const Json& setting : json.at("settings")) {
    plan.settings.push_back(
        {setting.at("step"), setting.at("name"), setting.at("value"), setting.at("source")}
    );
  }
  return plan;
}

// The failed rows' file is another than the output, by whatever names, and in no place of the
// job's.
Status CheckErrorsPath(const OutputLayout& layout) {
  const std::string errors = ResolvedPath(layout.errors);
  for (const std::string& path : {layout.output, layout.state}) {
    const std::string resolved = ResolvedPath(path);
    if (errors == resolved) {
      return Status::Invalid("output.errors ", layout.errors, " is the same file as ", path);
    }
    if (!IsWithin(errors, resolved) && !IsWithin(resolved, errors)) continue;
    return Status::Invalid(
        "output.errors ", layout.errors, " and ", path, " lie one in the other: choose another path"
    );
  }
  return Status::OK();
}

}  // namespace

Json ModelsToJson(const std::map<std::string, PlannedModel>& models) {
  Json json = Json::object();
  for (const auto& [key, model] : models) {
    json[key] = {{"path", model.path}, {"compute", model.compute}, {"hash", model.hash}};
    if (model.dialect.empty()) continue;
    json[key]["dialect"] = model.dialect;
    json[key]["context"] = model.context;
  }
  return json;
}

Result<std::map<std::string, PlannedModel>> ModelsFromJson(const Json& json) try {
  std::map<std::string, PlannedModel> models;
  for (const auto& [key, model] : json.items()) {
    PlannedModel& planned = models[key];
    planned.path = model.at("path");
    planned.compute = model.at("compute");
    planned.hash = model.at("hash");
    planned.dialect = model.value("dialect", "");
    planned.context = model.value("context", std::int64_t{0});
  }
  return models;
} catch (const Json::exception& error) {
  return Status::Invalid("the plan's models are damaged: ", error.what());
}

Result<Json> PlanToJson(const Plan& plan) {
  Json json = {
      {"format", 1},
      {"rows", plan.snapshot.num_rows},
      {"files", Json::array()},
      {"splits", Json::array()}
  };
  for (const InputFile& file : plan.snapshot.files) json["files"].push_back(FileToJson(file));
  for (const Split& split : plan.splits) json["splits"].push_back(SplitToJson(split));
  MS_ASSIGN_OR_RETURN(json["input_schema"], SchemaToText(*plan.snapshot.schema));
  MS_ASSIGN_OR_RETURN(json["output_schema"], SchemaToText(*plan.output));
  json["is_job_output"] = plan.snapshot.is_job_output;
  json["models"] = ModelsToJson(plan.models);
  json["instruction_set"] = plan.instruction_set;
  json["now"] = plan.now_unix_seconds;
  json["settings"] = Json::array();
  for (const ResolvedSetting& setting : plan.settings) {
    json["settings"].push_back(
        {{"step", setting.step},
         {"name", setting.name},
         {"value", setting.value},
         {"source", setting.source}}
    );
  }
  return json;
}

Result<Plan> PlanFromJson(const Json& json) {
  try {
    return FromJson(json);
  } catch (const Json::exception&) {
    return Conflict(
        "the plan in the state folder is damaged or of another version: --restart starts anew"
    );
  }
}

Result<Json> GrowthToJson(const PlanGrowth& growth) {
  Json json = {{"format", 1}, {"files", Json::array()}, {"splits", Json::array()}};
  for (const auto& [number, file] : growth.files) {
    Json entry = FileToJson(file);
    entry["number"] = number;
    json["files"].push_back(std::move(entry));
  }
  for (const Split& split : growth.splits) json["splits"].push_back(SplitToJson(split));
  return json;
}

Status Grow(const Json& json, Plan& plan) {
  try {
    std::vector<InputFile>& files = plan.snapshot.files;
    for (const Json& entry : json.at("files")) {
      const std::size_t number = entry.at("number");
      InputFile file = FileFromJson(entry);
      if (number < files.size()) {
        files[number] = std::move(file);
      } else if (number == files.size()) {
        files.push_back(std::move(file));
      } else {
        return Conflict("a further plan in the state folder is damaged");
      }
    }
    for (const Json& ranges : json.at("splits")) AddSplit(ranges, plan.splits);
    plan.snapshot.num_rows = 0;
    for (const InputFile& file : files) plan.snapshot.num_rows += file.num_records;
    return Status::OK();
  } catch (const Json::exception&) {
    return Conflict("a further plan in the state folder is damaged");
  }
}

Result<Plan> PlanOf(const Ledger& ledger) {
  MS_ASSIGN_OR_RETURN(Plan plan, PlanFromJson(ledger.plan()));
  for (const Json& more : ledger.more_plans()) MS_RETURN_NOT_OK(Grow(more, plan));
  return plan;
}

std::vector<std::string> FileNames(const Snapshot& snapshot) {
  std::vector<std::string> names;
  names.reserve(snapshot.files.size());
  for (const InputFile& file : snapshot.files) names.push_back(file.name);
  return names;
}

Result<InputOptions> InputOptionsOf(const JobSpec& spec) {
  InputOptions options;
  options.paths = spec.input.paths;
  options.base_folder = spec.folder;
  options.columns = spec.input.columns;
  options.drop_job_columns = !spec.input.keep_job_columns;
  if (spec.input.format == "openai-batch") {
    // JSON lines of these columns. Whether a request can be served is for the step to say that runs
    // it.
    options.format = FileFormat::kJsonl;
    options.schema = {
        {"custom_id", arrow::utf8()},
        {"method", arrow::utf8()},
        {"url", arrow::utf8()},
        {"body", nullptr}
    };
    if (options.columns.empty()) {
      for (const auto& [column, type] : options.schema) options.columns.push_back(column);
    }
    return options;
  }
  if (spec.input.format) options.format = FormatFromName(*spec.input.format);
  for (const auto& [column, type] : spec.input.schema) {
    if (type == "json") {
      options.schema.emplace_back(column, nullptr);
      continue;
    }
    MS_ASSIGN_OR_RETURN(std::shared_ptr<arrow::DataType> parsed, ParseType(type));
    options.schema.emplace_back(column, std::move(parsed));
  }
  return options;
}

Result<OutputFormat> OutputFormatOf(const JobSpec& spec) {
  return OutputFormatFromName(spec.output.format);
}

Result<OutputLayout> OutputLayoutOf(const JobSpec& spec) {
  MS_ASSIGN_OR_RETURN(const OutputFormat format, OutputFormatOf(spec));
  MS_ASSIGN_OR_RETURN(
      OutputLayout layout,
      OutputLayoutAt(spec.folder, spec.output.path, std::string(OutputFormatSuffix(format)))
  );
  if (!spec.output.errors_path.empty()) {
    layout.errors = CleanPath(spec.folder, spec.output.errors_path);
    MS_RETURN_NOT_OK(CheckErrorsPath(layout));
  }
  return layout;
}

Result<OutputLayout> OutputLayoutAt(
    const std::string& folder, const std::string& path, const std::string& suffix
) {
  const std::string clean = CleanPath(folder, path);
  if (!IsObjectPath(path) && path.find("://") != path.npos) {
    return Status::NotImplemented(
        "output ", path, ": only folders and files of the local disk and s3:// paths can be written"
    );
  }
  if (IsObjectPath(clean) && ParentOf(clean) == "s3:/") {
    return Status::Invalid(
        "output ", path, " is a whole bucket: name a folder in it, as in ", clean, "/output"
    );
  }
  return OutputLayout::Of(clean, suffix);
}

std::vector<Split> LimitSplits(const std::vector<Split>& splits, std::int64_t limit, bool spread) {
  std::int64_t total = 0;
  for (const Split& split : splits) total += split.num_rows;
  limit = std::min(limit, total);
  std::vector<Split> limited;
  std::int64_t passed = 0;  // rows of the splits before
  std::int64_t taken = 0;
  for (const Split& split : splits) {
    Split part;
    for (const RecordRange& range : split.ranges) {
      if (spread) {
        // Row k of the sample is row k * total / limit of the input.
        while (taken < limit && taken * total / limit < passed + range.num_records) {
          part.ranges.push_back({range.file, range.first_record + taken * total / limit - passed, 1}
          );
          ++taken;
        }
      } else if (const std::int64_t rows = std::min(range.num_records, limit - taken); rows > 0) {
        part.ranges.push_back({range.file, range.first_record, rows});
        taken += rows;
      }
      passed += range.num_records;
    }
    for (const RecordRange& range : part.ranges) part.num_rows += range.num_records;
    if (part.num_rows == 0) continue;
    part.number = static_cast<std::int64_t>(limited.size());
    limited.push_back(std::move(part));
  }
  return limited;
}

}  // namespace millstream
