// SPDX-License-Identifier: Apache-2.0
#include "pipeline/operators.h"

#include <algorithm>
#include <utility>

#include "pipeline/expression_columns.h"

namespace millstream {
namespace {

class Set final : public Operator {
 public:
  Set(std::string step, std::vector<BoundSet> columns)
      : step_(std::move(step)), columns_(std::move(columns)) {}

  Status Process(RowBatch batch, Emitter& out) const override {
    std::shared_ptr<arrow::RecordBatch> changed = batch.columns;
    std::vector<FailedRow> failed;
    for (const BoundSet& set : columns_) {
      MS_ASSIGN_OR_RETURN(const Values values, EvaluateOver(*set.value, *batch.columns));
      MS_ASSIGN_OR_RETURN(
          std::shared_ptr<arrow::Array> column, ValuesToArray(values, *set.field, step_, &failed)
      );
      changed = WithColumn(changed, set.field, std::move(column));
    }
    batch.columns = std::move(changed);
    // Two columns of one row may fail: the first in order of columns speaks.
    std::stable_sort(failed.begin(), failed.end(), [](const FailedRow& a, const FailedRow& b) {
      return a.row < b.row;
    });
    failed.erase(
        std::unique(
            failed.begin(),
            failed.end(),
            [](const FailedRow& a, const FailedRow& b) { return a.row == b.row; }
        ),
        failed.end()
    );
    MS_ASSIGN_OR_RETURN(RowBatch good, PartRows(std::move(batch), std::move(failed), out));
    return out.Emit(std::move(good));
  }

 private:
  const std::string step_;
  const std::vector<BoundSet> columns_;
};

// Filter and check judge rows by the same rules and differ in how a row leaves.
struct Verdict {
  std::vector<std::int64_t> pass, fall;
  std::vector<FailedRow> failed;
};

Result<Verdict> Judge(
    const Expression& expression, const RowBatch& batch, const std::string& step
) {
  MS_ASSIGN_OR_RETURN(const Values values, EvaluateOver(expression, *batch.columns));
  Verdict verdict;
  for (std::int64_t row = 0; row < batch.num_rows(); ++row) {
    const auto at = static_cast<std::size_t>(row);
    if (values.kinds[at] == Values::Kind::kBool) {
      (values.numbers[at] != 0 ? verdict.pass : verdict.fall).push_back(row);
    } else if (values.kinds[at] == Values::Kind::kError) {
      verdict.failed.push_back(
          {row, {step, std::string(values.ErrorCode(at)), std::string(values.Text(at))}}
      );
    } else {
      verdict.failed.push_back(
          {row,
           {step,
            "not_boolean",
            values.kinds[at] == Values::Kind::kUndefined
                ? "the expression's value is null, neither true nor false: give it a default"
                : "the expression's value is neither true nor false"}}
      );
    }
  }
  return verdict;
}

class Filter final : public Operator {
 public:
  Filter(std::string step, std::shared_ptr<const Expression> expression)
      : step_(std::move(step)), expression_(std::move(expression)) {}

  Status Process(RowBatch batch, Emitter& out) const override {
    MS_ASSIGN_OR_RETURN(Verdict verdict, Judge(*expression_, batch, step_));
    if (static_cast<std::int64_t>(verdict.pass.size()) == batch.num_rows()) {
      return out.Emit(std::move(batch));
    }
    MS_RETURN_NOT_OK(LeaveFailed(batch, std::move(verdict.failed), out));
    if (!verdict.fall.empty()) {
      MS_ASSIGN_OR_RETURN(RowBatch skipped, TakeRows(batch, verdict.fall));
      MS_RETURN_NOT_OK(out.Leave({RowStatus::kSkipped, std::move(skipped), {}}));
    }
    MS_ASSIGN_OR_RETURN(RowBatch passing, TakeRows(batch, verdict.pass));
    return out.Emit(std::move(passing));
  }

 private:
  const std::string step_;
  const std::shared_ptr<const Expression> expression_;
};

class Check final : public Operator {
 public:
  Check(
      std::string step,
      std::shared_ptr<const Expression> expression,
      std::string code,
      std::string message
  )
      : step_(std::move(step)),
        expression_(std::move(expression)),
        code_(std::move(code)),
        message_(std::move(message)) {}

  Status Process(RowBatch batch, Emitter& out) const override {
    MS_ASSIGN_OR_RETURN(Verdict verdict, Judge(*expression_, batch, step_));
    for (std::int64_t row : verdict.fall) verdict.failed.push_back({row, {step_, code_, message_}});
    std::sort(
        verdict.failed.begin(),
        verdict.failed.end(),
        [](const FailedRow& a, const FailedRow& b) { return a.row < b.row; }
    );
    MS_ASSIGN_OR_RETURN(RowBatch good, PartRows(std::move(batch), std::move(verdict.failed), out));
    return out.Emit(std::move(good));
  }

 private:
  const std::string step_;
  const std::shared_ptr<const Expression> expression_;
  const std::string code_;
  const std::string message_;
};

class Project final : public Operator {
 public:
  explicit Project(std::vector<std::pair<std::string, std::string>> columns)
      : columns_(std::move(columns)) {}

  Status Process(RowBatch batch, Emitter& out) const override {
    arrow::FieldVector fields;
    arrow::ArrayVector arrays;
    for (const auto& [before, after] : columns_) {
      const int index = batch.columns->schema()->GetFieldIndex(before);
      if (index < 0) continue;  // an input column that nothing later needs, so it was not read
      fields.push_back(batch.columns->schema()->field(index)->WithName(after));
      arrays.push_back(batch.columns->column(index));
    }
    batch.columns = arrow::RecordBatch::Make(
        arrow::schema(std::move(fields)), batch.num_rows(), std::move(arrays)
    );
    return out.Emit(std::move(batch));
  }

 private:
  const std::vector<std::pair<std::string, std::string>> columns_;
};

}  // namespace

std::shared_ptr<arrow::RecordBatch> WithColumn(
    const std::shared_ptr<arrow::RecordBatch>& columns,
    const std::shared_ptr<arrow::Field>& field,
    std::shared_ptr<arrow::Array> column
) {
  arrow::FieldVector fields = columns->schema()->fields();
  arrow::ArrayVector arrays = columns->columns();
  const int index = columns->schema()->GetFieldIndex(field->name());
  if (index >= 0) {
    fields[static_cast<std::size_t>(index)] = field;
    arrays[static_cast<std::size_t>(index)] = std::move(column);
  } else {
    fields.push_back(field);
    arrays.push_back(std::move(column));
  }
  return arrow::RecordBatch::Make(
      arrow::schema(std::move(fields)), columns->num_rows(), std::move(arrays)
  );
}

std::unique_ptr<Operator> MakeSet(std::string step, std::vector<BoundSet> columns) {
  return std::make_unique<Set>(std::move(step), std::move(columns));
}

std::unique_ptr<Operator> MakeFilter(
    std::string step, std::shared_ptr<const Expression> expression
) {
  return std::make_unique<Filter>(std::move(step), std::move(expression));
}

std::unique_ptr<Operator> MakeCheck(
    std::string step,
    std::shared_ptr<const Expression> expression,
    std::string code,
    std::string message
) {
  return std::make_unique<Check>(
      std::move(step), std::move(expression), std::move(code), std::move(message)
  );
}

std::unique_ptr<Operator> MakeProject(std::vector<std::pair<std::string, std::string>> columns) {
  return std::make_unique<Project>(std::move(columns));
}

}  // namespace millstream
