// SPDX-License-Identifier: Apache-2.0
// The steps that need no model: each takes its spec and what it sees, and gives an operator.
//
// To add one: a struct in spec.h, a key in the parser's table, a Make function here, a case in
// bind.cc, a test, a line in docs/job-file.md.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "arrow/type.h"
#include "base/status.h"
#include "pipeline/row_batch.h"
#include "text/template.h"

namespace millstream {

/// A column to set: its template, compiled, and the type it was bound to.
struct BoundSet {
  std::string column;
  std::shared_ptr<const Expression> value;
  std::shared_ptr<arrow::Field> field;
};

/// Sets or replaces columns, each from the columns before the step. A value that fails or does not
/// fit fails its row.
std::unique_ptr<Operator> MakeSet(std::string step, std::vector<BoundSet> columns);

/// Rows for which the expression is false leave as skipped; one that is no boolean fails its row.
std::unique_ptr<Operator> MakeFilter(
    std::string step, std::shared_ptr<const Expression> expression
);

/// Rows for which the expression is false leave as errors with the code and the message.
std::unique_ptr<Operator> MakeCheck(
    std::string step,
    std::shared_ptr<const Expression> expression,
    std::string code,
    std::string message
);

/// Keeps and renames columns: `columns` has (name before, name after), in the new order.
std::unique_ptr<Operator> MakeProject(std::vector<std::pair<std::string, std::string>> columns);

/// Puts `column` into the batch under its field's name, replacing one of the same name.
std::shared_ptr<arrow::RecordBatch> WithColumn(
    const std::shared_ptr<arrow::RecordBatch>& columns,
    const std::shared_ptr<arrow::Field>& field,
    std::shared_ptr<arrow::Array> column
);

}  // namespace millstream
