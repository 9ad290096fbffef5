// SPDX-License-Identifier: Apache-2.0
#include "job/resume.h"

#include <algorithm>
#include <utility>

#include "data/listing.h"
#include "engine/native_engine.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "job/spec_difference.h"
#include "storage/path.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// What the accepted spec says of models replaces what the plan says.
Status TakeModels(const Json& record, Plan& plan) {
  const auto models = record.find("models");
  if (models == record.end()) return Status::OK();
  MS_ASSIGN_OR_RETURN(plan.models, ModelsFromJson(*models));
  plan.instruction_set = record.value("instruction_set", "");
  return Status::OK();
}

std::vector<SpecDifference> Differences(const PreparedJob& job, const Plan& planned) {
  std::vector<std::string> ids;
  ids.reserve(job.spec.steps.size());
  for (const StepSpec& step : job.spec.steps) ids.push_back(step.id);
  const Json before = job.ledger->current_spec().value("spec", Json::object());
  std::vector<SpecDifference> differences =
      SpecDifferences(before, job.spec.canonical, job.spec.lines, ids);
  for (const auto& [key, model] : job.plan.models) {
    const auto found = planned.models.find(key);
    if (found == planned.models.end()) continue;
    const std::string field = "models." + key;
    if (found->second.hash != model.hash) {
      differences.push_back(
          {field, fmt::format("{}: the model's file is another one ({})", field, model.path)}
      );
    }
    if (job.spec.is_reproducible && found->second.compute != model.compute) {
      differences.push_back(
          {field + ".compute",
           fmt::format("{}.compute: {} -> {}", field, found->second.compute, model.compute)}
      );
    }
  }
  if (job.spec.is_reproducible && planned.instruction_set != job.plan.instruction_set &&
      !job.plan.models.empty()) {
    differences.push_back(
        {"instruction_set",
         fmt::format("instruction_set: {} -> {}", planned.instruction_set, job.plan.instruction_set)
        }
    );
  }
  return differences;
}

// Input and output are what a plan is made of: no row could keep them.
bool CanBeAccepted(const std::string& field) {
  return !Covers("input", field) && !Covers("output", field);
}

// What to add to a command for it to write elsewhere: its failed rows' file too, if that is taken.
std::string ElsewhereFlags(const PreparedJob& job) {
  const Json before = job.ledger->current_spec().value("spec", Json::object());
  const Json::json_pointer errors("/output/errors");
  const bool is_taken = job.spec.canonical.contains(errors) && before.contains(errors) &&
                        job.spec.canonical[errors] == before[errors];
  return is_taken ? "--output NEW_PATH --set output.errors=NEW_FILE" : "--output NEW_PATH";
}

Status Refuse(
    const PreparedJob& job, const std::vector<SpecDifference>& differences, std::int64_t rows_done
) {
  std::string message = job.ledger->layout().output + " was made by another spec:";
  std::string accept;
  for (const SpecDifference& difference : differences) {
    message += "\n  " + difference.text;
    if (!CanBeAccepted(difference.field)) {
      accept = "-";
    } else if (accept != "-") {
      accept += " --accept-change " + difference.field;
    }
  }
  message += "\nTo write elsewhere, add:        " + ElsewhereFlags(job);
  if (!IsObjectPath(job.ledger->layout().output)) {
    message +=
        "\nTo start anew there, add:       --restart   (moves the old output and its state aside)";
  }
  if (accept != "-") {
    message += fmt::format(
        "\nTo go on with the change, add: {}   ({} rows that are done keep the old spec)",
        accept,
        rows_done
    );
  }
  return Status::Invalid(message);
}

// Compares the spec with the one that the rows were made by.
Status CompareSpec(
    PreparedJob& job, const JobOptions& options, const Plan& planned, const Say& say
) {
  const std::vector<SpecDifference> differences = Differences(job, planned);
  for (const std::string& given : options.accept_changes) {
    const bool is_there =
        std::any_of(differences.begin(), differences.end(), [&](const SpecDifference& difference) {
          return Covers(given, difference.field);
        });
    if (!is_there) {
      return Status::Invalid("--accept-change ", given, ": nothing changed there");
    }
  }
  job.spec_version = job.ledger->spec_version();
  if (differences.empty()) return Status::OK();
  MS_ASSIGN_OR_RETURN(const auto parts, job.ledger->Parts());
  std::int64_t rows_done = 0;
  for (const auto& [split, part] : parts) rows_done += part.counts.total();
  Json fields = Json::array();
  for (const SpecDifference& difference : differences) {
    const bool is_accepted = options.accept_all || std::any_of(
                                                       options.accept_changes.begin(),
                                                       options.accept_changes.end(),
                                                       [&](const std::string& given) {
                                                         return Covers(given, difference.field);
                                                       }
                                                   );
    // With --append, more may be listed than before.
    const bool is_input = options.append && Covers("input.path", difference.field);
    if (!is_input && (!is_accepted || !CanBeAccepted(difference.field))) {
      return Refuse(job, differences, rows_done);
    }
    fields.push_back(difference.field);
    if (is_accepted && !options.accept_all) {
      say(fmt::format("accepted: {}; {} rows keep the old one", difference.text, rows_done));
    }
  }
  Json record = SpecRecord(job, options.overrides);
  record["fields"] = std::move(fields);
  record["rows_before"] = rows_done;
  job.spec_change = std::move(record);
  ++job.spec_version;
  return Status::OK();
}

struct NewInput {
  std::vector<InputFile> files;
  std::map<std::int32_t, std::int64_t> grown;  // records before, by the file's number
};

// What the input lists beyond the plan.
Result<NewInput> FindNewInput(const PreparedJob& job, const Plan& planned) {
  const auto listing = ListInput(job.input);
  if (listing.status().IsIOError() && !IsDiskTrouble(listing.status())) {
    return Conflict(listing.status().message());  // it is gone, and the job had input there
  }
  MS_ASSIGN_OR_RETURN(const std::vector<InputFile> listed, listing);
  std::map<std::string, std::int32_t> numbers;
  for (std::size_t i = 0; i < planned.snapshot.files.size(); ++i) {
    numbers[planned.snapshot.files[i].name] = static_cast<std::int32_t>(i);
  }
  NewInput found;
  for (const InputFile& file : listed) {
    const auto number = numbers.find(file.name);
    if (number == numbers.end()) {
      found.files.push_back(file);
      continue;
    }
    const InputFile& pinned = planned.snapshot.files[static_cast<std::size_t>(number->second)];
    MS_ASSIGN_OR_RETURN(const bool grew, HasGrown(pinned, file));
    if (grew) found.grown[number->second] = pinned.num_records;
  }
  return found;
}

// Splits of what a snapshot of the new and grown files holds beyond the plan.
PlanGrowth GrowthOf(
    const Snapshot& taken,
    const std::map<std::string, std::int32_t>& numbers,
    const NewInput& found,
    const Plan& planned,
    std::int64_t split_rows
) {
  PlanGrowth growth;
  std::vector<std::int32_t> number_of;  // by the file's place in `taken`
  auto next = static_cast<std::int32_t>(planned.snapshot.files.size());
  for (const InputFile& file : taken.files) {
    const auto known = numbers.find(file.name);
    const std::int32_t number = known == numbers.end() ? next++ : known->second;
    number_of.push_back(number);
    growth.files[number] = file;
  }
  auto split_number = static_cast<std::int64_t>(planned.splits.size());
  for (const Split& cut : CutSplits(taken, split_rows, kSplitBytes)) {
    Split split;
    for (RecordRange range : cut.ranges) {
      range.file = number_of[static_cast<std::size_t>(range.file)];
      if (const auto grown = found.grown.find(range.file); grown != found.grown.end()) {
        const std::int64_t end = range.first_record + range.num_records;
        range.first_record = std::max(range.first_record, grown->second + 1);
        range.num_records = end - range.first_record;
      }
      if (range.num_records <= 0) continue;
      split.num_rows += range.num_records;
      split.ranges.push_back(range);
    }
    if (split.ranges.empty()) continue;
    split.number = split_number++;
    growth.splits.push_back(std::move(split));
  }
  return growth;
}

Status AppendInput(
    PreparedJob& job, const NewInput& found, Plan& planned, const Say& say, std::stop_token stop
) {
  InputOptions options = job.input;
  options.paths.clear();
  std::map<std::string, std::int32_t> numbers;
  for (const auto& [number, records] : found.grown) {
    const InputFile& file = planned.snapshot.files[static_cast<std::size_t>(number)];
    numbers[file.name] = number;
    options.paths.push_back(file.path);
  }
  for (const InputFile& file : found.files) options.paths.push_back(file.path);
  // The columns are the plan's: what is appended fits them, or its rows are errors.
  options.schema.clear();
  for (const auto& field : planned.snapshot.schema->fields()) {
    options.schema.emplace_back(field->name(), IsJsonText(*field) ? nullptr : field->type());
  }
  MS_ASSIGN_OR_RETURN(const Snapshot taken, TakeSnapshot(options, stop));
  for (const auto& field : taken.schema->fields()) {
    if (planned.snapshot.schema->GetFieldIndex(field->name()) < 0) {
      say(fmt::format("the column {} is new: the job's rows do not have it", field->name()));
    }
  }
  const PlanGrowth growth = GrowthOf(taken, numbers, found, planned, job.spec.split_rows);
  std::int64_t rows = 0;
  for (const Split& split : growth.splits) rows += split.num_rows;
  say(fmt::format(
      "appended: {} rows of {} new and {} grown files", rows, found.files.size(), found.grown.size()
  ));
  MS_ASSIGN_OR_RETURN(const Json json, GrowthToJson(growth));
  MS_RETURN_NOT_OK(Grow(json, planned));
  job.more_plan = json;
  return Status::OK();
}

std::string Names(const std::vector<InputFile>& files) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < files.size() && i < kShown; ++i) names.push_back(files[i].name);
  return fmt::format("{}{}", fmt::join(names, ", "), files.size() > kShown ? ", ..." : "");
}

}  // namespace

Json SpecSource(const JobSpec& spec, const SpecOverrides& overrides) {
  return {
      {"path", spec.file}, {"text", spec.text}, {"vars", overrides.vars}, {"sets", overrides.sets}
  };
}

Result<JobOptions> StandingOptions(const Ledger& ledger) {
  const Json source = ledger.current_spec().value("file", Json::object());
  if (!source.contains("text") || !source.contains("path")) {
    return Status::Invalid(
        "the state does not hold the job file of these rows: give it, as in `millstream retry ",
        ledger.layout().output,
        " JOB.yaml`"
    );
  }
  JobOptions options;
  options.file = source["path"];
  options.text = source["text"];
  options.overrides.output = ledger.layout().output;
  options.overrides.vars = source.value("vars", options.overrides.vars);
  options.overrides.sets = source.value("sets", options.overrides.sets);
  return options;
}

Json SpecRecord(const PreparedJob& job, const SpecOverrides& overrides) {
  return {
      {"spec", job.spec.canonical},
      {"file", SpecSource(job.spec, overrides)},
      {"models", ModelsToJson(job.plan.models)},
      {"instruction_set", job.plan.instruction_set}
  };
}

Result<Plan> PlannedBefore(const Ledger& ledger) {
  MS_ASSIGN_OR_RETURN(Plan planned, PlanOf(ledger));
  MS_RETURN_NOT_OK(TakeModels(ledger.current_spec(), planned));
  return planned;
}

Status CheckComputesAlike(const PreparedJob& job, const Plan& planned) {
  if (!job.spec.is_reproducible) return Status::OK();
  const std::string& here = job.plan.instruction_set;
  bool is_alike = here == planned.instruction_set;
  for (const auto& [key, model] : job.plan.models) {
    const auto found = planned.models.find(key);
    is_alike =
        is_alike && (found == planned.models.end() || found->second.compute == model.compute);
  }
  if (is_alike) return Status::OK();
  return Status::Invalid(fmt::format(
      "this worker's machine computes otherwise (instruction set {}) than the job's rows so far "
      "({}), so that answers may differ between them. Either set `isa: {}` for the whole job, "
      "which "
      "all of its machines have, or `reproducible: relaxed`, if such differences do not matter",
      here,
      planned.instruction_set,
      CommonInstructionSet(here, planned.instruction_set)
  ));
}

Status ResumePlan(
    PreparedJob& job, Plan planned, const JobOptions& options, const Say& say, std::stop_token stop
) {
  MS_RETURN_NOT_OK(CompareSpec(job, options, planned, say));
  MS_ASSIGN_OR_RETURN(const NewInput found, FindNewInput(job, planned));
  for (std::size_t i = 0; i < planned.snapshot.files.size(); ++i) {
    if (found.grown.contains(static_cast<std::int32_t>(i))) {
      if (options.append) continue;
      return Conflict(fmt::format(
          "{} was changed: it has grown since the job was planned; --append takes its new rows in",
          planned.snapshot.files[i].name
      ));
    }
    if (Status same = CheckFile(planned.snapshot.files[i]); !same.ok()) {
      return Conflict(same.message());  // a file that is gone, too
    }
  }
  if (options.append) {
    if (found.files.empty() && found.grown.empty()) {
      say("--append: nothing came to the input since");
    } else {
      MS_RETURN_NOT_OK(AppendInput(job, found, planned, say, stop));
    }
  } else if (!found.files.empty()) {
    say(fmt::format(
        "{} new file{} not part of this job ({}): --append takes {} in",
        found.files.size(),
        found.files.size() == 1 ? " is" : "s are",
        Names(found.files),
        found.files.size() == 1 ? "it" : "them"
    ));
  }
  planned.models = job.plan.models;
  planned.instruction_set = job.plan.instruction_set;
  job.plan = std::move(planned);
  job.resumed = true;
  return Status::OK();
}

Status CheckSameColumns(const PreparedJob& job) {
  if (job.bound.output->Equals(*job.plan.output, /*check_metadata=*/false)) return Status::OK();
  return Status::Invalid(fmt::format(
      "the changed spec gives other columns than the rows of {} have:\n  then: {}\n  now:  {}\nadd "
      "{}, or --restart",
      job.ledger->layout().output,
      fmt::join(job.plan.output->field_names(), ", "),
      fmt::join(job.bound.output->field_names(), ", "),
      ElsewhereFlags(job)
  ));
}

}  // namespace millstream
