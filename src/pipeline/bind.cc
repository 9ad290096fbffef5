// SPDX-License-Identifier: Apache-2.0
#include "pipeline/bind.h"

#include <algorithm>
#include <set>

#include "arrow/array/util.h"
#include "arrow/builder.h"
#include "base/nearest.h"
#include "data/input.h"
#include "data/json_value.h"
#include "fmt/format.h"
#include "pipeline/expression_columns.h"
#include "pipeline/operators.h"

namespace millstream {
namespace {

// A column at some step. `input` is the input column that it is, unchanged, or empty.
struct Column {
  std::shared_ptr<arrow::Field> field;
  std::string input;
};

// Keeps what a step emits; rows that leave are gone from the sample.
class SampleEmitter final : public Emitter {
 public:
  Status Emit(RowBatch batch) override {
    kept = std::move(batch);
    return Status::OK();
  }
  Status Leave(FinishedRows) override { return Status::OK(); }
  RowBatch kept;
};

// A stand-in for an answer that no model has given yet, so that later steps' types can be found.
Status AppendPlaceholder(arrow::ArrayBuilder& builder) {
  for (const char* json : {"\"text\"", "1", "true", "[]"}) {
    if (AppendJson(json, builder).ok()) return Status::OK();
  }
  return builder.AppendEmptyValue();
}

class Binder {
 public:
  Binder(const JobSpec& spec, const RowBatch& sample, const BindOptions& options)
      : spec_(spec), options_(options), sample_(sample), first_sample_(sample) {
    for (const auto& field : sample.columns->schema()->fields()) {
      columns_.push_back({field, field->name()});
    }
  }

  Result<BoundJob> Run() {
    job_.segments.emplace_back();
    for (const StepSpec& step : spec_.steps) {
      std::visit([&](const auto& body) { Bind(step, body); }, step.body);
    }
    for (const auto& account : AccountFields()) {
      if (Find(account->name()) == nullptr) continue;
      Mistake(
          {0, "input"},
          fmt::format(
              "column '{}' is one that every output has: drop it or rename it", account->name()
          )
      );
    }
    const bool is_batch = spec_.output.format == "openai-batch";
    if (is_batch) KeepBatchColumns();
    if (!mistakes_.empty()) return Status::Invalid(fmt::format("{}", fmt::join(mistakes_, "\n")));
    arrow::FieldVector fields;
    for (const Column& column : columns_) {
      fields.push_back(column.field->WithNullable(true));
      if (!column.input.empty()) {
        used_.insert(column.input);
        job_.kept.emplace_back(column.input, column.field->name());
      }
    }
    for (auto& field : AccountFields(is_batch)) fields.push_back(std::move(field));
    job_.output = arrow::schema(std::move(fields));
    for (const auto& field : first_sample_.columns->schema()->fields()) {
      if (used_.contains(field->name())) job_.input_columns.push_back(field->name());
    }
    return std::move(job_);
  }

 private:
  void Mistake(const SpecPlace& place, const std::string& message) {
    mistakes_.push_back(MistakeLine(spec_, place, message));
  }
  void Mistake(const SpecPlace& place, const Status& status) { Mistake(place, status.message()); }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    names.reserve(columns_.size());
    for (const Column& column : columns_) names.push_back(column.field->name());
    return names;
  }

  Column* Find(const std::string& name) {
    for (Column& column : columns_) {
      if (column.field->name() == name) return &column;
    }
    return nullptr;
  }

  bool Known(const std::string& name, const SpecPlace& place) {
    if (Column* column = Find(name)) {
      if (!column->input.empty()) used_.insert(column->input);
      return true;
    }
    Mistake(place, fmt::format("no column '{}' here{}", name, DidYouMean(name, Names())));
    return false;
  }

  bool KnownNames(const Expression& expression, const SpecPlace& place) {
    bool all = true;
    for (const std::string& name : expression.names()) {
      if (name != "row") all = Known(name, place) && all;
    }
    for (const std::string& name : expression.row_columns()) all = Known(name, place) && all;
    if (expression.uses_row()) {
      for (const Column& column : columns_) {
        if (!column.input.empty()) used_.insert(column.input);
      }
    }
    return all;
  }

  std::shared_ptr<const Expression> Compile(const std::string& source, const SpecPlace& place) {
    auto compiled = Expression::Compile(source, Expression::Mode::kValue);
    if (!compiled.ok()) {
      Mistake(place, compiled.status());
      return nullptr;
    }
    return KnownNames(**compiled, place) ? *compiled : nullptr;
  }

  void Put(std::shared_ptr<arrow::Field> field) {
    if (Column* column = Find(field->name())) {
      *column = {std::move(field), {}};
    } else {
      columns_.push_back({std::move(field), {}});
    }
  }

  // Adds an operator and runs the sample through it.
  void Add(std::unique_ptr<Operator> op, const SpecPlace& place) {
    SampleEmitter emitter;
    emitter.kept = sample_;
    if (sample_.num_rows() > 0) {
      emitter.kept.columns = sample_.columns->Slice(0, 0);
      emitter.kept.kept = sample_.kept->Slice(0, 0);
      emitter.kept.rows.clear();
      if (Status status = op->Process(sample_, emitter); !status.ok()) Mistake(place, status);
      sample_ = std::move(emitter.kept);
    }
    job_.segments.back().operators.push_back(std::move(op));
  }

  // The type of a set column: as stated, or from its values over the sample.
  std::shared_ptr<arrow::Field> SetField(const SetColumn& set, const Expression& value) {
    if (set.type) {
      if (*set.type == "json") return JsonTextField(set.column);
      auto type = ParseType(*set.type);
      if (type.ok()) return arrow::field(set.column, *std::move(type));
      Mistake(set.place, type.status());
      return nullptr;
    }
    if (value.is_single() && sample_.num_rows() > 0) {
      const auto values = EvaluateOver(value, *sample_.columns);
      if (!values.ok()) {
        Mistake(set.place, values.status());
        return nullptr;
      }
      const bool nested =
          std::find(values->kinds.begin(), values->kinds.end(), Values::Kind::kJson) !=
          values->kinds.end();
      if (nested) return JsonTextField(set.column);
      if (auto type = TypeOfValues(*values)) return arrow::field(set.column, std::move(type));
    }
    return arrow::field(set.column, arrow::utf8());
  }

  void Bind(const StepSpec& step, const SetSpec& set) {
    std::vector<BoundSet> bound;
    for (const SetColumn& column : set.columns) {
      auto value = Compile(column.value, column.place);
      if (!value) continue;
      auto field = SetField(column, *value);
      if (field) bound.push_back({column.column, std::move(value), std::move(field)});
    }
    if (bound.size() != set.columns.size()) {  // a mistake: later steps still see the columns
      for (const SetColumn& column : set.columns) Put(arrow::field(column.column, arrow::utf8()));
      return;
    }
    for (const BoundSet& column : bound) Put(column.field);
    Add(MakeSet(step.id, std::move(bound)), step.place);
  }

  void Bind(const StepSpec& step, const FilterSpec& filter) {
    if (auto expression = Compile(filter.expression, filter.place)) {
      Add(MakeFilter(step.id, std::move(expression)), step.place);
    }
  }

  void Bind(const StepSpec& step, const CheckSpec& check) {
    auto expression = Compile(check.that, check.place);
    if (!expression) return;
    const std::string message = check.message.value_or("the row does not pass " + check.that);
    Add(MakeCheck(step.id, std::move(expression), check.code, message), step.place);
  }

  void Project(std::vector<std::pair<std::string, std::string>> names, const SpecPlace& place) {
    std::vector<Column> columns;
    std::set<std::string> seen;
    for (const auto& [before, after] : names) {
      const Column* column = Find(before);
      if (column == nullptr) return;
      if (!seen.insert(after).second) {
        Mistake(place, fmt::format("two columns would be named '{}'", after));
      }
      columns.push_back({column->field->WithName(after), column->input});
    }
    columns_ = std::move(columns);
    Add(MakeProject(std::move(names)), place);
  }

  void Bind(const StepSpec& step, const SelectSpec& select) {
    std::vector<std::pair<std::string, std::string>> names;
    for (std::size_t i = 0; i < select.columns.size(); ++i) {
      const std::string& name = select.columns[i];
      if (Known(name, select.places[i])) names.emplace_back(name, name);
    }
    if (names.size() == select.columns.size()) Project(std::move(names), step.place);
  }

  void Bind(const StepSpec& step, const DropSpec& drop) {
    for (std::size_t i = 0; i < drop.columns.size(); ++i) {
      // For its message alone: a dropped column need not be read.
      if (!Find(drop.columns[i])) Known(drop.columns[i], drop.places[i]);
    }
    std::vector<std::pair<std::string, std::string>> names;
    for (const std::string& name : Names()) {
      if (std::find(drop.columns.begin(), drop.columns.end(), name) == drop.columns.end()) {
        names.emplace_back(name, name);
      }
    }
    Project(std::move(names), step.place);
  }

  void Bind(const StepSpec& step, const RenameSpec& rename) {
    std::map<std::string, std::string> after;
    for (std::size_t i = 0; i < rename.columns.size(); ++i) {
      Known(rename.columns[i].first, rename.places[i]);
      after.insert(rename.columns[i]);
    }
    std::vector<std::pair<std::string, std::string>> names;
    for (const std::string& name : Names()) {
      const auto found = after.find(name);
      names.emplace_back(name, found == after.end() ? name : found->second);
    }
    Project(std::move(names), step.place);
  }

  // Batch lines are made of two columns, and hold no other.
  void KeepBatchColumns() {
    bool has_both = true;
    for (const char* name : {"custom_id", "response"}) {
      if (Find(name) != nullptr) continue;
      has_both = false;
      Mistake(
          spec_.output.place,
          fmt::format(
              "format openai-batch is made of the columns `custom_id` and `response`, and there is "
              "no `{}` here{}",
              name,
              DidYouMean(name, Names())
          )
      );
    }
    if (!has_both) return;
    if (Find("custom_id")->field->type()->id() != arrow::Type::STRING) {
      Mistake(spec_.output.place, "format openai-batch needs a `custom_id` that is a string");
    }
    Project({{"custom_id", "custom_id"}, {"response", "response"}}, spec_.output.place);
  }

  static const SpecPlace& PlaceOf(const GenerateSpec& generate, const std::string& key) {
    const auto found = generate.places.find(key);
    return found == generate.places.end() ? generate.place : found->second;
  }

  // A mistake that begins with its key ("prompt: ..."), told at that key's place.
  void MistakeOfKey(const GenerateSpec& generate, const std::string& message) {
    const std::string key = message.substr(0, message.find_first_of(".: "));
    const bool is_key = generate.places.contains(key) && message.substr(key.size(), 2) == ": ";
    Mistake(PlaceOf(generate, key), is_key ? message.substr(key.size() + 2) : message);
  }

  void Bind(const StepSpec& step, const GenerateSpec& generate) {
    const auto model = options_.models->find(generate.model);
    if (model == options_.models->end()) {
      Mistake(generate.place, fmt::format("model '{}' was not opened", generate.model));
      return;
    }
    for (const std::string& name : generate.truncate_columns) {
      if (Known(name, PlaceOf(generate, "on_overflow")) &&
          Find(name)->field->type()->id() != arrow::Type::STRING) {
        Mistake(
            PlaceOf(generate, "on_overflow"),
            fmt::format("truncate: column '{}' is no string", name)
        );
      }
    }
    if (generate.messages_column) Known(*generate.messages_column, PlaceOf(generate, "messages"));
    if (generate.request_column) {
      Known(*generate.request_column, PlaceOf(generate, "request"));
      for (const char* name : {"url", "method", "custom_id"}) {
        const bool is_read = generate.request_is_line || name != std::string_view("custom_id");
        if (is_read && Find(name) != nullptr) Known(name, PlaceOf(generate, "request"));
      }
    }
    auto bound =
        GenerateStep::Bind(step.id, generate, model->second, spec_.seed, options_.now_unix_seconds);
    if (!bound.ok()) {
      MistakeOfKey(generate, bound.status().message());
      return;
    }
    for (const auto& [key, expression] : (*bound)->expressions()) {
      KnownNames(*expression, PlaceOf(generate, key.substr(0, key.find('.'))));
    }
    for (const auto& field : (*bound)->fields()) {
      Put(field);
      if (Status status = AddPlaceholders(field); !status.ok()) Mistake(step.place, status);
    }
    for (ResolvedSetting& setting : (*bound)->Describe()) {
      job_.settings.push_back(std::move(setting));
    }
    if (!(*bound)->note().empty()) {
      job_.notes.push_back(
          fmt::format("{}: stays JSON text, in part or whole ({})", generate.as, (*bound)->note())
      );
    }
    job_.segments.back().generate = *std::move(bound);
    job_.segments.emplace_back();
  }

  Status AddPlaceholders(const std::shared_ptr<arrow::Field>& field) {
    MS_ASSIGN_OR_RETURN(auto builder, arrow::MakeBuilder(field->type()));
    for (std::int64_t row = 0; row < sample_.num_rows(); ++row) {
      MS_RETURN_NOT_OK(AppendPlaceholder(*builder));
    }
    MS_ASSIGN_OR_RETURN(std::shared_ptr<arrow::Array> array, builder->Finish());
    sample_.columns = WithColumn(sample_.columns, field, std::move(array));
    return Status::OK();
  }

  const JobSpec& spec_;
  const BindOptions& options_;
  RowBatch sample_;
  const RowBatch first_sample_;
  std::vector<Column> columns_;
  std::set<std::string> used_;
  std::vector<std::string> mistakes_;
  BoundJob job_;
};

}  // namespace

arrow::FieldVector AccountFields(bool with_answers) {
  arrow::FieldVector error{
      arrow::field("step", arrow::utf8()),
      arrow::field("code", arrow::utf8()),
      arrow::field("message", arrow::utf8())
  };
  if (with_answers) error.push_back(arrow::field("answer", arrow::utf8()));
  return {
      arrow::field("_status", arrow::utf8()),
      arrow::field("_error", arrow::struct_(std::move(error))),
      arrow::field(
          "_source",
          arrow::struct_(
              {arrow::field("file", arrow::utf8()),
               arrow::field("record", arrow::int64()),
               arrow::field("version", arrow::int32())}
          )
      ),
  };
}

std::string MistakeLine(const JobSpec& spec, const SpecPlace& place, const std::string& message) {
  if (place.line > 0) {
    return fmt::format("{}:{}: {}: {}", spec.file, place.line, place.path, message);
  }
  return fmt::format("{}: {}: {}", spec.file, place.path, message);
}

Result<BoundJob> BindJob(const JobSpec& spec, const RowBatch& sample, const BindOptions& options) {
  return Binder(spec, sample, options).Run();
}

}  // namespace millstream
